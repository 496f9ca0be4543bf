"""Scores every face of a store once; what was scored is kept, by network and store.

Faces go the way that they go in ``detect``: the same gates, crops and networks. Each network's
scores are files of their own, so that one more network costs one network, and a run that is killed
goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

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
from deepregions.pipeline.face_scorer import FaceScorer
from deepregions.pipeline.results import GRAVEST, FacePatch, FaceResult
from deepregions.system import System, TrainedNetwork
from deepregions.types import Status

_CHUNK = 512  # faces a file: a run that is killed loses no more
Progress = Callable[[int, int], None]
Pair = tuple[FaceRecord, FacePatch]


@dataclass
class _Job:
    """A store on its way."""

    store: FaceStore
    alteration: Alteration | None
    origin: Origin
    total: int
    done: int = 0


class StoreScorer:
    """Scores stores with some networks.

    Args:
        members: The networks.
        cache: The folder in which scores are kept; None keeps nothing.
        gates: What a face must be to be judged.
        device: A device's name.
        batch_size: How many faces are scored at once.
        progress: Told how many faces are done, and of how many.

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
        """Scores the faces of some splits.

        Args:
            store: The faces.
            splits: Which of them.
            alteration: What is done to each face before; nothing by default.

        Returns:
            Their scores, in the store's order; none where a split has no faces.

        Raises:
            StoreError: A face of the store cannot be read.
            OSError: The cache cannot be written.
        """
        rows = np.flatnonzero(np.isin(store.splits.astype(str), list(splits)))
        job = _Job(store, alteration, self._origin(store, alteration), len(rows))
        chunks = [self._chunk(job, chunk) for chunk in _by_shelf(rows, _CHUNK)]
        if not chunks:
            return make_table(
                job.origin, self.system.rows, self.system.regions, [], score_rows(self.system)
            )
        return joined(chunks)

    def _chunk(self, job: _Job, rows: npt.NDArray[np.int64]) -> ScoreTable:
        """Scores of some faces: those that are kept, and those that are missing."""
        members = self.system.members
        columns = [self._kept(member, job, rows) for member in members]
        missing = tuple(n for n, column in enumerate(columns) if column is None)
        if missing:
            for number, column in zip(missing, self._scored(job, rows, missing), strict=True):
                columns[number] = column
                self._keep(column, members[number], job, rows)
        else:
            self._tell(job, len(rows))
        return self._combined([column for column in columns if column is not None], job.origin)

    def _scored(
        self, job: _Job, rows: npt.NDArray[np.int64], which: tuple[int, ...]
    ) -> list[ScoreTable]:
        """One table (n, 1, 1) of each of some networks."""
        members = [self.system.members[number] for number in which]
        if which not in self._scorers:
            self._scorers[which] = FaceScorer(System(members), self.gates, self.device)
        scorer = self._scorers[which]
        faces: list[list[dict[str, object]]] = [[] for _ in members]
        for batch in _batched(_found(job.store, rows, job.alteration), self._batch_size):
            scores = scorer.score([found for _, found in batch])
            for (record, _), score in zip(batch, scores, strict=True):
                answers = _answers(scorer.system, score)
                for column, (status, log_odds) in zip(faces, answers, strict=True):
                    column.append(_row(record, status, log_odds))
            self._tell(job, len(batch))
        return [
            make_table(
                _of(member, job.origin),
                (member.detector.name,),
                (member.region,),
                column,
                [ScoreRow(member.detector.name, member.database)],
            )
            for member, column in zip(members, faces, strict=True)
        ]

    def _tell(self, job: _Job, faces: int) -> None:
        job.done += faces
        if self._progress is not None:
            self._progress(job.done, job.total)

    def _combined(self, columns: Sequence[ScoreTable], origin: Origin) -> ScoreTable:
        """The matrix of what single networks said of the same faces."""
        first = columns[0]
        shape = (len(first), len(self.system.rows), len(self.system.regions))
        logits = np.full(shape, np.nan)
        for (d, r), column in zip(self.system.cells, columns, strict=True):
            logits[:, d, r] = column.log_odds[:, 0, 0]
        status = first.status.copy()
        statuses = np.stack([column.status for column in columns])
        for name in (*reversed(GRAVEST), Status.OK):  # the last to be written prevails
            status[(statuses == str(name)).any(0)] = str(name)
        return replace(
            first,
            origin=origin,
            detectors=self.system.rows,
            rows=score_rows(self.system),
            regions=self.system.regions,
            log_odds=logits,
            status=status,
        )

    def _origin(self, store: FaceStore, alteration: Alteration | None) -> Origin:
        models = {member.name: member.sha256 for member in self.system.members}
        settings = {
            "gates": asdict(self.gates),
            "landmarks": {"name": store.info.landmarks, "version": store.info.landmarks_version},
            "alteration": None if alteration is None else str(alteration),
            "deepregions": deepregions.__version__,
        }
        return Origin(store.info.database, store.fingerprint, models, settings)

    def _file(self, member: TrainedNetwork, job: _Job, rows: npt.NDArray[np.int64]) -> Path | None:
        """Where scores of some faces by a network are kept; None if they are not."""
        if self.cache is None or not member.sha256:
            return None
        key = json.dumps([asdict(_of(member, job.origin)), member.cut, rows.tolist()])
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return self.cache / f"{Names().unused(member.name)}-{digest}.parquet"

    def _kept(
        self, member: TrainedNetwork, job: _Job, rows: npt.NDArray[np.int64]
    ) -> ScoreTable | None:
        """Scores of an earlier run; None where there are none that can be read."""
        file = self._file(member, job, rows)
        if file is None or not file.is_file():
            return None
        try:
            table = ScoreTable.read(file)
        except UnreadableError:
            return None  # scored again
        whole = len(table) == len(rows) and table.origin == _of(member, job.origin)
        return table if whole else None

    def _keep(
        self, column: ScoreTable, member: TrainedNetwork, job: _Job, rows: npt.NDArray[np.int64]
    ) -> None:
        file = self._file(member, job, rows)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            column.write(file)


def scores_of(table: ScoreTable, members: Sequence[TrainedNetwork]) -> ScoreTable:
    """Returns a table with the rows and columns of a system of some of its networks.

    Args:
        table: Scores, which say which networks they are of.
        members: Some of these networks.

    Raises:
        UsageError: There are no scores of one, or they are of other weights of the same name.
    """
    system = System(members)
    logits = np.full((len(table), len(system.rows), len(system.regions)), np.nan)
    known = table.origin.models
    for member, (row, column) in zip(members, system.cells, strict=True):
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
        logits[:, row, column] = table.log_odds[:, *table.systems[name]]
    origin = replace(table.origin, models={member.name: member.sha256 for member in members})
    return replace(
        table,
        origin=origin,
        detectors=system.rows,
        rows=score_rows(system),
        regions=system.regions,
        log_odds=logits,
    )


def score_rows(system: System) -> tuple[ScoreRow, ...]:
    """Returns who the rows of a system's matrix are."""
    rows = {}
    for member, (row, _) in zip(system.members, system.cells, strict=True):
        rows[row] = ScoreRow(member.detector.name, member.database)
    return tuple(rows[row] for row in sorted(rows))


def _of(member: TrainedNetwork, origin: Origin) -> Origin:
    return replace(origin, models={member.name: member.sha256})


def _by_shelf(rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows by their place in the store, so that other splits leave the files as they are."""
    for shelf in np.unique(rows // size):
        yield rows[rows // size == shelf]


def _batched(faces: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    while batch := list(islice(faces, size)):
        yield batch


def _found(
    store: FaceStore, rows: npt.NDArray[np.int64], alteration: Alteration | None
) -> Iterator[Pair]:
    """Faces one by one; those of one video that follow each other are altered together."""
    records = (store[int(row)] for row in rows)
    for _, group in groupby(records, lambda record: (record.video, record.track)):
        own = list(group)
        images = [decode_image(record.image) for record in own]
        if alteration is not None:
            images = alteration(images, [record.key for record in own])
        for image, record in zip(images, own, strict=True):
            landmarks = torch.from_numpy(record.landmarks)
            yield record, FacePatch(image, landmarks, record.scale, record.confidence)


def _answers(system: System, score: FaceResult) -> list[tuple[Status, float]]:
    """Of each network what it said, or why nothing."""
    answers = []
    for row, column in system.cells:
        log_odds = score.cells[system.rows[row], system.regions[column]]
        if log_odds is not None:
            answers.append((Status.OK, log_odds))
        elif score.status is not Status.OK:
            answers.append((score.status, float("nan")))
        else:  # another region could be judged
            refused = Status.LOW_QUALITY if score.reasons else Status.TOO_SMALL
            answers.append((refused, float("nan")))
    return answers


def _row(record: FaceRecord, status: Status, log_odds: float) -> dict[str, object]:
    names: Mapping[str, object] = {
        name: getattr(record, name)
        for name in ("key", "video", "track", "identities", "label", "method")
    }
    return {
        **names,
        "compression": record.compression,
        "split": record.split,
        "status": status,
        "log_odds": log_odds,
    }
