"""Other people's files, converted, against what their own code computes.

``python benchmarks/conformance.py [--shared ../shared]`` prints a table in Markdown: who wrote the
file, its layout, and the largest difference between the two scores. Keras's layouts are
written by ``tests/keras_writer.py``, and Keras itself answers, at 200 pixels and at 224. Other
programs' checkpoints are written by ``tests/foreign.py``, which also computes what they compute.
``golden`` are files and scores of the original code. Rows that need files beside the checkout are
left out without them.

To add rows: a function that yields them, in ``SOURCES``.
"""

from __future__ import annotations

import argparse
import importlib
import lzma
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from deepregions.detectors import Xception
from deepregions.system import TrainedNetwork
from deepregions.weights.convert.importing import Importer
from deepregions.weights.convert.keras import KerasXception, convert_keras

ROOT = Path(__file__).resolve().parents[1]
EVEN = 224


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        source: Who wrote the file.
        layout: Which format, and how the model lies in it.
        compared: What is compared, with how many pixels.
        measure: Returns the largest difference; it may write into the folder that it is given.
    """

    source: str
    layout: str
    compared: str
    measure: Callable[[Path], float]


def keras_rows(shared: Path) -> Iterator[Row]:
    """Yields every layout of Keras at an odd and an even size, and the golden file."""
    golden = shared / "golden"
    if golden.is_dir():
        yield Row("tf.keras 1.10 (golden)", "HDF5, flat", "score, 200", partial(_golden, golden))
    sys.path.insert(0, str(ROOT / "tests"))
    writer = importlib.import_module("keras_writer")
    example = writer.Example(200)
    even = writer.Example(EVEN, example.flat.get_weights())
    both = [(each, each.flat.predict(each.x, verbose=0)[:, 0]) for each in (example, even)]
    for (source, layout), write in writer.LAYOUTS.items():
        yield Row(source, layout, "score, 200, 224", partial(_two_classes, write, both))
    for ending in (".h5", ".keras"):
        layout = f"{ending}, flat, names shifted"
        yield Row("Keras 3", layout, "score, 224", partial(_shifted, writer.saved, ending, both))
    yield Row(
        "Keras 3",
        ".h5, Dense(1, sigmoid)",
        "score of class 1, 200",
        partial(_sigmoid, writer, example),
    )
    yield Row(
        "Keras 3",
        ".h5, include_top ImageNet",
        "features, relative, 200",
        partial(_imagenet_features, writer, example),
    )


Imported = tuple[Path, torch.Tensor, torch.Tensor, dict[str, Any]]
"""A checkpoint, images (N, 3, S, S) in [0, 1], the original's score, and options of import."""


def torch_rows(shared: Path) -> Iterator[Row]:
    """Yields the checkpoints that ``deepregions import`` takes."""
    golden = shared / "golden"
    if golden.is_dir():
        for name, scores in (("Capsule", "capsule_score"), ("DSP-FWA", "dsp_score")):
            make = partial(_bida, golden, name, scores)
            yield Row("BiDA (golden)", f"{name}_UADFV_eyes.pt", "score, 200", _imported(make))
        yield Row(
            "BiDA (golden)",
            "Xception_UADFV_eyes.hdf5",
            "score, 200",
            _imported(partial(_bida_keras, golden)),
        )
    sys.path.insert(0, str(ROOT / "tests"))
    foreign = importlib.import_module("foreign")
    for source, layout, size, make in (
        ("Capsule-Forensics-v2", "capsule_21.pt, 2 classes", 300, partial(_capsule, foreign, 2)),
        ("Capsule-Forensics-v2", "capsule_13.pt, 4 classes", 300, partial(_capsule, foreign, 4)),
        ("DeepfakeBench", "capsule_net_best.pth", 256, partial(_bench_capsule, foreign)),
        ("DSP-FWA", "SPP-res50.pth", 224, partial(_sppnet, foreign)),
        ("FaceForensics++", "all_c23.p, pickled module", 299, partial(_face_forensics, foreign)),
        ("DeepfakeBench", "xception_best.pth", 256, partial(_bench_xception, foreign)),
    ):
        yield Row(source, layout, f"score, {size}", _imported(make))


SOURCES: tuple[Callable[[Path], Iterator[Row]], ...] = (torch_rows, keras_rows)


def _imported(make: Callable[[Path], Imported]) -> Callable[[Path], float]:
    def measure(folder: Path) -> float:
        path, images, expected, options = make(folder)
        member = Importer(**options)(path)
        if not isinstance(member, TrainedNetwork):
            raise TypeError(f"{path} is no network that judges")
        with torch.inference_mode():
            return float((member.detector(images).sigmoid() - expected).abs().max())

    return measure


def _unpacked(golden: Path, name: str, path: Path) -> Path:
    path.write_bytes(lzma.decompress((golden / f"{name}.xz").read_bytes()))
    return path


def _images(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _bida(golden: Path, detector: str, scores: str, folder: Path) -> Imported:
    theirs = np.load(golden / "torch_outputs.npz")
    name = f"{detector}_UADFV_eyes.pt"
    path = _unpacked(golden, name, folder / name)
    vgg = _unpacked(golden, "vgg19_features.pth", folder / "vgg19_features.pth")
    options = {"vgg": vgg} if detector == "Capsule" else {}
    return path, _images(theirs["images"]), torch.from_numpy(theirs[scores]), options


def _bida_keras(golden: Path, folder: Path) -> Imported:
    theirs = np.load(golden / "bida_tf110_flat.npz")
    path = _unpacked(golden, "bida_tf110_flat.hdf5", folder / "Xception_UADFV_eyes.hdf5")
    return path, _images(theirs["x"]), torch.from_numpy(theirs["y"][:, 0]), {}


def _imagenet(x: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


def _capsule(foreign: Any, classes: int, folder: Path) -> Imported:
    network, images = foreign.ForeignCapsule(classes, seed=classes), foreign.pictures(300)
    path = folder / ("capsule_21.pt" if classes == 2 else "capsule_13.pt")
    torch.save(network.saved(), path)
    torch.save(network.saved_vgg(), folder / "vgg.pth")
    with torch.inference_mode():
        expected = network(_imagenet(images)).softmax(1)[:, 1:].sum(1)
    return path, images, expected, {"vgg": folder / "vgg.pth"}


def _bench_capsule(foreign: Any, folder: Path) -> Imported:
    network, images = foreign.ForeignCapsule(seed=2), foreign.pictures(256)
    path = folder / "capsule_net_best.pth"
    torch.save(network.saved(vgg="vgg_ext.vgg_1.", prefix="module."), path)
    with torch.inference_mode():
        return path, images, network(images * 2 - 1).softmax(1)[:, 1], {}


def _sppnet(foreign: Any, folder: Path) -> Imported:
    network, images = foreign.ForeignSPPNet(), foreign.pictures(224)
    torch.save({"epoch": 19, "net": network.saved()}, folder / "SPP-res50.pth")
    blue_first = images.flip(1) * 255 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    with torch.inference_mode():
        expected = network(blue_first).softmax(1)[:, 0]
    return folder / "SPP-res50.pth", images, expected, {}


def _face_forensics(foreign: Any, folder: Path) -> Imported:
    torch.manual_seed(3)
    network, images = foreign.settle(foreign.TransferModel(dropout=True)), foreign.pictures(299)
    with torch.inference_mode():
        expected = network(images * 2 - 1).softmax(1)[:, 1]
    del network.model.features  # not part of what the program saves
    with foreign.posing(foreign.FACE_FORENSICS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules without source code
        torch.save(network, folder / "all_c23.p")
    return folder / "all_c23.p", images, expected, {}


def _bench_xception(foreign: Any, folder: Path) -> Imported:
    torch.manual_seed(4)
    network, images = foreign.settle(foreign.CadeneXception()), foreign.pictures(256)
    state = {f"module.backbone.{key}": value for key, value in network.state_dict().items()}
    torch.save(state, folder / "xception_best.pth")
    with torch.inference_mode():
        return folder / "xception_best.pth", images, network(images * 2 - 1).softmax(1)[:, 1], {}


def _golden(golden: Path, folder: Path) -> float:
    path = folder / "golden.hdf5"
    path.write_bytes(lzma.decompress((golden / "bida_tf110_flat.hdf5.xz").read_bytes()))
    theirs = np.load(golden / "bida_tf110_flat.npz")
    x = theirs["x"].astype(np.float32) / 255
    return _difference(convert_keras(path).detector(), x, theirs["y"][:, 0])


def _two_classes(
    write: Callable[[Any, Path], Path], both: list[tuple[Any, npt.NDArray[Any]]], folder: Path
) -> float:
    converted = convert_keras(write(both[0][0], folder), fake_index=0)
    return max(
        _difference(_resized(converted, example.size), example.x, answer)
        for example, answer in both
    )


def _shifted(
    saved: Callable[[Any, Path], Path],
    ending: str,
    both: list[tuple[Any, npt.NDArray[Any]]],
    folder: Path,
) -> float:
    example, answer = both[1]
    converted = convert_keras(saved(example.flat, folder / f"model{ending}"), fake_index=0)
    return _difference(converted.detector(), example.x, answer)


def _sigmoid(writer: Any, example: Any, folder: Path) -> float:
    kernel, bias = example.dense.get_weights()
    model = example.head(example.top(1, "sigmoid"), [kernel[:, 1:], bias[1:]])
    converted = convert_keras(writer.saved(model, folder / "model.h5"), fake_index=1)
    return _difference(converted.detector(), example.x, model.predict(example.x, verbose=0)[:, 0])


def _imagenet_features(writer: Any, example: Any, folder: Path) -> float:
    path = writer.saved(example.top(1000, "softmax"), folder / "model.h5")
    save_file(dict(convert_keras(path).state), folder / "backbone.safetensors")
    detector = Xception(200, backbone_file=str(folder / "backbone.safetensors")).eval()
    theirs = example.features.predict(example.x, verbose=0)
    with torch.inference_mode():
        ours = detector.backbone(torch.from_numpy(example.x).permute(0, 3, 1, 2)).numpy()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def _resized(converted: KerasXception, size: int) -> Xception:
    """Returns the network for another size; its numbers do not depend on it."""
    detector = Xception(**{**converted.settings, "size": size})  # type: ignore[arg-type]
    detector.load_state_dict(converted.state)
    return detector.eval()


def _difference(detector: Xception, x: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    with torch.inference_mode():
        ours = detector(torch.from_numpy(x).permute(0, 3, 1, 2)).sigmoid().numpy()
    return float(np.abs(ours - theirs).max())


def main() -> None:
    """Prints the table; exits with 1 if a difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--limit", type=float, default=1e-4)
    options = parser.parse_args()
    worst = 0.0
    print("| source | layout | compared | largest difference |\n|---|---|---|---|", flush=True)
    for source in SOURCES:
        for row in source(options.shared):
            with tempfile.TemporaryDirectory() as folder:
                difference = row.measure(Path(folder))
            worst = max(worst, difference)
            print(
                f"| {row.source} | {row.layout} | {row.compared} | {difference:.1e} |", flush=True
            )
    sys.exit(worst > options.limit)


if __name__ == "__main__":
    main()
