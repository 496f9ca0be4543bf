"""Grad-CAM against autograd by another path, closed forms, and heat whose place is known."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Bright, landmarks, member, picture
from torch import Tensor, nn
from torch.nn import functional

from deepregions.detectors import DSPFWA, Capsule, RegionDetector, Xception
from deepregions.errors import UsageError
from deepregions.faces.cropping import RegionCropper
from deepregions.faces.regions import mirror
from deepregions.pipeline.explain.gradcam import Heat, grad_cam, heats, heats_segmented
from deepregions.system import System, TrainedNetwork
from deepregions.types import REGIONS, Region

SIZE = 200
SQUARE = torch.tensor([[240, 240]])


SMALL = 112  # of detectors whose heat is compared number by number


@pytest.fixture(scope="module", params=["xception", "capsule", "dsp-fwa"])
def detector(request: pytest.FixtureRequest) -> Iterator[RegionDetector]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        kinds = {
            "xception": lambda: Xception(SMALL),
            "capsule": lambda: Capsule(SMALL),
            "dsp-fwa": lambda: DSPFWA(SMALL, pyramid="adaptive"),
        }
        yield kinds[request.param]().eval()


def by_hand(detector: RegionDetector, crops: Tensor) -> Tensor:
    """Grad-CAM of its paper's equations 1 and 2, signed, with the network cut at its map."""
    x = (crops - detector.mean) / detector.std
    capsule = isinstance(detector, Capsule)
    maps = detector.trunk(x) if capsule else detector.backbone.forward_features(x)
    maps = maps.detach().requires_grad_()
    if capsule:
        scores = detector.capsules(maps)
    elif isinstance(detector, Xception):
        scores = detector.classifier(maps.mean((2, 3)))
    else:
        scores = detector.classifier(detector.pyramid(maps))
    (gradient,) = torch.autograd.grad(detector.log_odds(scores).sum(), maps)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1).detach()


def test_agrees_with_autograd_by_hand(detector: RegionDetector) -> None:
    crops = torch.rand(2, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(0))
    expected = by_hand(detector, crops)
    found = grad_cam(detector, crops)
    assert found.shape == expected.shape
    other = grad_cam(detector, crops, towards="genuine")
    scale = float(expected.abs().amax())
    assert scale > 0
    torch.testing.assert_close(found, expected.relu(), rtol=1e-3, atol=1e-4 * scale)
    torch.testing.assert_close(other, (-expected).relu(), rtol=1e-3, atol=1e-4 * scale)


def test_leaves_no_trace_and_works_frozen_and_under_inference(detector: RegionDetector) -> None:
    crops = torch.rand(3, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(1))
    expected = grad_cam(detector, crops)
    detector.train()
    modes = [module.training for module in detector.modules()]
    needed = [parameter.requires_grad for parameter in detector.parameters()]
    statistics = {name: value.clone() for name, value in detector.state_dict().items()}
    with torch.inference_mode():
        again = grad_cam(detector, torch.rand_like(crops).copy_(crops), batch_size=2)
    torch.testing.assert_close(again, expected, rtol=1e-3, atol=1e-6)
    assert [module.training for module in detector.modules()] == modes
    assert [parameter.requires_grad for parameter in detector.parameters()] == needed
    assert all(torch.equal(value, statistics[k]) for k, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in detector.modules())
    assert not any(m._backward_hooks or m._backward_pre_hooks for m in detector.modules())
    assert not again.requires_grad

    detector.eval().requires_grad_(False)
    frozen = grad_cam(detector, crops)
    assert torch.equal(frozen, expected)  # deterministic, too
    for parameter, flag in zip(detector.parameters(), needed, strict=True):
        parameter.requires_grad_(flag)


def test_a_linear_network_has_a_closed_form() -> None:
    """Weights 2/25 of the first channel's mean: the heat is the grey of each cell, times that."""
    crops = torch.rand(2, 3, SIZE, SIZE)
    grey = functional.avg_pool2d(crops.mean(1, keepdim=True), 8)[:, 0]
    torch.testing.assert_close(grad_cam(Bright(weight=2.0), crops), 2 / 625 * grey)
    assert grad_cam(Bright(weight=2.0), crops, towards="genuine").count_nonzero() == 0
    assert grad_cam(Bright(weight=-2.0), crops).count_nonzero() == 0


def test_what_rounding_leaves_is_no_heat() -> None:
    """Grey in which a network looks for more green than red: weights that cancel out, nearly."""
    detector = Bright(colour=(-1.0, 1.0, 0.0))
    grey = torch.rand(2, 1, SIZE, SIZE).expand(-1, 3, -1, -1)
    with torch.no_grad():
        detector.classifier.weight[1] = torch.tensor([1.0, 0.5])
        detector.pool.weight[1] = -2 * detector.pool.weight[0] * (1 + 1e-7)
    crops = grey.clone()
    crops[:, 1] += 0.1
    with torch.no_grad():
        maps = detector.pool(crops)
    assert maps.abs().amin() > 0.03  # each channel sees something
    assert grad_cam(detector, crops).count_nonzero() == 0


def test_answers_that_are_no_numbers_are_no_heat() -> None:
    assert grad_cam(Bright(), torch.full((1, 3, SIZE, SIZE), torch.nan)).count_nonzero() == 0


def test_a_detector_must_name_its_map() -> None:
    class Silent(Bright):
        attention = RegionDetector.attention

    with pytest.raises(UsageError, match="Silent does not say"):
        grad_cam(Silent(), torch.rand(1, 3, SIZE, SIZE))


def mean_pool(x: Tensor, kernel_size: int, stride: int, padding=0, *args, ceil_mode=False, **_):
    return functional.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(Xception, {}), (Xception, {"size": 224}), (Capsule, {"size": 96}), (DSPFWA, {})],
)
def test_cells_are_where_the_network_has_them(
    kind: type[RegionDetector], settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pixels that move a cell of the map lie around the pixel that it is said to be centred on.

    Measured by single cells' gradients. Weights are positive, so that nothing cancels, and layers
    that move nothing (stride 1, padded by half of their kernel) look at one pixel, as else
    networks see beyond the crop, which pulls the mean to its middle. Pools take means.
    """
    detector = kind(**settings).eval()
    layer, first, step = detector.attention
    kept: list[Tensor] = []
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.Conv2d):
                weight = module.weight.abs()
                half = module.kernel_size[0] // 2
                if half and module.stride[0] == 1 and module.padding[0] == half:
                    weight = torch.zeros_like(weight)
                    weight[..., half, half] = module.weight[..., half, half].abs()
                module.weight.copy_(weight / weight.sum((1, 2, 3), True))
    monkeypatch.setattr(functional, "max_pool2d", mean_pool)
    layer.register_forward_hook(lambda *args: kept.append(args[-1]))
    pixels = torch.rand(
        1, 3, detector.size, detector.size, generator=torch.Generator().manual_seed(2)
    )
    detector.network(pixels.requires_grad_())
    count = kept[0].shape[-1]
    for cell in (1, count // 2, count - 2):
        total = kept[0][0, :, cell, count // 2].sum()
        (gradient,) = torch.autograd.grad(total, pixels, retain_graph=True)
        weight = gradient[0].abs().sum((0, 2))
        found = float((weight * torch.arange(detector.size)).sum() / weight.sum())
        assert found == pytest.approx(first + step * cell, abs=step / 8)


def lit(box: tuple[int, int, int, int], size: int = 240) -> Tensor:
    """(1, 3, size, size) uint8, black but for a white box x0, y0, x1, y1."""
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    x0, y0, x1, y1 = box
    image[..., y0:y1, x0:x1] = 255
    return image


def middle(heat: Tensor) -> tuple[float, float]:
    """The centre of gravity (x, y) of heat (H, W)."""
    x = (heat.sum(0) * torch.arange(heat.shape[1])).sum() / heat.sum()
    y = (heat.sum(1) * torch.arange(heat.shape[0])).sum() / heat.sum()
    return float(x), float(y)


def points() -> Tensor:
    """(1, 68, 2) of an upright face, wider than high, off the middle of 240 x 240."""
    found = landmarks(centre=105.0, scale=60.0)
    found[..., 1] += 20
    return found


@pytest.mark.parametrize("layout", ["masked", "tight", "context"])
def test_heat_lies_where_the_light_is(layout: str) -> None:
    """One bright spot off every symmetry: heat must be there, not mirrored, turned or moved."""
    spot = (128, 96, 140, 104)  # on the eye on the right, of the picture's 240 pixels
    regions = (Region.ENTIRE,) if layout == "context" else (Region.ENTIRE, Region.EYES)
    system = System([TrainedNetwork(Bright(), region, "made", layout, {}) for region in regions])
    image, face = lit(spot), points()
    for heat in heats(system, image, face):
        found = heat.on_picture(240, 240)[0]
        assert found.shape == (240, 240)
        assert middle(found) == pytest.approx((133.5, 99.5), abs=1.0), heat.region
        near = found[88:112, 120:148].sum() / found.sum()
        assert near > 0.98
    mirrored = heats(system, image.flip(3), mirror(face, 240))
    for heat in mirrored:
        assert middle(heat.on_picture(240, 240)[0])[0] == pytest.approx(239 - 133.5, abs=1.0)


def test_heat_on_a_picture_that_is_not_square() -> None:
    image = torch.zeros(1, 3, 300, 210, dtype=torch.uint8)
    image[..., 150:160, 60:66] = 255
    face = landmarks(centre=100.0, scale=60.0)
    face[..., 1] += 60
    (heat,) = heats(System([member(Bright())]), image, face)
    found = heat.on_picture(210, 300)[0]
    assert found.shape == (300, 210)
    assert middle(found) == pytest.approx((62.5, 154.5), abs=1.0)


def test_there_is_no_heat_outside_of_what_the_network_saw() -> None:
    image = torch.full((1, 3, 240, 240), 255, dtype=torch.uint8)
    for layout in ("masked", "tight"):
        system = System([TrainedNetwork(Bright(), Region.EYES, "made", layout, {})])
        (heat,) = heats(system, image, points())
        x0, y0, x1, y1 = heat.box[0].tolist()
        expected = RegionCropper(SIZE, [Region.EYES], layout).boxes(points())[0, 0].tolist()
        assert [x0, y0, x1, y1] == expected
        found = heat.on_picture(240, 240)[0]
        outside = torch.ones(240, 240, dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert found[outside].count_nonzero() == 0
        assert found.amax() > 0


def test_energy_inside_is_the_share_on_the_mask() -> None:
    """A spot in the eyes is inside for eyes; the same on the entire face is, too, for entire."""
    eyes, chin = (128, 96, 140, 104), (100, 170, 112, 176)
    system = System([member(Bright(), region) for region in (Region.ENTIRE, Region.EYES)])
    entire, own = heats(system, lit(eyes), points())
    assert float(entire.inside()) == pytest.approx(1.0, abs=0.01)
    assert float(own.inside()) == pytest.approx(1.0, abs=0.05)
    entire, own = heats(system, lit(chin), points())  # black in the eyes' crop: no heat
    assert float(entire.inside()) == pytest.approx(1.0, abs=0.01)
    assert bool(own.empty)
    assert own.inside().isnan().all()
    assert own.on_crop().count_nonzero() == 0


@settings(max_examples=30)
@given(
    st.integers(2, 9), st.floats(0, 10), st.floats(4, 40), st.integers(8, 64), st.integers(0, 99)
)
def test_heat_is_the_maps_at_the_cells_and_between_them_at_most(
    cells: int, first: float, step: float, size: int, seed: int
) -> None:
    maps = torch.rand(1, cells, cells, generator=torch.Generator().manual_seed(seed))
    size = max(size, int(first + step * cells))
    crops = torch.zeros(1, 3, size, size)
    box = torch.tensor([[0, 0, size, size]])
    heat = Heat("a", Region.ENTIRE, crops, maps, round(first), round(step), box, crops[:, 0] > 0)
    found = heat.on_crop()
    centres = round(first) + round(step) * torch.arange(cells)
    kept = centres < size
    torch.testing.assert_close(
        found[0][centres[kept]][:, centres[kept]], maps[0][kept][:, kept], rtol=1e-4, atol=1e-4
    )
    assert found.amax() <= maps.amax() + 1e-4
    assert found.amin() >= maps.amin() - 1e-4
    torch.testing.assert_close(heat.on_picture(size, size), found, rtol=1e-4, atol=1e-4)


def test_masks_are_where_the_crops_are_not_black() -> None:
    white = torch.full((1, 3, 240, 240), 255, dtype=torch.uint8)
    for layout in ("masked", "tight"):
        cropper = RegionCropper(100, REGIONS, layout)
        crops, _ = cropper(white, points())
        masks = cropper.masks(points(), SQUARE)
        agree = (crops.amax(2) > 0.5) == masks
        assert agree.float().mean() > 0.985, layout
        assert masks.flatten(2).any(2).all()
    cropper = RegionCropper(100, [Region.ENTIRE], "context")
    around = cropper.masks(points(), SQUARE)[0, 0].float().mean()
    on_canvas = RegionCropper(100, [Region.ENTIRE]).masks(points(), SQUARE)[0, 0].float().mean()
    assert 0.1 < around < on_canvas  # of a box with surroundings, the face is a smaller share


def test_a_batch_is_its_faces_one_by_one() -> None:
    torch.manual_seed(0)
    system = System([member(Capsule(size=64)), member(Bright(), Region.MOUTH)])
    image = torch.stack([picture(240, 240, seed=n) for n in range(3)])
    face = points().repeat(3, 1, 1) + torch.tensor([0.0, 7.0, -5.0])[:, None, None]
    together = heats(system, image, face, batch_size=2)
    for number in range(3):
        alone = heats(system, image[number : number + 1], face[number : number + 1])
        for many, one in zip(together, alone, strict=True):
            assert (many.row, many.region) == (one.row, one.region)
            scale = float(one.maps.amax()) or 1.0
            torch.testing.assert_close(
                many.maps[number] / scale, one.maps[0] / scale, rtol=1e-3, atol=1e-3
            )


def test_region_canvases_have_heat_too() -> None:
    system = System([member(Bright(), region) for region in (Region.EYES, Region.MOUTH)])
    canvas = torch.zeros(1, 3, 100, 160, dtype=torch.uint8)
    canvas[..., 20:40, 30:50] = 255
    (heat,) = heats_segmented(system, canvas, Region.EYES)
    assert heat.region is Region.EYES
    assert middle(heat.on_picture(160, 100)[0]) == pytest.approx((39.5, 29.5), abs=1.0)
    assert float(heat.inside()) > 0.7  # interpolation softens the edge
    (none,) = heats_segmented(system, torch.zeros_like(canvas), Region.EYES)
    assert bool(none.empty)
