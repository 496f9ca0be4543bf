"""``deepregions fuse``: trains and calibrates a fusion of networks, and writes a bundle of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepregions.commands import checks
from deepregions.commands.options import NetworkOptions, check_stores, check_there
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from deepregions.fusion.score_table import ScoreTable
    from deepregions.fusion.validation import CrossValidated
    from deepregions.system import TrainedNetwork
    from deepregions.weights.bundle import Bundle

Kind = Literal["mean", "max", "weighted", "logistic", "head"]

_PART = "val"
_COMPARED: tuple[Kind, ...] = ("mean", "logistic", "head")


@dataclass(frozen=True)
class FusionOptions:
    """The fusion.

    Attributes:
        kind: mean, max, weighted (mean), logistic (regression) or head (a small network).
        detectors: Use only networks of these detectors, such as xception, or xception.ffpp for
            those trained on ffpp; all by default.
        regions: Use only networks for these regions; all by default.
        calibration: logistic, or isotonic, which needs more videos.
        folds: The largest number of folds for cross-validation.
        l2: Penalty on the weights of weighted and logistic.
        seed: Random seed of the head.
    """

    kind: Kind = "logistic"
    detectors: list[str] | None = None
    regions: list[str] | None = None
    calibration: Literal["logistic", "isotonic"] = "logistic"
    folds: int = 5
    l2: float = 1.0
    seed: int = 0


def fuse(
    *,
    out: Path,
    networks: NetworkOptions,
    scores: Path | None = None,
    store: Path | None = None,
    device: str = "auto",
    fusion: FusionOptions,
) -> None:
    """Trains a fusion of networks, calibrates it, and writes a bundle of both and the networks.

    The fusion is trained on the development part (split val) of a face store, or of a table of
    scores that `deepregions evaluate` wrote (docs/fusion.md). Prints how well this and other
    fusions do in cross-validation.

    Args:
        out: The folder for the new bundle.
        networks: Which networks are fused.
        scores: A Parquet file of scores by these networks.
        store: A face store to score instead.
        device: auto, cpu, cuda or cuda:N.
        fusion: The fusion.
    """
    if (scores is None) == (store is None):
        raise UsageError("a fusion needs --scores FILE or --store DIR", "give one of them")
    check_there(scores)
    check_stores(store)

    from deepregions.data.store import FaceStore
    from deepregions.evaluation.operating_points import find_operating_points
    from deepregions.evaluation.store_scorer import StoreScorer
    from deepregions.fusion.score_table import ScoreTable
    from deepregions.pipeline.words import error_rates
    from deepregions.weights.bundle import save_bundle
    from deepregions.weights.manifest import BundleFacts

    bundles = list(networks.load_each().values())
    members = [member for bundle in bundles for member in bundle]
    if scores is not None:
        table = ScoreTable.read(scores)
    else:
        members = chosen_members(members, fusion)
        table = StoreScorer(members, device=device).score(FaceStore(Path(str(store))), (_PART,))
    made, compared = train_bundle(table, members, fusion)
    points = find_operating_points(
        compared[0].trials, "video", f"the development part of {table.origin.database}"
    )
    facts = replace(BundleFacts.together(b.facts for b in bundles), operating_points=points)
    save_bundle(made, out, fusion=made.fusion, calibration=made.calibration, facts=facts)
    _print(made, compared)
    checks.print_lines(
        *(f"threshold {p.threshold:+.2f} for {p.name}: {error_rates(asdict(p))}" for p in points)
    )
    checks.print_lines(f"bundle: {out}")


def train_bundle(
    table: ScoreTable, members: Sequence[TrainedNetwork], options: FusionOptions
) -> tuple[Bundle, list[CrossValidated]]:
    """Trains and calibrates a fusion of the networks that options choose, on the development part.

    Returns how this fusion and some others do in cross-validation, too.

    Raises:
        UsageError: No network is wanted, the scores are of others, or they have no development
            part that can be learned from.
    """
    from deepregions.evaluation.store_scorer import scores_of
    from deepregions.fusion.validation import cross_validate, train_calibrated
    from deepregions.weights.bundle import Bundle

    chosen = chosen_members(members, options)
    scores = scores_of(table, chosen)
    development = scores.part(_PART)
    if not len(development):
        there = ", ".join(sorted({str(split) for split in table.split})) or "none"
        raise UsageError(
            f"the scores of {table.origin.database} have no development part (split val)",
            f"fusions are not trained on other parts; there are: {there}",
        )
    common: dict[str, Any] = {
        name: getattr(options, name) for name in ("calibration", "folds", "l2", "seed")
    }
    fusion, calibrated, own = train_calibrated(options.kind, development, **common)
    rivals = [kind for kind in _COMPARED if kind != options.kind]
    others = [cross_validate(kind, development, **common) for kind in rivals]
    return Bundle(tuple(chosen), fusion, calibrated), [own, *others]


def chosen_members(
    members: Sequence[TrainedNetwork], options: FusionOptions
) -> list[TrainedNetwork]:
    """Returns the networks that options choose, or raises that there are none of that name.

    Raises:
        UsageError: There is no such detector or region among them, or no network.
    """
    detectors = [{m.detector.name, f"{m.detector.name}.{m.database}"} for m in members]
    for what, wanted, known in (
        ("detector", options.detectors, {name for names in detectors for name in names}),
        ("region", options.regions, {str(member.region) for member in members}),
    ):
        unknown = [name for name in wanted or () if name not in known]
        if unknown:
            hint = f"there are: {', '.join(sorted(known))}"
            raise UsageError(f"the bundles have no {what} {unknown[0]!r}", hint)
    chosen = [
        member
        for member, names in zip(members, detectors, strict=True)
        if options.detectors is None or names & {*options.detectors}
        if options.regions is None or str(member.region) in options.regions
    ]
    if not chosen:
        raise UsageError("no network of the bundles is wanted", "other detectors or regions")
    return chosen


def _print(bundle: Bundle, compared: Sequence[CrossValidated]) -> None:
    found = bundle.calibration
    if found is None:
        return
    about = found.development
    folds, by = about.cross_validation["folds"], about.cross_validation["by"]
    low, high = found.lower / math.log(10), found.upper / math.log(10)
    checks.print_lines(
        f"development part of {about.database}: {about.genuine} genuine and {about.fake} fake "
        f"videos, in {folds} folds by {by}",
        "cross-validated     AUC     EER    Cllr",
        *(f"{c.kind:<15} {c.auc:7.4f} {c.eer:7.4f} {c.cllr:7.4f}" for c in compared),
        f"calibration {found.kind}: log10 likelihood ratios from {low:.2f} to {high:.2f}"
        if not found.withheld
        else f"no likelihood ratios: {found.withheld}",
    )
