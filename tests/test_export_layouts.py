"""Crops of every layout and filter, cut inside the graph, are PyTorch's by either runtime."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import SIZE, Tint, landmarks, member, picture

from deepregions.deploy.export import export
from deepregions.deploy.runtimes import Name, installed, open_file
from deepregions.faces.cropping import Layout
from deepregions.faces.resampling import Resample
from deepregions.system import System, TrainedNetwork
from deepregions.types import Region

CUTS: list[tuple[Layout, Resample, list[Region]]] = [
    ("masked", "bilinear", [*Region]),
    ("masked", "nearest", [Region.ENTIRE, Region.REST]),
    ("tight", "bilinear", [*Region]),
    ("tight", "nearest", [Region.NOSE]),
    ("context", "bilinear", [Region.ENTIRE]),
    ("context", "nearest", [Region.ENTIRE]),
]


def system(layout: Layout, resample: Resample, regions: list[Region]) -> System:
    torch.manual_seed(0)
    return System([cut(region, layout, resample) for region in regions])


def cut(region: Region, layout: Layout, resample: Resample, size: int = SIZE) -> TrainedNetwork:
    made = member(Tint(size).eval(), region)
    return replace(made, layout=layout, resample=resample)


def assert_same(expected: System, path: Path, name: Name) -> None:
    """Two batches of sizes that the graph was not traced with, one face cut by the border."""
    runtime = open_file(name, path)
    # The pictures are noise and the networks multiply by 20: a crop's pixel may differ by 1e-5.
    limit = {"onnxruntime": 1e-4, "openvino": 5e-4}[name]
    for batch, height, width in ((1, 230, 190), (3, 201, 333)):
        image = torch.stack([picture(height, width, seed=seed) for seed in range(batch)])
        points = landmarks(batch) + 0.3
        points[-1, :, 0] -= 50.0 if batch > 1 else 0.0
        with torch.inference_mode():
            right = expected(image, points)
        answers = runtime.run({"image": image.numpy(), "landmarks": points.numpy()})
        assert right.valid[0].sum() == len(expected.members)
        assert answers["valid"].tolist() == right.valid.tolist()
        for key, value in (("logits", right.logits), ("fused", right.fused)):
            torch.testing.assert_close(
                torch.from_numpy(answers[key]), value, rtol=0, atol=limit, equal_nan=True
            )


@pytest.mark.parametrize(
    ("layout", "resample", "regions"), CUTS, ids=[f"{each[0]}-{each[1]}" for each in CUTS]
)
def test_a_layout_is_cut_in_the_graph(
    tmp_path: Path, layout: Layout, resample: Resample, regions: list[Region]
) -> None:
    expected = system(layout, resample, regions)
    export(expected, tmp_path / "m.onnx")
    assert_same(expected, tmp_path / "m.onnx", "onnxruntime")
    if "openvino" not in installed():
        pytest.skip("an extra: pip install openvino")
    assert_same(expected, tmp_path / "m.onnx", "openvino")


def test_layouts_go_together_in_one_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected = System(
        [
            cut(Region.EYES, "masked", "bilinear"),
            cut(Region.NOSE, "tight", "bilinear", 40),
            cut(Region.ENTIRE, "context", "nearest", 48),
        ]
    )
    export(expected, tmp_path / "m.onnx")
    assert_same(expected, tmp_path / "m.onnx", "onnxruntime")
