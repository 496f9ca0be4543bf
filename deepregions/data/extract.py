"""From one photo or video to the prepared faces in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from deepregions.data.clips import Clip
from deepregions.data.store import FaceRecord, StoreInfo, encode_image
from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.landmarks import Face, LandmarkDetector, Place
from deepregions.faces.patches import crop_face
from deepregions.faces.video import FrameFaces, VideoWalk
from deepregions.media import Frame, OpenMedia
from deepregions.pixels.tensors import as_tensor
from deepregions.types import BONA_FIDE, ORIGINAL

_LIGHT = 64  # grey levels from which a mask says that a pixel was manipulated
_HIT = 0.05  # share of a face's box: masks of mouths alone are small
_APART = 2  # frames by which a mask's may be off


@dataclass(frozen=True)
class ClipReport:
    """What came of a clip: how many frames were looked at, how many faces were kept.

    Attributes:
        dropped: How many frames and faces were not kept, by reason.
        masked: Whether a mask said who was manipulated.
        others: How many of the faces are of people who were not, kept as genuine.
    """

    key: str
    split: str
    label: int
    frames: int = 0
    faces: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    people: int = 0
    masked: bool = False
    others: int = 0


def paths_of(clip: Clip, info: StoreInfo) -> list[Path]:
    """Lists the files of a clip that are read: of one that is kept as images, some of these."""
    images = [clip.frames[number] for number in _numbers(clip, info)]
    return images or [clip.path, *([clip.mask] if clip.mask else [])]


def extract(
    clip: Clip, files: Iterable[OpenMedia], detector: LandmarkDetector, info: StoreInfo
) -> tuple[list[FaceRecord], ClipReport]:
    """Returns the faces of a clip in order of time, and what came of it.

    A file that cannot be read is no error here: the report says so. ``files`` are those of
    :func:`paths_of`, opened; ``info`` says which frames and people are kept, and how large.
    """
    walk = VideoWalk(detector)
    records: list[list[FaceRecord | None]] = []
    files, size = iter(files), (0, 0)
    try:
        for number, media in zip(_numbers(clip, info) or [0], files, strict=False):
            for batch in media.batches():
                frames, places = batch, [Place(media.path, f.number) for f in batch]
                if clip.frames:  # the time is the image's number
                    frames = [Frame(number, float(number), frame.image) for frame in batch]
                still = not clip.frames and media.info is not None and media.info.kind == "image"
                size = frames[0].image.shape[:2]
                for frame, seen in walk.look(frames, places, still=still):
                    place = len(records)
                    records.append([_record(clip, place, frame, f, info) for f in seen.faces])
    except (UnreadableError, UnsupportedError, OSError) as error:
        return [], ClipReport(clip.key, clip.split, clip.label, failure=str(error))
    tracks = walk.tracks()
    covered = _covered(files, walk.frames, tracks, size) if clip.mask and records else {}
    faces = [one.faces for one in walk.frames]
    wanted = _under_mask(covered) if covered else _wanted(faces, tracks, info)
    others = {*covered} - wanted if info.others == "genuine" else set()
    dropped: Counter[str] = Counter()
    kept: list[FaceRecord] = []
    for row, ids in zip(records, tracks, strict=True):
        dropped["frames without a face"] += not row
        for record, track in zip(row, ids, strict=True):
            if track not in wanted | others:
                dropped["faces of other people"] += 1
            elif record is None:
                dropped["faces without usable landmarks"] += 1
            else:
                key = f"{record.video}#{record.frame:04d}.{track}"
                own = replace(record, key=key, track=track)
                kept.append(_genuine(own) if track in others else own)
    return kept, ClipReport(
        clip.key,
        clip.split,
        clip.label,
        frames=len(records),
        faces=len(kept),
        dropped=dict(sorted((+dropped).items())),
        failure="" if kept else "no face",
        people=len({*chain.from_iterable(tracks)}),
        masked=bool(covered),
        others=sum(record.track in others for record in kept),
    )


def _covered(
    files: Iterable[OpenMedia],
    frames: list[FrameFaces],
    tracks: list[list[int]],
    size: tuple[int, ...],
) -> dict[int, float]:
    """Returns which share of each track's faces lies in the mask that comes next in ``files``.

    Frames in which the mask is dark do not count. Nothing if it is dark in all, or cannot be read:
    then it says nothing. ``size`` is (H, W) of the frames.
    """
    shares: defaultdict[int, list[float]] = defaultdict(list)
    batches = chain.from_iterable(media.batches() for media in files)
    try:
        for mask in chain.from_iterable(batches):
            place = min(range(len(frames)), key=lambda at: abs(frames[at].number - mask.number))
            light = mask.image.max(2) > _LIGHT
            if abs(frames[place].number - mask.number) > _APART or not light.any():
                continue
            scale = np.array([light.shape[1] / size[1], light.shape[0] / size[0]] * 2, np.float32)
            for face, track in zip(frames[place].faces, tracks[place], strict=True):
                edges = np.nan_to_num(face.box * scale).clip(0, max(light.shape)).round()
                left, top, right, bottom = edges.astype(int).tolist()
                box = light[top : bottom + 1, left : right + 1]
                shares[track].append(float(box.mean()) if box.size else 0.0)
    except (UnreadableError, UnsupportedError, OSError):
        return {}
    return {track: sum(own) / len(own) for track, own in shares.items()}


def _under_mask(covered: Mapping[int, float]) -> set[int]:
    """The manipulated person's tracks: one who is lost and found again has several."""
    least = max(_HIT, max(covered.values(), default=0.0) / 2)
    return {track for track, share in covered.items() if share >= least}


def _genuine(record: FaceRecord) -> FaceRecord:
    """A face of a manipulated video that is not itself manipulated: a video of its own."""
    video = f"{record.video}~others"
    key = record.key.replace(record.video, video, 1)
    return replace(record, key=key, video=video, label=BONA_FIDE, method=ORIGINAL)


def _numbers(clip: Clip, info: StoreInfo) -> list[int]:
    """Which of a clip's images are read: those in the middle of equal intervals, as of a video."""
    images = len(clip.frames)
    count = min(info.frames_per_video, images)
    return [int((i + 0.5) * images / count) for i in range(count)]


def _record(
    clip: Clip, number: int, frame: Frame, face: Face, info: StoreInfo
) -> FaceRecord | None:
    """Encodes at once, so that a long video is never in memory as pixels."""
    cut = crop_face(frame.image, face, info.margin, info.max_size)
    if cut is None:
        return None
    crop, landmarks, scale = cut
    return FaceRecord(
        image=encode_image(as_tensor(crop)),
        landmarks=landmarks,
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
        frame_size=(frame.image.shape[1], frame.image.shape[0]),
        score=face.score,
        confidence=face.confidence,
    )


def _wanted(found: list[list[Face]], tracks: list[list[int]], info: StoreInfo) -> set[int]:
    """The tracks to keep; the main one has the largest sum of face sizes (mean size x length)."""
    sizes: defaultdict[int, float] = defaultdict(float)
    for faces, ids in zip(found, tracks, strict=True):
        for face, track in zip(faces, ids, strict=True):
            sizes[track] += float(np.sqrt((face.box[2:] - face.box[:2]).clip(min=0).prod()))
    if info.tracks == "all" or not sizes:
        return set(sizes)
    return {max(sizes, key=lambda track: (sizes[track], -track))}
