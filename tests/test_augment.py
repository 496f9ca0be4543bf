"""Augmentations: landmarks stay on their pixels, and left stays left."""

import io

import cv2
import numpy as np
import pytest
import torch
from data_helpers import face_points
from drawn_faces import draw_face
from PIL import Image
from torch import Tensor

from deepregions.data.augment import Augmenter, Strengths
from deepregions.errors import UsageError
from deepregions.faces.regions import MIRROR
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.tensors import stack

NEVER = dict.fromkeys(("flip_p", "warp_p", "colour_p", "blur_p", "noise_p", "jpeg_p"), 0.0)
WIDTH, HEIGHT = 150, 130


def only(**values: float) -> Augmenter:
    return Augmenter(Strengths(**(NEVER | values)))


def landmarks(batch: int) -> Tensor:
    points = torch.from_numpy(face_points()) * 70 + torch.tensor([35.0, 25.0])
    return points.expand(batch, -1, -1).clone()


def dots(points: Tensor) -> Tensor:
    """One image a point (N, 2): a soft white dot there on black, (N, 3, HEIGHT, WIDTH) uint8."""
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    away = (columns - points[:, 0, None, None]) ** 2 + (rows - points[:, 1, None, None]) ** 2
    return (255 * torch.exp(-away / 8)).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


def where(images: Tensor) -> Tensor:
    """The middle of the light of each image, (N, 2) xy."""
    light = images.float().mean(1)
    total = light.sum((1, 2))
    x = (light.sum(1) * torch.arange(WIDTH)).sum(1) / total
    y = (light.sum(2) * torch.arange(HEIGHT)).sum(1) / total
    return torch.stack([x, y], 1)


def test_nothing_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8)
    points = landmarks(4)
    same, unmoved = only()(images, points)
    assert torch.equal(same, images)
    assert torch.equal(unmoved, points)


def test_flip_moves_pixels_and_swaps_left_and_right() -> None:
    points = landmarks(68)
    flipped, moved = only(flip_p=1.0)(dots(points[0]), points)
    assert torch.equal(flipped, dots(points[0]).flip(-1))
    for new, old in enumerate(MIRROR):  # the dot of landmark `old` is landmark `new` now
        assert torch.allclose(where(flipped[old : old + 1])[0], moved[0, new], atol=0.1)
    assert (moved[:, 36, 0] < moved[:, 45, 0]).all()  # the eye on the image's left comes first
    assert (moved[:, 48, 0] < moved[:, 54, 0]).all()
    assert (moved[:, 0, 0] < moved[:, 16, 0]).all()
    # A plain face is its own mirror image, so its landmarks are where they were, mirrored.
    axis = points[0, :, 0].mean()
    shift = torch.tensor([WIDTH - 1 - 2 * axis, 0])
    assert torch.allclose(moved[0] - shift, points[0], atol=1e-3)


def test_warp_moves_landmarks_with_the_pixels() -> None:
    torch.manual_seed(0)
    points = landmarks(68)
    warped, moved = only(warp_p=1.0, rotation=20.0, zoom=0.2)(dots(points[0]), points)
    distance = (where(warped) - moved[torch.arange(68), torch.arange(68)]).norm(dim=1)
    assert distance.max() < 0.1
    shift = (moved - points).norm(dim=2).amax(1)
    assert shift.min() < shift.max() > 5
    assert torch.allclose(moved.mean(1), points.mean(1), atol=1e-3)  # about the face's middle


@pytest.mark.parametrize(
    "name", ["flip_p", "colour_p", "gamma_p", "blur_p", "noise_p", "video_p", "jpeg_p", "warp_p"]
)
def test_each_alters_only_whom_it_is_drawn_for(name: str) -> None:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8).expand(40, -1, -1, -1)
    before = images.clone()
    altered, _ = only(**{name: 0.5}).eval()(images, landmarks(40))  # whatever the mode
    assert torch.equal(images, before)
    assert altered.dtype == torch.uint8
    same = (altered == images).flatten(1).all(1)
    assert 8 <= same.sum() <= 32
    if name not in ("noise_p", "warp_p"):
        assert torch.equal(
            altered.float().mean((1, 2, 3))[same], images.float().mean((1, 2, 3))[same]
        )


def test_follows_the_seed() -> None:
    images = torch.randint(0, 256, (8, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    augmenter = Augmenter(Strengths())
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(augmenter(images, landmarks(8)))
    assert all(map(torch.equal, results[0], results[1]))
    assert not torch.equal(results[0][0], results[2][0])


def test_faces_follow_their_own_seeds_in_any_batch() -> None:
    images = torch.randint(0, 256, (16, 3, 40, 48), dtype=torch.uint8)
    augmenter = Augmenter(Strengths(erase_p=0.5, gamma_p=0.5, video_p=0.5, blur_p=0.5))
    draws = FaceRng(seeds_of(map(str, range(16))))
    together, moved = augmenter(images, landmarks(16), draws)
    rows = torch.tensor([9, 3, 14])
    some, moved_too = augmenter(images[rows], landmarks(3), draws[rows])
    assert (some.int() - together[rows].int()).abs().max() <= 1
    assert torch.allclose(moved_too, moved[rows], atol=1e-4)
    twins = augmenter.degrade(images[:1].expand(2, -1, -1, -1), draws[torch.tensor([5, 5])])
    assert torch.equal(twins[0], twins[1])  # equal draws do the same to genuine and forged


@pytest.mark.parametrize("name", [*NEVER, "erase_p", "gamma_p", "video_p", "misplace_p"])
def test_what_becomes_of_a_face_does_not_depend_on_its_padding(name: str) -> None:
    random = np.random.default_rng(3)
    drawn = [draw_face(random, side)[0] for side in (64, 80, 97, 120)]
    pictures = [torch.from_numpy(each).permute(2, 0, 1) for each in drawn]
    pictures[1], pictures[2] = pictures[1][:, :64], pictures[2][:, :, :48]
    image, extent = stack(pictures)
    draws = FaceRng(seeds_of(map(str, range(len(pictures)))))
    augmenter = only(**{name: 1.0})
    together, moved = augmenter(image, landmarks(len(image)), draws, extent=extent)
    assert not torch.equal(together, image) or name == "misplace_p"
    for number, one in enumerate(pictures):
        row = torch.tensor([number])
        alone, own = augmenter(one[None], landmarks(1), draws[row])
        _, height, width = one.shape
        assert (together[number, :, :height, :width].int() - alone[0].int()).abs().max() <= 1
        assert not together[number, :, height:].any() and not together[number, :, :, width:].any()
        torch.testing.assert_close(moved[number], own[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["colour_p", "gamma_p", "blur_p", "noise_p", "video_p", "jpeg_p"])
def test_degradations_keep_faces_where_and_about_as_they_are(name: str) -> None:
    drawn = [draw_face(np.random.default_rng(seed), 96)[0] for seed in range(12)]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    draws = FaceRng(seeds_of(map(str, range(12))))
    altered = only(**{name: 1.0}).degrade(images, draws)
    assert (altered != images).flatten(1).any(1).float().mean() > 0.7
    one, two = (x.float().mean(1).flatten(1).numpy() for x in (images, altered))
    for before, after in zip(one, two, strict=True):
        assert np.corrcoef(before, after)[0, 1] > 0.94
    change = (altered.float() - images.float()).mean((1, 2, 3))
    assert change.abs().max() < (60 if name in ("colour_p", "gamma_p") else 3)
    if name in ("colour_p", "gamma_p"):
        assert change.min() < -2 and change.max() > 2  # either way


def test_blur_is_opencvs() -> None:
    pixels = torch.rand(3, 3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255
    draws = FaceRng(seeds_of("abc"))
    (ours,) = only(blur_sigma=2.0)._blur(draws, pixels, pixels)
    sigmas = FaceRng(seeds_of("abc")).uniform(0.1, 2.0)
    for image, blurred, sigma in zip(pixels, ours, sigmas, strict=True):
        theirs = cv2.GaussianBlur(
            image.permute(1, 2, 0).numpy(), (13, 13), float(sigma), borderType=cv2.BORDER_REPLICATE
        )
        np.testing.assert_allclose(blurred.permute(1, 2, 0).numpy(), theirs, atol=0.01)


def test_video_is_made_smaller_compressed_and_enlarged() -> None:
    """Against Pillow doing the same."""
    drawn = [draw_face(np.random.default_rng(seed), 96)[0] for seed in range(12)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float()
    draws = FaceRng(seeds_of(map(str, range(12))))
    (ours,) = only(video_quality=50)._video(draws, pixels, pixels.clone())
    again = FaceRng(seeds_of(map(str, range(12))))
    quality, kind = again.uniform(50, 90), again.choice(3)
    assert set(kind.tolist()) == {0, 1, 2}
    for row, image in enumerate(drawn):
        side = (96, 72, 48)[int(kind[row])]
        buffer = io.BytesIO()
        small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        small.save(buffer, "JPEG", quality=int(quality[row]))
        theirs = Image.open(buffer).resize((96, 96), Image.Resampling.BILINEAR)
        wanted = torch.from_numpy(np.array(theirs)).permute(2, 0, 1).float()
        loss = (wanted - pixels[row]).abs().mean()
        assert (ours[row] - wanted).abs().mean() < 0.3 * loss


def test_a_rectangle_is_erased_and_nothing_else_changes() -> None:
    images = torch.randint(1, 256, (400, 3, 50, 60), dtype=torch.uint8)
    erased = only(erase_p=0.5, erase=0.5).degrade(images, FaceRng(seeds_of(map(str, range(400)))))
    black = (erased == 0).all(1)
    assert torch.equal(erased, images * ~black[:, None])
    down, across = (black.any(axis).sum(1) for axis in (2, 1))
    assert torch.equal(black.sum((1, 2)), down * across)  # all of the rectangle
    assert 150 < (down > 0).sum() < 250
    assert 20 < down.max() <= 26 and 25 < across.max() <= 31
    assert black[:, 25].float().mean(0).argmax() in range(15, 45)  # where faces are


def test_nothing_is_read_back_from_the_device() -> None:
    """On the "meta" device there is nothing to read, nor can host and device be mixed up."""
    always = dict.fromkeys((*NEVER, "erase_p"), 1.0)
    images = torch.empty(5, 3, 40, 48, dtype=torch.uint8, device="meta")
    points = torch.empty(5, 68, 2, device="meta")
    altered, moved = Augmenter(Strengths(**always))(images, points)
    assert altered.shape == images.shape and moved.device.type == "meta"


def test_misplaced_landmarks_keep_their_shape_and_pixels_stay() -> None:
    images, points = torch.randint(0, 256, (500, 3, 20, 30), dtype=torch.uint8), landmarks(500)
    same, moved = only(misplace_p=0.5, misplace=0.1)(images, points)
    assert torch.equal(same, images)
    touched = (moved != points).flatten(1).any(1)
    assert 200 < touched.sum() < 300
    zoom = (moved[:, 16] - moved[:, 0]).norm(dim=1) / (points[:, 16] - points[:, 0]).norm(dim=1)
    width = (points[..., 0].amax(1) - points[..., 0].amin(1))[:, None]
    middle = (points.amin(1) + points.amax(1)) / 2
    shift = (moved.amin(1) + moved.amax(1)) / 2 - middle
    again = (middle + shift)[:, None] + zoom[:, None, None] * (points - middle[:, None])
    assert torch.allclose(again, moved, atol=1e-3)
    shift = shift / width
    for amount in (zoom - 1, shift[:, 0], shift[:, 1]):
        assert amount.abs().amax() < 0.1 + 1e-4
        assert amount.abs().amax() > 0.09
        assert amount[touched].mean().abs() < 0.02


@pytest.mark.parametrize(
    "values",
    [
        {"flip_p": 1.5},
        {"zoom": 1.0},
        {"misplace": 1.0},
        {"misplace_p": -0.1},
        {"jpeg_quality": 0},
        {"rotation": -1},
        {"noise_std": -1},
        {"blur_sigma": 0},
        {"gamma": -0.1},
        {"gamma_p": 2},
        {"video_p": -1},
        {"erase": 1.0},
        {"video_quality": 95},
    ],
)
def test_bad_strengths(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        Strengths(**values)
