"""A pool of Ray actors, on one machine or a cluster: the same function, driver and journals.

Not Ray Data: its checkpoints hold all ids in memory, its actors restart for ever on a file that
kills them, and what it gives up it drops.
"""

import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from deepregions.archive.manifest import Listed
from deepregions.archive.ray_networks import RayNetworks
from deepregions.archive.workers import FileOutcome, MakeScorer, ScoredFile
from deepregions.errors import (
    DeepregionsError,
    MissingExtraError,
    UnreachableError,
    UsageError,
    require,
)

_NO_FILES = (MissingExtraError, UnreachableError)  # errors that no file is to blame for
_BATCH = 8  # files of one task: an actor opens the next of them while it scores one
_TASKS = 2  # that an actor has: it begins the next at once
_STARTS = 3  # of actors that did not come up in a row, after which there is no use in another
_UNSURE = 15.0  # seconds after which Ray knows whether a node is gone
_CONNECT = 5.0  # seconds in which a cluster answers
_TICK = 1.0  # seconds between looks at the clock


class _FileActor:
    """What Ray runs in a process of its own."""

    def load(self, make: MakeScorer) -> tuple[Mapping[str, Any], str]:
        ray: Any = require("ray", "ray")
        self._scorer = make()
        return self._scorer.run, ray.get_runtime_context().get_node_id()

    def score(self, files: Sequence[Listed]) -> Iterator[ScoredFile]:
        yield from self._scorer(iter(files))


class _Handle:
    """An actor, as the driver sees it."""

    def __init__(self, actor: Any, make: MakeScorer) -> None:
        self.actor = actor
        self.loading = actor.load.remote(make)
        self.node = ""  # once it is ready
        self.tasks: deque[tuple[Any, deque[Listed]]] = deque()  # and their files without results
        self.since = 0.0  # when it began with the file that it works on
        self.said = ""  # why it was ended

    @property
    def awaited(self) -> Any:
        return self.loading if self.loading is not None else self.tasks[0][0]

    @property
    def has(self) -> int:
        return sum(len(files) for _, files in self.tasks)


def _check_reachable(address: str) -> None:
    """Says in seconds that nobody answers at ``HOST:PORT``; Ray takes minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray: nobody answers at {address}", "ray status shows what is running"
        ) from error


def connect(ray: Any, address: str) -> None:
    """Connects to the cluster at an address; empty is the one that runs here, or else a new one.

    Raises:
        UsageError: There is no such cluster.
    """
    _check_reachable(address)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address or None,
            log_to_driver=False,
            configure_logging=False,
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--ray: {error}", "ray status shows what is running") from error
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own in its place


class RayPool:
    """Actors of a Ray cluster; each has a core, or its share of the GPUs where there are any.

    Where ``networks`` can run in actors beside the GPUs, all of these have cores, and ask them.
    There are ``workers`` actors, or one for each GPU, or else for each core; one ends whose file
    takes more than ``longest`` seconds. ``settle`` makes what makes the other actors' scorers, of
    what the first one's are made with; without, all start at once.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self,
        make: MakeScorer,
        address: str = "",
        workers: int | None = None,
        *,
        longest: float = 1800.0,
        gpus: bool = True,
        networks: RayNetworks | None = None,
        settle: Callable[[Mapping[str, Any]], MakeScorer] | None = None,
    ) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # or it tells its maker of what runs here
        os.environ.setdefault("RAY_enable_metrics_collection", "0")  # which takes time of cores
        self._ray: Any = require("ray", "ray")
        self._make, self._settle = make, settle
        self._address, self._workers, self._longest, self._gpus = address, workers, longest, gpus
        self._networks = networks
        self._handles: list[_Handle] = []
        self._waiting: list[Listed] = []  # for a task of several
        self._run: Mapping[str, Any] | None = None
        self._failures = 0

    def start(self) -> Mapping[str, Any]:
        """Connects, and waits for the first actor.

        Raises:
            UsageError: There is no such cluster.
            DeepregionsError: Actors cannot be started.
        """
        connect(self._ray, self._address)
        if (gpus := self._gpu_count()) >= 1 and self._networks is not None:
            apart = self._networks.start(self._ray, int(gpus))
            if apart is not None:
                self._make, self._settle, self._gpus = apart, None, False
        while self._run is None:
            self._keep_up(self._wanted() if self._settle is None else 1)
            self.wait()
        if self._settle is not None:
            self._make = self._settle(self._run)
        self._keep_up(self._wanted())
        return self._run

    def room(self) -> int:
        """Returns how many more files it takes now."""
        held = sum(each.has for each in self._handles)
        return _BATCH * _TASKS * len(self._ready()) - held - len(self._waiting)

    def put(self, file: Listed) -> None:
        """Takes a file; several together become a task."""
        self._waiting.append(file)
        if len(self._waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Gives what waits to the actor that has the least."""
        if self._waiting:
            handle = min(self._ready(), key=lambda each: each.has)
            if not handle.tasks:
                handle.since = time.monotonic()
            stream = handle.actor.score.options(num_returns="streaming").remote(self._waiting)
            handle.tasks.append((stream, deque(self._waiting)))
            self._waiting = []

    def wait(self) -> list[FileOutcome]:
        """Waits until something has become of files, or for a moment.

        Raises:
            DeepregionsError: Actors cannot be started.
        """
        outcomes: list[FileOutcome] = []
        by_awaited = {each.awaited: each for each in self._handles if each.loading or each.tasks}
        if not by_awaited:
            time.sleep(_TICK)
        else:
            for awaited in self._ray.wait(list(by_awaited), timeout=_TICK)[0]:
                outcomes += self._hear(by_awaited[awaited])
        for handle in self._handles:
            if handle.tasks and time.monotonic() - handle.since > self._longest:
                handle.said = f"taking more than {self._longest:g} s"
                self._ray.kill(handle.actor)
        if self._run is not None:
            self._keep_up(self._wanted())
        return outcomes

    def close(self) -> None:
        """Ends the actors, and the cluster if it is this run's."""
        self._ray.shutdown()
        self._handles = []

    def _ready(self) -> list[_Handle]:
        return [each for each in self._handles if each.loading is None]

    def _wanted(self) -> int:
        """How many actors there should be, as nodes come and go."""
        there = self._ray.cluster_resources().get("CPU", 1)
        return max(1, self._workers or int(self._gpu_count() or there))

    def _gpu_count(self) -> float:
        return float(self._ray.cluster_resources().get("GPU", 0)) if self._gpus else 0.0

    def _keep_up(self, count: int) -> None:
        gpus = self._gpu_count()
        made = self._ray.remote(_FileActor).options(
            num_cpus=0 if gpus else 1,
            num_gpus=gpus / max(self._workers or gpus, gpus) if gpus else 0,
            max_restarts=0,
            max_task_retries=0,
        )
        while len(self._handles) < count:
            self._handles.append(_Handle(made.remote(), self._make))

    def _hear(self, handle: _Handle) -> Iterator[FileOutcome]:
        errors = self._ray.exceptions
        try:
            if handle.loading is not None:
                self._run, handle.node = self._ray.get(handle.loading)
                handle.loading, self._failures = None, 0
                return
            stream, files = handle.tasks[0]
            try:
                scored = self._ray.get(next(stream))
            except StopIteration:
                handle.tasks.popleft()
            else:
                handle.since = time.monotonic()
                yield FileOutcome(files.popleft(), scored)
        except errors.RayTaskError as error:
            own = DeepregionsError if handle.loading is not None else _NO_FILES
            if isinstance(error.cause, own):  # no file's fault
                raise error.cause from error
            yield from self._lost(handle, f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            yield from self._lost(handle, self._why(handle, error))

    def _why(self, handle: _Handle, error: Exception) -> str:
        """Says why an actor is gone; nothing where its node is, for which no file is to blame."""
        unsure = isinstance(error, self._ray.exceptions.ActorUnavailableError)
        until = time.monotonic() + (_UNSURE if unsure else 0.0)  # until Ray knows of the node
        while handle.node in (alive := {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}):
            if time.monotonic() >= until:
                break
            time.sleep(_TICK)
        if (handle.node and handle.node not in alive) or "node has died" in str(error):
            return ""
        return handle.said or "the end of its process"

    def _lost(self, handle: _Handle, why: str) -> Iterator[FileOutcome]:
        self._ray.kill(handle.actor)
        self._handles.remove(handle)
        if handle.loading is not None:
            self._failures += 1
            if self._failures >= _STARTS:
                raise DeepregionsError(f"actors do not start ({why or 'their nodes end'})")
        first = why
        for _, files in handle.tasks:
            for file in files:
                yield FileOutcome(file, killed=first)
                first = ""
