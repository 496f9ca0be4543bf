"""Genuine and forged pictures differ in the forgery, and in nothing that a shortcut could use.

A linear probe is given what is cheap to measure, of one half of the people, and asked about the
other half: it must guess.
"""

import numpy as np
import pytest
import torch
from drawn_faces import draw_face
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from deepregions.data.augment import Augmenter, Strengths
from deepregions.data.store import decode_image, encode_image
from deepregions.forge import METHODS, Forger, draw_parts, make_method
from deepregions.forge.online import ForgeConfig
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.jpeg import compress

PAIRS = 2000
SIZE = 96
PEOPLE = 250
ALTERED = Strengths(gamma_p=0.3, video_p=0.3, jpeg_p=0.5, blur_p=0.3)

Pictures = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def drawn() -> Pictures:
    """Drawn faces as they come out of a store: (250, 3, 96, 96), JPEG once, and landmarks."""
    faces = [draw_face(np.random.default_rng(seed), SIZE) for seed in range(PEOPLE)]
    images = [torch.from_numpy(image).permute(2, 0, 1) for image, _ in faces]
    stored = torch.stack([decode_image(encode_image(image)) for image in images])
    return stored, torch.from_numpy(np.stack([points for _, points in faces]))


def pairs(
    faces: Pictures, name: str, strengths: Strengths | None, count: int = PAIRS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Genuine and forged pictures (N, 3, H, W), masks (N, 1, H, W) and who it is (N,).

    As they are made for training.
    """
    images, landmarks = faces
    forge = Forger([make_method(name)], masks=True)
    augmenter = Augmenter(strengths) if strengths else None
    results = []
    for first in range(0, count, 250):
        number = torch.arange(first, min(count, first + 250))
        person = number % len(images)
        draws = FaceRng(seeds_of(map(str, number.tolist()), name))
        some, points = images[person], landmarks[person]
        if augmenter:
            some, points = augmenter.move(some, points, draws)
        parts = draw_parts(draws.stream("region"), ForgeConfig().region_p)
        which = torch.zeros_like(number)
        forged = forge(some, points, draws, which=which, parts=parts, person=person)
        assert forged.mask is not None
        both = [forged.genuine, forged.image]
        if augmenter:
            both = [augmenter.degrade(image, draws) for image in both]
        done = forged.touched[:, 0]
        results.append([x[done] for x in (*both, forged.mask, person)])
    genuine, fake, mask, person = (torch.cat(parts) for parts in zip(*results, strict=True))
    return genuine, fake, mask, person


def statistics(image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """What is cheap to measure of pictures, (N, features) each; masks are those of the forgery."""
    x = image.float()
    frame = torch.ones_like(x[:1, :1], dtype=torch.bool)
    frame[..., 4:-4, 4:-4] = False
    border = x.movedim(1, -1)[:, frame[0, 0]].movedim(-1, 1)  # (N, 3, pixels)
    # Outside the forgery, but for a margin: JPEG's blocks and a blur reach over its edge.
    near = functional.max_pool2d((mask > 0).float(), 8, ceil_mode=True)
    near = functional.max_pool2d(near, 5, 1, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    outside = 1 - near[..., : mask.shape[2], : mask.shape[3]]
    area = outside.sum((2, 3)).clamp(min=1)
    grey = x.mean(1, keepdim=True)
    across, down = grey[..., 1:] - grey[..., :-1], grey[..., 1:, :] - grey[..., :-1, :]
    bend = grey[..., 2:] - 2 * grey[..., 1:-1] + grey[..., :-2]
    blur = [
        (across.abs() * outside[..., 1:]).sum((2, 3)) / area,
        (down.abs() * outside[..., 1:, :]).sum((2, 3)) / area,
        (bend.abs() * outside[..., 1:-1]).sum((2, 3)) / area,
        (across.square() * outside[..., 1:]).sum((2, 3)) / area,
        (bend.square() * outside[..., 1:-1]).sum((2, 3)) / area,
    ]
    # A grid of blocks: by how much edges at each of 8 places are stronger than just beside it, and
    # in which of them most.
    cross = (
        grey[..., 1:, 1:] - grey[..., :-1, 1:] - grey[..., 1:, :-1] + grey[..., :-1, :-1]
    ).abs()
    phases, strengths = [], []
    for part, rows in ((cross, phases), (cross * outside[..., 1:, 1:], strengths)):
        for edges in (part.sum((1, 2)), part.sum((1, 3))):
            ratio = 2 * edges[:, 1:-1] / (edges[:, :-2] + edges[:, 2:]).clamp(min=1e-6)
            rows.append(ratio[:, : ratio.shape[1] // 8 * 8].unflatten(1, (-1, 8)).mean(1))
    phases = [functional.one_hot(phase.argmax(1), 8) for phase in phases]
    black = (x == 0).all(1).float()
    return {
        "size": torch.stack((black.amin(1).sum(1), black.amin(2).sum(1)), 1),  # black margins
        "colour": x.mean((2, 3)),
        "border": torch.cat((border.mean(2), border.std(2)), 1),
        "phase": torch.cat(phases, 1),
        "grid": torch.cat(strengths, 1),
        "blur": torch.cat(blur, 1),
    }


def area_under_curve(genuine: Tensor, fake: Tensor, person: Tensor) -> float:
    """Of a linear probe, on people that it has not seen."""
    known = (person % 2 == 0).numpy()
    x = torch.cat((genuine, fake)).double().numpy()
    y = np.repeat([0, 1], len(genuine))
    known = np.concatenate([known, known])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    probe.fit(x[known], y[known])
    return float(roc_auc_score(y[~known], probe.decision_function(x[~known])))


def areas(faces: Pictures, name: str, strengths: Strengths | None) -> dict[str, float]:
    genuine, fake, mask, person = pairs(faces, name, strengths)
    assert len(genuine) > 0.95 * PAIRS
    one, two = statistics(genuine, mask), statistics(fake, mask)
    values = {key: area_under_curve(one[key], two[key], person) for key in one}
    everything = [torch.cat(list(x.values()), 1) for x in (one, two)]
    return values | {"everything": area_under_curve(everything[0], everything[1], person)}


@pytest.mark.parametrize(
    ("name", "strengths"), [*((name, None) for name in METHODS), ("fwa", ALTERED)]
)
def test_a_linear_probe_guesses(drawn: Pictures, name: str, strengths: Strengths | None) -> None:
    values = areas(drawn, name, strengths)
    assert all(0.45 <= value <= 0.55 for value in values.values()), values


def test_the_probe_would_see_a_shortcut(drawn: Pictures) -> None:
    """Were only fakes compressed, resized or brighter, as in other people's code, it would tell."""
    genuine, _, mask, person = pairs(drawn, "fwa", None, 500)
    draws = FaceRng(seeds_of(map(str, range(len(genuine)))))
    never = dict.fromkeys(("colour_p", "blur_p", "noise_p", "jpeg_p"), 0.0)
    for key, strength in (
        ("grid", {"jpeg_p": 1.0, "jpeg_quality": 60}),
        ("blur", {"blur_p": 1.0}),
        ("blur", {"noise_p": 1.0}),
    ):
        spoilt = Augmenter(Strengths(**(never | strength))).degrade(genuine, draws)
        one, two = statistics(genuine, mask)[key], statistics(spoilt, mask)[key]
        assert area_under_curve(one, two, person) > 0.7, key
    quality = torch.full((len(genuine),), 60.0)
    moved = compress(genuine.roll((3, 3), (2, 3)).float(), quality).roll((-3, -3), (2, 3))
    one, two = statistics(genuine, mask)["phase"], statistics(moved, mask)["phase"]
    assert area_under_curve(one, two, person) > 0.7
    brighter = (genuine.float() + 25).clamp(max=255)
    one, two = statistics(genuine, mask)["colour"], statistics(brighter, mask)["colour"]
    assert area_under_curve(one, two, person) > 0.6
