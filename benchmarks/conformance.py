"""Other people's files, converted, against what their own code computes.

``python benchmarks/conformance.py [--shared ../shared]`` prints a table in Markdown: who wrote the
file, its layout, and the largest difference between our P(fake) and theirs. Keras's layouts are
written by ``tests/keras_writer.py``; Keras itself answers,
at 200 pixels and at 224. Rows that need files beside the checkout are left out without them.

To add rows: a function that yields them, in ``SOURCES``.
"""

from __future__ import annotations

import argparse
import importlib
import lzma
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from deepregions.detectors import Xception
from deepregions.weights.keras import KerasXception, convert_keras

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
        yield Row("tf.keras 1.10 (golden)", "HDF5, flat", "P(fake), 200", partial(_golden, golden))
    sys.path.insert(0, str(ROOT / "tests"))
    writer = importlib.import_module("keras_writer")
    example = writer.Example(200)
    even = writer.Example(EVEN, example.flat.get_weights())
    both = [(each, each.flat.predict(each.x, verbose=0)[:, 0]) for each in (example, even)]
    for (source, layout), write in writer.LAYOUTS.items():
        yield Row(source, layout, "P(fake), 200, 224", partial(_two_classes, write, both))
    for ending in (".h5", ".keras"):
        layout = f"{ending}, flat, names shifted"
        yield Row("Keras 3", layout, "P(fake), 224", partial(_shifted, writer.saved, ending, both))
    yield Row(
        "Keras 3", ".h5, Dense(1, sigmoid)", "P(class 1), 200", partial(_sigmoid, writer, example)
    )
    yield Row(
        "Keras 3",
        ".h5, include_top ImageNet",
        "features, relative, 200",
        partial(_imagenet, writer, example),
    )


SOURCES: tuple[Callable[[Path], Iterator[Row]], ...] = (keras_rows,)


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


def _imagenet(writer: Any, example: Any, folder: Path) -> float:
    path = writer.saved(example.top(1000, "softmax"), folder / "model.h5")
    convert_keras(path).save(folder / "backbone.safetensors")
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
    print("| source | layout | compared | maximum difference |\n|---|---|---|---|", flush=True)
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
