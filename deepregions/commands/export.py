"""``deepregions export``: a trained system as one ONNX file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deepregions.weights.selection import Choice


def export(
    *,
    bundle: list[Path],
    out: Path,
    precision: Literal["fp32", "fp16"] = "fp32",
    only: str | None = None,
    with_crop: bool = False,
    crops_in: bool = False,
) -> int:
    """Writes bundles as one self-contained ONNX file, for machines without PyTorch.

    The file takes photographs of faces and their 68 landmarks, cuts the regions itself, and
    answers with the networks' log-odds, which of them are valid, and the fused log-odds. With
    --crops-in it takes ready crops. Before it is there, it is run by onnxruntime on faces of
    several sizes, good and bad ones, and must answer as PyTorch does.

    Args:
        bundle: Bundle folders, or hf://owner/name; together they are one system.
        out: The file to write, such as model.onnx.
        precision: What the networks compute in. fp32: log-odds differ from PyTorch's by 1e-4 at
            most; fp16: half the size, by 0.1 at most.
        only: One network, as DETECTOR/REGION, such as xception/eyes.
        with_crop: Take photographs and landmarks; this is the default.
        crops_in: Take crops (black outside their region) instead.
    """
    from deepregions.deploy.export import LIMITS
    from deepregions.deploy.export import export as write
    from deepregions.deploy.graph import Calibrated
    from deepregions.errors import UsageError
    from deepregions.weights.selection import choose_members

    if with_crop and crops_in:
        raise UsageError("--with-crop and --crops-in do not go together", "give one of them")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "--out names a file, such as model.onnx")
    chosen = choose_members(_choice(only), bundle)
    system = chosen.system()
    takes: Literal["image", "crops"] = "crops" if crops_in else "image"
    calibration = None if chosen.calibration is None else Calibrated(chosen.calibration)
    parity = write(system, out, takes=takes, precision=precision, calibration=calibration)
    count = len(system.members)
    sys.stdout.write(
        f"{out}: {count} network{'s' if count > 1 else ''}, {system.fusion.rule}, {precision}, "
        f"{out.stat().st_size / 1e6:.1f} MB\n"
        f"against PyTorch: {parity} (at most {LIMITS[precision]:g})\n"
    )
    return 0


def _choice(only: str | None) -> Choice:
    from deepregions.errors import UsageError
    from deepregions.weights.selection import Choice

    if only is None:
        return Choice()
    detector, _, region = only.partition("/")
    if not detector or not region:
        raise UsageError(f"--only is {only!r}", "DETECTOR/REGION, such as xception/eyes")
    return Choice.named(detector=detector, region=region)
