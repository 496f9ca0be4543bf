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

import deepregions
from deepregions.data.store import FaceRecord, FaceStore, decode_image
from deepregions.devices import choose_device
from deepregions.errors import UnreadableError, UsageError
from deepregions.evaluation.alterations import Alteration
from deepregions.faces.thresholds import Gates
from deepregions.files import Names
from deepregions.fusion.score_table import (
    Origin,
    ScoredSystem,
    ScoreRow,
    ScoreTable,
    joined,
    make_table,
)
from deepregions.people import Numbers
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import GRAVEST, FacePatch, FaceResult
from deepregions.pixels.tensors import as_array
from deepregions.roc import Floats
from deepregions.system import System, TrainedNetwork
from deepregions.types import Status

_CHUNK = 512  # faces a file: a run that is killed loses no more
_OF_A_FACE = (
    *("key", "video", "track", "identities"),
    *("label", "method", "compression", "split"),
)
Progress = Callable[[int, int], None]
Pair = tuple[FaceRecord, FacePatch]


class StoreScorer:
    """Scores stores with some networks; the folder ``cache``, if any, keeps the scores."""

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
        if not len(rows):
            return make_table(
                origin, self.system.rows, self.system.regions, [], score_rows(self.system)
            )
        done = 0

        def tell(faces: int) -> None:
            nonlocal done
            done += faces
            if self._progress is not None:
                self._progress(done, len(rows))

        chunks = []
        for shelf in np.unique(rows // _CHUNK):  # places in the store: whatever splits are asked
            own = rows[rows // _CHUNK == shelf]
            chunks.append(self._chunk(origin, own, _found(store, own, alteration), tell))
        return joined(chunks)

    def _chunk(
        self, origin: Origin, rows: Numbers, faces: Iterator[Pair], tell: Callable[[int], None]
    ) -> ScoreTable:
        """Scores of some faces: those that are kept, and those that are missing."""
        members = self.system.members
        columns = [self._kept(member, origin, rows) for member in members]
        missing = tuple(number for number, column in enumerate(columns) if column is None)
        if missing:
            scored = self._scored(missing, origin, faces, tell)
            for number, column in zip(missing, scored, strict=True):
                columns[number] = column
                file = self._file(members[number], origin, rows)
                if file is not None:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    column.write(file)
        else:
            tell(len(rows))
        found = [column for column in columns if column is not None]
        status = found[0].status.copy()
        statuses = np.stack([column.status for column in found])
        for name in (*reversed(GRAVEST), Status.OK):  # the last to be written prevails
            status[(statuses == str(name)).any(0)] = str(name)
        table = replace(found[0], origin=origin, status=status)
        return _arranged(table, self.system, [column.log_odds[:, 0, 0] for column in found])

    def _scored(
        self,
        which: tuple[int, ...],
        origin: Origin,
        faces: Iterator[Pair],
        tell: Callable[[int], None],
    ) -> list[ScoreTable]:
        """One table (n, 1, 1) of each of some networks."""
        members = [self.system.members[number] for number in which]
        if which not in self._scorers:
            self._scorers[which] = FaceScorer(System(members), self.gates, self.device)
        scorer = self._scorers[which]
        known: list[dict[str, Any]] = []
        answers: list[list[tuple[Status, float]]] = []
        while batch := list(islice(faces, self._batch_size)):
            scores = scorer.score([patch for _, patch in batch])
            answers += [_answers(scorer.system, score) for score in scores]
            known += [{name: getattr(record, name) for name in _OF_A_FACE} for record, _ in batch]
            tell(len(batch))
        return [
            make_table(
                _of(member, origin),
                (member.detector.name,),
                (member.region,),
                [
                    face | {"status": status, "log_odds": log_odds}
                    for face, (status, log_odds) in zip(known, own, strict=True)
                ],
                [ScoreRow(member.detector.name, member.database)],
            )
            for member, own in zip(members, zip(*answers, strict=True), strict=True)
        ]

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
        key = json.dumps([asdict(_of(member, origin)), member.cut, rows.tolist()])
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.cache / f"{Names().unused(member.name)}-{digest}.parquet"

    def _kept(self, member: TrainedNetwork, origin: Origin, rows: Numbers) -> ScoreTable | None:
        """Scores of an earlier run; None where there are none that can be read."""
        file = self._file(member, origin, rows)
        if file is None or not file.is_file():
            return None
        try:
            table = ScoreTable.read(file)
        except UnreadableError:
            return None  # scored again
        return table if len(table) == len(rows) and table.origin == _of(member, origin) else None


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


def score_rows(system: System) -> tuple[ScoreRow, ...]:
    """Returns who the rows of a system's matrix are."""
    rows = {
        row: ScoreRow(member.detector.name, member.database)
        for member, (row, _) in zip(system.members, system.cells, strict=True)
    }
    return tuple(rows[row] for row in sorted(rows))


def _arranged(table: ScoreTable, system: System, columns: Sequence[Floats]) -> ScoreTable:
    """The faces of a table with a system's matrix, of whose networks each has a column (N,)."""
    logits = np.full((len(table), len(system.rows), len(system.regions)), np.nan)
    for (row, column), values in zip(system.cells, columns, strict=True):
        logits[:, row, column] = values
    return replace(
        table,
        detectors=system.rows,
        rows=score_rows(system),
        regions=system.regions,
        log_odds=logits,
    )


def _of(member: TrainedNetwork, origin: Origin) -> Origin:
    return replace(origin, models={member.name: member.sha256})


def _found(store: FaceStore, rows: Numbers, alteration: Alteration | None) -> Iterator[Pair]:
    """Faces one by one; those of one video that follow each other are altered together."""
    records = (store[int(row)] for row in rows)
    for _, group in groupby(records, lambda record: (record.video, record.track)):
        own = list(group)
        faces = [patch_of(record) for record in own]
        if alteration is not None:
            faces = alteration(faces, [record.key for record in own])
        yield from zip(own, faces, strict=True)


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
