"""Takes photographs, videos and region canvases the whole way, from file to result."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.landmarks import LandmarkDetector, Place
from deepregions.faces.video import VideoWalk
from deepregions.files import sha256
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.pooling import Pooling
from deepregions.media import Frame, MediaReader, OpenImage, OpenMedia, Sampling, is_video
from deepregions.media.provenance import Provenance
from deepregions.media.sampling import refine
from deepregions.memory import return_freed
from deepregions.pipeline.results import FacePatch, FaceResult, Result, summarise_input
from deepregions.pipeline.scorer import PatchScorer
from deepregions.pipeline.strip import PHOTOGRAPH, THUMBNAIL, Strip
from deepregions.pipeline.warnings import warnings_of
from deepregions.types import Region, Status
from deepregions.weights.manifest import Degradation

logger = logging.getLogger(__name__)

_MOMENT = 0.03  # seconds: to look for more inputs takes time too
_AHEAD = 2  # batches that wait for the networks, at most
_HELD = 64 << 20  # bytes of photographs that wait for others to be scored with
_KEPT = 16  # groups of photographs after which freed memory is returned, as gaps in it grow
_ROUNDS = 4  # of adaptive sampling: the second half of the frames, a quarter of it at a time
_REFUSED = (UnreadableError, UnsupportedError)
_Media = OpenMedia | OpenImage


@dataclass(eq=False)
class Analyser:
    """Scores inputs one after the other; memory does not grow with their number or length.

    ``find`` finds faces; region canvases need none. With ``pictures``, strips and the pixels of
    each track's highest face are collected, or only those of ``videos``. ``warnings`` are what
    every result's reader should know, ``degradation`` what was measured of the networks on altered
    faces, ``facts`` what its facts are beside the date. ``progress`` is told, as an input is worked
    on, its path, how many frames were looked at and, where it is known, how many there will be.
    """

    scorer: PatchScorer
    find: LandmarkDetector | None
    _: KW_ONLY
    sampling: Sampling
    rules: Pooling
    batch_size: int = 16
    pictures: bool | Literal["videos"] = True
    warnings: tuple[str, ...] = ()
    degradation: Sequence[Degradation] = ()
    calibration: Calibration | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[Path, int, int | None], None] = lambda *_: None
    _groups: int = field(default=0, init=False)  # of photographs so far

    def summarise(self, path: str, kind: str, frames: int, **facts: Any) -> Result:
        """Makes the result of an input whose frames could be read."""
        rules, calibration = self.rules, self.calibration
        return summarise_input(path, kind, frames, rules=rules, calibration=calibration, **facts)

    def analyse(
        self, paths: Iterable[Path], reader: MediaReader, *, together: bool = True, first: int = 1
    ) -> Iterator[Result]:
        """Yields what came of each photograph or video, in their order, soon after it is known.

        Faces of several photographs are scored together, and while they are, faces are looked for
        in the next: those of ``first`` photographs, then of more. Not ``together``, each result
        comes before the next input is looked at. Paths that have run out are asked for again as
        long as there are results to come: those of an iterator may be more by then. What cannot be
        read or judged is a status, not an exception.
        """
        waiting = iter(paths)
        begun: deque[_Run] = deque()  # whose faces are being scored
        most = first  # photographs scored together: the first result is not kept waiting
        with closing(_Scoring(self.scorer)) as scoring:
            group: list[_Run] = []  # photographs whose faces are found
            while True:
                with closing(reader.open_all(waiting, self.sampling)) as files:
                    for media in files:
                        run = _Run(self, media, scoring)
                        for _ in run.look():
                            if not run.is_still:  # that may take long
                                begun += self._begin(group, scoring)
                                group = []
                            yield from self._ended(begun, wait=False)
                        group.append(run)
                        held = sum(each.held for each in group)
                        if run.is_still and len(group) < most and held < _HELD:
                            continue
                        yield from self._next(begun, group, scoring)
                        self._groups += 1
                        if self._groups % _KEPT == 0:
                            return_freed()
                        group, most = [], min(2 * most, self.batch_size) if together else 1
                        if not run.is_still or not together:  # a film is read again until then
                            yield from self._ended(begun)
                if not group and not begun:
                    return
                if not begun or begun[0].wait(_MOMENT):  # else there may be more by now
                    yield from self._next(begun, group, scoring)
                    group = []

    def judge(self, media: OpenMedia | OpenImage) -> Result:
        """Returns what came of one photograph or video that was opened."""
        with closing(_Scoring(self.scorer)) as scoring:
            run = _Run(self, media, scoring)
            for _ in run.look():
                pass
            (result,) = self._ended(deque(self._begin([run], scoring)))
        return result

    def _begin(self, runs: list[_Run], scoring: _Scoring) -> list[_Run]:
        """Gives the networks the faces that wait in some runs, those of all together."""
        waiting = [(run, number, patch) for run in runs for number, patch in run.waiting]
        pictures = self.pictures is True and all(run.is_still for run in runs)
        for start in range(0, len(waiting), self.batch_size):
            part = waiting[start : start + self.batch_size]
            answer = scoring.begin([patch for *_, patch in part], pictures)
            for place, (run, number, _) in enumerate(part):
                run.answers.append((number, place, answer))
        for run in runs:
            run.waiting = []
        return runs

    def _next(self, begun: deque[_Run], group: list[_Run], scoring: _Scoring) -> Iterator[Result]:
        """Begins a group; while it is scored, yields the results of those before it."""
        earlier = begun.copy()
        begun.clear()
        begun += self._begin(group, scoring)
        yield from self._ended(earlier)

    def _ended(self, runs: deque[_Run], *, wait: bool = True) -> Iterator[Result]:
        """Yields the results of runs, in their order; without waiting, of those that are done."""
        while runs and (wait or runs[0].wait(0)):
            yield self._dated(runs.popleft().result())

    def analyse_canvases(
        self, paths: Iterable[Path], region: Region, reader: MediaReader
    ) -> Iterator[Result]:
        """As above, of images that already are a region's canvas, as the original's samples are."""
        for media in reader.open_all(paths, self.sampling):
            try:
                frame = next(media.batches(1))[0]
            except _REFUSED as error:
                yield self._dated(_refused(media, error, "regions"))
                continue
            face = self.scorer.score_canvas(frame.image, region)
            height, width = frame.image.shape[:2]
            patch = None
            if face.log_odds is not None:
                patch = self.scorer.with_crops(FacePatch(frame.image, None), region)
            face = replace(face, box=(0.0, 0.0, float(width), float(height)), patch=patch)
            path, about = str(media.path), _media(media)
            result = self.summarise(path, "regions", 1, faces=(face,), media=about)
            yield self._dated(replace(result, warnings=self.warnings))

    def _dated(self, result: Result) -> Result:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return replace(result, facts={**self.facts, "date": date})


class _Scoring:
    """Scores faces in a thread, so that more of them are found meanwhile."""

    def __init__(self, scorer: PatchScorer) -> None:
        self._scorer = scorer
        self._thread = ThreadPoolExecutor(1)
        self._running: deque[Future[list[FaceResult]]] = deque()

    def begin(self, faces: Sequence[FacePatch | None], pictures: bool) -> Future[list[FaceResult]]:
        """Scores faces when those given before are done; waits where these are many."""
        while len(self._running) >= _AHEAD:
            self._running.popleft().exception()  # whoever asks for the result will have it
        self._running.append(self._thread.submit(self._scorer.score, faces, pictures=pictures))
        return self._running[-1]

    def close(self) -> None:
        """Gives up what was not begun, and waits for what was."""
        self._thread.shutdown(cancel_futures=True)


class _Run:
    def __init__(self, analyser: Analyser, media: _Media, scoring: _Scoring) -> None:
        if analyser.find is None:
            raise ValueError("this analyser was made without a landmark detector")
        self.analyser = analyser
        self.media = media
        self.scoring = scoring
        self.walk = VideoWalk(analyser.find)
        self.scores: dict[int, list[FaceResult]] = {}  # by frame
        self.strip = Strip()
        self.only: Frame | None = None  # a photograph's: not worth reading twice
        self.waiting: list[tuple[int, FacePatch | None]] = []
        self.answers: deque[tuple[int, int, Future[list[FaceResult]]]] = deque()
        self.trouble = ""
        self.refused: Result | None = None
        self.provenance: Provenance | None = None

    @property
    def is_still(self) -> bool:
        """Whether all there is to look at was looked at, and the file may be closed."""
        return self.only is not None or self.refused is not None

    @property
    def held(self) -> int:
        return 0 if self.only is None else self.only.image.nbytes

    def wait(self, seconds: float) -> bool:
        """Waits for so long at most; returns whether the result need not be waited for."""
        return not wait([answer for *_, answer in self.answers], seconds).not_done

    def look(self) -> Iterator[None]:
        """Finds the faces; yields after each batch of frames."""
        try:
            yield from self._look(self.media.batches())
            yield from self._look_closer()
        except _REFUSED as error:
            if not self.walk.frames:
                self.refused = _refused(self.media, error)
                return
            self.trouble = f"reading stopped early: {error.args[0]}"
        if self.only is not None:
            self.provenance = self.media.provenance()

    def result(self) -> Result:
        if self.refused is not None:
            return self.refused
        self._collect()
        info, sampling, faces = self.media.info, self._sampling(), self._faces()
        if self.analyser.pictures and self.only is None:
            faces = self._with_patches(faces)
        if self.only is None:
            self.provenance = self.media.provenance()
        result = self.analyser.summarise(
            str(self.media.path),
            info.kind if info else "video",
            len(self.walk.frames),
            faces=faces,
            media=_media(self.media),
            provenance=self.provenance,
            sampling=sampling,
            strip=self.strip.thumbnails(),
        )
        own = warnings_of(result, self.analyser.degradation)
        told = (*self.analyser.warnings, *([self.trouble] if self.trouble else []), *own)
        return replace(result, warnings=told)

    def _look_closer(self) -> Iterator[None]:
        """Adaptive sampling: more frames where the scores of neighbours disagree, in rounds."""
        sampling, info = self.analyser.sampling, self.media.info
        if sampling.how != "adaptive" or info is None or info.kind == "image":
            return
        left = sampling.count - len(self.walk.frames)
        step = max(1, -(-left // _ROUNDS))
        while left > 0:
            self._score()
            self._collect()
            seen = [frame.number for frame in self.walk.frames]
            numbers = refine(seen, [self._highest(number) for number in seen], min(step, left))
            if not numbers:
                return
            yield from self._look(self.media.read(numbers))
            left -= len(numbers)

    def _highest(self, number: int) -> float | None:
        """The highest score in a frame: what adaptive sampling compares."""
        scores = self.scores.get(number, [])
        return max((s.log_odds for s in scores if s.log_odds is not None), default=None)

    def _look(self, batches: Iterable[list[Frame]]) -> Iterator[None]:
        for batch in batches:
            info = self.media.info
            still = info is not None and info.kind == "image"
            places = [Place(self.media.path, frame.number) for frame in batch]
            for frame, seen in self.walk.look(batch, places, still=still):
                self.only = frame if still else None
                if self.analyser.pictures is True or (self.analyser.pictures and not still):
                    side = PHOTOGRAPH if still else THUMBNAIL
                    self.strip.add(frame.number, frame.time, frame.image, side)
                for face in seen.faces:
                    self.waiting.append((frame.number, FacePatch.cut(frame.image, face)))
                    if len(self.waiting) >= self.analyser.batch_size:
                        self._score()
            if not still:
                return_freed()
            total = 1 if still else self._total()
            self.analyser.progress(self.media.path, len(self.walk.frames), total)
            yield

    def _total(self) -> int | None:
        numbers = (self.media.choice or {}).get("numbers")
        return None if numbers is None or self.analyser.sampling.how == "adaptive" else len(numbers)

    def _score(self) -> None:
        self.analyser._begin([self], self.scoring)

    def _collect(self) -> None:
        """Waits for the scores of all faces that were given to the networks."""
        while self.answers:
            number, place, answer = self.answers.popleft()
            self.scores.setdefault(number, []).append(answer.result()[place])

    def _faces(self) -> list[FaceResult]:
        faces = []
        for frame, tracks in zip(self.walk.frames, self.walk.tracks(), strict=True):
            scores = self.scores.get(frame.number, [])
            for face, score, track in zip(frame.faces, scores, tracks, strict=True):
                x0, y0, x1, y1 = face.box.tolist()
                box, number, time = (x0, y0, x1, y1), frame.number, frame.time
                faces.append(replace(score, frame=number, time=time, track=track, box=box))
        return faces

    def _sampling(self) -> dict[str, Any]:
        if self.only is not None:
            return {}  # a photograph leaves nothing to choose
        chosen = dict(self.media.choice or {})
        return chosen | {"numbers": [frame.number for frame in self.walk.frames]}

    def _with_patches(self, faces: list[FaceResult]) -> list[FaceResult]:
        """Gives the highest face of each track its pixels, cut out anew: a video's are not kept."""
        found = [face for frame in self.walk.frames for face in frame.faces]
        top: dict[int, int] = {}  # by track, the place of its highest face
        highest: dict[int, float] = {}
        for place, face in enumerate(faces):
            if face.log_odds is not None and face.log_odds > highest.get(face.track, -math.inf):
                top[face.track], highest[face.track] = place, face.log_odds
        wanted: dict[int, list[int]] = {}  # by frame
        for place in top.values():
            wanted.setdefault(faces[place].frame, []).append(place)
        shown = list(faces)
        for frame in self._again(sorted(wanted)):
            self.strip.keep(frame.number, frame.time, frame.image)
            for place in wanted.get(frame.number, ()):
                patch = FacePatch.cut(frame.image, found[place])
                if patch is not None:
                    patch = self.analyser.scorer.with_crops(patch)
                    shown[place] = replace(faces[place], patch=patch)
        return shown

    def _again(self, numbers: list[int]) -> Iterator[Frame]:
        """Yields frames that were seen before, one by one; none where they cannot be read again."""
        if numbers:
            try:
                for batch in self.media.read(numbers, 1):
                    yield from batch
            except _REFUSED as error:
                logger.info("no pictures of %s: %s", self.media.path, error)


def _refused(
    media: _Media, error: UnreadableError | UnsupportedError, kind: str | None = None
) -> Result:
    unsupported = isinstance(error, UnsupportedError)
    status = Status.UNSUPPORTED if unsupported else Status.UNREADABLE
    video = isinstance(media, OpenMedia) and is_video(media.path)
    what = kind or ("video" if video else "image")
    return Result(str(media.path), what, status, str(error), media=_media(media))


def _media(media: _Media) -> dict[str, Any]:
    """What the file is, and which: its digest tells whether it is the one that was judged."""
    if media.info is None:
        return {}
    about = asdict(media.info)
    about |= {name: round(about[name], 3) for name in ("duration", "rate")}
    if isinstance(media, OpenImage):
        return about
    try:
        digest = {"bytes": media.path.stat().st_size, "sha256": sha256(media.path)}
    except OSError as error:  # it has gone since
        logger.info("%s: %s", media.path, error)
        digest = {}
    return about | digest
