"""Takes photographs, videos and region canvases the whole way, from file to result."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.landmarks import Face, LandmarkDetector, Place
from deepregions.faces.video import VideoWalk
from deepregions.files import sha256
from deepregions.fusion.calibration import Calibration
from deepregions.fusion.pooling import Pooling
from deepregions.media import Frame, MediaReader, OpenMedia, Sampling, is_video
from deepregions.media.sampling import refine
from deepregions.pipeline.face_scorer import FacePatch, FaceScorer, Score
from deepregions.pipeline.malloc import trim
from deepregions.pipeline.results import FaceResult, InputResult, summarise_input
from deepregions.pipeline.top_faces import (
    PHOTOGRAPH,
    THUMBNAIL,
    Analysis,
    Evidence,
    Strip,
)
from deepregions.pipeline.warnings import warnings_of
from deepregions.types import Region, Status

logger = logging.getLogger(__name__)

_ROUNDS = 4  # of adaptive sampling: the second half of the frames, a quarter of it at a time
_REFUSED = (UnreadableError, UnsupportedError)


class Analyser:
    """Scores inputs one after the other; memory does not grow with their number or length.

    Args:
        scorer: Quality gates, networks and fusion.
        find: Finds faces and landmarks; not needed for region canvases.
        sampling: Which frames of a video are looked at.
        rules: How scores become one.
        batch_size: How many faces are scored at once.
        pictures: Whether evidence and strips are collected.
        warnings: What every result's reader should know.
        calibration: What the log-odds of tracks and files say; None if that is not known.
        provenance: What results say about how they were made.
    """

    def __init__(
        self,
        scorer: FaceScorer,
        find: LandmarkDetector | None,
        *,
        sampling: Sampling,
        rules: Pooling,
        batch_size: int = 16,
        pictures: bool = True,
        warnings: Sequence[str] = (),
        calibration: Calibration | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.scorer = scorer
        self.find = find
        self.sampling = sampling
        self.rules = rules
        self.batch_size = batch_size
        self.pictures = pictures
        self.warnings = tuple(warnings)
        self.calibration = calibration
        self.provenance = dict(provenance or {})
        self.cut = FacePatch.cut

    def analyse(self, paths: Iterable[Path], reader: MediaReader) -> Iterator[Analysis]:
        """Yields what came of each photograph or video, in their order.

        What cannot be read or judged is a status, not an exception.
        """
        if self.find is None:
            raise ValueError("this analyser was made without a landmark detector")
        for media in reader.open_all(paths, self.sampling):
            yield _Run(self, self.find, media).analysis()

    def analyse_canvases(
        self, paths: Iterable[Path], region: Region, reader: MediaReader
    ) -> Iterator[Analysis]:
        """As above, of images that already are a region's canvas, black outside the region.

        The original's sample images are such canvases.
        """
        for media in reader.open_all(paths, self.sampling):
            yield self._canvas(media, region)

    def _canvas(self, media: OpenMedia, region: Region) -> Analysis:
        try:
            image = next(media.batches(1))[0].image
        except _REFUSED as error:
            return _refused(media, error, "regions")
        score = self.scorer.score_canvas(image, region)
        height, width = image.shape[-2:]
        face = _face(0, 0.0, 0, (0.0, 0.0, float(width), float(height)), score)
        result = summarise_input(
            str(media.path),
            "regions",
            1,
            (face,),
            self.rules,
            calibration=self.calibration,
            media=_media(media),
            warnings=self.warnings,
        )
        if score.log_odds is None:
            return Analysis(result)
        crops = self.scorer.canvas_crops(image, region)
        return Analysis(result, (Evidence(image, None, face, crops),))


class _Run:
    """One photograph or video on its way."""

    def __init__(self, analyser: Analyser, find: LandmarkDetector, media: OpenMedia) -> None:
        self.analyser = analyser
        self.media = media
        self.walk = VideoWalk(find)
        self.scores: dict[int, list[Score]] = {}  # by frame
        self.strip = Strip()
        self.only: Frame | None = None  # a photograph's: not worth reading twice
        self.waiting: list[tuple[int, FacePatch]] = []

    def analysis(self) -> Analysis:
        trouble = ""
        try:
            self._look(self.media.batches())
            self._look_closer()
        except _REFUSED as error:
            if not self.walk.frames:
                return _refused(self.media, error)
            trouble = f"reading stopped early: {error.args[0]}"
            self._score()
        result = self._result(trouble)
        if not self.analyser.pictures:
            return Analysis(result)
        return Analysis(result, tuple(self._evidence(result)), self.strip.thumbnails())

    def _look_closer(self) -> None:
        """Adaptive sampling: more frames where the scores of neighbours disagree, in rounds."""
        sampling, info = self.analyser.sampling, self.media.info
        if sampling.how != "adaptive" or info is None or info.kind == "image":
            return
        left = sampling.count - len(self.walk.frames)
        step = max(1, -(-left // _ROUNDS))
        while left > 0:
            seen = [frame.number for frame in self.walk.frames]
            numbers = refine(seen, [self._highest(number) for number in seen], min(step, left))
            if not numbers:
                return
            self._look(self.media.read(numbers))
            left -= len(numbers)

    def _highest(self, number: int) -> float | None:
        """The highest score in a frame: what adaptive sampling compares."""
        scores = self.scores.get(number, [])
        return max((s.log_odds for s in scores if s.log_odds is not None), default=None)

    def _look(self, batches: Iterable[list[Frame]]) -> None:
        for batch in batches:
            info = self.media.info
            still = info is not None and info.kind == "image"
            places = [Place(self.media.path, frame.number, frame.time) for frame in batch]
            for frame, seen in self.walk.look(batch, places, still=still):
                self._take(frame, seen.faces, still=still)
            trim()
        self._score()

    def _take(self, frame: Frame, faces: list[Face], *, still: bool) -> None:
        self.only = frame if still else None
        if self.analyser.pictures:
            side = PHOTOGRAPH if still else THUMBNAIL
            self.strip.add(frame.number, frame.time, frame.image, side)
        for face in faces:
            self.waiting.append((frame.number, self.analyser.cut(frame.image, face)))
            if len(self.waiting) >= self.analyser.batch_size:
                self._score()

    def _score(self) -> None:
        scores = self.analyser.scorer.score([found for _, found in self.waiting])
        for (number, _), score in zip(self.waiting, scores, strict=True):
            self.scores.setdefault(number, []).append(score)
        self.waiting = []

    def _result(self, trouble: str) -> InputResult:
        seen = self.walk.frames
        faces = []
        for frame, numbers in zip(seen, self.walk.tracks(), strict=True):
            scores = self.scores.get(frame.number, [])
            for face, score, track in zip(frame.faces, scores, numbers, strict=True):
                x0, y0, x1, y1 = face.box.tolist()
                faces.append(_face(frame.number, frame.time, track, (x0, y0, x1, y1), score))
        info = self.media.info
        result = summarise_input(
            str(self.media.path),
            info.kind if info else "video",
            len(seen),
            faces,
            self.analyser.rules,
            calibration=self.analyser.calibration,
            media=_media(self.media),
            sampling=self._sampling(),
        )
        told = [*self.analyser.warnings, *([trouble] if trouble else []), *warnings_of(result)]
        return replace(result, warnings=tuple(told))

    def _sampling(self) -> dict[str, Any]:
        if self.only is not None:
            return {}  # a photograph leaves nothing to choose
        chosen = dict(self.media.choice or {})
        return chosen | {"numbers": [frame.number for frame in self.walk.frames]}

    def _evidence(self, result: InputResult) -> Iterator[Evidence]:
        """Yields the highest face of each track, cut out anew: no face's pixels were kept."""
        found = [face for frame in self.walk.frames for face in frame.faces]
        top: dict[int, int] = {}  # by track, the place of its highest face
        highest: dict[int, float] = {}
        for place, face in enumerate(result.faces):
            if face.log_odds is not None and face.log_odds > highest.get(face.track, -math.inf):
                top[face.track], highest[face.track] = place, face.log_odds
        wanted: dict[int, list[int]] = {}  # by frame, in the order of the tracks
        for _, place in sorted(top.items()):
            wanted.setdefault(result.faces[place].frame, []).append(place)
        evidence = []
        for frame in self._again(sorted(wanted)):
            for place in wanted.get(frame.number, ()):
                cut = FacePatch.cut(frame.image, found[place])
                if cut.patch is not None:
                    crops = self.analyser.scorer.crops(cut.patch, cut.landmarks)
                    face = result.faces[place]
                    evidence.append(Evidence(cut.patch, cut.landmarks, face, crops))
        yield from sorted(evidence, key=lambda each: each.face.track)

    def _again(self, numbers: list[int]) -> Iterator[Frame]:
        """Yields frames that were seen before, one by one; none where they cannot be read again."""
        if self.only is not None:
            yield self.only
        elif numbers:
            try:
                for batch in self.media.read(numbers, 1):
                    yield from batch
            except _REFUSED as error:
                logger.info("no pictures of %s: %s", self.media.path, error)


def _refused(
    media: OpenMedia, error: UnreadableError | UnsupportedError, kind: str | None = None
) -> Analysis:
    unsupported = isinstance(error, UnsupportedError)
    status = Status.UNSUPPORTED if unsupported else Status.UNREADABLE
    what = kind or ("video" if is_video(media.path) else "image")
    return Analysis(InputResult(str(media.path), what, status, str(error), media=_media(media)))


def _media(media: OpenMedia) -> dict[str, Any]:
    """What the file is, and which: its digest tells whether it is the one that was judged."""
    if media.info is None:
        return {}
    try:
        digest = {"bytes": media.path.stat().st_size, "sha256": sha256(media.path)}
    except OSError as error:  # it has gone since
        logger.info("%s: %s", media.path, error)
        digest = {}
    return asdict(media.info) | digest


def _face(
    frame: int, time: float, track: int, box: tuple[float, float, float, float], score: Score
) -> FaceResult:
    return FaceResult(
        frame=frame,
        time=time,
        track=track,
        box=box,
        status=score.status,
        log_odds=score.log_odds,
        cells=score.cells,
        reasons=score.reasons,
        quality=score.quality,
    )
