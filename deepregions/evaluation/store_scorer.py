"""Scores every face of a store once; what was scored is kept, by network and store.

Faces go the way that they go in ``detect``: the same gates, crops and networks. Each network's
scores are files of their own, so that one more network costs one network, and a run that is killed
goes on where it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import deepregions
from deepregions.data.store import FaceRecord, FaceStore, decode_image
from deepregions.devices import choose_device
from deepregions.errors import UsageError
from deepregions.evaluation.alterations import Alteration
from deepregions.faces.thresholds import Gates
from deepregions.files import Names, atomic_file
from deepregions.fusion.score_table import Origin, ScoredSystem, ScoreRow, ScoreTable, Strings
from deepregions.people import Numbers
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import GRAVEST, FacePatch, FaceResult
from deepregions.pixels.tensors import as_array
from deepregions.roc import Floats
from deepregions.system import System, TrainedNetwork
from deepregions.types import Status

_CHUNK = 512  # faces a file: a run that is killed loses no more
Progress = Callable[[int, int], None]
Scores = tuple[Strings, Floats]
"""What a network said of n faces: statuses (n,), and log-odds (n,), NaN where it said nothing."""


class StoreScorer:
    """Scores stores with some networks; the folder ``cache``, if any, keeps the scores.

    Raises:
        UsageError: No network, or two alike, or no such device.
    """

    def __init__(
        self,
        members: Sequence[TrainedNetwork],
        cache: Path | None = None,
        *,
        gates: Gates | None = None,
        device: str = "auto",
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:
        self.system = System(members)
        self.cache = cache
        self.gates = gates or Gates()
        self.device = choose_device(device)
        self._batch_size = batch_size
        self._progress = progress
        self._scorers: dict[tuple[int, ...], FaceScorer] = {}

    def score(
        self,
        store: FaceStore,
        splits: Sequence[str] = ("val", "test"),
        alteration: Alteration | None = None,
    ) -> ScoreTable:
        """Scores the faces of some splits, altered or not, in the store's order; maybe none.

        Raises:
            StoreError: A face of the store cannot be read.
        """
        origin = self._origin(store, alteration)
        rows = np.flatnonzero(np.isin(store.splits.astype(str), list(splits)))
        shape, done = (len(self.system.members), len(rows)), 0
        status, log_odds = np.full(shape, "", np.object_), np.full(shape, np.nan)

        def tell(faces: int) -> None:
            nonlocal done
            done += faces
            if self._progress is not None:
                self._progress(done, len(rows))

        for shelf in np.unique(rows // _CHUNK):  # places in the store: whatever splits are asked
            here = rows // _CHUNK == shelf
            faces = _found(store, rows[here], alteration)
            scores = self._chunk(origin, rows[here], faces, tell)
            for number, (statuses, values) in enumerate(scores):
                status[number, here], log_odds[number, here] = statuses, values
        overall = status[0].copy()
        for name in (*reversed(GRAVEST), Status.OK):  # the last to be written prevails
            overall[(status == str(name)).any(0)] = str(name)
        known, nothing = _known_of(store, rows), np.empty((len(rows), 0, 0))
        table = ScoreTable(origin, (), (), **known, status=overall, log_odds=nothing, rows=())
        return _arranged(table, self.system, [*log_odds])

    def _chunk(
        self,
        origin: Origin,
        rows: Numbers,
        faces: Iterator[FacePatch],
        tell: Callable[[int], None],
    ) -> list[Scores]:
        """Each network's scores of some faces: those that are kept, and those that are missing."""
        files = [self._file(member, origin, rows) for member in self.system.members]
        found = [None if file is None else _kept(file, len(rows)) for file in files]
        missing = tuple(number for number, scores in enumerate(found) if scores is None)
        if not missing:
            tell(len(rows))
        for number, scores in zip(missing, self._scored(missing, faces, tell), strict=True):
            found[number] = scores
            if file := files[number]:
                with atomic_file(file) as partial:
                    pq.write_table(pa.table(dict(zip(_KEPT, scores, strict=True))), partial)
        return [scores for scores in found if scores is not None]

    def _scored(
        self, which: tuple[int, ...], faces: Iterator[FacePatch], tell: Callable[[int], None]
    ) -> Iterator[Scores]:
        """Yields what some of the networks say of faces, network by network."""
        if not which:
            return
        if which not in self._scorers:
            members = [self.system.members[number] for number in which]
            self._scorers[which] = FaceScorer(System(members), self.gates, self.device)
        scorer, answers = self._scorers[which], []
        while batch := list(islice(faces, self._batch_size)):
            answers += [_answers(scorer.system, score) for score in scorer.score(batch)]
            tell(len(batch))
        for own in zip(*answers, strict=True):
            statuses, log_odds = zip(*own, strict=True)
            yield np.array([*map(str, statuses)], np.object_), np.array(log_odds, np.float64)

    def _origin(self, store: FaceStore, alteration: Alteration | None) -> Origin:
        models = {member.name: member.sha256 for member in self.system.members}
        settings = {
            "gates": asdict(self.gates),
            "landmarks": {"name": store.info.landmarks, "version": store.info.landmarks_version},
            "alteration": None if alteration is None else str(alteration),
            "deepregions": deepregions.__version__,
        }
        return Origin(store.info.database, store.fingerprint, models, settings)

    def _file(self, member: TrainedNetwork, origin: Origin, rows: Numbers) -> Path | None:
        """Where scores of some faces by a network are kept; None if they are not."""
        if self.cache is None or not member.sha256:
            return None
        own = replace(origin, models={member.name: member.sha256})
        key = json.dumps([asdict(own), member.cut, rows.tolist()])
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.cache / f"{Names().unused(member.name)}-{digest}.parquet"


_KEPT = ("status", "log_odds")


def _kept(file: Path, count: int) -> Scores | None:
    """Scores of an earlier run; None where there are none that can be read."""
    try:
        table = pq.read_table(file, columns=[*_KEPT])
    except (OSError, pa.ArrowException):
        return None  # scored again
    status, log_odds = (column.to_numpy() for column in table.columns)
    return (status, log_odds.astype(np.float64)) if table.num_rows == count else None


def scores_of(table: ScoreTable, members: Sequence[TrainedNetwork]) -> ScoreTable:
    """Returns a table with the rows and columns of a system of some of its networks.

    Raises:
        UsageError: There are no scores of one, or they are of other weights of the same name.
    """
    known, columns = table.origin.models, []
    for member in members:
        name = ScoredSystem(member.detector.name, member.region, member.database)
        if member.name not in known or name not in table.systems:
            raise UsageError(
                f"there are no scores of {member.name}",
                f"the scores are of: {', '.join(sorted(known)) or 'networks they do not name'}",
            )
        if known[member.name] != member.sha256:
            raise UsageError(
                f"the scores are of another {member.name} than the bundle's (SHA-256 differs)",
                "score the store again with this bundle",
            )
        columns.append(table.log_odds[:, *table.systems[name]])
    origin = replace(table.origin, models={member.name: member.sha256 for member in members})
    return _arranged(replace(table, origin=origin), System(members), columns)


def _arranged(table: ScoreTable, system: System, columns: Sequence[Floats]) -> ScoreTable:
    """The faces of a table with a system's matrix, of whose networks each has a column (N,)."""
    logits = np.full((len(table), len(system.rows), len(system.regions)), np.nan)
    rows = {}
    for member, (row, column), values in zip(system.members, system.cells, columns, strict=True):
        rows[row] = ScoreRow(member.detector.name, member.database)
        logits[:, row, column] = values
    return replace(
        table,
        detectors=system.rows,
        rows=tuple(rows[row] for row in sorted(rows)),
        regions=system.regions,
        log_odds=logits,
    )


def _known_of(store: FaceStore, rows: Numbers) -> dict[str, Any]:
    texts = ("key", "video", "method", "compression", "split")
    people = np.empty(len(rows), np.object_)
    people[:] = [tuple(names) for names in store.column("identities")[rows]]
    track = store.column("track")[rows].astype(np.int64)
    known = {name: store.column(name)[rows] for name in texts}
    return known | {"track": track, "identities": people, "label": store.labels[rows]}


def _found(store: FaceStore, rows: Numbers, alteration: Alteration | None) -> Iterator[FacePatch]:
    """Faces one by one; those of one video that follow each other are altered together."""
    records = (store[int(row)] for row in rows)
    for _, group in groupby(records, lambda record: (record.video, record.track)):
        own = list(group)
        faces = [patch_of(record) for record in own]
        if alteration is not None:
            faces = alteration(faces, [record.key for record in own])
        yield from faces


def patch_of(record: FaceRecord) -> FacePatch:
    """Returns a stored face as ``detect`` cuts it out."""
    image = as_array(decode_image(record.image))
    return FacePatch(image, record.landmarks, record.scale, record.confidence)


def _answers(system: System, score: FaceResult) -> list[tuple[Status, float]]:
    """What each network said, or why it said nothing."""
    refused = score.status
    if refused is Status.OK:  # another region could be judged
        refused = Status.LOW_QUALITY if score.reasons else Status.TOO_SMALL
    said = [score.cells[system.rows[row], system.regions[column]] for row, column in system.cells]
    return [(refused, np.nan) if odds is None else (Status.OK, odds) for odds in said]
