"""From networks and the names that a user gives (landmark backend, device) to an analyser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from deepregions import __version__
from deepregions.deploy.bundle_graph import find_graph, is_current
from deepregions.devices import choose_device, has_torch
from deepregions.errors import UsageError
from deepregions.faces.backends import landmark_detector
from deepregions.faces.landmarks import LandmarkDetector
from deepregions.faces.thresholds import Gates
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.pooling import Pooling
from deepregions.media import Sampling
from deepregions.pipeline.analyser import Analyser
from deepregions.pipeline.scorer import PatchScorer
from deepregions.types import Region
from deepregions.weights.bundle_folder import exported_file
from deepregions.weights.manifest import GRAPH_HINT, OperatingPoint, false_alarms

if TYPE_CHECKING:
    from deepregions.deploy.exported import ExportedSystem
    from deepregions.deploy.runtimes import Name, Precision, Runtime
    from deepregions.system import System, TrainedNetwork
    from deepregions.weights.bundle import Bundle

logger = logging.getLogger(__name__)

_LIBRARIES = ("av", "pillow", "opencv-python")  # whose numbers a score is made of


def load_networks(
    bundles: Sequence[Path] | None = None,
    *,
    detector: str | None = None,
    region: str | None = None,
    database: str | None = None,
    as_graph: bool = True,
) -> Bundle | Path:
    """Loads the networks that are wanted; returns them, or what was exported, for what runs it.

    That is an exported file, or with ``as_graph`` the folder of a bundle that has a graph.

    Raises:
        UsageError: There are none, a name is unknown, some of an exported file are wanted, or
            PyTorch is not installed and the networks need it.
        BundleError: A bundle cannot be loaded.
        AssetError: A bundle cannot be had from the Hub.
    """
    wanted = {"detector": detector, "region": region, "database": database}
    if file := exported_file(bundles or ()):
        if any(wanted.values()):
            raise UsageError(f"{file} is used as a whole", "choose when it is exported")
        return file
    if as_graph and not any(wanted.values()) and (folder := find_graph(bundles)):
        if is_current(folder):
            return folder
        said = "deepregions: the graph of %s is damaged or of another version of it: not used (%s)"
        logger.warning(said, folder, GRAPH_HINT)
    if not has_torch():
        raise UsageError(
            "networks that were not exported need PyTorch, which is not installed",
            "name a bundle with a graph, a file of deepregions export --standalone, or pip install "
            "deepregions",
        )
    from deepregions.weights.selection import Choice, choose_members  # noqa: PLC0415 - torch

    return choose_members(Choice.named(**wanted), bundles)


def build_analyser(
    networks: Sequence[TrainedNetwork] | Path,
    *,
    landmarks: str | None,
    device: str = "auto",
    sampling: Sampling | None = None,
    rules: Pooling | None = None,
    gates: Gates | None = None,
    batch_size: int = 16,
    pictures: bool | Literal["videos"] = True,
    runtime: Name | Literal["auto"] | None = None,
    precision: Precision = "fp32",
    command: Sequence[str] = (),
    max_false_alarms: float | None = None,
) -> Analyser:
    """Loads what it takes to score; the analyser's facts are what results say of it.

    A bundle among the networks also brings a fusion and a calibration, as does an exported file.
    Landmarks are None where inputs are region canvases, on which no face is searched. The runtime
    is PyTorch by default, or onnxruntime for what was exported; ``"auto"`` is the fastest of those
    that are installed. ``bf16`` is for OpenVINO only. Results name the ``command``, and say on
    which side they are of the bundle's threshold for ``max_false_alarms``, a share.

    Raises:
        UsageError: No network, or a device, backend, runtime or threshold that does not exist.
        UnreadableError: The exported file is none of ours.
        UnsupportedError: This CPU has no bfloat16.
        MissingExtraError: The runtime is not installed.
        ExportError: The networks cannot be exported for it.
        AssetError: The landmark backend's files cannot be had.
    """
    sampling, rules, gates = sampling or Sampling(), rules or Pooling(), gates or Gates()
    if isinstance(networks, Path):
        used = _exported(networks, gates, runtime, precision)
        device = "cpu" if device == "auto" else device  # for landmarks
    else:
        used = _modules(networks, gates, device, runtime or "torch", precision)
    find = None if landmarks is None else landmark_detector(landmarks, device, gates.min_size)
    bundle = used.bundle
    calibration, doubt = _calibration(bundle, used.scorer.regions, find, rules)
    point = None
    if max_false_alarms is not None:
        point = _operating_point(bundle, max_false_alarms, rules, doubt)
    versions = {name: metadata.version(name) for name in _LIBRARIES} | used.versions
    facts = {
        "models": used.models,
        "fusion": used.fusion,
        "fusion_sha256": used.fusion_sha256,
        "rules": {"faces": rules.frame_rule, "tracks": rules.track_rule},
        "calibration": "uncalibrated" if calibration is None else calibration.facts(),
        **({"uncalibrated": doubt} if doubt else {}),
        **({} if point is None else {"operating_point": asdict(point)}),
        **({"limits": bundle.facts.limits} if bundle.facts.limits else {}),
        **({} if find is None else {"gates": asdict(gates)}),
        "landmarks": None if find is None else {"name": find.name, "version": find.version},
        "device": used.device,
        **({"command": list(command)} if command else {}),
        "versions": versions,
        "deepregions": __version__,
        "runtime": used.runtime,
        "precision": precision,
    }
    return Analyser(
        used.scorer,
        find,
        sampling=sampling,
        rules=rules,
        batch_size=batch_size,
        pictures=pictures,
        warnings=(
            *bundle.facts.cautions(),
            *bundle.notes,
            *_mismatches(used.models, calibration, find),
        ),
        degradation=bundle.facts.degradation,
        calibration=calibration,
        facts=facts,
    )


class _Used(NamedTuple):
    """What scores, and what results say of it."""

    scorer: PatchScorer
    bundle: Bundle | ExportedSystem
    models: list[dict[str, Any]]
    fusion: str
    fusion_sha256: str
    device: str
    runtime: str
    versions: dict[str, str]


def _modules(
    networks: Sequence[TrainedNetwork],
    gates: Gates,
    device: str,
    runtime: Name | Literal["auto"],
    precision: Precision,
) -> _Used:
    """Networks of PyTorch, whatever runs them."""
    from deepregions.pipeline.face_scorer import FaceScorer  # noqa: PLC0415 - torch
    from deepregions.weights.bundle import Bundle  # noqa: PLC0415

    where = choose_device(device)
    bundle = networks if isinstance(networks, Bundle) else Bundle(tuple(networks))
    system = bundle.system()
    versions = {name: metadata.version(name) for name in ("torch", "timm")}
    ran_by = "torch"
    if runtime != "torch" or precision != "fp32":
        system, used = _run_by(system, runtime, precision)
        ran_by, versions[used.name] = used.name, used.version
    fusion = system.fusion.rule, system.fusion.sha256
    scorer = FaceScorer(system, gates, where)
    return _Used(scorer, bundle, system.network_facts(), *fusion, str(where), ran_by, versions)


def _exported(
    file: Path, gates: Gates, runtime: Name | Literal["auto"] | None, precision: Precision
) -> _Used:
    """An exported file, or a bundle's graph, on the CPU."""
    from deepregions.deploy.exported import ExportedSystem  # noqa: PLC0415 - onnx, an extra
    from deepregions.pipeline.exported_scorer import ExportedScorer  # noqa: PLC0415

    if precision != "fp32":
        raise UsageError(f"{file} is run in fp32", "--precision fp32")
    system = ExportedSystem(file, "openvino" if runtime == "openvino" else "onnxruntime")
    ran_by = system.runtime
    scorer, versions = ExportedScorer(system, gates), {str(ran_by.name): ran_by.version}
    fusion = system.rule, system.fusion_sha256
    return _Used(scorer, system, system.network_facts(), *fusion, "cpu", ran_by.name, versions)


def _run_by(
    system: System, name: Name | Literal["auto"], precision: Precision
) -> tuple[System, Runtime]:
    """Lets another runtime score; a precision that changes scores is said."""
    # They load onnx, which is an extra, and slow.
    from deepregions.deploy.runtime_system import RuntimeSystem, fastest, run_by  # noqa: PLC0415
    from deepregions.deploy.runtimes import check_precision  # noqa: PLC0415

    check_precision(name, precision)
    if precision == "bf16":
        logger.warning(
            "deepregions: bfloat16 changes scores a little (deepregions export --precision bf16 "
            "--crops-in --store DIR measures what that does to verdicts)"
        )
    if name == "auto":
        runtime, rates = fastest(system)
        tried = ", ".join(f"{each} {rate:.1f}" for each, rate in rates.items())
        logger.warning("deepregions: runtime %s (faces/s: %s)", runtime.name, tried)
    else:
        runtime = run_by(name, system, precision=precision)
    return RuntimeSystem(system, runtime), runtime


def _calibration(
    bundle: Bundle | ExportedSystem,
    regions: Sequence[Region],
    find: LandmarkDetector | None,
    rules: Pooling,
) -> tuple[Calibration | None, str]:
    """Returns the bundle's calibration, if it holds here, or why it does not."""
    calibration = bundle.calibration
    if calibration is None:
        return None, ""
    mismatch = calibration.quantity.mismatch(bundle.quantity("video", rules))
    if why := mismatch or calibration.withheld:
        return None, why
    if find is None and len(regions) > 1:
        return None, f"the calibration is for {', '.join(regions)} together"
    return calibration, ""


def _operating_point(
    bundle: Bundle | ExportedSystem, rate: float, rules: Pooling, doubt: str
) -> OperatingPoint:
    """Returns the bundle's threshold for a rate of false alarms, if it holds here."""
    points = [each for each in bundle.facts.operating_points if each.level == "video"]
    if not points:
        raise UsageError(
            "these networks have no thresholds for false alarms",
            "`deepregions fuse` finds them and writes a bundle that has them",
        )
    found = next((each for each in points if each.name == false_alarms(rate)), None)
    if found is None:
        raise UsageError(
            f"there is no threshold for {false_alarms(rate)} (--max-false-alarms {rate:g})",
            f"the bundle has those for {', '.join(each.name for each in points)}; 0.01 means 1 %",
        )
    if doubt or (bundle.calibration is None and rules != Pooling()):
        why = doubt or "they were found with the default rules of --pool"
        raise UsageError(f"the bundle's thresholds do not hold here: {why}")
    return found


def _mismatches(
    models: Sequence[Mapping[str, Any]],
    calibration: Calibration | None,
    find: LandmarkDetector | None,
) -> Iterator[str]:
    """Networks see other crops than they were trained on where landmarks are another backend's."""
    if find is None:
        return
    backend = ((calibration and calibration.development.landmarks) or {}).get("name")
    calibrated = str(backend or find.name)
    others: dict[str, list[str]] = {calibrated: []}
    for model in models:
        backend = model["landmarks"]
        trained_on = backend.get("name") if isinstance(backend, dict) else None
        others.setdefault(str(trained_on or find.name), []).append(model["name"])
    for name, trained in others.items():
        if name == find.name:
            continue
        told = ["the likelihood ratio was calibrated"] if name == calibrated else []
        if trained:
            shown = trained[0] if len(trained) == 1 else f"{len(trained)} networks"
            told.append(f"{shown} {'was' if len(trained) == 1 else 'were'} trained")
        yield (
            f"faces and landmarks are found by {find.name} here; {' and '.join(told)} on "
            f"landmarks by {name}, so this answer may be off"
        )
