"""The processes that score an archive's files on one machine, and what became of those they had."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, Protocol

from deepregions.archive.manifest import Listed
from deepregions.errors import DeepregionsError, MissingExtraError, UnreachableError
from deepregions.media.sandbox import end_with_parent, ending

_AHEAD = 2  # files that a worker has: it opens one while it scores another
_STARTS = 3  # of workers that did not come up, after which there is no use in another
_TICK = 1.0  # seconds between looks at the clock


class ScoredFile(NamedTuple):
    """What came of a file: a line of JSON, and a page where one is wanted."""

    id: int
    line: bytes
    page: str = ""


class FileOutcome(NamedTuple):
    """What became of a file: it is scored, or killed its worker, or else was not begun."""

    file: Listed
    scored: ScoredFile | None = None
    killed: str = ""


class ArchiveScorer(Protocol):
    """Scores files as they come, in their order; ``run`` says what its results are made with."""

    run: Mapping[str, Any]

    def __call__(self, files: Iterable[Listed]) -> Iterator[ScoredFile]:
        """Yields what came of each file; what kills the process or raises is the first's fault."""


MakeScorer = Callable[[], ArchiveScorer]
"""Makes a scorer in the process that scores; it can be sent there."""


class ScorerPool(Protocol):
    """What has files scored by processes somewhere."""

    def start(self) -> Mapping[str, Any]:
        """Waits until somebody can score; returns what results are made with."""

    def room(self) -> int:
        """Returns how many more files it takes now."""

    def put(self, file: Listed) -> None:
        """Takes a file."""

    def flush(self) -> None:
        """Is told that there are no more files for now."""

    def wait(self) -> list[FileOutcome]:
        """Waits until something has become of files, or for a few seconds."""

    def close(self) -> None:
        """Ends the processes, whatever they are at."""


class _Worker:
    """A process that scores, as the driver sees it."""

    def __init__(self, make: MakeScorer, context: Any) -> None:
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=run_worker, args=(theirs, make), daemon=True
        )
        self.process.start()
        theirs.close()
        self.ready = False
        self.files: deque[Listed] = deque()  # that it has, the one that it works on first
        self.since = 0.0  # when it began with that
        self.flushed = True
        self.said = ""  # why it ended

    def send(self, file: Listed | None) -> None:
        if file is not None:
            if not self.files:
                self.since = time.monotonic()
            self.files.append(file)
        self.flushed = file is None
        with suppress(OSError):  # it has just ended: waiting for it will say so
            self.connection.send(file)

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class WorkerPool:
    """Processes on this machine; one ends whose file takes more than ``longest`` seconds.

    ``settle`` makes what makes the other workers' scorers, of what the first one's are made with;
    without, all start at once.
    """

    def __init__(
        self,
        make: MakeScorer,
        workers: int,
        *,
        longest: float = 1800.0,
        settle: Callable[[Mapping[str, Any]], MakeScorer] | None = None,
    ) -> None:
        self._make, self._settle = make, settle
        self._count, self._longest = workers, longest
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._run: Mapping[str, Any] | None = None
        self._failures = 0

    def start(self) -> Mapping[str, Any]:
        """Starts the processes; returns what results are made with.

        Raises:
            DeepregionsError: They cannot be started.
        """
        while self._run is None:  # what it finds out, such as the fastest runtime, holds for all
            self._keep_up(self._count if self._settle is None else 1)
            self.wait()
        if self._settle is not None:
            self._make = self._settle(self._run)
        self._keep_up(self._count)
        return self._run

    def room(self) -> int:
        """Returns how many more files it takes now."""
        return sum(_AHEAD - len(each.files) for each in self._workers if each.ready)

    def put(self, file: Listed) -> None:
        """Gives a file to the worker that has the fewest."""
        ready = [each for each in self._workers if each.ready]
        min(ready, key=lambda each: len(each.files)).send(file)

    def flush(self) -> None:
        """Has workers finish what they have, without waiting for a next file."""
        for each in self._workers:
            if each.files and not each.flushed:
                each.send(None)

    def wait(self) -> list[FileOutcome]:
        """Waits until something has become of files, or for a few seconds.

        Raises:
            DeepregionsError: No worker can be started.
        """
        outcomes: list[FileOutcome] = []
        by_connection = {each.connection: each for each in self._workers}
        for connection in wait(list(by_connection), _TICK):
            worker = by_connection[connection]
            try:
                while True:
                    self._hear(worker, worker.connection.recv(), outcomes)
                    if not worker.connection.poll():
                        break
            except (EOFError, OSError):
                outcomes += self._lost(worker)
        for worker in self._workers:
            if worker.files and time.monotonic() - worker.since > self._longest:
                worker.said = f"taking more than {self._longest:g} s"
                worker.process.kill()
        if self._run is not None:
            self._keep_up(self._count)
        return outcomes

    def close(self) -> None:
        """Ends the processes, whatever they are at."""
        for each in self._workers:
            each.end()
        self._workers = []

    def _keep_up(self, count: int) -> None:
        while len(self._workers) < count:
            self._workers.append(_Worker(self._make, self._context))

    def _hear(self, worker: _Worker, message: Any, outcomes: list[FileOutcome]) -> None:
        if isinstance(message, ScoredFile):
            outcomes.append(FileOutcome(worker.files.popleft(), message))
            worker.since = time.monotonic()
        elif isinstance(message, DeepregionsError):
            raise message
        elif isinstance(message, str):
            worker.said = message
        else:
            worker.ready, self._failures, self._run = True, 0, message

    def _lost(self, worker: _Worker) -> Iterator[FileOutcome]:
        """A worker has ended: the file that it worked on is to blame, others come back."""
        worker.process.join(_TICK)
        worker.end()
        self._workers.remove(worker)
        why = worker.said or ending(worker.process.exitcode or 0)
        if not worker.ready:
            self._failures += 1
            if self._failures >= _STARTS:
                raise DeepregionsError(f"workers do not start ({why})")
        for place, file in enumerate(worker.files):
            yield FileOutcome(file, killed="" if place else why)


def run_worker(connection: Connection, make: MakeScorer) -> None:
    """Runs a worker: it scores what comes until nobody is there who sends."""
    end_with_parent()
    for ignored in (signal.SIGINT, signal.SIGTERM):  # whoever started it decides
        signal.signal(ignored, signal.SIG_IGN)
    try:
        try:
            scorer = make()
        except DeepregionsError as error:
            connection.send(error)
            return
        connection.send(dict(scorer.run))
        while True:
            for scored in scorer(iter(connection.recv, None)):
                connection.send(scored)
    except (EOFError, ConnectionError):
        return
    except (MissingExtraError, UnreachableError) as error:  # no file's fault
        connection.send(error)
    except BaseException as error:
        connection.send(f"{type(error).__name__}: {error}")
        raise
