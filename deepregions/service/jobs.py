"""Jobs in SQLite: what is to be done, by whom, and what came of it. Nothing is lost or done twice.

A *job* is one upload; its id is all that a stranger needs to read it, so it cannot be guessed. A
*work* is what is computed: jobs of one owner for the same bytes and the same networks share one.
Several processes use the file at once; every change is one statement or one transaction.
"""

import json
import secrets
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sql

KILLS = 2
"""Workers that a work may end, each at nothing else, before it is given up."""
RESTARTS = 5
"""Servers that may end during a work before it is given up."""

_TABLES = sql.MetaData()
_KEY = ("sha256", "networks", "owner", "variant")
_WORKS = sql.Table(
    "works",
    _TABLES,
    sql.Column("number", sql.Integer, primary_key=True),  # in the order of arrival
    sql.Column("id", sql.Text, nullable=False, unique=True),
    sql.Column("sha256", sql.Text, nullable=False),
    sql.Column("networks", sql.Text, nullable=False),  # a digest of all that decides scores
    sql.Column("owner", sql.Text, nullable=False),  # a key's id, or empty
    # Its ending, which decides what a file is where its content does not, or, where no later
    # upload may share it, its id.
    sql.Column("variant", sql.Text, nullable=False),
    sql.Column("file", sql.Text, nullable=False),  # its name in the folder of uploads
    sql.Column("kept", sql.Integer, nullable=False, default=1),  # whether the file is still there
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("urgent", sql.Integer, nullable=False, default=0),  # somebody waits for the answer
    sql.Column("state", sql.Text, nullable=False, default="queued"),
    sql.Column("worker", sql.Text, nullable=False, default=""),
    sql.Column("attempts", sql.Integer, nullable=False, default=0),
    sql.Column("kills", sql.Integer, nullable=False, default=0),
    sql.Column("done", sql.Integer, nullable=False, default=0),  # frames
    sql.Column("total", sql.Integer),
    sql.Column("result", sql.Text),  # JSON
    sql.Column("error", sql.Text),  # JSON, a problem
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("started", sql.Float),
    sql.Column("finished", sql.Float),
    sql.UniqueConstraint(*_KEY),
    sql.Index("works_by_state", "state", "urgent", "number"),
    sql.Index("works_by_finished", "finished"),
)
_JOBS = sql.Table(
    "jobs",
    _TABLES,
    sql.Column("id", sql.Text, primary_key=True),
    sql.Column(
        "work", sql.Text, sql.ForeignKey("works.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("created", sql.Float, nullable=False),
)
_LEFT = sql.select(sql.func.count()).where(_WORKS.c.state.in_(("queued", "running")))


@dataclass(frozen=True)
class Upload:
    """A file that has come: its name on disk, what it is, and what its sender calls it."""

    file: str
    sha256: str
    size: int
    name: str


class Work(NamedTuple):
    """What a worker gets to do."""

    id: str
    file: str
    created: float
    attempts: int


@dataclass(frozen=True)
class Job:
    """A job as its owner sees it."""

    id: str
    name: str
    work: str
    sha256: str
    networks: str
    file: str
    state: str
    attempts: int
    done: int
    total: int | None
    result: str | None
    error: str | None
    created: float
    started: float | None
    finished: float | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "error")

    @property
    def answer(self) -> str | None:
        """Its result as JSON, with its sender's name."""
        return None if self.result is None else self._named(self.result)

    def to_dict(self) -> dict[str, Any]:
        """Returns the object that the service answers with."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "sha256": self.sha256,
            "progress": {"done": self.done, "total": self.total},
            "result": None if self.result is None else json.loads(self._named(self.result)),
            "error": None if self.error is None else json.loads(self._named(self.error)),
            "created": _iso(self.created),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "links": {
                "self": f"/v1/jobs/{self.id}",
                "events": f"/v1/jobs/{self.id}/events",
                "report": f"/v1/jobs/{self.id}/report",
            },
        }

    def page(self, text: str) -> str:
        """Returns a report with the sender's name in it."""
        return text.replace(self.file, escape(self.name))

    def _named(self, text: str) -> str:
        """Puts the sender's name into JSON in which the file's name on disk stands for it."""
        return text.replace(self.file, json.dumps(self.name)[1:-1])


def _statements() -> tuple[Any, ...]:
    """Makes what is asked and changed for each upload, once: that takes longer than SQLite."""
    value, works = sql.bindparam, _WORKS.c
    same = sql.select(works.id).where(*(works[name] == value(name) for name in _KEY))
    names = [each for each in Job.__dataclass_fields__ if each not in ("id", "name", "work")]
    jobs = (
        sql.select(_JOBS.c.id, _JOBS.c.name, _JOBS.c.work, *(works[name] for name in names))
        .join_from(_JOBS, _WORKS)
        .where(_JOBS.c.owner == value("owner"))
    )
    one = jobs.where(_JOBS.c.id == value("id"))
    several = jobs.where(_JOBS.c.id.in_(value("ids", expanding=True)))
    first = (
        sql.select(works.number)
        .where(works.state == "queued")
        .order_by(works.urgent.desc(), works.number)
        .limit(1)
    )
    claim = (
        sql.update(_WORKS)
        .where(works.number == first.scalar_subquery(), works.attempts <= value("most"))
        .values(state="running", worker=value("claimer"), done=0, total=None)
        .values(attempts=works.attempts + 1, started=value("now"))
        .returning(*(works[name] for name in Work._fields))
    )
    mine = works.id == value("mine"), works.worker == value("claimer"), works.state == "running"
    change = sql.update(_WORKS).where(*mine)  # further columns are set by their names
    frames = value("frames", type_=sql.Integer)
    finish = change.values(
        done=sql.func.max(works.done, sql.func.coalesce(frames, 0)),
        total=sql.func.coalesce(works.total, frames),
    )
    return same, one, several, claim, change, finish


_SAME, _JOB_OF, _JOBS_OF, _CLAIM, _CHANGE, _FINISH = _statements()
_ADD_WORK, _ADD_JOB = sql.insert(_WORKS), sql.insert(_JOBS)


class QueueFullError(Exception):
    """There are as many jobs as there may be."""


class JobStore:
    """The jobs of a service, in a file that need not be there yet."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sql.create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
        sql.event.listen(self._engine, "connect", _prepare)
        with self._writing() as connection:
            _TABLES.create_all(connection)

    def close(self) -> None:
        """Closes the file."""
        self._engine.dispose()

    def submit(
        self,
        uploads: Sequence[Upload],
        networks: str,
        owner: str = "",
        *,
        again: bool = False,
        urgent: bool = False,
        limit: int = 1000,
    ) -> list[str]:
        """Makes a job of each file, all or none; returns their ids.

        A file whose work is there already (by the same networks, of the same owner) adds none,
        unless it is to be done ``again``. The files that no work needs are not deleted here.

        Raises:
            QueueFullError: More than ``limit`` works would wait or run.
        """
        with self._writing() as connection:
            ids = []
            for upload in uploads:
                key = (upload.sha256, networks, owner, Path(upload.file).suffix)
                work = self._shared(connection, key, again=again, urgent=urgent)
                if work is None:
                    work = _new_id()
                    values = {"file": upload.file, "size": upload.size, "urgent": int(urgent)}
                    values |= dict(zip(_KEY, key, strict=True))
                    connection.execute(_ADD_WORK, values | {"id": work, "created": _now()})
                ids.append(_new_id())
                job = {"id": ids[-1], "work": work, "owner": owner, "name": upload.name}
                connection.execute(_ADD_JOB, job | {"created": _now()})
            if (connection.scalar(_LEFT) or 0) > limit:
                raise QueueFullError
        return ids

    def _shared(
        self, connection: sql.Connection, key: Sequence[str], *, again: bool, urgent: bool
    ) -> str | None:
        """Returns the work that is there for a file; with ``again`` it no longer counts."""
        found = connection.scalar(_SAME, dict(zip(_KEY, key, strict=True)))
        if found is None:
            return None
        if again:
            connection.execute(sql.update(_WORKS).where(_WORKS.c.id == found).values(variant=found))
            return None
        if urgent:
            connection.execute(sql.update(_WORKS).where(_WORKS.c.id == found).values(urgent=1))
        return str(found)

    def claim(self, worker: str, *, fresh: bool = False) -> Work | None:
        """Gives a worker the next work, or None where there is none.

        With ``fresh``, none either where the next was begun before: it may be what ended its
        worker, and is done alone so that no other is blamed.
        """
        values = {"claimer": worker, "now": _now(), "most": 0 if fresh else sys.maxsize}
        with self._engine.connect() as connection:
            row = connection.execute(_CLAIM, values).first()
        return None if row is None else Work(*row)

    def advance(self, work: str, worker: str, done: int, total: int | None) -> None:
        """Notes how far a work is."""
        self._change(_CHANGE, work, worker, {"done": done, "total": total})

    def finish(
        self,
        work: str,
        worker: str,
        result: Mapping[str, Any] | None,
        error: Mapping[str, Any] | None = None,
    ) -> bool:
        """Ends a work; returns False if it is no longer this worker's, and then changes nothing."""
        values = {
            "frames": (0 if result is None else result.get("frames", 0)) or None,
            "state": "error" if error else "done",
            "result": None if result is None else json.dumps(result, allow_nan=False),
            "error": None if error is None else json.dumps(error),
            "finished": _now(),
        }
        return self._change(_FINISH, work, worker, values)

    def release(self, worker: str, reason: Mapping[str, Any] | None = None) -> list[str]:
        """Takes back what a worker that is gone was at, for another one to do; returns the works.

        ``reason`` is the problem of a work that has ended its last worker too; None if this
        worker's end was not the work's fault. Of several works none is to blame.
        """
        with self._writing() as connection:
            mine = _WORKS.c.state == "running", _WORKS.c.worker == worker
            works = list(connection.scalars(sql.select(_WORKS.c.id).where(*mine)))
            fault = int(reason is not None and len(works) == 1)
            _take_back(connection, mine, _WORKS.c.kills + fault >= KILLS, reason, fault)
        return works

    def recover(self, reason: Mapping[str, Any]) -> None:
        """Takes back everything, when a server starts; no worker may be at work.

        What servers end during again and again is given up, with ``reason`` as its problem.
        """
        with self._writing() as connection:
            running = (_WORKS.c.state == "running",)
            _take_back(connection, running, _WORKS.c.attempts >= RESTARTS, reason)

    def retarget(self, networks: str) -> None:
        """Gives what waits to these networks: a service may start again with others."""
        waiting = _WORKS.c.state == "queued", _WORKS.c.networks != networks
        changed = sql.update(_WORKS).where(*waiting)
        with self._engine.connect() as connection:
            connection.execute(changed.values(networks=networks, variant=_WORKS.c.id))

    def jobs(self, ids: Collection[str], owner: str = "") -> list[Job]:
        """Returns those of some jobs that are there and this owner's, in the order of the ids."""
        wanted = {"ids": list(ids), "owner": owner}
        with self._engine.connect() as connection:
            found = {row[0]: Job(*row) for row in connection.execute(_JOBS_OF, wanted)}
        return [found[each] for each in dict.fromkeys(ids) if each in found]

    def job(self, id: str, owner: str = "") -> Job | None:
        """Returns a job if it is there, and this owner's."""
        with self._engine.connect() as connection:
            row = connection.execute(_JOB_OF, {"id": id, "owner": owner}).first()
        return None if row is None else Job(*row)

    def delete(self, id: str, owner: str = "") -> bool:
        """Deletes a job, and its work if no other job has it; returns whether the work is gone."""
        with self._writing() as connection:
            mine = _JOBS.c.id == id, _JOBS.c.owner == owner
            work = connection.scalar(sql.delete(_JOBS).where(*mine).returning(_JOBS.c.work))
            others = sql.select(_JOBS.c.id).where(_JOBS.c.work == work)
            gone = sql.delete(_WORKS).where(_WORKS.c.id == work, ~others.exists())
            return bool(connection.execute(gone).rowcount)

    def expire(self, files: float, results: float) -> tuple[list[str], list[str]]:
        """Forgets results, and the files of ended works, that are older than so many seconds.

        Returns:
            The files to delete, and the works whose reports to delete.
        """
        now = _now()
        with self._writing() as connection:
            recent = sql.select(_JOBS.c.work).where(_JOBS.c.created > now - results)
            old = _WORKS.c.finished <= now - results, _WORKS.c.id.not_in(recent)
            gone = sql.delete(_WORKS).where(*old).returning(_WORKS.c.id, _WORKS.c.file)
            works = connection.execute(gone).all()
            over = _WORKS.c.finished <= now - files, _WORKS.c.kept == 1
            changed = sql.update(_WORKS).where(*over).values(kept=0).returning(_WORKS.c.file)
            unkept = connection.scalars(changed).all()
        return [*unkept, *(file for _, file in works)], [work for work, _ in works]

    def files(self) -> tuple[set[str], set[str]]:
        """Returns the files that are still needed, and the works whose reports are."""
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_WORKS.c.id, _WORKS.c.file, _WORKS.c.kept)).all()
        return {file for _, file, kept in rows if kept}, {work for work, *_ in rows}

    def counts(self) -> dict[str, int]:
        """Returns how many works there are in each state."""
        counted = sql.select(_WORKS.c.state, sql.func.count()).group_by(_WORKS.c.state)
        with self._engine.connect() as connection:
            found = {row[0]: row[1] for row in connection.execute(counted)}
        return dict.fromkeys(("queued", "running", "done", "error"), 0) | found

    def left(self) -> int:
        """Returns how many works wait or run."""
        with self._engine.connect() as connection:
            return connection.scalar(_LEFT) or 0

    def overdue(self, longest: float) -> list[str]:
        """Returns the workers that are at a work for longer than so many seconds."""
        late = _WORKS.c.state == "running", _WORKS.c.started < _now() - longest
        with self._engine.connect() as connection:
            return list(connection.scalars(sql.select(_WORKS.c.worker).where(*late)))

    def _change(
        self, statement: sql.Update, work: str, worker: str, values: Mapping[str, Any]
    ) -> bool:
        mine = {"mine": work, "claimer": worker}
        with self._engine.connect() as connection:
            return bool(connection.execute(statement, {**mine, **values}).rowcount)

    @contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        """One transaction that writes: it waits for others at its start, not in its midst."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")


def _take_back(
    connection: sql.Connection,
    running: Sequence[sql.ColumnElement[bool]],
    given_up: sql.ColumnElement[bool],
    reason: Mapping[str, Any] | None,
    fault: int = 0,
) -> None:
    if reason is not None:
        values = {"state": "error", "error": json.dumps(reason), "finished": _now()}
        connection.execute(sql.update(_WORKS).where(*running, given_up).values(values))
    again = {"state": "queued", "worker": "", "started": None, "done": 0}
    changed = sql.update(_WORKS).where(*running).values(kills=_WORKS.c.kills + fault, **again)
    connection.execute(changed)


def _prepare(connection: Any, _: object) -> None:
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("PRAGMA busy_timeout=30000")


def _new_id() -> str:
    return secrets.token_urlsafe(18)


def _now() -> float:
    return time.time()


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
