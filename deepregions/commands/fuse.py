"""``python -m deepregions.fit --config configs/fusion.yaml``: a fusion of networks, calibrated.

Trains on scores of a development part, from a file or of a store that is scored here, and writes a
bundle with the networks, their fusion and its calibration.
"""

from __future__ import annotations

import math
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from deepregions.data.store import FaceStore
from deepregions.errors import UsageError
from deepregions.evaluation.store_scorer import StoreScorer, scores_of
from deepregions.fusion import Kind
from deepregions.fusion.calibration import Kind as CalibrationKind
from deepregions.fusion.score_table import ScoreTable
from deepregions.fusion.validation import CrossValidated, compare, train_calibrated
from deepregions.system import TrainedNetwork
from deepregions.weights.bundle import Bundle, load_bundle, save_bundle

_PART = "val"
_USAGE = "--bundle DIR... --out DIR, and --scores FILE or --store DIR"
_COMPARED: tuple[Kind, ...] = ("mean", "logistic", "head")
_IN_A_FILE = re.compile(r"^fusion\s*:", re.MULTILINE)


@dataclass(frozen=True)
class FusionOptions:
    """What is trained.

    Attributes:
        kind: mean, max, weighted (mean), logistic (regression) or head (learned).
        detectors: Only networks of these detectors, with the database after a dot where that is
            to be chosen; all if left out.
        regions: Only networks for these regions; all if left out.
        calibration: logistic, or isotonic, which needs more videos.
        folds: How many parts the development part is cross-validated in, at most.
        l2: Penalty on the weights of weighted and logistic.
        seed: Of the learned head.
    """

    kind: Kind = "logistic"
    detectors: list[str] | None = None
    regions: list[str] | None = None
    calibration: CalibrationKind = "logistic"
    folds: int = 5
    l2: float = 1.0
    seed: int = 0


def asks_for_fusion(argv: Sequence[str]) -> bool:
    """Returns whether options for ``fit`` are those of a fusion: they, or a file, have ``fusion``.

    Args:
        argv: The options.
    """
    if any(word.split("=")[0].split(".")[0] == "--fusion" for word in argv):
        return True
    files = [after for word, after in pairwise(argv) if word == "--config"]
    files += [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    return any(
        _IN_A_FILE.search(Path(file).read_text(encoding="utf-8", errors="replace"))
        for file in files
        if Path(file).is_file()
    )


def fit_fusion(argv: Sequence[str]) -> int:
    """Trains a fusion, calibrates it, and prints how it does in cross-validation.

    Args:
        argv: The options; ``--help`` prints them.

    Returns:
        The exit code, 0.

    Raises:
        DeepregionsError: A file or an option is not as it should be.
    """
    parser = _parser()
    try:
        options = parser.parse_args(list(argv))
    except ArgumentError as error:
        hint = "see deepregions fit --config configs/fusion.yaml --help"
        raise UsageError(" ".join(str(error.message).split()), hint) from error
    for name in ("bundle", "out"):
        if not options[name]:
            raise UsageError(f"a fusion needs --{name}", _USAGE)
    if (options.scores is None) == (options.store is None):
        raise UsageError("a fusion needs --scores or --store, one of them", _USAGE)
    chosen = FusionOptions(**options.fusion.as_dict())
    table = None if options.scores is None else ScoreTable.read(Path(options.scores))
    members = [member for path in options.bundle for member in load_bundle(path)]
    if table is None:
        members = chosen_members(members, chosen)
        store = FaceStore(Path(options.store))
        table = StoreScorer(members, device=options.device).score(store, (_PART,))
    bundle, compared = train_bundle(table, members, chosen)
    out = Path(options.out)
    save_bundle(bundle, out, fusion=bundle.fusion, calibration=bundle.calibration)
    sys.stdout.writelines(f"{line}\n" for line in _told(bundle, compared))
    sys.stdout.write(f"bundle: {out}\n")
    return 0


def train_bundle(
    table: ScoreTable, members: Sequence[TrainedNetwork], options: FusionOptions
) -> tuple[Bundle, list[CrossValidated]]:
    """Trains and calibrates a fusion of networks.

    Args:
        table: Scores by these networks, maybe among others, of faces with a development part.
        members: The networks, of which ``options`` chooses.
        options: What is trained.

    Returns:
        The networks that were chosen with fusion and calibration, and how the fusion and some
        others do in cross-validation.

    Raises:
        UsageError: No network is wanted, the scores are of others, or they have no development
            part that can be learned from.
    """
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
        "calibration": options.calibration,
        "folds": options.folds,
        "l2": options.l2,
    }
    common |= {"seed": options.seed}
    fusion, calibrated, own = train_calibrated(options.kind, development, **common)
    others = compare([kind for kind in _COMPARED if kind != options.kind], development, **common)
    return Bundle(tuple(chosen), fusion, calibrated), [own, *others]


def chosen_members(
    members: Sequence[TrainedNetwork], options: FusionOptions
) -> list[TrainedNetwork]:
    """Returns the networks that options choose.

    Raises:
        UsageError: There is no such detector or region among them, or no network.
    """
    names = {m.detector.name for m in members}
    names |= {f"{m.detector.name}.{m.database}" for m in members}
    for what, wanted, known in (
        ("detector", options.detectors, names),
        ("region", options.regions, {str(member.region) for member in members}),
    ):
        unknown = [name for name in wanted or () if name not in known]
        if unknown:
            hint = f"there are: {', '.join(sorted(known))}"
            raise UsageError(f"the bundles have no {what} {unknown[0]!r}", hint)
    chosen = [
        member
        for member in members
        if options.detectors is None
        or {member.detector.name, f"{member.detector.name}.{member.database}"}
        & {*options.detectors}
        if options.regions is None or str(member.region) in options.regions
    ]
    if not chosen:
        raise UsageError("no network of the bundles is wanted", "other detectors or regions")
    return chosen


def _told(bundle: Bundle, compared: Sequence[CrossValidated]) -> list[str]:
    found = bundle.calibration
    if found is None:
        return []
    about = found.development
    folds, by = about.cross_validation["folds"], about.cross_validation["by"]
    low, high = found.lower / math.log(10), found.upper / math.log(10)
    return [
        f"development part of {about.database}: {about.genuine} genuine and {about.fake} fake "
        f"videos, in {folds} folds by {by}",
        "cross-validated     AUC     EER    Cllr",
        *(f"{c.kind:<15} {c.auc:7.4f} {c.eer:7.4f} {c.cllr:7.4f}" for c in compared),
        f"calibration {found.kind}: log10 likelihood ratios from {low:.2f} to {high:.2f}",
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="deepregions fit",
        description="Trains a fusion of networks on scores of a development part.",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_argument(
        "--scores", type=str | None, help="Parquet file of scores (docs/fusion.md)."
    )
    parser.add_argument("--store", type=str | None, help="A face store to score instead.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N.")
    parser.add_argument("--bundle", type=str, nargs="+", help="The networks' bundles.")
    parser.add_argument("--out", type=str | None, help="Folder for the new bundle.")
    parser.add_class_arguments(FusionOptions, "fusion")
    return parser
