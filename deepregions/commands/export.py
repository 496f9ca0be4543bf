"""``deepregions export``: a trained system as one ONNX file."""

from math import isinf
from pathlib import Path
from typing import Literal

from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions, check_stores
from deepregions.errors import UsageError


def export(
    *,
    out: Path | None = None,
    networks: NetworkOptions,
    precision: Literal["fp32", "fp16", "int8", "bf16"] = "fp32",
    store: Path | None = None,
    store_faces: int = 1000,
    allow_drift: bool = False,
    with_crop: bool = False,
    crops_in: bool = False,
    standalone: bool = False,
    into_bundle: bool = False,
) -> None:
    """Writes networks and their fusion as one ONNX file, for machines without PyTorch.

    The file takes photographs of faces and their 68 landmarks, crops the regions itself, and
    returns the networks' log-odds, which of them are valid, and the fused log-odds. With
    --crops-in it takes ready crops. With --standalone it is all that `deepregions detect --bundle
    FILE` needs, without PyTorch. Before the file is kept, onnxruntime runs it on good and bad
    faces of several sizes, and its answers must equal PyTorch's. With --store, verdicts on the
    store's evaluation part must stay the same too: the AUC within 0.002, and at most 0.5 % of
    faces on the other side of the threshold.

    Args:
        out: The file to write, such as model.onnx; not with --into-bundle.
        networks: Which networks are exported, as one system.
        precision: Number format. fp32: log-odds within 1e-4 of PyTorch's; fp16: half the size,
            within 0.1, or checked with --store; int8: a quarter of the size, needs --store; bf16:
            the fp32 file, checked for OpenVINO's bfloat16, needs --store and --crops-in.
        store: A face store with genuine and fake faces to check on; int8 is calibrated on its
            development part.
        store_faces: At most this many faces of each part are used, drawn at random.
        allow_drift: Write the file even if verdicts change.
        with_crop: Take photographs and landmarks; this is the default.
        crops_in: Take crops (black outside their region) instead.
        standalone: Take faces as detect cuts them out, and also measure how well each can be
            judged; calibration, thresholds and limits are in the file.
        into_bundle: Write what --standalone writes into the bundle itself, as graph.onnx, which
            shares the bundle's weights: detect, serve and archive then score without PyTorch on
            the CPU.
    """
    check_stores(store)
    wanted = {"with_crop": with_crop, "crops_in": crops_in, "standalone": standalone}
    checks.exclude("give one of them", **wanted, into_bundle=into_bundle)
    checks.exclude("the graph has its place", out=out is not None, into_bundle=into_bundle)
    checks.exclude("a graph computes in float32", store=store is not None, into_bundle=into_bundle)
    folder = networks.folder() if into_bundle else None

    from deepregions.data.store import FaceStore
    from deepregions.deploy.export import LIMITS, LIMITS_WITH_FACES
    from deepregions.deploy.export import export as write
    from deepregions.deploy.exported import about_bundle
    from deepregions.deploy.graph import CalibrationModule
    from deepregions.evaluation.store_faces import FacesOfStore
    from deepregions.weights.manifest import GRAPH

    checks.positive(store_faces=store_faces)
    if folder is not None:
        out, standalone = folder / GRAPH, True
    if out is None:
        raise UsageError("export needs a file to write", "--out model.onnx")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", "--out names a file, such as model.onnx")
    with checks.counted("checking") as show:
        source = None
        if store is not None:
            source = FacesOfStore(FaceStore(store), most=store_faces, progress=show)
        chosen = networks.load()
        system, calibration = chosen.system(), None if standalone else chosen.calibration
        found = write(
            system,
            out,
            takes="faces" if standalone else "crops" if crops_in else "image",
            precision=precision,
            calibration=None if calibration is None else CalibrationModule(calibration),
            about=about_bundle(chosen) if standalone else None,
            source=source,
            allow_drift=allow_drift,
            bundle=folder,
        )
    count = len(system.members)
    limit = (LIMITS if store is None else LIMITS_WITH_FACES)[precision]
    checks.print_lines(
        f"{out}: {count} network{'s' if count > 1 else ''}, {system.fusion.rule}, {precision}, "
        f"{out.stat().st_size / 1e6:.1f} MB",
        f"against PyTorch: {found.parity}" + ("" if isinf(limit) else f" (at most {limit:g})"),
    )
    if found.drift is not None:
        checks.print_lines(f"{'drift' if found.drift.small else 'TOO MUCH DRIFT'}: {found.drift}")
