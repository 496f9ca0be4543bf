"""The processes that score, and who watches them: what one leaves undone another does."""

import gc
import hashlib
import json
import logging
import multiprocessing
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from deepregions.errors import DeepregionsError
from deepregions.files import atomic_file
from deepregions.media.kinds import kind_of, read_head
from deepregions.media.sandbox import end_with_parent, ending
from deepregions.memory import return_freed
from deepregions.service.jobs import KILLS, RESTARTS, JobStore, Work
from deepregions.service.problems import problem
from deepregions.service.scoring import FileScorer, imported
from deepregions.service.settings import Scored, ServiceSettings
from deepregions.service.uploads import remove

logger = logging.getLogger("deepregions.service")

_TRIFLES = ("command", "date")  # facts that decide no score
_STOP = "stop"
_IDLE = 1.0  # seconds after which a worker looks for work although nobody told it of any
_GRACE = 5.0  # seconds that a worker has to finish when the service stops
_SLOWEST = 5.0  # seconds between two starts of a worker that does not come up
_STARTS = 3  # of workers that did not come up, after which the service gives up
_TICK = 1.0  # seconds between looks at the clock
_SWEEP = 30.0  # seconds between looks for what is too old

_UNJUDGED = ("unreadable", "unsupported")


@dataclass
class Notice:
    """What a worker tells: a work has changed, or how long a stage took."""

    work: str
    stages: Mapping[str, float] | None = None


class PageWanted(NamedTuple):
    """What workers are told: somebody asks for the page of a work, whose file has this name."""

    work: str
    file: str


class _Slot:
    def __init__(self) -> None:
        self.name = ""
        self.process: BaseProcess | None = None
        self.connection: Connection | None = None
        self.ready = False
        self.late = False  # its work took too long
        self.failures = 0
        self.not_before = 0.0


class Supervisor:
    """Keeps workers going in a thread of its own, in which it calls ``notify`` and ``fail``.

    Attributes:
        facts: What results are made with; None until a worker is ready.
        networks: A digest of what decides scores.
        kills: How many workers have ended that were not told to.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        store: JobStore,
        notify: Callable[[Notice], None],
        fail: Callable[[DeepregionsError], None],
    ) -> None:
        self.facts: dict[str, Any] | None = None
        self.networks = ""
        self.kills = 0
        self._settings = settings
        self._store = store
        self._notify = notify
        self._fail = fail
        self._context = _context(settings)
        try:
            self._tokens = self._context.Semaphore(0)  # one for each work that was added
        except OSError as error:
            said = f"workers cannot be started: /dev/shm: {error.strerror or error}"
            hint = "its semaphores are there: mount a tmpfs that this user may write to"
            raise DeepregionsError(said, hint) from error
        self._looked = 0.0  # for works that take too long
        self._slots = [_Slot() for _ in range(settings.workers)]
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Takes up what an earlier service left, and starts the workers."""
        for folder in (self._settings.uploads, self._settings.reports):
            folder.mkdir(parents=True, exist_ok=True)
        said = f"{RESTARTS} services ended while this file was worked on"
        self._store.recover(problem(500, said, "?again=true tries once more"))
        files, works = self._store.files()
        for path in self._settings.uploads.iterdir():
            if path.name not in files:
                remove(path.parent, path.name)
        for path in self._settings.reports.iterdir():
            if path.stem not in works:
                remove(path.parent, path.name)
        self._thread.start()

    def stop(self) -> None:
        """Lets workers finish for a moment, ends them, and puts back what they were at."""
        self._stopping.set()
        self._thread.join()

    def wake(self, count: int = 1) -> None:
        """Tells the workers that there is more to do."""
        for _ in range(count):
            self._tokens.release()

    def ask_page(self, wanted: PageWanted) -> bool:
        """Has a page made, by the first worker that is free; returns False where none can."""
        asked = False
        for slot in self._slots:
            with self._sending, suppress(OSError, AttributeError):  # it has just ended
                if slot.ready:
                    slot.connection.send(wanted)  # type: ignore[union-attr]
                    asked = True
        self.wake(len(self._slots))
        return asked

    @property
    def ready(self) -> bool:
        """Whether a worker is ready to work."""
        return any(slot.ready for slot in self._slots)

    def pids(self) -> list[int]:
        """Returns the processes of the workers."""
        return [slot.process.pid for slot in self._slots if slot.process and slot.process.pid]

    def sweep(self) -> None:
        """Deletes what is too old."""
        files, works = self._store.expire(self._settings.keep, self._settings.results_kept)
        for file in files:
            remove(self._settings.uploads, file)
        for work in works:
            remove(self._settings.reports, f"{work}.html")

    def _run(self) -> None:
        block_signals()
        swept = 0.0
        while not self._stopping.is_set():
            try:
                self._look_after()
                if time.monotonic() - swept > _SWEEP:
                    swept = time.monotonic()
                    self.sweep()
            except Exception:  # whatever it is, such as a full disk: workers need looking after
                logger.exception("the supervisor has a fault")
                self._stopping.wait(_TICK)
        self._stop_workers()

    def _look_after(self) -> None:
        for number, slot in enumerate(self._slots):
            late = time.monotonic() >= slot.not_before
            # The others wait for what the first one finds out, such as the fastest runtime.
            if slot.process is None and late and (number == 0 or self.facts is not None):
                self._start(slot)
        self._listen(_TICK)
        if time.monotonic() - self._looked < _TICK:
            return
        self._looked = time.monotonic()
        for worker in self._store.overdue(self._settings.longest):
            for slot in self._slots:
                if slot.name == worker and slot.process is not None:
                    slot.late = True
                    slot.process.kill()

    def _listen(self, seconds: float) -> None:
        """Hears what workers say for so long, or until one of them has said something."""
        by_connection = {s.connection: s for s in self._slots if s.connection is not None}
        if not by_connection:
            self._stopping.wait(min(seconds, 0.1))
        for connection in wait(list(by_connection), seconds) if by_connection else ():
            slot = by_connection[connection]  # type: ignore[index]
            try:
                self._hear(slot, slot.connection.recv())  # type: ignore[union-attr]
            except (EOFError, OSError):
                self._lost(slot)

    def _start(self, slot: _Slot) -> None:
        settings = self._settings
        if self.facts is not None and settings.runtime == "auto":
            settings = replace(settings, runtime=self.facts.get("runtime", "auto"))
        slot.name = secrets.token_hex(8)
        ours, theirs = self._context.Pipe()
        given = (slot.name, settings, self._tokens, theirs)
        process = self._context.Process(target=run_worker, args=given, daemon=True)
        process.start()
        theirs.close()
        slot.process, slot.connection = process, ours

    def _hear(self, slot: _Slot, message: Any) -> None:
        if isinstance(message, Notice):
            self._notify(message)
        elif isinstance(message, DeepregionsError):
            self._give_up(message)
        else:
            slot.ready, slot.failures = True, 0
            self._learn(message)

    def _learn(self, facts: dict[str, Any]) -> None:
        """Somebody can score, with these facts."""
        if self.facts is None:
            logger.info("ready")
        networks = fingerprint(facts)
        if self.networks != networks:
            self._store.retarget(networks)
        self.networks, self.facts = networks, facts

    def _lost(self, slot: _Slot) -> None:
        """A worker has ended: its work goes to another, or is given up."""
        if slot.process is None or slot.connection is None:
            return
        slot.connection.close()
        slot.process.join(_GRACE)
        if slot.process.exitcode is None:
            slot.process.kill()
            slot.process.join()
        code = slot.process.exitcode or 0
        how = ending(code)
        how = f"taking more than {self._settings.longest:g} s" if slot.late else how
        logger.warning("a worker ended (%s)", how)
        changed = self._store.release(slot.name, self._fault(how))
        self.kills += 1
        # A kill says nothing about a start, unless none has come up yet: for lack of memory, say.
        if not slot.ready and (code != -signal.SIGKILL or self.facts is None):
            slot.failures += 1
            slot.not_before = time.monotonic() + min(2.0**slot.failures, _SLOWEST)
            if slot.failures >= _STARTS:
                self._give_up(DeepregionsError(f"workers do not start ({how})"))
        slot.process, slot.connection, slot.ready, slot.late = None, None, False, False
        self.wake(len(changed))
        for work in changed:
            self._notify(Notice(work))

    def _fault(self, how: str) -> dict[str, Any]:
        """Returns the problem of a file that workers end at."""
        said = f"{KILLS} workers ended while this file was worked on, the last one by {how}"
        hint = "the file may need more memory than there is; ?again=true tries once more"
        return problem(500, said, hint)

    def _give_up(self, error: DeepregionsError) -> None:
        if self.facts is None:
            self._fail(error)
        else:
            logger.error("a worker does not start: %s", error)

    def _stop_workers(self) -> None:
        slots = [slot for slot in self._slots if slot.process is not None]
        for slot in slots:
            with self._sending, suppress(OSError):
                slot.connection.send(_STOP)  # type: ignore[union-attr]
        self.wake(len(slots))
        deadline = time.monotonic() + _GRACE
        for slot in slots:
            assert slot.process is not None  # noqa: S101
            slot.process.join(max(0.0, deadline - time.monotonic()))
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()
            self._store.release(slot.name)


def block_signals() -> None:
    """Keeps Ctrl-C and SIGTERM, which reach all processes, from this thread and what it starts."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})


def keep_result(
    settings: ServiceSettings, store: JobStore, work: Work, worker: str, scored: Scored
) -> None:
    """Keeps what came of a work: if it has a page, the work is done once that is written."""
    (result, page), error = scored, None
    if result["status"] in _UNJUDGED:
        error = problem(422, result["message"], "send another copy, or another kind")
    elif page:
        _write_page(settings, work.id, page)
    if not store.finish(work.id, worker, None if error else result, error):  # it was deleted
        remove(settings.reports, f"{work.id}.html")
    if settings.keep <= 0:
        remove(settings.uploads, work.file)


def _write_page(settings: ServiceSettings, work: str, page: str) -> None:
    with atomic_file(settings.reports / f"{work}.html") as partial:
        partial.write_text(page, encoding="utf-8")


def _make_page(settings: ServiceSettings, wanted: PageWanted, scorer: FileScorer) -> None:
    """Makes a page unless another worker has, or its file is no longer there."""
    file, name = settings.uploads / wanted.file, f"{wanted.work}.html"
    if file.exists() and not (settings.reports / name).exists():
        _write_page(settings, wanted.work, scorer.page(file))
        if not file.exists():  # it was deleted meanwhile
            remove(settings.reports, name)


def _context(settings: ServiceSettings) -> Any:
    """Returns what starts processes: where it can, forks of one that has imported everything."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    names = imported(settings) if settings.make_scorer is FileScorer else ()
    context.set_forkserver_preload([__name__, *names])
    return context


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Returns a digest of what decides scores: equal digests mean equal answers."""
    deciding = {name: value for name, value in facts.items() if name not in _TRIFLES}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=str).encode()).hexdigest()


def run_worker(name: str, settings: ServiceSettings, tokens: Any, connection: Connection) -> None:
    """Runs a worker: it takes works until it is told to stop."""
    end_with_parent()
    gc.freeze()  # what was imported before the fork is left where it is, shared
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    try:
        scorer = settings.make_scorer(settings)
    except DeepregionsError as error:
        connection.send(error)
        return
    store = JobStore(settings.database)
    connection.send(dict(scorer.facts))
    while True:
        if connection.poll():
            try:
                told = connection.recv()
            except EOFError:  # the service has ended
                return
            if told == _STOP:
                return
            _make_page(settings, told, scorer)
            connection.send(Notice(told.work))
        elif (work := store.claim(name)) is not None:
            _Shift(name, settings, store, connection).do(work, scorer)
        elif not tokens.acquire(timeout=_IDLE):
            return_freed()


class _Shift:
    """Works that a worker does together: as many as there are, or one that was begun before.

    Iterates over their paths, and may have run out for a moment only.
    """

    def __init__(
        self, name: str, settings: ServiceSettings, store: JobStore, connection: Connection
    ) -> None:
        self._name, self._settings, self._store = name, settings, store
        self._connection = connection
        self._begun: dict[Path, tuple[Work, float, float]] = {}  # when, and after what wait
        self._first: Work | None = None
        self._closed = False

    def do(self, first: Work, scorer: FileScorer) -> None:
        self._first = first
        for answer in scorer(self, self._progress):
            path = next(iter(self._begun))
            work, start, waited = self._begun[path]
            scored = time.perf_counter()
            keep_result(self._settings, self._store, work, self._name, answer)
            del self._begun[path]
            stages = {"score": scored - start, "store": time.perf_counter() - scored}
            self._connection.send(Notice(work.id, {"queue": waited, **stages}))

    def __iter__(self) -> Iterator[Path]:
        return self

    def __next__(self) -> Path:
        work, self._first = self._first, None
        if work is None and not self._closed:
            self._closed = self._connection.poll()  # something else is to be done
            work = None if self._closed else self._store.claim(self._name, fresh=True)
        if work is None:
            raise StopIteration
        path = self._settings.uploads / work.file
        # Nobody is told: of a photograph its result comes next, of a video its progress.
        self._begun[path] = work, time.perf_counter(), time.time() - work.created
        # A video comes last: whoever was behind it would wait although another worker is free.
        self._closed = work.attempts > 1 or kind_of(read_head(path), path) == "video"
        return path

    def _progress(self, path: Path, done: int, total: int | None) -> None:
        if total == 1:  # it is told with the result
            return
        work, *_ = self._begun[path]
        self._store.advance(work.id, self._name, done, total)
        self._connection.send(Notice(work.id))
