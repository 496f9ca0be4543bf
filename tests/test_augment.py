"""Augmentations: landmarks stay on their pixels, and left stays left."""

import pytest
import torch
from data_helpers import face_points
from torch import Tensor

from deepregions.data.augment import Augmenter, Strengths
from deepregions.errors import UsageError
from deepregions.faces.regions import MIRROR

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


@pytest.mark.parametrize("name", ["colour_p", "blur_p", "noise_p", "jpeg_p", "warp_p"])
def test_each_alters_only_whom_it_is_drawn_for(name: str) -> None:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8).expand(40, -1, -1, -1)
    before = images.clone()
    altered, _ = only(**{name: 0.5})(images, landmarks(40))
    assert torch.equal(images, before)
    assert altered.dtype == torch.uint8
    same = (altered == images).flatten(1).all(1)
    assert 8 <= same.sum() <= 32
    if name not in ("noise_p", "warp_p"):
        assert torch.equal(
            altered.float().mean((1, 2, 3))[same], images.float().mean((1, 2, 3))[same]
        )


def test_flips_half_by_default() -> None:
    torch.manual_seed(2)
    images = torch.zeros(2000, 3, 2, 2, dtype=torch.uint8)
    images[..., 0] = 255
    flipped, _ = only(flip_p=0.5)(images, landmarks(2000))
    assert 900 < (flipped[:, 0, 0, 1] == 255).sum() < 1100


def test_follows_the_seed() -> None:
    images = torch.randint(0, 256, (8, 3, HEIGHT, WIDTH), dtype=torch.uint8)
    augmenter = Augmenter(Strengths())
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(augmenter(images, landmarks(8)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


def test_is_not_a_matter_of_module_state() -> None:
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    flipped, _ = only(flip_p=1.0).eval()(images, landmarks(4))
    assert torch.equal(flipped, images.flip(-1))


@pytest.mark.parametrize(
    "values",
    [
        {"flip_p": 1.5},
        {"zoom": 1.0},
        {"jpeg_quality": 0},
        {"rotation": -1},
        {"noise_std": -1},
        {"blur_sigma": 0},
    ],
)
def test_bad_strengths(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        Strengths(**values)
