"""The service over HTTP: uploads become jobs, and their results answers."""

import asyncio
import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from deepregions import __version__
from deepregions.errors import DeepregionsError
from deepregions.service import openapi
from deepregions.service.gate import Gate
from deepregions.service.jobs import KILLS, Job, JobStore, QueueFullError
from deepregions.service.metrics import Metrics
from deepregions.service.problems import MEDIA_TYPE, ProblemError, problem
from deepregions.service.settings import ServiceSettings
from deepregions.service.uploads import receive, remove
from deepregions.service.workers import Notice, PageWanted, Supervisor

FILES = 100
"""Files of a request at most."""

_BEAT = 15.0  # seconds between comments that keep a stream of events open
_ANSWERS = 2  # of workers who were asked for a page, after which it counts as not to be made
_AGAIN, _LATE = 0.5, 5.0  # seconds between looks for a page, and after which others are asked
_PAGE = Path(__file__).parent / "page"
_REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
_Again = Annotated[bool, Query(description="Score the file even if its result is there.")]


class AsciiResponse(JSONResponse):
    """JSON that can be sent whatever is in it, such as half of a character."""

    def render(self, content: Any) -> bytes:
        """Returns the bytes."""
        return json.dumps(content, allow_nan=False).encode("ascii")


class Service:
    """What the routes share; ``fail`` is called if no worker can be started."""

    def __init__(self, settings: ServiceSettings, fail: Callable[[DeepregionsError], None]) -> None:
        self.settings = settings
        self.store = JobStore(settings.database)
        supervisor = Supervisor
        if settings.ray is not None:
            from deepregions.service.ray_supervisor import RaySupervisor as supervisor  # noqa: N813, PLC0415

        self.supervisor = supervisor(settings, self.store, self._noticed, fail)
        self.metrics = Metrics(self.store, self.supervisor)
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Runs the workers."""
        self._loop = asyncio.get_running_loop()
        self.supervisor.start()
        try:
            yield
        finally:
            await run_in_threadpool(self.supervisor.stop)
            self.store.close()

    async def submit(self, request: Request, *, most: int, again: bool, urgent: bool) -> list[Job]:
        """Makes jobs of the files of a request, or raises why they cannot be had, or not now.

        Raises:
            ProblemError: They cannot be had, or not now.
        """
        settings, owner = self.settings, request.state.owner
        if not self.supervisor.networks:
            raise ProblemError(503, "the networks are being loaded", "", {"Retry-After": "2"})
        if self.store.left() >= settings.queue:  # a thread would take longer than to read it
            raise _queue_full()
        if shutil.disk_usage(settings.data).free < 2 * settings.max_size:
            raise ProblemError(507, "the service's disk is full", "", {"Retry-After": "60"})
        uploads = await receive(
            request.stream(),
            request.headers,
            settings.uploads,
            max_size=settings.max_size,
            most=most,
        )

        def store() -> list[Job]:
            try:
                ids = self.store.submit(
                    uploads,
                    self.supervisor.networks,
                    owner,
                    again=again,
                    urgent=urgent,
                    limit=settings.queue,
                )
            except QueueFullError as error:
                for upload in uploads:
                    remove(settings.uploads, upload.file)
                raise _queue_full() from error
            self.supervisor.wake(len(ids))
            jobs = self.store.jobs(ids, owner)
            for file in {each.file for each in uploads} - {job.file for job in jobs}:
                remove(settings.uploads, file)  # there is a result, or a work, already
            return jobs

        return await run_in_threadpool(store)

    async def job(self, id: str, owner: str) -> Job:
        """Returns a job, or raises that it is not there, or somebody else's.

        Raises:
            ProblemError: It is not there, or somebody else's.
        """
        found = self.store.job(id, owner)  # as in submit
        if found is None:
            raise ProblemError(404, "there is no such job", "it may have been deleted, or too old")
        return found

    def delete(self, job: Job, owner: str) -> None:
        """Deletes a job, and its file and report if no other job has them."""
        if self.store.delete(job.id, owner):
            remove(self.settings.uploads, job.file)
            remove(self.settings.reports, f"{job.work}.html")
        self._noticed(Notice(job.work))

    async def changes(self, job: Job, owner: str) -> AsyncIterator[Job | None]:
        """Yields a job at once and after each change, until it has ended; None for each beat."""
        with self._watched(job.work) as changed:
            while True:
                changed.clear()
                job = await self.job(job.id, owner)
                yield job
                if job.ended:
                    return
                while True:
                    try:
                        await asyncio.wait_for(changed.wait(), _BEAT)
                        break
                    except TimeoutError:
                        yield None

    async def ended(self, job: Job, owner: str) -> Job:
        """Waits for the end of a job, but not for too long; returns it as it is then."""
        try:
            async with asyncio.timeout(self.settings.wait):
                async for changed in self.changes(job, owner):
                    if changed is not None and changed.ended:
                        return changed
        except TimeoutError:
            pass
        return await self.job(job.id, owner)

    async def report(self, job: Job) -> str:
        """Returns the page of a job, which is made now where nobody has asked for it.

        Raises:
            ProblemError: There is none, or it is not made in time.
        """
        path = self.settings.reports / f"{job.work}.html"
        wanted, answers, asked = PageWanted(job.work, job.file), 0, (-math.inf, 0)
        before = self.supervisor.kills
        with self._watched(job.work) as changed, suppress(TimeoutError):
            async with asyncio.timeout(self.settings.wait):
                while answers < _ANSWERS:
                    changed.clear()
                    with suppress(FileNotFoundError):
                        return await run_in_threadpool(path.read_text, "utf-8")
                    self._check_page(job)
                    now, kills = time.monotonic(), self.supervisor.kills
                    if kills - before > KILLS:  # this page may be what ends them
                        raise _busy()
                    # Whoever was asked may have ended, or be at a long film.
                    late = kills != asked[1] or now - asked[0] > _LATE
                    if late and self.supervisor.ask_page(wanted):
                        asked = now, kills
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), _AGAIN)
                        answers += 1
            raise ProblemError(404, "there is no report", "the file may have been deleted")
        raise _busy()

    def _check_page(self, job: Job) -> None:
        """Says why a page that is not there cannot be made, or not yet."""
        if job.result is None:
            raise ProblemError(404, "there is no report", "a job that is done has one")
        if not self.supervisor.networks:
            raise _busy()
        same = job.networks == self.supervisor.networks  # others would show another answer
        there = (self.settings.uploads / job.file).exists()
        if not (self.settings.pages_later and same and there):
            said = "the report was not asked for as long as it could be made"
            raise ProblemError(404, said, "its file and its networks are needed: send it again")

    @contextmanager
    def _watched(self, work: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._watchers[work].add(changed)
        try:
            yield changed
        finally:
            self._watchers[work].discard(changed)
            if not self._watchers[work]:
                del self._watchers[work]

    def _noticed(self, notice: Notice) -> None:
        """Hears a worker, in the supervisor's thread."""
        for stage, seconds in (notice.stages or {}).items():
            self.metrics.stage(stage, seconds)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, notice.work)

    def _wake(self, work: str) -> None:
        for changed in self._watchers.get(work, ()):
            changed.set()


def create_app(
    settings: ServiceSettings, fail: Callable[[DeepregionsError], None] = lambda _: None
) -> FastAPI:
    """Makes the application; another thread calls ``fail`` if no worker can be started."""
    service = Service(settings, fail)
    app = FastAPI(
        title="deepregions",
        version=__version__,
        lifespan=service.running,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.service = service
    _add_uploads(app, service)
    _add_jobs(app, service)
    _add_facts(app, service)
    _add_errors(app)
    app.mount("/static", StaticFiles(directory=_PAGE), name="static")
    app.add_middleware(Gate, settings=settings, count=service.metrics.request)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _add_uploads(app: FastAPI, service: Service) -> None:
    form = openapi.form(openapi.ONE_FILE)

    @app.post("/v1/detect", openapi_extra=form, responses=openapi.DETECT)
    async def detect(request: Request, again: _Again = False) -> Response:
        """Scores one photograph, and answers with what came of it."""
        (job,) = await service.submit(request, most=1, again=again, urgent=True)
        job = await service.ended(job, request.state.owner)
        headers = {"Link": f'</v1/jobs/{job.id}>; rel="related"'}
        if job.answer is not None:
            return Response(job.answer, 200, headers, "application/json")
        told = job.to_dict()
        if job.state == "error":
            return _problem(request, told["error"], headers)
        return AsciiResponse(told, 202, headers)

    form = openapi.form(openapi.FILES)

    @app.post("/v1/jobs", status_code=202, openapi_extra=form, responses=openapi.NEW_JOBS)
    async def add_jobs(request: Request, again: _Again = False) -> Response:
        """Makes a job of each file, and answers at once."""
        jobs = await service.submit(request, most=FILES, again=again, urgent=False)
        return AsciiResponse({"jobs": [job.to_dict() for job in jobs]}, 202)


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.get("/v1/jobs", responses=openapi.JOBS)
    def get_jobs(
        request: Request,
        ids: Annotated[str, Query(description="Ids with commas between, 100 at most.")],
    ) -> Response:
        """Returns those of some jobs that are there."""
        wanted = [each for each in ids.split(",") if each]
        if len(wanted) > FILES:
            raise ProblemError(422, f"there are more than {FILES} ids", "ask for fewer at once")
        found = service.store.jobs(wanted, request.state.owner)
        return AsciiResponse({"jobs": [job.to_dict() for job in found]})

    @app.get("/v1/jobs/{id}", responses=openapi.JOB)
    async def get_job(request: Request, id: str) -> Response:
        """Returns a job: its state, progress and result."""
        return AsciiResponse((await service.job(id, request.state.owner)).to_dict())

    @app.delete("/v1/jobs/{id}", status_code=204, responses=openapi.MISSING)
    async def delete_job(request: Request, id: str) -> Response:
        """Deletes a job, with its file and result."""
        job = await service.job(id, request.state.owner)
        await run_in_threadpool(service.delete, job, request.state.owner)
        return Response(status_code=204)

    @app.get("/v1/jobs/{id}/events", responses=openapi.EVENTS)
    async def get_events(request: Request, id: str) -> Response:
        """Sends a job after each change, until it has ended (server-sent events)."""
        job = await service.job(id, request.state.owner)

        async def lines() -> AsyncIterator[str]:
            try:
                async for changed in service.changes(job, request.state.owner):
                    if changed is None:
                        yield ": still here\n\n"
                    else:
                        yield f"event: job\ndata: {json.dumps(changed.to_dict())}\n\n"
            except ProblemError:  # it was deleted
                return

        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/v1/jobs/{id}/report", response_class=HTMLResponse, responses=openapi.REPORT)
    async def get_report(request: Request, id: str) -> Response:
        """Returns the page of a job that is done: one file that opens offline."""
        job = await service.job(id, request.state.owner)
        text = await service.report(job)
        headers = {"Content-Security-Policy": _REPORT_POLICY}
        return HTMLResponse(job.page(text), headers=headers)


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=openapi.REFUSED)
    def get_models() -> dict[str, Any]:
        """Returns what results are made with: networks, fusion, versions."""
        if service.supervisor.facts is None:
            raise ProblemError(503, "the networks are being loaded", "", {"Retry-After": "2"})
        return service.supervisor.facts

    @app.get("/healthz", responses=openapi.REFUSED)
    def get_health() -> dict[str, str]:
        """Says that the service runs."""
        return {"status": "ok"}

    @app.get("/readyz", responses=openapi.REFUSED)
    def get_readiness() -> dict[str, str]:
        """Says whether the service can score."""
        if not service.supervisor.ready:
            raise ProblemError(503, "no worker is ready", "", {"Retry-After": "2"})
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=openapi.REFUSED)
    def get_metrics() -> Response:
        """Returns counts and times in Prometheus's format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    def get_page() -> Response:
        return HTMLResponse((_PAGE / "index.html").read_text("utf-8"))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ProblemError)
    async def told(request: Request, error: ProblemError) -> Response:
        return _problem(request, error.to_dict(), error.headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _problem(request, problem(error.status_code, error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return _problem(request, problem(422, said))


def _problem(
    request: Request, told: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    content = {**told, "request_id": request.state.request_id}
    return AsciiResponse(content, told["status"], dict(headers or {}), MEDIA_TYPE)


def _busy() -> ProblemError:
    return ProblemError(503, "the report is not made yet", "ask again later", {"Retry-After": "5"})


def _queue_full() -> ProblemError:
    return ProblemError(429, "the queue is full", "send it again later", {"Retry-After": "10"})


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, routes=app.routes)
        app.openapi_schema = openapi.completed(made)
    return app.openapi_schema
