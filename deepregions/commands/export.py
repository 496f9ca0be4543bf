"""``deepregions export``: a trained system as one ONNX file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepregions.commands.options import NetworkOptions
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepregions.deploy.export import Precision
    from deepregions.evaluation.store_faces import FacesOfStore

_NETWORKS = NetworkOptions()


def export(
    *,
    out: Path,
    networks: NetworkOptions = _NETWORKS,
    precision: Literal["fp32", "fp16", "int8", "bf16"] = "fp32",
    store: Path | None = None,
    store_faces: int = 1000,
    allow_drift: bool = False,
    with_crop: bool = False,
    crops_in: bool = False,
) -> int:
    """Writes networks and their fusion as one ONNX file, for machines without PyTorch.

    The file takes photographs of faces and their 68 landmarks, crops the regions itself, and
    returns the networks' log-odds, which of them are valid, and the fused log-odds. With
    --crops-in it takes ready crops. Before the file is kept, onnxruntime runs it on good and bad
    faces of several sizes, and its answers must equal PyTorch's. With --store, verdicts on the
    store's evaluation part must stay the same too: the AUC within 0.002, and at most 0.5 % of
    faces on the other side of the threshold.

    Args:
        out: The file to write, such as model.onnx.
        networks: Which networks are exported, as one system.
        precision: Number format. fp32: log-odds within 1e-4 of PyTorch's; fp16: half the size,
            within 0.1, or checked with --store; int8: a quarter of the size, needs --store; bf16:
            the fp32 file, checked for OpenVINO's bfloat16, needs --store and --crops-in.
        store: A face store with genuine and fake faces to check on; int8 is calibrated on its
            development part.
        store_faces: The largest number of faces used of each part, drawn at random.
        allow_drift: Write the file even if verdicts change.
        with_crop: Take photographs and landmarks; this is the default.
        crops_in: Take crops (black outside their region) instead.
    """
    from deepregions.commands import checks
    from deepregions.deploy.export import export as write
    from deepregions.deploy.graph import CalibrationModule

    checks.positive(store_faces=store_faces)
    if with_crop and crops_in:
        raise UsageError("--with-crop and --crops-in do not go together", "give one of them")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "--out names a file, such as model.onnx")
    with checks.counted("checking") as show:
        source = None if store is None else _faces(store, store_faces, show)
        chosen = networks.load()
        system = chosen.system()
        found = write(
            system,
            out,
            takes="crops" if crops_in else "image",
            precision=precision,
            calibration=None
            if chosen.calibration is None
            else CalibrationModule(chosen.calibration),
            source=source,
            allow_drift=allow_drift,
        )
    count = len(system.members)
    sys.stdout.write(
        f"{out}: {count} network{'s' if count > 1 else ''}, {system.fusion.rule}, {precision}, "
        f"{out.stat().st_size / 1e6:.1f} MB\n"
        f"against PyTorch: {found.parity}{_limit(precision, store)}\n"
    )
    if found.drift is not None:
        sys.stdout.write(f"{'drift' if found.drift.small else 'TOO MUCH DRIFT'}: {found.drift}\n")
    return 0


def _faces(store: Path, most: int, show: Callable[[int, int, int], None]) -> FacesOfStore:
    from deepregions.data.store import FaceStore
    from deepregions.evaluation.store_faces import FacesOfStore

    return FacesOfStore(
        FaceStore(store), most=most, progress=lambda done, total: show(done, total, done)
    )


def _limit(precision: Precision, store: Path | None) -> str:
    import math

    from deepregions.deploy.export import LIMITS, LIMITS_WITH_FACES

    limit = (LIMITS if store is None else LIMITS_WITH_FACES)[precision]
    return "" if math.isinf(limit) else f" (at most {limit:g})"
