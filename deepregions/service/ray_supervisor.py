"""Workers on many machines: replicas of a Ray Serve deployment. The jobs stay where they are."""

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from deepregions.archive.ray_pool import connect
from deepregions.errors import DeepregionsError, printable, require
from deepregions.media.kinds import HEAD, kind_of
from deepregions.service.jobs import JobStore, Work
from deepregions.service.settings import Progress, ServiceSettings
from deepregions.service.workers import Notice, Supervisor, block_signals, keep_result

logger = logging.getLogger("deepregions.service")

_BATCH = 8  # files that a replica scores together; as many wait for it
_TICK = 1.0  # seconds between looks at the clock
_SWEEP = 30.0  # seconds between looks for what is too old
_GRACE = 5.0  # seconds that works and replicas have to finish when the service stops


class Steps(NamedTuple):
    """How many frames of a video were looked at, and how many there are, if that is known."""

    done: int
    total: int | None


class RaySupervisor(Supervisor):
    """Gives works to replicas, whichever is free; each scores several together.

    What is to be done and what came of it is in the store alone. A work whose replica ends is done
    again when no other is running, so that none is blamed for its neighbour.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        store: JobStore,
        notify: Callable[[Notice], None],
        fail: Callable[[DeepregionsError], None],
    ) -> None:
        super().__init__(settings, store, notify, fail)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # or it tells its maker of what runs here
        self._ray: Any = require("ray", "ray")
        self._serve: Any = require("ray.serve", "ray")
        folder = hashlib.sha256(str(settings.data).encode()).hexdigest()
        self._name = f"deepregions-{folder[:8]}"  # a service that starts again replaces its own
        self._handle: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone = False  # one of them may be what ended its replica
        self._ended: set[str] = set()  # replicas

    def wake(self, count: int = 1) -> None:  # noqa: ARG002 - it looks for all there is
        """Tells that there is more to do."""
        with suppress(AttributeError, RuntimeError):  # not yet, or no longer
            self._loop.call_soon_threadsafe(self._woken.set)  # type: ignore[union-attr]

    @property
    def ready(self) -> bool:
        """Whether a replica has come up."""
        return self.facts is not None

    def _run(self) -> None:
        try:
            connect(self._ray, self._settings.ray or "")
            block_signals()
            self._deploy()
            asyncio.run(self._give())
        except DeepregionsError as error:
            self._fail(error)
        finally:
            self._end()

    def _deploy(self) -> None:
        """Starts the replicas, and waits for the first."""
        self._serve.start(proxy_location="Disabled")
        deployment = self._serve.deployment(
            _replica(self._serve.batch),
            name="FileScorer",
            num_replicas=self._settings.workers,
            max_ongoing_requests=2 * _BATCH,
            graceful_shutdown_timeout_s=_GRACE,
            ray_actor_options={"num_cpus": 1},
        )
        target = self._serve.RunTarget(deployment.bind(self._settings), self._name, None)
        (self._handle,) = self._serve.run_many([target], wait_for_applications_running=False)
        asked = self._handle.facts.remote()
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                facts = asked.result(timeout_s=_TICK)
                if isinstance(facts, DeepregionsError):
                    raise facts
                self._learn(facts)
                return
            state = self._serve.status().applications[self._name]
            if state.status == "DEPLOY_FAILED":
                said = f"replicas do not start: {printable(state.message)}"
                raise DeepregionsError(said, "ray status shows what is running")

    async def _give(self) -> None:
        self._loop = asyncio.get_running_loop()
        swept = 0.0
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                self._take()
                if time.monotonic() - swept > _SWEEP:
                    swept = time.monotonic()
                    self.sweep()
            except Exception:  # such as a full disk: what is running needs looking after
                logger.exception("the supervisor has a fault")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _TICK)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)

    def _take(self) -> None:
        most = 2 * _BATCH * self._settings.workers
        while len(self._tasks) < most and not self._alone:
            name = secrets.token_hex(8)
            work = self._store.claim(name, fresh=bool(self._tasks))
            if work is None:
                return
            self._alone = work.attempts > 1
            task = asyncio.get_running_loop().create_task(self._do(work, name))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._alone = False
        self._woken.set()

    async def _do(self, work: Work, name: str) -> None:
        path, begun = self._settings.uploads / work.file, time.perf_counter()
        self._notify(Notice(work.id, {"queue": time.time() - work.created}))
        try:
            content = await asyncio.to_thread(_content, path)
            if kind_of(content[:HEAD], path) == "video":
                answer = await self._film(work, name, content)
            else:
                answer = await self._handle.score.remote(path.name, content)
            scored = time.perf_counter()
            keep_result(self._settings, self._store, work, name, answer)
            stages = {"score": scored - begun, "store": time.perf_counter() - scored}
            self._notify(Notice(work.id, stages))
        except asyncio.CancelledError:  # the service stops
            self._store.release(name)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the work is done again
            self._give_back(work, name, error)
            await asyncio.sleep(_TICK)

    async def _film(self, work: Work, name: str, content: bytes) -> Any:
        """Has a video scored, and tells how far it is meanwhile."""
        told = None
        async for told in self._handle.film.options(stream=True).remote(work.file, content):
            if isinstance(told, Steps):
                self._store.advance(work.id, name, told.done, told.total)
                self._notify(Notice(work.id))
        return told

    def _give_back(self, work: Work, name: str, error: Exception) -> None:
        """A work has failed: it is done again, or given up if it was alone."""
        errors = self._ray.exceptions
        how = f"{type(error).__name__}: {error}"
        if isinstance(error, errors.RayTaskError):
            how = f"{type(error.cause).__name__}: {error.cause}"
        if died := isinstance(error, errors.ActorDiedError):
            how = "the end of its process"
            self._ended.add(str(error.actor_id))
            self.kills = len(self._ended)
        logger.warning("a replica's work failed (%s)", printable(how)[:300])
        blamed = self._alone and (died or isinstance(error, errors.RayTaskError))
        blamed &= "node has died" not in str(error)  # nor "its owner's"
        self._store.release(name, self._fault(how) if blamed else None)
        self._notify(Notice(work.id))

    def _end(self) -> None:
        """Ends the replicas, and the cluster if it is this service's."""
        if self._handle is not None:
            with suppress(Exception):  # they may be gone
                self._serve.delete(self._name)
        self._ray.shutdown()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # it was deleted meanwhile; an empty file cannot be read either
        return b""


def _silent(path: Path, done: int, total: int | None) -> None:
    """Hears how far a photograph is, which is told with its result."""


def _replica(batch: Callable[..., Any]) -> type:
    class Replica:
        def __init__(self, settings: ServiceSettings) -> None:
            self._folder = TemporaryDirectory(prefix="deepregions")
            self._uploads = Path(self._folder.name) / "uploads"
            self._uploads.mkdir()
            self._longest = settings.longest
            self._busy = asyncio.Lock()
            self._error: DeepregionsError | None = None
            try:
                self._scorer = settings.make_scorer(settings)
            except DeepregionsError as error:  # told in its own words, and not tried again
                self._error = error

        async def facts(self) -> Any:
            return self._error or dict(self._scorer.facts)

        @batch(max_batch_size=_BATCH, batch_wait_timeout_s=0.0)  # type: ignore[untyped-decorator]
        async def score(self, names: list[str], contents: list[bytes]) -> list[Any]:
            return await self._scored(names, contents)

        async def film(self, name: str, content: bytes) -> AsyncIterator[Any]:
            loop, steps = asyncio.get_running_loop(), asyncio.Queue[Steps | None]()

            def tell(step: Steps | None) -> None:
                loop.call_soon_threadsafe(steps.put_nowait, step)

            def progress(_: Path, done: int, total: int | None) -> None:
                tell(Steps(done, total))

            work = loop.create_task(self._scored([name], [content], progress))
            work.add_done_callback(lambda _: tell(None))
            while (step := await steps.get()) is not None:
                yield step
            yield (await work)[0]

        async def _scored(
            self, names: Iterable[str], contents: Iterable[bytes], progress: Progress = _silent
        ) -> list[Any]:
            async with self._busy:
                work = asyncio.to_thread(self._score, list(names), list(contents), progress)
                try:
                    return await asyncio.wait_for(work, self._longest)
                except TimeoutError:
                    os._exit(1)  # nothing else ends what hangs

        def _score(self, names: list[str], contents: list[bytes], progress: Progress) -> list[Any]:
            paths = [self._uploads / name for name in names]
            try:
                for path, content in zip(paths, contents, strict=True):
                    path.write_bytes(content)
                return list(self._scorer(paths, progress))
            finally:
                for path in paths:
                    path.unlink(missing_ok=True)

    return Replica
