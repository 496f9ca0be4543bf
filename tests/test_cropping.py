"""The cropper against Pillow, against its own native masks, and against bad landmarks."""

from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import face_points
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from deepregions.errors import UsageError
from deepregions.faces import cropping
from deepregions.faces.cropping import RegionCropper, resize, segment
from deepregions.faces.patches import without_margin
from deepregions.faces.quality import measure
from deepregions.faces.regions import canvas, context_box, region_boxes
from deepregions.pixels.tensors import stack
from deepregions.types import REGIONS, Layout, Region

PARTS = REGIONS[1:]
FACE = torch.from_numpy(face_points())


def picture(width: int, height: int, seed: int = 0) -> Tensor:
    """A smooth photograph-like image with fine noise, (3, height, width) uint8."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=g) * 200
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic")[0]
    noise = torch.rand(3, height, width, generator=g) * 60 - 30
    return (smooth + 30 + noise).clamp(0, 255).to(torch.uint8)


def points(width: float, x: float, y: float, aspect: float = 1.3, turn: float = 0.0) -> Tensor:
    """Landmarks of a face whose jaw is ``width`` wide, around (x, y), (68, 2)."""
    p = (FACE - 0.5) * torch.tensor([width, width * aspect])
    c, s = np.cos(turn), np.sin(turn)
    return p @ torch.tensor([[c, s], [-s, c]], dtype=torch.float32) + torch.tensor([x, y])


def as_pillow(
    image: Tensor, size: int, resample: Image.Resampling = Image.Resampling.BILINEAR
) -> Tensor:
    """(3, h, w) uint8 -> (3, size, size) in [0, 1], by Pillow."""
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size, size), resample)
    return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1) / 255


def assert_like_pillow(crop: Tensor, image: Tensor) -> None:
    error = (crop - as_pillow(image, crop.shape[-1])).abs()
    assert error.mean() <= 1 / 255
    assert error.max() <= 3 / 255


FACES = [(60, 1.3, 0.0), (131, 0.9, 0.3), (215, 1.3, -0.2), (640, 1.6, 0.1), (1500, 1.2, 0.0)]


@pytest.mark.parametrize(
    ("width", "aspect", "turn", "size"),
    # The large face at one size only: it takes longest.
    [(*face, size) for size in (64, 200, 224) for face in FACES if size == 200 or face[0] < 1000],
)
def test_equals_pillow_at_every_size(width: int, aspect: float, turn: float, size: int) -> None:
    image = picture(int(width * 1.37) + 7, int(width * 1.9) + 3)
    landmarks = points(width, 0.5 * image.shape[2] + 0.3, 0.55 * image.shape[1] - 0.4, aspect, turn)
    crops, valid = RegionCropper(size)(image[None], landmarks[None])
    assert valid.all()
    for crop, native in zip(crops[0], segment(image, landmarks).values(), strict=True):
        assert_like_pillow(crop, native)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    jitter=st.sampled_from([0.0, 0.5, 3.0, 20.0, 200.0]),
    turn=st.floats(-3.2, 3.2),
    scale=st.floats(5, 250),
    x=st.floats(-100, 200),
    y=st.floats(-100, 200),
)
def test_partition_whatever_the_landmarks(
    seed: int, jitter: float, turn: float, scale: float, x: float, y: float
) -> None:
    noise = torch.randn(68, 2, generator=torch.Generator().manual_seed(seed)) * jitter
    landmarks = points(scale, x, y, turn=turn) + noise
    image = torch.full((3, 90, 110), 255, dtype=torch.uint8)
    crops, valid = RegionCropper(40)(image[None], landmarks[None])
    assert crops.isfinite().all() and crops.amin() >= 0 and crops.amax() <= 1
    assert torch.allclose(crops[:, 0], crops[:, 1:].sum(dim=1), atol=1e-5)
    try:
        native = segment(image, landmarks)
    except UsageError:
        assert not valid.any()
        return
    count = sum((native[region] > 0).int() for region in PARTS)
    assert torch.equal(count, (native[Region.ENTIRE] > 0).int())


def test_outside_the_image_is_black_and_the_canvas_stays() -> None:
    image = picture(300, 320)
    padded = functional.pad(image, (70, 50, 90, 60))
    shift = torch.tensor([70.0, 90.0])
    for x, y in ((60, 150), (290, 170), (150, 20), (140, 330)):
        landmarks = points(180, x, y)
        inside = RegionCropper()(image[None], landmarks[None])[0]
        moved = RegionCropper()(padded[None], (landmarks + shift)[None])[0]
        assert torch.allclose(inside, moved, atol=2e-5)
        for region, native in segment(image, landmarks).items():
            assert torch.equal(native, segment(padded, landmarks + shift)[region])


def test_validity_by_area_and_by_frame() -> None:
    image = picture(200, 200)
    cropper = RegionCropper(64)

    def valid(landmarks: Tensor) -> list[bool]:
        return cropper(image[None], landmarks[None])[1][0].tolist()

    assert valid(points(120, 100, 110)) == [True] * 5
    assert valid(points(16, 100, 110)) == [True, False, False, False, True]
    assert valid(points(120, 100, 215)) == [False, True, False, False, False]  # chin cut off
    assert valid(points(120, 400, 110)) == [False] * 5


@settings(max_examples=25)
@given(st.data())
def test_a_face_depends_on_nothing_but_itself(data: st.DataObject) -> None:
    """Neighbours of other sizes, whatever lies in the padding, faces cut at every edge."""
    layout = data.draw(st.sampled_from(["masked", "tight", "context"]))
    resample = data.draw(st.sampled_from(["bilinear", "nearest"]))
    regions = [Region.ENTIRE] if layout == "context" else REGIONS
    cropper = RegionCropper(data.draw(st.sampled_from([24, 70])), regions, layout, resample)
    pictures, faces = [], []
    for seed in range(data.draw(st.integers(2, 4))):
        width, height = data.draw(st.tuples(st.integers(40, 260), st.integers(40, 260)))
        x, y = data.draw(st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2)))
        pictures.append(picture(width, height, seed))
        faces.append(points(data.draw(st.floats(20, 300)), x * width, y * height))
    image, extent = stack(pictures)
    landmarks = torch.stack(faces)
    for row, (width, height) in zip(image, extent.tolist(), strict=True):
        row[:, height:], row[:, :, width:] = 200, 100
    crops, valid = cropper(image, landmarks, extent)
    masks, quality = cropper.masks(landmarks, extent), measure(image, landmarks, extent=extent)
    for number, one in enumerate(pictures):
        own = landmarks[number : number + 1]
        alone, ok = cropper(one[None], own)
        torch.testing.assert_close(crops[number], alone[0], rtol=0, atol=1e-6)
        assert torch.equal(valid[number], ok[0])
        assert torch.equal(masks[number], cropper.masks(own, extent[number : number + 1])[0])
        for name, value in vars(measure(one[None], own)).items():
            torch.testing.assert_close(getattr(quality, name)[number], value[0], equal_nan=True)


BAD = {
    "equal": torch.zeros(68, 2) + 40,
    "nan": torch.full((68, 2), float("nan")),
    "one nan": points(60, 50, 50).index_fill(0, torch.tensor([30]), float("nan")),
    "infinite": torch.full((68, 2), float("inf")),
    "huge": points(60, 50, 50) * 1e30,
    "of a larger image": points(9000, 50, 50),
    "off frame": points(60, -5000, 50),
    "line": points(60, 50, 50) * torch.tensor([1.0, 0.0]),
}


@pytest.mark.parametrize("layout", ["masked", "tight"])
def test_bad_landmarks_are_invalid_and_finite(layout: Layout) -> None:
    landmarks = torch.stack([*BAD.values(), points(60, 50, 50)])
    image = picture(100, 110).expand(len(landmarks), -1, -1, -1)
    crops, valid = RegionCropper(32, layout=layout)(image, landmarks)
    assert crops.isfinite().all() and crops.amin() >= 0 and crops.amax() <= 1
    assert not valid[:-1].any(), dict(zip(BAD, valid.tolist(), strict=False))
    assert valid[-1].all()


@pytest.mark.parametrize("name", ["nan", "infinite", "huge", "of a larger image", "off frame"])
def test_segment_refuses_what_is_no_face(name: str) -> None:
    with pytest.raises(UsageError, match="no face at these landmarks"):
        segment(picture(100, 110), BAD[name])


def test_any_selection_of_regions_is_the_same_as_all() -> None:
    image = picture(240, 260)[None]
    landmarks = points(150, 120, 130)[None]
    every, valid = RegionCropper(96)(image, landmarks)
    for chosen in ([Region.ENTIRE], [Region.MOUTH, Region.EYES], [Region.REST, Region.ENTIRE]):
        crops, ok = RegionCropper(96, chosen)(image, landmarks)
        rows = [REGIONS.index(region) for region in chosen]
        assert torch.allclose(crops, every[:, rows], atol=1e-5)
        assert torch.equal(ok, valid[:, rows])


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.stack([picture(120, 140, seed) for seed in range(5)])
    landmarks = torch.stack([points(70 + 3 * i, 60 + i, 70 - i) for i in range(5)])
    for layout in ("masked", "tight"):
        cropper = RegionCropper(50, layout=layout)  # type: ignore[arg-type]
        monkeypatch.setattr(cropping, "_CHUNK_BYTES", {"cpu": 1 << 30})
        whole, valid = cropper(image, landmarks)
        monkeypatch.setattr(cropping, "_CHUNK_BYTES", {"cpu": 12 * 4 * 2 * 120 * 140})
        parts, ok = cropper(image, landmarks)
        assert torch.equal(whole, parts) and torch.equal(valid, ok)
        single = [cropper(image[i : i + 1], landmarks[i : i + 1])[0] for i in range(5)]
        assert torch.equal(whole, torch.cat(single))


def test_an_empty_batch_is_empty() -> None:
    crops, valid = RegionCropper(20)(torch.zeros(0, 3, 9, 9, dtype=torch.uint8), FACE[None][:0])
    assert crops.shape == (0, 5, 3, 20, 20) and valid.shape == (0, 5)


def test_tight_layout_is_the_regions_own_box() -> None:
    image = picture(260, 280)
    landmarks = points(170, 130, 140)
    crops, valid = RegionCropper(80, layout="tight")(image[None], landmarks[None])
    assert valid.all()
    x0, y0, _, _ = canvas(landmarks[None])[0].tolist()
    native = segment(image, landmarks)
    for row, (region, box) in enumerate(
        zip(REGIONS, region_boxes(landmarks[None])[0].tolist(), strict=True)
    ):
        cut = native[region][:, box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0]
        assert_like_pillow(crops[0, row], cut)
        outside = native[region].sum() - cut.sum()
        assert outside == 0, region


@pytest.mark.slow
def test_no_wait_for_the_device_and_no_shapes_from_data() -> None:
    """Fake tensors have no data: reading a value or a data-dependent shape raises."""
    for layout in ("masked", "tight"):
        cropper = RegionCropper(layout=layout)  # type: ignore[arg-type]
        with FakeTensorMode():
            crops, valid = cropper(
                torch.zeros(7, 3, 400, 380, dtype=torch.uint8), torch.zeros(7, 68, 2)
            )
        assert crops.shape == (7, 5, 3, 200, 200) and crops.dtype == torch.float32
        assert valid.shape == (7, 5) and valid.dtype == torch.bool


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", ["masked", "tight"])
def test_the_gpu_gives_the_same_and_never_waits(layout: Layout) -> None:
    image = torch.stack([picture(300, 310, seed) for seed in range(3)])
    landmarks = torch.stack([points(170 + 10 * i, 150, 160, turn=0.1 * i) for i in range(3)])
    cropper = RegionCropper(layout=layout)
    expected = cropper(image, landmarks)
    image, landmarks = image.cuda(), landmarks.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        crops, valid = cropper(image, landmarks)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (crops.cpu() - expected[0]).abs().mean() < 1e-5
    assert torch.equal(valid.cpu(), expected[1])


@pytest.mark.slow
def test_exports_with_dynamic_batch_and_image_size() -> None:
    # Not named dimensions with ranges: torch 2.11 cannot prove min(h, 3h) == h over a range.
    dynamic = torch.export.Dim.DYNAMIC
    image, landmarks = picture(230, 250)[None].repeat(2, 1, 1, 1), points(150, 115, 125)[None]
    program = torch.export.export(
        RegionCropper(100),
        (image, landmarks.repeat(2, 1, 1)),
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic}, {0: dynamic}),
    )
    image = torch.stack([picture(300, 310, seed) for seed in range(3)])
    landmarks = torch.stack([points(170 + 10 * i, 150, 160, turn=0.1 * i) for i in range(3)])
    crops, valid = program.module()(image, landmarks)
    expected = RegionCropper(100)(image, landmarks)
    assert torch.allclose(crops, expected[0], atol=1e-5)
    assert torch.equal(valid, expected[1])


@pytest.mark.parametrize("shape", [(155, 131), (40, 60), (200, 200), (700, 900)])
def test_resize_is_pillows(shape: tuple[int, int]) -> None:
    image = picture(shape[1], shape[0])
    assert_like_pillow(resize(image[None], 200)[0], image)
    assert torch.allclose(resize(image[None] / 255, 200), resize(image[None], 200), atol=1e-6)


@pytest.mark.parametrize("size", [200, 224, 299])
def test_nearest_is_pillows_sample_for_sample(size: int) -> None:
    for side in range(1, 700, 7):
        image = picture(side, side + 3, side)
        expected = as_pillow(image, size, Image.Resampling.NEAREST)
        assert torch.equal(resize(image[None], size, "nearest")[0], expected), side


@pytest.mark.parametrize(("width", "size"), [(60, 64), (131, 200), (215, 200), (640, 224)])
def test_nearest_crops_are_pillows_of_the_native_regions(width: int, size: int) -> None:
    image = picture(int(width * 1.37) + 7, int(width * 1.9) + 3)
    landmarks = points(width, 0.5 * image.shape[2] + 0.3, 0.55 * image.shape[1] - 0.4)
    crops, valid = RegionCropper(size, resample="nearest")(image[None], landmarks[None])
    assert valid.all()
    for crop, native in zip(crops[0], segment(image, landmarks).values(), strict=True):
        expected = as_pillow(native, size, Image.Resampling.NEAREST)
        torch.testing.assert_close(crop, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("resample", ["bilinear", "nearest"])
def test_context_is_the_square_around_the_face_as_it_is(resample: cropping.Resample) -> None:
    image, landmarks = picture(400, 420), points(170, 200, 210)
    cropper = RegionCropper(150, [Region.ENTIRE], "context", resample)
    crops, valid = cropper(image[None], landmarks[None])
    assert valid.all()
    low, high = landmarks.amin(0), landmarks.amax(0)
    side = 1.3 * (high - low).max().item()
    x0, y0, x1, y1 = context_box(landmarks[None])[0].tolist()
    for length in (x1 - x0, y1 - y0):  # whole pixels, the first and the last included
        assert side < length <= side + 2
    assert (x0 + x1 - 1) / 2 == pytest.approx((low + high)[0].item() / 2, abs=1)
    assert (y0 + y1 - 1) / 2 == pytest.approx((low + high)[1].item() / 2, abs=1)
    cut = image[:, y0:y1, x0:x1]
    filters = {"bilinear": Image.Resampling.BILINEAR, "nearest": Image.Resampling.NEAREST}
    difference = (crops[0, 0] - as_pillow(cut, 150, filters[resample])).abs().max()
    assert difference <= 3 / 255 if resample == "bilinear" else difference < 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"regions": ["ears"]}, r"unknown region 'ears'.*entire, eyes, nose"),
        ({"layout": "loose"}, "unknown layout"),
        ({"resample": "lanczos"}, "unknown filter"),
        ({"layout": "context"}, "entire only"),
        ({"size": 0}, "size 0"),
    ],
)
def test_wrong_use_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RegionCropper(**wrong)
    for image, face in ((torch.zeros(1, 3, 9, 9), FACE[None]), (picture(9, 9)[None], FACE)):
        with pytest.raises(ValueError, match="must be"):
            RegionCropper()(image, face)


@given(
    sides=st.tuples(st.integers(40, 260), st.integers(40, 260)),
    width=st.floats(20, 300),
    middle=st.tuples(st.floats(-60, 320), st.floats(-60, 320)),
    aspect=st.floats(0.7, 1.7),
    turn=st.floats(-3.2, 3.2),
    layout=st.sampled_from(["masked", "tight", "context"]),
)
@settings(max_examples=80, deadline=None)
def test_the_margin_changes_neither_crops_nor_quality(
    sides: tuple[int, int],
    width: float,
    middle: tuple[float, float],
    aspect: float,
    turn: float,
    layout: Layout,
) -> None:
    image, lines = picture(*sides), points(width, *middle, aspect, turn)
    pixels = image.permute(1, 2, 0).numpy()
    own, moved = without_margin(pixels, lines.numpy(), context=layout == "context")
    assert 0 < own.size <= image.numel()
    there = torch.from_numpy(moved)[None]
    cut = torch.from_numpy(np.ascontiguousarray(own)).permute(2, 0, 1)[None]
    regions = (Region.ENTIRE,) if layout == "context" else REGIONS
    cropper = RegionCropper(48, regions, layout)
    crops, valid = cropper(cut, there)
    expected, before = cropper(image[None], lines[None])
    torch.testing.assert_close(crops, expected, atol=1e-6, rtol=0)
    assert torch.equal(valid, before)
    here, before = measure(cut, there), measure(image[None], lines[None])
    for name in ("size", "inside", "light", "dark", "bright", "sharpness"):
        close = {"atol": 1e-5, "rtol": 1e-5, "msg": name}
        torch.testing.assert_close(getattr(here, name), getattr(before, name), **close)


def test_landmarks_that_are_none_keep_the_patch() -> None:
    image = picture(50, 60).permute(1, 2, 0).numpy()
    for lines in (np.full((68, 2), np.nan, np.float32), np.full((68, 2), 1e12, np.float32)):
        assert without_margin(image, lines)[0].shape == image.shape
    pixels = picture(400, 400).permute(1, 2, 0).numpy()
    assert max(without_margin(pixels, points(120, 200, 200).numpy())[0].shape) < 180
