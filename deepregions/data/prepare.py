"""From a database to a face store: in parallel, resumable, one broken file never in the way."""

from __future__ import annotations

import hashlib
import json
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import chain, islice
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

from deepregions.data.clips import Clip, assert_identity_disjoint
from deepregions.data.databases import Adapter
from deepregions.data.extract import ClipReport, extract, paths_of
from deepregions.data.store import (
    FaceRecord,
    StoreInfo,
    finish_store,
    read_shard,
    shard_name,
    write_shard,
)
from deepregions.errors import StoreError, UsageError
from deepregions.faces.backends import landmark_detector
from deepregions.faces.landmarks import LandmarkDetector
from deepregions.faces.patches import MARGIN, MAX_SIZE
from deepregions.files import atomic_file, is_empty, lock_folder
from deepregions.media import MediaReader, Sampling, is_video
from deepregions.media.sandbox import end_with_parent

Progress = Callable[[int, int, int], None]
Result = tuple[list[FaceRecord], ClipReport]

_PLAN = "plan.json"
_REPORT = "report.json"
_FACES_PER_SHARD = 512  # what a killed run loses at most; some 20 MB
_CLIPS_AHEAD = 4  # per process: enough that none waits, few enough to hold in memory


@dataclass(frozen=True)
class Group:
    """What came of the clips of one split and label.

    ``clips_kept`` gave at least one face; ``dropped`` frames and faces are by reason.
    """

    split: str
    label: int
    clips: int
    clips_kept: int
    frames: int
    faces: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What was kept, what was not, and why.

    Attributes:
        failures: The key of each clip that gave no face, and why.
        several: In how many clips there is more than one person; which of them was manipulated is
            not known.
        masked: In how many there is more than one person, and a mask says who was manipulated.
        others: How many faces of these clips were kept as genuine.
    """

    database: str
    landmarks: str
    clips: int
    frames: int
    faces: int
    groups: tuple[Group, ...]
    failures: tuple[tuple[str, str], ...]
    left_out: dict[str, int]
    tracks: str
    several: int
    masked: int = 0
    others: int = 0


def prepare(
    database: Adapter,
    out: Path,
    *,
    detector: str | LandmarkDetector = "auto",
    device: str = "auto",
    frames_per_video: int = 32,
    margin: float = MARGIN,
    tracks: Literal["main", "all"] = "main",
    others: Literal["dropped", "genuine"] = "dropped",
    max_size: int = MAX_SIZE,
    workers: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Writes the faces of a database to a store; a run that was stopped goes on where it was.

    The store is the same, byte by byte, whatever the number of processes and however often it was
    stopped, as long as the landmark backend's results are. The folder ``out`` is new, empty, or
    from a stopped run with the same options. A detector that is no name must pickle if ``workers``
    is above 1; 0 or 1 is this process. ``progress`` is called with clips done, all clips, and faces
    kept so far; for the rest see :class:`deepregions.data.store.StoreInfo`.

    Raises:
        StoreError: ``out`` holds something else, cannot be written, or no clip gave a face.
    """
    for fits, rule, value in (
        (frames_per_video >= 1, "frames per video must be at least 1", frames_per_video),
        (0 <= margin <= 4, "margin must be from 0 to 4", margin),
        (64 <= max_size <= 4096, "max size must be from 64 to 4096 pixels", max_size),
        (tracks in ("main", "all"), "tracks must be 'main' or 'all'", repr(tracks)),
        (others in ("dropped", "genuine"), "others must be 'dropped' or 'genuine'", repr(others)),
        (workers >= 0, "workers must be 0 or more", workers),
    ):
        if not fits:
            raise UsageError(f"{rule}, not {value}")
    clips = database.clips()
    _check_clips(clips)
    finder = landmark_detector(detector, device) if isinstance(detector, str) else detector
    info = StoreInfo(
        database.name,
        finder.name,
        finder.version,
        margin,
        frames_per_video,
        tracks,
        max_size,
        others,
    )
    plan = _plan(info, clips)
    shards = _shards(clips, frames_per_video)
    job = _Job(detector, device, info)
    try:
        with lock_folder(out, "prepare"):
            _open_folder(out, plan)
            results = partial(_results, job, workers, finder)
            reports = _write(out, _digest(plan), shards, results, progress)
            report = _summary(info, reports, database.left_out)
            if not report.faces:
                for name in (_PLAN, *map(shard_name, range(len(shards)))):
                    (out / name).unlink(missing_ok=True)
                if is_empty(out):
                    out.rmdir()
                raise StoreError(
                    f"no face was found in any of the {len(clips)} photos and videos",
                    "; ".join(sorted({why for _, why in report.failures})[:3]),
                )
            _write_json(out / _REPORT, asdict(report))
            finish_store(out, info, [shard_name(number) for number in range(len(shards))])
    except OSError as error:
        hint = "mend that, then run prepare again with the same options: it goes on where it was"
        raise StoreError(f"cannot write the store {out}: {error}", hint) from error
    return report


@dataclass(frozen=True)
class _Job:
    """What a process needs to know besides the clip."""

    detector: str | LandmarkDetector
    device: str
    info: StoreInfo

    def __call__(self, clip: Clip) -> Result:
        finder = self.detector
        if isinstance(finder, str):
            finder = _loaded(finder, self.device)
        if finder.name != self.info.landmarks:
            here = self.info.landmarks
            raise StoreError(f"the landmark backend is {here} here, {finder.name} there")
        return next(self.extract_all([clip], finder, _reader()))

    def extract_all(
        self, clips: Sequence[Clip], finder: LandmarkDetector, reader: MediaReader
    ) -> Generator[Result]:
        """Yields the result of each clip; the next file is opened while one is looked at."""
        paths = [paths_of(clip, self.info) for clip in clips]
        sampling = Sampling(count=self.info.frames_per_video)
        with closing(reader.open_all(chain.from_iterable(paths), sampling)) as opened:
            for clip, own in zip(clips, paths, strict=True):
                files = islice(opened, len(own))
                yield extract(clip, files, finder, self.info)
                deque(files, maxlen=0)  # those after one that cannot be read


@cache
def _loaded(name: str, device: str) -> LandmarkDetector:
    """Loads a backend once in each worker process."""
    # Processes are the parallelism; threads on top of them would fight for the cores.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    return landmark_detector(name, device)


@cache
def _reader() -> MediaReader:
    """Starts one process that decodes for each worker process; it ends with that."""
    return MediaReader(ahead=0)


def _write(
    out: Path,
    plan: str,
    shards: Sequence[Sequence[Clip]],
    results_of: Callable[[Sequence[Clip]], Generator[Result]],
    progress: Progress | None,
) -> list[ClipReport]:
    """Writes the shards that are not there yet; returns the reports of all clips, in order."""
    reports: dict[int, list[ClipReport]] = {}
    for number in range(len(shards)):
        try:
            metadata = read_shard(out / shard_name(number)).schema.metadata
        except StoreError:
            continue  # not there, or truncated by whatever happened to it: made (again)
        if metadata.get(b"deepregions.plan", b"").decode() == plan:
            earlier = json.loads(metadata[b"deepregions.clips"])
            reports[number] = [ClipReport(**report) for report in earlier]
    missing = [number for number in range(len(shards)) if number not in reports]
    total = sum(map(len, shards))
    done = sum(map(len, reports.values()))
    faces = sum(report.faces for report in chain.from_iterable(reports.values()))
    clips = [clip for number in missing for clip in shards[number]]
    with closing(results_of(clips)) as results:
        for number in missing:
            records: list[FaceRecord] = []
            reports[number] = []
            for found, report in islice(results, len(shards[number])):
                records += found
                reports[number].append(report)
                done, faces = done + 1, faces + len(found)
                if progress is not None:
                    progress(done, total, faces)
            told = json.dumps([asdict(report) for report in reports[number]])
            metadata = {"deepregions.plan": plan, "deepregions.clips": told}
            write_shard(out / shard_name(number), records, metadata)
    return [report for number in sorted(reports) for report in reports[number]]


def _results(
    job: _Job, workers: int, finder: LandmarkDetector, clips: Sequence[Clip]
) -> Generator[Result]:
    if workers <= 1:
        with MediaReader() as reader:
            yield from job.extract_all(clips, finder, reader)
        return
    running: deque[Future[Result]] = deque()
    waiting = iter(clips)
    with _pool(workers) as pool:
        for clip in islice(waiting, _CLIPS_AHEAD * workers):
            running.append(_submitted(pool, job, clip))
        while running:
            try:
                result = running.popleft().result()
            except BrokenProcessPool as error:
                raise StoreError(
                    "a process that looks for faces died, perhaps of too little memory",
                    "run prepare again with fewer --workers: it goes on where it was",
                ) from error
            for clip in islice(waiting, 1):
                running.append(_submitted(pool, job, clip))
            yield result


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Starts processes, and ends them at once where this one is interrupted."""
    others = set(active_children())
    # Not "fork": threads of torch, OpenCV and Arrow do not survive it.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent)
    try:
        yield pool
    except BaseException:
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, job: _Job, clip: Clip) -> Future[Result]:
    """Hands a clip over; processes that this starts never see Ctrl-C, which is for this one."""
    if not hasattr(signal, "pthread_sigmask"):
        return pool.submit(job, clip)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(job, clip)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_clips(clips: Sequence[Clip]) -> None:
    if not clips:
        raise UsageError("the database has no photos or videos that belong to a split")
    key, count = Counter(clip.key for clip in clips).most_common(1)[0]
    if count > 1:
        raise UsageError(f"the database has {count} files named {key}")
    assert_identity_disjoint(clips)


def _plan(info: StoreInfo, clips: Sequence[Clip]) -> dict[str, Any]:
    """What must be the same for a stopped run to go on; where the files lie may change."""
    listing = [
        {**asdict(clip), "path": "", "frames": [frame.name for frame in clip.frames]}
        | {"mask": clip.mask is not None}
        for clip in clips
    ]
    plan = asdict(info) | {"clips": len(clips), "listing": _digest(listing)}
    del plan["package"]
    return plan


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _shards(clips: Sequence[Clip], frames_per_video: int) -> list[list[Clip]]:
    """The clips of each shard: a matter of the plan only, not of processes or of what is found."""
    shards: list[list[Clip]] = []
    room = 0
    for clip in clips:
        if room <= 0:
            shards.append([])
            room = _FACES_PER_SHARD
        shards[-1].append(clip)
        room -= frames_per_video if clip.frames or is_video(clip.path) else 1
    return shards


def _open_folder(out: Path, plan: Mapping[str, Any]) -> None:
    """Makes the folder, or makes sure that it is one of this very plan."""
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file", "choose another folder")
    if not (out / _PLAN).is_file():
        if out.is_dir() and not is_empty(out):
            raise StoreError(f"{out} is not empty and not from prepare", "choose another folder")
        _write_json(out / _PLAN, plan)
        return
    try:
        there = json.loads((out / _PLAN).read_text())
    except ValueError as error:
        raise StoreError(f"{out / _PLAN} cannot be read", "delete the folder") from error
    if there != plan:
        differences = [
            f"{name} was {there.get(name)}, is {plan[name]}"
            for name in plan
            if name != "listing" and there.get(name) != plan[name]
        ]
        why = ", ".join(differences) or "the database's files or splits have changed"
        raise StoreError(
            f"{out} was begun with other options: {why}",
            "use these again, delete the folder, or choose another one",
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _summary(info: StoreInfo, reports: Sequence[ClipReport], left_out: Mapping[str, int]) -> Report:
    rows: dict[tuple[str, int], list[ClipReport]] = {}
    for report in reports:
        rows.setdefault((report.split, report.label), []).append(report)
    groups = tuple(
        Group(
            split,
            label,
            clips=len(row),
            clips_kept=sum(report.faces > 0 for report in row),
            frames=sum(report.frames for report in row),
            faces=sum(report.faces - report.others for report in row),
            dropped=dict(sum((Counter(report.dropped) for report in row), Counter())),
        )
        for (split, label), row in rows.items()
    )
    return Report(
        database=info.database,
        landmarks=f"{info.landmarks} {info.landmarks_version}",
        clips=len(reports),
        frames=sum(group.frames for group in groups),
        faces=sum(report.faces for report in reports),
        groups=groups,
        failures=tuple((report.key, report.failure) for report in reports if report.failure),
        left_out=dict(left_out),
        tracks=info.tracks,
        several=sum(report.people > 1 and not report.masked for report in reports),
        masked=sum(report.people > 1 and report.masked for report in reports),
        others=sum(report.others for report in reports),
    )
