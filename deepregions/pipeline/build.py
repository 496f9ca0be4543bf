"""From networks and the names that a user gives (landmark backend, device) to an analyser."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from deepregions import __version__
from deepregions.devices import choose_device
from deepregions.errors import UsageError
from deepregions.faces.backends import landmark_detector
from deepregions.faces.landmarks import LandmarkDetector
from deepregions.faces.thresholds import Gates
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.pooling import Pooling
from deepregions.media import Sampling
from deepregions.pipeline.analyser import Analyser
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.system import System, TrainedNetwork
from deepregions.weights.bundle import Bundle
from deepregions.weights.manifest import OperatingPoint, false_alarms

if TYPE_CHECKING:
    from deepregions.deploy.runtimes import Name, Precision, Runtime

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "timm", "av", "pillow", "opencv-python")  # whose numbers a score is made of


def build_analyser(
    members: Sequence[TrainedNetwork],
    *,
    landmarks: str | None,
    device: str = "auto",
    sampling: Sampling | None = None,
    rules: Pooling | None = None,
    gates: Gates | None = None,
    batch_size: int = 16,
    pictures: bool = True,
    runtime: Name | Literal["auto"] = "torch",
    precision: Precision = "fp32",
    command: Sequence[str] = (),
    max_false_alarms: float | None = None,
) -> Analyser:
    """Loads what it takes to score; the analyser's facts are what results say of it.

    A bundle among the networks also brings a fusion and a calibration. Landmarks are None where
    inputs are region canvases, on which no face is searched. The runtime ``"auto"`` is the fastest
    of those that are installed; ``bf16`` is for OpenVINO only. Results name the ``command``, and
    say on which side they are of the bundle's threshold for ``max_false_alarms``, a share.

    Raises:
        UsageError: No network, or a device, backend, runtime or threshold that does not exist.
        UnsupportedError: This CPU has no bfloat16.
        MissingExtraError: The runtime is not installed.
        ExportError: The networks cannot be exported for it.
        AssetError: The landmark backend's files cannot be had.
    """
    where = choose_device(device)
    bundle = members if isinstance(members, Bundle) else Bundle(tuple(members))
    system = bundle.system()
    sampling, rules, gates = sampling or Sampling(), rules or Pooling(), gates or Gates()
    find = None if landmarks is None else landmark_detector(landmarks, device, gates.min_size)
    calibration, doubt = _calibration(bundle, system, find, rules)
    point = None
    if max_false_alarms is not None:
        point = _operating_point(bundle, max_false_alarms, rules, doubt)
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    ran_by = "torch"
    if runtime != "torch" or precision != "fp32":
        system, used = _run_by(system, runtime, precision)
        ran_by, versions[used.name] = used.name, used.version
    facts = {
        "models": [
            {
                "name": member.name,
                "detector": system.rows[row],
                "region": str(member.region),
                "database": member.database,
                "sha256": member.sha256,
                "landmarks": member.training.get("landmarks"),
            }
            for member, (row, _) in zip(system.members, system.cells, strict=True)
        ],
        "fusion": system.fusion.rule,
        "fusion_sha256": system.fusion.sha256,
        "rules": {"faces": rules.frame_rule, "tracks": rules.track_rule},
        "calibration": "uncalibrated" if calibration is None else calibration.facts(),
        **({"uncalibrated": doubt} if doubt else {}),
        **({} if point is None else {"operating_point": asdict(point)}),
        **({"limits": bundle.facts.limits} if bundle.facts.limits else {}),
        **({} if find is None else {"gates": asdict(gates)}),
        "landmarks": None if find is None else {"name": find.name, "version": find.version},
        "device": str(where),
        **({"command": list(command)} if command else {}),
        "versions": versions,
        "deepregions": __version__,
        "runtime": ran_by,
        "precision": precision,
    }
    return Analyser(
        FaceScorer(system, gates, where),
        find,
        sampling=sampling,
        rules=rules,
        batch_size=batch_size,
        pictures=pictures,
        warnings=(*bundle.facts.cautions(), *bundle.notes, *_mismatches(bundle, calibration, find)),
        degradation=bundle.facts.degradation,
        calibration=calibration,
        facts=facts,
    )


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
    bundle: Bundle, system: System, find: LandmarkDetector | None, rules: Pooling
) -> tuple[Calibration | None, str]:
    """Returns the bundle's calibration, if it holds here, or why it does not."""
    calibration = bundle.calibration
    if calibration is None:
        return None, ""
    mismatch = calibration.quantity.mismatch(bundle.quantity("video", rules))
    if why := mismatch or calibration.withheld:
        return None, why
    if find is None and len(system.regions) > 1:
        return None, f"the calibration is for {', '.join(system.regions)} together"
    return calibration, ""


def _operating_point(bundle: Bundle, rate: float, rules: Pooling, doubt: str) -> OperatingPoint:
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
    members: Sequence[TrainedNetwork],
    calibration: Calibration | None,
    find: LandmarkDetector | None,
) -> Iterator[str]:
    """Networks see other crops than they were trained on where landmarks are another backend's."""
    if find is None:
        return
    backend = ((calibration and calibration.development.landmarks) or {}).get("name")
    calibrated = str(backend or find.name)
    others: dict[str, list[str]] = {calibrated: []}
    for member in members:
        backend = member.training.get("landmarks")
        trained_on = backend.get("name") if isinstance(backend, dict) else None
        others.setdefault(str(trained_on or find.name), []).append(member.name)
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
