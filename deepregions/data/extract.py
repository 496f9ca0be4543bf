"""From one photo or video to the prepared faces in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from deepregions.data.clips import Clip
from deepregions.data.store import FaceRecord, encode_image
from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.appearance import appearance
from deepregions.faces.landmarks import Face, LandmarkDetector, Place
from deepregions.faces.patches import MARGIN, MAX_SIZE, crop_face
from deepregions.faces.shots import ShotDetector
from deepregions.faces.tracks import link
from deepregions.media import Frame, frame_batches, frames

NO_FACE = "no face"


@dataclass(frozen=True)
class Extraction:
    """How faces are taken from a clip.

    Attributes:
        frames_per_video: How many frames, evenly spaced in time; a photo is one.
        margin: What surrounds the face (its box and all landmarks) on each side, as a share of
            its width or height; less where the picture ends.
        tracks: ``"main"``: the person who is largest and longest in view; ``"all"``: everybody.
        max_size: A crop is made smaller if a side is longer than this, in pixels.
    """

    frames_per_video: int = 32
    margin: float = MARGIN
    tracks: Literal["main", "all"] = "main"
    max_size: int = MAX_SIZE


@dataclass(frozen=True)
class ClipReport:
    """What came of a clip.

    Attributes:
        key: The clip's.
        split: The clip's.
        label: The clip's.
        frames: How many frames were looked at.
        faces: How many faces were kept.
        dropped: How many frames and faces were not kept, by reason.
        failure: Why nothing was kept; empty if something was.
        people: How many people were seen: tracks of faces.
    """

    key: str
    split: str
    label: int
    frames: int = 0
    faces: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    people: int = 0


def extract(
    clip: Clip, detector: LandmarkDetector, options: Extraction
) -> tuple[list[FaceRecord], ClipReport]:
    """Returns the faces of a clip in order of time, and what came of it.

    A file that cannot be read is no error here: the report says so.
    """
    found: list[list[Face]] = []
    records: list[list[FaceRecord | None]] = []
    times: list[float] = []
    cuts: list[int] = []
    looks: list[list[Tensor | None]] = []
    shot_changes = ShotDetector()
    try:
        for batch in _batches(clip, options.frames_per_video):
            # Stacked as they lie in memory, channels last, as the backends want them.
            pixels = torch.stack([frame.image.permute(1, 2, 0) for frame in batch])
            places = [_place(clip, frame) for frame in batch]
            found_here = detector(pixels.permute(0, 3, 1, 2), places)
            for frame, faces in zip(batch, found_here, strict=True):
                if shot_changes(frame.image):
                    cuts.append(len(records))
                records.append([_record(clip, len(records), frame, f, options) for f in faces])
                found.append(faces)
                times.append(frame.time)
                looks.append([appearance(frame.image, face) for face in faces])
    except (UnreadableError, UnsupportedError, OSError) as error:
        return [], ClipReport(clip.key, clip.split, clip.label, failure=str(error))
    tracks = link(found, times, cuts=cuts, looks=looks)
    wanted = _wanted(found, tracks, options)
    dropped: Counter[str] = Counter()
    kept: list[FaceRecord] = []
    for row, ids in zip(records, tracks, strict=True):
        dropped["frames without a face"] += not row
        for record, track in zip(row, ids, strict=True):
            if track not in wanted:
                dropped["faces of other people"] += 1
            elif record is None:
                dropped["faces without usable landmarks"] += 1
            else:
                key = f"{record.video}#{record.frame:04d}.{track}"
                kept.append(replace(record, key=key, track=track))
    report = ClipReport(
        clip.key,
        clip.split,
        clip.label,
        len(records),
        len(kept),
        dict(sorted((+dropped).items())),
        "" if kept else NO_FACE,
        len({track for ids in tracks for track in ids}),
    )
    return kept, report


def _batches(clip: Clip, count: int) -> Iterator[list[Frame]]:
    """Yields the clip's frames; of one that is kept as images, the time is the image's number."""
    if not clip.frames:
        yield from frame_batches(clip.path, count)
        return
    count = min(count, len(clip.frames))
    for i in range(count):  # in the middle of equal intervals, as of a video
        number = int((i + 0.5) * len(clip.frames) / count)
        images = frames(clip.frames[number], 1)
        yield [Frame(number, float(number), frame.image) for frame in images]


def _place(clip: Clip, frame: Frame) -> Place:
    if clip.frames:
        return Place(clip.frames[frame.number])
    return Place(clip.path, frame.number, frame.time)


def _record(
    clip: Clip, number: int, frame: Frame, face: Face, options: Extraction
) -> FaceRecord | None:
    """Encodes at once, so that a long video is never in memory as pixels."""
    cut = crop_face(frame.image, face, options.margin, options.max_size)
    if cut is None:
        return None
    crop, landmarks, scale = cut
    return FaceRecord(
        image=encode_image(crop),
        landmarks=landmarks.numpy(),
        key="",
        video=clip.key,
        label=clip.label,
        split=clip.split,
        frame=number,
        time=frame.time,
        method=clip.method,
        compression=clip.compression,
        identities=clip.identities,
        scale=scale,
        frame_size=(frame.image.shape[2], frame.image.shape[1]),
        score=face.score,
        confidence=face.confidence,
    )


def _wanted(found: list[list[Face]], tracks: list[list[int]], options: Extraction) -> set[int]:
    """The tracks to keep; the main one has the largest sum of face sizes (mean size x length)."""
    sizes: defaultdict[int, float] = defaultdict(float)
    for faces, ids in zip(found, tracks, strict=True):
        for face, track in zip(faces, ids, strict=True):
            sizes[track] += float((face.box[2:] - face.box[:2]).clamp(min=0).prod().sqrt())
    if options.tracks == "all" or not sizes:
        return set(sizes)
    return {max(sizes, key=lambda track: (sizes[track], -track))}
