"""The forge's parts against OpenCV, SciPy and NumPy, and its forgeries on drawn faces."""

import cv2
import numpy as np
import pytest
import torch
from data_helpers import face_points
from drawn_faces import draw_face
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.nn import functional

from deepregions.faces.rasterise import PARTS, part_masks, whole_mask
from deepregions.faces.regions import outlines
from deepregions.forge import (
    METHODS,
    ForgedBatch,
    Forger,
    draw_parts,
    fwa,
    make_method,
    masks,
    self_blend,
    swap,
)
from deepregions.forge.alignment import mean_face
from deepregions.pixels.colour import recolour, saturation, transfer
from deepregions.pixels.face_rng import FaceRng, seeds_of
from deepregions.pixels.warping import inverse, moved, sample, similarity, warp
from deepregions.types import REGIONS, Region

SIZE = 144
PEOPLE = 12


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, Tensor]:
    """Drawn faces (12, 3, 144, 144) and their landmarks."""
    drawn = [draw_face(np.random.default_rng(seed), SIZE) for seed in range(PEOPLE)]
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
    return images.contiguous(), torch.from_numpy(np.stack([points for _, points in drawn]))


def draws(count: int = PEOPLE, seed: int = 0) -> FaceRng:
    return FaceRng(seeds_of([f"face {i}" for i in range(count)], seed))


def forge(
    faces: tuple[Tensor, Tensor],
    name: str,
    seed: int = 0,
    region: Region | None = None,
    person: Tensor | None = None,
    rows: Tensor | None = None,
    **options: float,
) -> ForgedBatch:
    images, landmarks = faces
    drawn = draws(len(images), seed)
    if rows is not None:
        images, landmarks, drawn = images[rows], landmarks[rows], drawn[rows]
    count = len(images)
    parts = torch.zeros(count, 3, dtype=torch.bool)
    if region is not None:
        parts[:, masks.CONFINED.index(region)] = True
    return Forger([make_method(name, **options)], masks=True)(
        images,
        landmarks,
        drawn,
        which=torch.zeros(count, dtype=torch.int64),
        parts=parts,
        person=torch.arange(count) if person is None else person,
    )


def region_pixels(landmarks: Tensor, region: Region) -> Tensor:
    """(B, H, W) bool, where a region is."""
    parts = part_masks(outlines(landmarks), SIZE, SIZE)
    chosen = whole_mask(parts)[:, :, 0] if region == Region.ENTIRE else None
    chosen = parts[:, :, PARTS.index(region)] if chosen is None else chosen
    return chosen.mT.bool()


# Geometry


points = arrays.arrays(
    np.float32, (7, 2), elements=st.floats(-50, 50, width=32).map(lambda x: round(x, 2))
)


@given(points, points)
def test_similarity_is_the_least_squares_solution(source: np.ndarray, target: np.ndarray) -> None:
    if np.ptp(source, 0).max() < 1:
        return
    matrix = similarity(torch.from_numpy(source)[None], torch.from_numpy(target)[None])[0].numpy()
    x, y = source.astype(np.float64).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    best = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    expected = np.array([[best[0], -best[1], best[2]], [best[1], best[0], best[3]]])
    np.testing.assert_allclose(matrix, expected, atol=2e-2, rtol=1e-3)


def test_inverse_takes_points_back() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 5, 9, 2, generator=generator) * 40
    there = similarity(source, target)
    back = moved(moved(source, there), inverse(there))
    torch.testing.assert_close(back, source, atol=1e-2, rtol=0)
    assert inverse(torch.zeros(1, 2, 3)).isfinite().all()
    assert similarity(torch.full((1, 51, 2), 3.0), mean_face(100)).isfinite().all()


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_warp_is_opencvs(faces: tuple[Tensor, Tensor], turn: float) -> None:
    image = faces[0][:1].float()
    cos, sin = 1.1 * np.cos(turn), 1.1 * np.sin(turn)
    matrix = np.array([[cos, -sin, 12.3], [sin, cos, -20.7]], np.float32)
    ours = warp(image, torch.from_numpy(matrix)[None], (100, 120))[0].permute(1, 2, 0).numpy()
    theirs = cv2.warpAffine(
        image[0].permute(1, 2, 0).numpy(),
        matrix,
        (120, 100),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    assert np.abs(ours - theirs).mean() < 0.3  # OpenCV takes places in 1/32 of a pixel
    assert np.abs(ours - theirs).max() < 8


def test_the_spline_is_scipys(faces: tuple[Tensor, Tensor]) -> None:
    one, two = (faces[1][i : i + 1] / 60 - 1 for i in (0, 1))
    at = torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = swap._basis(at, one) @ swap._spline(one, two)
    theirs = RBFInterpolator(one[0], two[0], smoothing=swap._RELAXED, degree=1)(at[0].numpy())
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=2e-3)


# Colours


def test_colours_are_changed_as_they_should() -> None:
    pixels = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 255
    none = recolour(pixels, saturation(torch.ones(4)), torch.zeros(4, 3))
    torch.testing.assert_close(none, pixels)
    grey = recolour(pixels, saturation(torch.zeros(4)), torch.zeros(4, 3))
    expected = cv2.cvtColor(pixels[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
    for channel in grey[0]:
        np.testing.assert_allclose(channel.numpy(), expected, atol=0.05)
    assert recolour(pixels, 3 * saturation(torch.ones(4)), torch.zeros(4, 3)).max() == 255


def test_colour_transfer_compares_within_the_mask(faces: tuple[Tensor, Tensor]) -> None:
    source, target = faces[0][:6].float(), faces[0][6:].float()
    inside = (slice(None), slice(None), slice(48, 112), slice(48, 112))
    mask = torch.zeros(6, 1, SIZE, SIZE)
    mask[inside] = 1
    given = recolour(source, *transfer(source, target, mask))
    torch.testing.assert_close(
        given[inside].mean((2, 3)), target[inside].mean((2, 3)), atol=6, rtol=0
    )
    before = (source[inside].mean((2, 3)) - target[inside].mean((2, 3))).abs()
    assert before.amax(1).min() > 10  # there was something to do for everyone


# Masks


def test_hulls_are_opencvs(faces: tuple[Tensor, Tensor]) -> None:
    landmarks = faces[1]
    shape = masks.draw_shape(draws(), torch.zeros(PEOPLE, 3, dtype=torch.bool), fwa.MASKS)
    members = masks._table()[shape.hull]
    on_grid = landmarks * (masks.GRID / SIZE)
    hulls = masks._hulls(on_grid, shape)
    seen = set()
    for hull, points_, member, number in zip(hulls, on_grid, members, shape.hull, strict=True):
        if member[68:].any():
            continue  # has points above the brows that are not landmarks
        seen.add(int(number))
        drawn = np.zeros((masks.GRID, masks.GRID), np.uint8)
        corners = cv2.convexHull(points_[member[:68]].numpy())[:, 0]
        cv2.fillConvexPoly(drawn, np.round(corners * 16).astype(np.int32), 1, shift=4)
        both = ((hull.numpy() > 0.5) & (drawn > 0)).sum()
        assert both / ((hull.numpy() > 0.5) | (drawn > 0)).sum() > 0.93
    assert seen == {1, 2}


def test_blur_is_a_gaussian_of_a_width() -> None:
    mask = torch.rand(2, masks.GRID, masks.GRID, generator=torch.Generator().manual_seed(0))
    ours = masks._blur(mask, torch.tensor([5.0, 9.0]), torch.tensor([2.0, 6.0]))
    for row, (width, sigma) in enumerate(((11, 2.0), (19, 6.0))):
        kernel = cv2.getGaussianKernel(width, sigma).ravel()
        kernel[[0, -1]] /= 2  # the last cell is half within
        kernel /= kernel.sum()
        theirs = cv2.sepFilter2D(
            mask[row].numpy(), -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT
        )
        np.testing.assert_allclose(ours[row].numpy(), theirs, atol=1e-5)
    unchanged = masks._blur(mask, torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(unchanged, mask)


@pytest.mark.parametrize("recipe", [fwa.MASKS, self_blend.MASKS, swap.MASKS])
def test_masks_of_faces(faces: tuple[Tensor, Tensor], recipe: masks.MaskRecipe) -> None:
    landmarks = faces[1]
    whole = region_pixels(landmarks, Region.ENTIRE)
    inside, touched_shares = [], []
    for seed in range(4):
        shape = masks.draw_shape(draws(seed=seed), torch.zeros(PEOPLE, 3, dtype=torch.bool), recipe)
        made = masks.make_masks(landmarks, shape)
        mask, touched = made.enlarged((SIZE, SIZE)), made.touched
        assert mask.shape == (PEOPLE, 1, SIZE, SIZE)
        assert mask.min() == 0 and 0.95 < mask.max() <= 1
        inside.append((mask[:, 0] * whole).sum() / mask.sum())
        touched_shares.append(touched.float().mean(0))
        assert mask[:, :, :2].max() < 0.5  # faces are in the middle
    assert torch.stack(inside).mean() > 0.85
    shares = torch.stack(touched_shares).mean(0)
    assert shares[0] == 1
    assert shares[1:4].min() > 0.9  # what hulls of faces have in common
    assert shares[4] > 0.6


@pytest.mark.parametrize("region", masks.CONFINED)
@pytest.mark.parametrize("name", METHODS)
def test_confined_forgeries_touch_no_other_region(
    faces: tuple[Tensor, Tensor], region: Region, name: str
) -> None:
    forged = forge(faces, name, region=region)
    assert forged.touched[:, 0].float().mean() > 0.9
    for number, other in enumerate(REGIONS):
        where = region_pixels(faces[1], other)
        changed = ((forged.image != forged.genuine).any(1) & where).flatten(1).any(1)
        if other in (region, Region.ENTIRE):
            assert torch.equal(forged.touched[:, number], changed)
        else:
            assert not forged.touched[:, number].any()
            assert not changed.any()


def test_regions_are_drawn_evenly() -> None:
    parts = draw_parts(draws(6000), 0.3)
    assert parts.sum(1).max() == 1
    assert parts.float().mean(0).numpy() == pytest.approx([0.1] * 3, abs=0.02)
    assert not draw_parts(draws(100), 0.0).any()
    assert draw_parts(draws(100), 1.0).any(1).all()


# Forgeries


@pytest.mark.parametrize("name", METHODS)
def test_forgeries_change_the_mask_only(faces: tuple[Tensor, Tensor], name: str) -> None:
    forged = forge(faces, name)
    assert forged.touched[:, 0].all()
    changed = (forged.image != forged.genuine).any(1, keepdim=True)
    assert not (changed & (forged.mask == 0)).any()
    assert (changed & (forged.mask > 0)).flatten(1).any(1).all()
    difference = (forged.image.float() - forged.genuine.float()).abs()
    strength = (difference * (forged.mask > 0.5)).sum((1, 2, 3)) / (
        3 * (forged.mask > 0.5).sum((1, 2, 3)).clamp(min=1)
    )
    assert 1 < strength.median() < 40  # to be seen, and still a face
    if name != "self_blend":
        assert torch.equal(forged.genuine, faces[0])


@pytest.mark.parametrize("name", ["fwa", "self_blend"])
def test_a_face_is_forged_the_same_in_any_batch(faces: tuple[Tensor, Tensor], name: str) -> None:
    together = forge(faces, name)
    rows = torch.tensor([5, 11, 2])
    some = forge(faces, name, rows=rows)
    assert (some.image.int() - together.image[rows].int()).abs().max() <= 1  # sums in other orders
    assert (some.image == together.image[rows]).float().mean() > 0.99
    assert torch.equal(some.touched, together.touched[rows])


def test_methods_are_mixed_within_a_batch(faces: tuple[Tensor, Tensor]) -> None:
    which = torch.arange(PEOPLE) % 3
    both = Forger([make_method(name) for name in METHODS])(
        *faces,
        draws(),
        which=which,
        parts=torch.zeros(PEOPLE, 3, dtype=torch.bool),
        person=torch.arange(PEOPLE),
    )
    for number, name in enumerate(METHODS):
        alone = forge(faces, name)
        rows = which == number
        assert (both.image[rows].int() - alone.image[rows].int()).abs().max() <= 1
        assert torch.equal(both.touched[rows], alone.touched[rows])
        assert not torch.equal(alone.image, forge(faces, name, seed=1).image)


def test_self_blends_alter_their_genuine_counterparts_alike(faces: tuple[Tensor, Tensor]) -> None:
    forged = forge(faces, "self_blend", target_p=1.0)
    assert (forged.genuine != faces[0]).flatten(1).any(1).all()
    outside = (forged.mask == 0).expand_as(faces[0])
    assert torch.equal(forged.genuine[outside], forged.image[outside])
    kept = forge(faces, "self_blend", target_p=0.0)
    assert torch.equal(kept.genuine, faces[0])


def test_fwa_takes_detail_away(faces: tuple[Tensor, Tensor]) -> None:
    forged = forge(faces, "fwa")
    inside = (forged.mask[..., 1:, 1:] == 1).float()

    def detail(image: Tensor) -> Tensor:
        x = image.float()
        edges = (x[..., 1:, 1:] - x[..., :-1, 1:]).abs() + (x[..., 1:, 1:] - x[..., 1:, :-1]).abs()
        return (edges * inside).sum((1, 2, 3))

    assert (detail(forged.image) < 0.9 * detail(forged.genuine)).all()
    coarser = forge(faces, "fwa", detail=40)
    assert detail(coarser.image).sum() < detail(forged.image).sum()


@pytest.mark.parametrize("scale", fwa.SCALES)
def test_fwa_loses_what_resizing_does(faces: tuple[Tensor, Tensor], scale: float) -> None:
    side = 120
    part = faces[0][:1, :, :side, :side].float()
    ours = fwa._lessened(part, fwa.SCALES.index(scale), side)[0, 1]
    few = round(side * scale)
    plane = Image.fromarray(part[0, 1].numpy())
    theirs = np.array(plane.resize((few, few), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=0.1)


@pytest.mark.parametrize("number", range(len(fwa.BLURS)))
def test_fwa_blurs_as_opencv(faces: tuple[Tensor, Tensor], number: int) -> None:
    part = faces[0][:1, :, :128, :128].float()
    ours = fwa._lessened(part, len(fwa.SCALES) + number, 128)[0, 1].numpy()
    sigma = fwa.BLURS[number] / 2  # in pixels of 256
    theirs = cv2.GaussianBlur(part[0, 1].numpy(), (31, 31), sigma)
    np.testing.assert_allclose(ours[16:-16, 16:-16], theirs[16:-16, 16:-16], atol=0.05)


def test_fwa_is_at_the_same_place(faces: tuple[Tensor, Tensor]) -> None:
    """What was reduced and enlarged again has not moved by a part of a pixel."""
    forged = forge(faces, "fwa")
    one, two = faces[0].float().mean(1), forged.image.float().mean(1)
    inside = (forged.mask[:, 0] == 1).float()

    def error(x: int, y: int) -> Tensor:
        moved_ = one.roll((y, x), (1, 2))
        return ((moved_ - two).square() * inside).sum((1, 2))

    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert (error(0, 0) < error(x, y)).float().mean() > 0.9


def test_swaps_are_with_other_people(faces: tuple[Tensor, Tensor]) -> None:
    person = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    for seed in range(5):
        row, found = swap.choose_donors(faces[1], person, draws(seed=seed))
        assert found.all()
        assert (person[row] != person).all()
    nobody = forge(faces, "swap", person=torch.zeros(PEOPLE, dtype=torch.int64))
    assert not nobody.touched.any()
    assert torch.equal(nobody.image, faces[0])
    assert not nobody.mask.any()


def test_a_swap_brings_the_donors_features_to_the_landmarks() -> None:
    """A donor whose landmarks are white dots: they end up on the target's landmarks."""
    points_ = torch.from_numpy(draw_face(np.random.default_rng(1), SIZE)[1])
    others = torch.from_numpy(draw_face(np.random.default_rng(2), SIZE)[1]) * 0.8 + 10
    rows, columns = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    for index in (30, 36, 45, 48, 54):
        x, y = others[index]
        dot = 255 * torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
        donor = dot.expand(1, 3, -1, -1)
        size = (SIZE, SIZE)
        flow = swap._flow(points_[None], size, others[None], size)
        full = functional.interpolate(flow, size, mode="bilinear", align_corners=True)
        light = sample(donor, full.permute(0, 2, 3, 1))[0, 0]
        found = torch.stack(
            ((light * columns).sum() / light.sum(), (light * rows).sum() / light.sum())
        )
        assert torch.dist(found, points_[index]) < 1.5


broken = st.one_of(
    st.floats(-1e7, 1e7, width=32), st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1e30])
)


@given(arrays.arrays(np.float32, (68, 2), elements=broken), st.sampled_from(METHODS))
def test_landmarks_that_are_no_face_do_no_harm(points_: np.ndarray, name: str) -> None:
    image = torch.full((2, 3, 32, 40), 90, dtype=torch.uint8)
    landmarks = torch.stack([torch.from_numpy(points_), torch.from_numpy(face_points()) * 30])
    forged = forge((image, landmarks), name)
    assert forged.mask.isfinite().all()
    if not np.isfinite(points_).all():
        assert not forged.touched[0].any()
        assert torch.equal(forged.image[0], forged.genuine[0])
    still = ~forged.touched[:, 0]
    assert torch.equal(forged.image[still], forged.genuine[still])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("region", [None, Region.NOSE])
def test_nothing_is_read_back_from_the_device(name: str, region: Region | None) -> None:
    """On the "meta" device there is nothing to read, nor can host and device be mixed up."""
    images = torch.empty(5, 3, 64, 72, dtype=torch.uint8, device="meta")
    landmarks = torch.empty(5, 68, 2, device="meta")
    person = torch.empty(5, dtype=torch.int64, device="meta")
    forged = forge((images, landmarks), name, region=region, person=person, detail=32)
    assert forged.image.shape == images.shape and forged.image.device.type == "meta"
    assert forged.touched.shape == (5, 5)
