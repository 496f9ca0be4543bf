"""Converts an Xception that was trained in Keras; see ``--help``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save

from deepregions.commands import checks
from deepregions.commands.cli import run_program
from deepregions.errors import UsageError
from deepregions.files import atomic_file

if TYPE_CHECKING:
    from deepregions.weights.convert.keras import KerasXception


def convert_keras(
    model: Path,
    out: Path | None = None,
    *,
    inspect: bool = False,
    verify: list[Path] | None = None,
    fake_index: int | None = None,
    size: int | None = None,
) -> int:
    """Converts an Xception that was trained in Keras to safetensors, without Keras.

    Reads HDF5 of Keras 2, tf.keras and Keras 3, whole models and weights alone, and .keras
    archives; nothing in them is executed. Says what it found. A model with ImageNet's 1000
    classes, or without any, becomes a file for --model.init_args.backbone_file.

    Args:
        model: The Keras file.
        out: The file to write, OUT.safetensors.
        inspect: Only list what is in the file; nothing is written.
        verify: Photographs to score with the converted network, resized to its input by nearest
            pixel, like Keras's default.
        fake_index: Which class of the model is fake, 0 or 1. By default it is asked for on a
            terminal, and elsewhere it is 0, as in the paper's models.
        size: Height and width of the network's input, if the file does not say; 200 by default.
    """
    from deepregions.weights.convert.keras import convert_keras as convert
    from deepregions.weights.convert.keras import inspect_keras

    report = inspect_keras(model)
    if inspect:
        order = ["class order: not in the file; give it by --fake-index"] if report.detects else []
        checks.print_lines(f"file: {model}", *_lines(report), *order, *_table(report))
        return 0
    if out is None:
        raise UsageError("there is no file to write", "name it OUT.safetensors, or pass --inspect")
    if verify and not report.detects:
        raise UsageError(f"{model} scores no fakes: its head is {report.head}", "no --verify")
    if fake_index is None and report.detects and sys.stdin.isatty():
        fake_index = _ask(report)
    converted = convert(model, fake_index=fake_index, size=size)
    _save(converted, out)
    checks.print_lines(f"file: {model}", *_lines(converted))
    if converted.fake_index is not None:
        checks.print_lines(f"class order: {('fake, real', 'real, fake')[converted.fake_index]}")
    checks.print_lines(f"written: {out}")
    if verify:
        _verify(converted, verify)
    return 0


def _lines(found: KerasXception) -> list[str]:
    """Returns what was found in words, without the single arrays."""
    count = len(found.arrays)
    pixels = {"unit": "x/255, in the model", "centred": "x/127.5 - 1, in the model"}
    return [
        f"format: {found.format}",
        f"input: {f'{found.size} x {found.size}' if found.size else 'any size'}, "
        f"{pixels.get(found.normalisation or '', 'no rescaling in the model')}",
        f"head: {found.head}",
        f"batch normalisation: epsilon {found.bn_eps:g}, momentum {1 - found.bn_momentum:g}",
        f"arrays: {f'all {count}' if found.classes else f'{count}, no head,'} mapped, "
        "none left over, every shape as Xception's",
        *(f"note: {note}" for note in found.notes),
    ]


def _save(found: KerasXception, path: Path) -> None:
    """Writes the state as safetensors, with what it is and where it is from as metadata.

    Raises:
        UsageError: The name does not end in ``.safetensors``.
        OSError: It cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no safetensors file", "name it OUT.safetensors")
    metadata = {
        "class": "Xception" if found.detects else "Xception, backbone only",
        "settings": json.dumps(found.settings),
        "fake_index": json.dumps(found.fake_index),
        "head": found.head,
        "format": found.format,
        "source": found.source,
        "source_sha256": found.sha256,
    }
    with atomic_file(path) as partial:
        partial.write_bytes(save(dict(found.state), metadata))


def _verify(converted: KerasXception, paths: Sequence[Path]) -> None:
    import numpy as np
    import torch
    from PIL import Image

    from deepregions.media import find_media
    from deepregions.media.images import read_image

    detector = converted.detector()
    side = (detector.size, detector.size)
    for path in find_media(paths):
        pixels = Image.fromarray(read_image(path))
        pixels = pixels.resize(side, Image.Resampling.NEAREST)
        x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            score = detector(x).sigmoid().item()
        checks.print_lines(f"{path}: score {score:.6f}")


def _ask(report: KerasXception) -> int:
    """Asks which class is fake, until the answer is one."""
    sys.stderr.write(
        f"The head is {report.head}. Keras numbers classes by the names of their folders: 0 is "
        "fake if these were called fake and real.\n"
    )
    while True:
        sys.stderr.write("Which class is fake, 0 or 1? [0] ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip()
        if answer in ("", "0", "1"):
            return int(answer or 0)


def _table(report: KerasXception) -> list[str]:
    width = max(len(array.theirs) for array in report.arrays)
    return [
        f"{array.theirs:{width}}  {'x'.join(map(str, array.shape)):>16}  {array.ours}"
        for array in report.arrays
    ]


if __name__ == "__main__":
    sys.exit(run_program(convert_keras, sys.argv[1:]))
