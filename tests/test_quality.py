"""Quality and gates: what is measured of faces, and which regions may be judged."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from decoding import frames
from faces import measured
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pose import seen
from torch import Tensor

from deepregions.faces.cropping import RegionCropper
from deepregions.faces.gates import judge
from deepregions.faces.judgement import CHECKS, STATUSES, Judgement, Quality, figures, refusals
from deepregions.faces.landmarks import Face
from deepregions.faces.quality import measure
from deepregions.faces.thresholds import Gates
from deepregions.media.images import read_image
from deepregions.types import REGIONS, Region, Status

GATES = Gates()


def told(quality: Quality[Tensor], judged: Judgement[Tensor]) -> list[Any]:
    """Why regions are not judged, face by face."""
    return refusals(quality.map(Tensor.numpy), judged.map(Tensor.numpy), GATES)


def noise(side: int = 400, seed: int = 0, low: int = 0, high: int = 255) -> Tensor:
    """An image with detail at every scale, (1, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 1, side, side)
    for step in (1, 2, 4, 8, 16, 32):
        coarse = torch.rand(1, 1, side // step + 1, side // step + 1, generator=generator)
        image += torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    image = (image - image.amin()) / (image.amax() - image.amin())
    return (low + image * (high - low)).to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def face(yaw: float = 0, pitch: float = 0, roll: float = 0, width: float = 160) -> Tensor:
    """Landmarks in the middle of an image of 400 pixels."""
    return seen(yaw, pitch, roll, width) - torch.tensor([300.0, 200.0]) + 200


def blurred(image: Tensor, sigma: float) -> Tensor:
    pixels = cv2.GaussianBlur(image[0].permute(1, 2, 0).numpy(), (0, 0), sigma)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def resized(image: Tensor, points: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    pixels = image[0].permute(1, 2, 0).numpy()
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    smaller = torch.from_numpy(cv2.resize(pixels, size, interpolation=how)).permute(2, 0, 1)[None]
    ratio = torch.tensor([size[0] / pixels.shape[1], size[1] / pixels.shape[0]])
    return smaller, (points + 0.5) * ratio - 0.5


def why(image: Tensor, points: Tensor, **options: Any) -> list[str]:
    quality = measure(image, points, **options)
    (own,) = told(quality, judge(quality, GATES))
    return [str(one) for one in own]


def test_a_good_face_passes_every_gate() -> None:
    quality = measure(noise(), face(), confidence=torch.tensor([0.9]))
    judged = judge(quality, GATES)
    assert judged.regions.all()
    assert not judged.failed.any()
    assert judged.failed.shape == (1, len(REGIONS), len(CHECKS))
    assert STATUSES[judged.status] is Status.OK
    assert told(quality, judged) == [()]


def test_size_is_in_pixels_of_the_frame_and_does_not_depend_on_pose() -> None:
    image = noise()
    for turn in ((0, 0, 0), (45, 0, 0), (0, 25, 40)):
        quality = measure(image, face(*turn), scale=torch.tensor([0.5]))
        assert float(quality.size) == pytest.approx(320, rel=0.01)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_pictures(value: int) -> None:
    quality = measure(torch.full((1, 3, 400, 400), value, dtype=torch.uint8), face())
    assert quality.dark.tolist() == [[float(value == 0)] * 5]
    assert quality.bright.tolist() == [[float(value == 255)] * 5]
    torch.testing.assert_close(quality.light, torch.full((1, 5), value / 255))
    assert quality.sharpness.max() < 1e-3
    judged = judge(quality, GATES)
    assert not judged.regions.any()
    assert STATUSES[judged.status] is Status.LOW_QUALITY


def test_clipped_regions_are_refused_and_others_are_not() -> None:
    image, points = noise(), face()
    x0, y0 = points[0, 48:].amin(0).int().tolist()
    x1, y1 = points[0, 48:].amax(0).int().tolist()
    image[:, :, y0 - 12 : y1 + 12, x0 - 12 : x1 + 12] = 255
    quality = measure(image, points)
    assert quality.bright[0, REGIONS.index(Region.MOUTH)] > 0.9
    judged = judge(quality, GATES)
    allowed = dict(zip(REGIONS, judged.regions[0].tolist(), strict=True))
    assert not allowed[Region.MOUTH]
    assert allowed[Region.EYES]
    assert allowed[Region.ENTIRE]
    assert STATUSES[judged.status] is Status.OK
    (refusal, *_) = told(quality, judged)[0]
    assert str(refusal) == "overexposed (mouth)"
    assert refusal.detail.endswith("% white, at most 50%")


def test_sharpness_falls_with_blur_and_enlargement() -> None:
    image, points = noise(), face()
    blurs = [blurred(image, sigma) for sigma in (0.5, 1, 2, 4)]
    series = [measure(one, points).sharpness for one in (image, *blurs)]
    assert all((a > b).all() for a, b in pairwise(series))
    small = [resized(image, points, factor)[0] for factor in (1, 0.5, 0.25, 0.125)]
    enlarged = [resized(one, points, 400 / one.shape[-1])[0] for one in small]
    series = [measure(one, points).sharpness for one in enlarged]
    assert all((a > b).all() for a, b in pairwise(series))


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_sharpness_does_not_depend_on_the_size_of_the_picture(factor: float) -> None:
    # The same picture with more pixels and no more detail.
    image, points = noise(), face()
    plain = measure(image, points).sharpness
    larger = measure(*resized(image, points, factor)).sharpness
    torch.testing.assert_close(larger, plain, rtol=0.12, atol=0.02)


def test_sharpness_does_not_depend_on_light_and_contrast() -> None:
    image, points = noise(), face()
    plain = measure(image, points).sharpness
    faint = measure((image.float() * 0.5 + 10).to(torch.uint8), points).sharpness
    torch.testing.assert_close(faint, plain, rtol=0.1, atol=0.02)


def test_what_lies_outside_the_image_counts_as_outside_also_where_it_was_padded() -> None:
    image, points = noise(), face()
    limit = points[0, 33, 0]  # the picture ends in the middle of the face
    cut = image[..., : int(limit)]
    padded = torch.zeros_like(image)
    padded[..., : cut.shape[-1]] = cut
    extent = torch.tensor([[cut.shape[-1], 400]])
    one, other = measure(cut, points), measure(padded, points, extent=extent)
    for field in fields(Quality):
        if field.name != "confidence":
            expected = getattr(one, field.name).float()
            got = getattr(other, field.name).float()
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert (one.inside - 0.5).abs().max() < 0.06
    assert one.dark.max() < 0.01, "what is not there is not dark"
    assert why(padded, points, extent=extent) == ["out of the frame"]
    assert why(padded, points) != ["out of the frame"], "without its extent nobody can know"


def test_gates_agree_with_the_cropper_on_what_is_in_the_picture() -> None:
    cropper, image = RegionCropper(64), noise()
    for shift in (-120, -60, 60, 120):
        for axis in (0, 1):
            points = face()
            points[..., axis] += shift
            _, valid = cropper(image, points)
            inside = judge(measure(image, points), GATES).failed[
                ..., CHECKS.index("out of the frame")
            ]
            assert torch.equal(~inside, valid)


@pytest.mark.parametrize(
    ("turn", "refused"),
    [
        ((0, 0, 0), ""),
        ((29, 0, 0), ""),
        ((-32, 0, 0), "turned away (eyes, nose, mouth)"),
        ((50, 0, 0), "turned away"),
        ((0, -35, 0), "turned away"),
        ((0, 0, 60), "turned away"),
    ],
)
def test_turned_heads(turn: tuple[float, float, float], refused: str) -> None:
    sure = torch.tensor([0.9])
    assert why(noise(), face(*turn), confidence=sure) == [refused] * bool(refused)


def test_turned_heads_whose_landmarks_nobody_vouches_for() -> None:
    generator = torch.Generator().manual_seed(0)
    for yaw, off, refused in (
        (0, 0.04, []),
        (24, 0.01, []),
        (24, 0.04, ["facial points could not be located reliably"]),
        (-15, 0.04, ["facial points could not be located reliably"]),
    ):
        wrong = face(yaw) + 160 * off / 2**0.5 * torch.randn(1, 68, 2, generator=generator)
        assert why(noise(), wrong) == refused
        assert why(noise(), wrong, confidence=torch.tensor([0.6])) == []
    quality = measure(noise(), wrong)
    (own,) = told(quality, judge(quality, GATES))
    assert own[0].detail.startswith("no confidence, and 0.0")


def test_small_blurred_uncertain_and_wrong() -> None:
    image, points = noise(), face()
    assert why(image, face(width=34)) == ["too small"]
    assert why(*resized(image, points, 0.2)) == ["too small"]
    assert why(blurred(image, 8), points) == ["blurred"]
    assert why(image, points, confidence=torch.tensor([0.2])) == [
        "facial points could not be located reliably"
    ]
    assert why(image, points, confidence=torch.tensor([float("nan")])) == []
    wrong = torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(0)) * 400
    assert why(image, wrong) == ["landmarks are not a face's"]
    points[0, 5] = float("nan")
    assert why(image, points) == ["landmarks are not a face's"]


def test_a_blurred_face_has_no_sharp_mouth_but_a_blurred_mouth_is_judged() -> None:
    """Blending blurs: a region that is less sharp than its face is what forgeries show."""
    image, points = noise(), face()
    quality = measure(image, points)
    soft = replace(quality, sharpness=torch.tensor([[0.3, 0.5, 0.5, 0.5, 0.5]]))
    assert not judge(soft, GATES).regions.any()
    x0, y0 = (points[0, 48:].amin(0) - 15).int().tolist()
    x1, y1 = (points[0, 48:].amax(0) + 15).int().tolist()
    image[..., y0:y1, x0:x1] = blurred(image, 8)[..., y0:y1, x0:x1]
    assert measure(image, points).sharpness[0, 3] < GATES.min_sharpness
    assert why(image, points) == []


def test_figures_are_numbers_or_none() -> None:
    images, points = noise().expand(2, -1, -1, -1), torch.cat([face(), face(yaw=20)])
    points[1, 0, 0] = float("inf")
    one, other = figures(
        measure(images, points, confidence=torch.tensor([0.5, float("nan")])).map(Tensor.numpy)
    )
    assert one["confidence"] == 0.5
    assert other["confidence"] is None
    assert one["size"] == pytest.approx(160, rel=0.01)
    assert set(one) == {field.name for field in fields(Quality)} - {"finite"}


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=30)
@given(st.lists(numbers, min_size=136, max_size=136), st.integers(1, 40), st.integers(1, 40))
def test_any_landmarks_on_any_image_are_measured_and_not_judged(
    values: list[float], height: int, width: int
) -> None:
    image = noise(40)[..., :height, :width]
    quality = measure(image, torch.tensor(values).view(1, 68, 2))
    for field in fields(Quality):
        if field.name != "confidence":
            assert getattr(quality, field.name).isfinite().all(), field.name
    judged = judge(quality, GATES)
    assert not judged.regions.any()
    assert len(told(quality, judged)[0]) >= 1


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: whoever asks for one fails."""
    images = torch.empty(4, 3, 200, 300, dtype=torch.uint8, device="meta")
    points = torch.empty(4, 68, 2, device="meta")
    judged = judge(measure(images, points, scale=torch.empty(4, device="meta")), GATES)
    assert judged.regions.shape == (4, 5)
    assert judged.regions.device.type == "meta"


def found(paths: list[Path], detector: Any) -> list[tuple[np.ndarray, Face]]:
    images = [read_image(path) for path in paths]
    return [(image, faces[0]) for image in images if (faces := detector([image])[0])]


def test_photographs_pass(photographs: list[Path], detector: Any) -> None:
    regions = judge(measured(found(photographs[::14], detector)), GATES).regions
    assert (regions.float().mean(0) >= 0.94).all()  # of all 702, 97 to 98 %


@pytest.mark.parametrize("backend", ["detector", "hog"])
def test_the_near_profile_clip_is_not_judged_as_if_all_was_well(
    shared: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    find = request.getfixturevalue(backend)
    (clip,) = (shared / "videos/dfdc").rglob("*.mp4")
    seen_in = [(frame.image, find([frame.image])[0]) for frame in frames(clip, 12)]
    faces = [(image, own[0]) for image, own in seen_in if own]
    assert len(faces) >= 11
    quality = measured(faces)
    judged = judge(quality, GATES)
    assert judged.regions.float().mean() < 0.25
    words = {word for own in told(quality, judged) for word in map(str, own)}
    assert "facial points could not be located reliably" in words
