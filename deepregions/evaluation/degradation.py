"""How a bundle's errors grow on small, compressed and blurred faces; ``detect`` warns by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepregions.data.store import FaceStore
from deepregions.devices import choose_device
from deepregions.errors import UndefinedMetricError
from deepregions.evaluation.alterations import LEVELS, Alteration
from deepregions.evaluation.bootstrap import Bootstrap, bootstrap
from deepregions.evaluation.measures import AUC, BPCER, Measure
from deepregions.evaluation.protocols import EVALUATION
from deepregions.evaluation.store_scorer import Progress, patch_of
from deepregions.faces.thresholds import Gates
from deepregions.fusion.trials import Trials
from deepregions.people import group_numbers
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import FacePatch, FaceResult
from deepregions.roc import NAN, Bools, Floats
from deepregions.weights.bundle import Bundle
from deepregions.weights.manifest import Degradation, false_alarms

MEASURES: Mapping[str, str] = {"": "size", "size": "size", "jpeg": "", "blur": "sharpness"}
"""The alterations, the first of which is none, each with the quality by which ``detect`` recognises
it, or empty: its level."""

_RATE = 0.01
_COMMON = 0.05  # share of faces as they are, beyond which nothing is said of a face
_PLAIN, _ALTERED = "as they are", "altered"


def measure_degradation(
    bundle: Bundle,
    stores: Sequence[FaceStore],
    *,
    faces: int = 600,
    device: str = "auto",
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Degradation, ...]:
    """Scores faces of evaluation parts as they are and altered.

    The AUC is taken over the stores that have genuine and fake faces, the false-alarm rate over the
    genuine faces of all stores, at the bundle's operating point of 1 % false alarms if it has one.
    Of each store at most ``faces`` are scored, one a video. A level counts as worse if the interval
    of the paired difference excludes zero.

    Raises:
        UndefinedMetricError: No store has genuine and fake faces that get a score.
    """
    thresholds = [
        p.threshold for p in bundle.facts.operating_points if p.name == false_alarms(_RATE)
    ]
    drawn = _Drawn.of(stores, faces, threshold=thresholds[0] if thresholds else NAN, seed=seed)
    scorer = FaceScorer(bundle.system(), Gates(), choose_device(device))
    alterations = [Alteration(kind, level) for kind in MEASURES for level in LEVELS.get(kind, ())]
    total, done = len(drawn.patches) * (1 + len(alterations)), 0

    def scored(alteration: Alteration | None) -> list[FaceResult]:
        nonlocal done
        found: list[FaceResult] = []
        for start in range(0, len(drawn.patches), batch_size):
            patches = list(drawn.patches[start : start + batch_size])
            if alteration is not None:
                patches = alteration(patches, drawn.keys[start : start + batch_size])
            found += scorer.score(patches)
            done += len(patches)
            if progress is not None:
                progress(done, total)
        return found

    plain = scored(None)
    points = [drawn.compare(plain, plain)]
    for alteration in alterations:
        try:
            points.append(drawn.compare(plain, scored(alteration), alteration))
        except UndefinedMetricError:
            continue  # too few faces so small or so blurred get a score
    return tuple(points)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """N faces; ``both`` are those of stores with genuine and fake ones."""

    patches: Sequence[FacePatch]
    keys: Sequence[str]
    trials: Trials
    both: Bools
    found_on: str
    threshold: float
    seed: int

    @classmethod
    def of(cls, stores: Sequence[FaceStore], most: int, *, threshold: float, seed: int) -> _Drawn:
        records, people, both, about = [], [], [], []
        for number, store in enumerate(stores):
            own = [store[row] for row in _one_a_video(store, most, seed)]
            both += [len({record.label for record in own}) == 2] * len(own)
            people += [[f"{number} {name}" for name in record.identities] for record in own]
            about.append(f"{len(own)} {store.info.database}")
            records += own
        fake = np.array([record.label == 1 for record in records], bool)
        groups = group_numbers(range(len(people)), people)
        return cls(
            [patch_of(record) for record in records],
            [record.key for record in records],
            Trials("", np.zeros(len(fake)), fake, fake.astype(str), groups),
            np.array(both, bool),
            f"faces of evaluation parts: {', '.join(about)}"[:200],
            threshold,
            seed,
        )

    def compare(
        self,
        plain: Sequence[FaceResult],
        altered: Sequence[FaceResult],
        alteration: Alteration | None = None,
    ) -> Degradation:
        """Compares faces that have a score both ways."""
        odds = [np.array([f.log_odds for f in faces], np.float64) for faces in (plain, altered)]
        judged = ~np.isnan(odds[0]) & ~np.isnan(odds[1])
        ranks = self._bootstrap(odds, judged & self.both, AUC)
        auc = ranks.estimate(_ALTERED, AUC)
        if auc.value is None:
            raise UndefinedMetricError(
                f"there is no AUC of {alteration or 'these faces'}: {auc.reason}",
                "one store needs genuine and fake faces in its evaluation part (split test)",
            )
        fall = ranks.difference(_ALTERED, _PLAIN, AUC)
        worse, people, rate = (fall.high or 0) < 0, ranks.groups, None
        if not np.isnan(self.threshold):
            alarms = self._bootstrap(odds, judged & ~self.trials.fake, BPCER)
            rate = alarms.estimate(_ALTERED, BPCER).value
            rise = alarms.difference(_ALTERED, _PLAIN, BPCER)
            worse, people = worse or (rise.low or 0) > 0, min(people, alarms.groups)
        kind, level = ("", None) if alteration is None else (alteration.kind, alteration.level)
        measure = level
        if name := MEASURES[kind]:
            after, before = (
                np.array([f.quality.get(name) for f in faces], np.float64)[judged]
                for faces in (altered, plain)
            )
            measure = float(np.median(after))
            if alteration is not None:  # not what faces as they are commonly have
                measure = min(measure, float(np.quantile(before, _COMMON)))
        return Degradation(
            alteration=kind,
            auc=auc.value,
            level=level,
            measure=measure,
            false_positive_rate=rate,
            people=people,
            worse=worse,
            found_on=self.found_on if alteration is None else "",
        )

    def _bootstrap(self, odds: Sequence[Floats], rows: Bools, measure: Measure) -> Bootstrap:
        trials = [
            replace(self.trials, name=name, log_odds=each).select(rows)
            for name, each in zip((_PLAIN, _ALTERED), odds, strict=True)
        ]
        return bootstrap(trials, (measure,), [self.threshold] * 2, seed=self.seed)


def _one_a_video(store: FaceStore, most: int, seed: int) -> list[int]:
    """Rows of an evaluation part in the store's order, drawn at random."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(store.splits == EVALUATION))
    _, first = np.unique(store.videos[rows], return_index=True)
    return sorted(rows[np.sort(first)[:most]].tolist())
