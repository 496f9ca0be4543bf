"""From one photo or video to the prepared faces in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deepregions.data.databases import Clip
from deepregions.data.store import FaceRecord, encode_image
from deepregions.errors import UnreadableError, UnsupportedError
from deepregions.faces.landmarks import Face, LandmarkDetector
from deepregions.faces.tracks import link
from deepregions.media import Frame, frames

NO_FACE = "no face"

_FRAMES_PER_BATCH = 8  # a batch of 4K frames is 200 MB


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
    margin: float = 0.5
    tracks: Literal["main", "all"] = "main"
    max_size: int = 512


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
    """

    key: str
    split: str
    label: int
    frames: int = 0
    faces: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failure: str = ""


def extract(
    clip: Clip, detector: LandmarkDetector, options: Extraction
) -> tuple[list[FaceRecord], ClipReport]:
    """Returns the faces of a clip in order of time, and what came of it.

    A file that cannot be read is no error here: the report says so.
    """
    found: list[list[Face]] = []
    records: list[list[FaceRecord | None]] = []
    try:
        for batch in _batches(clip.path, options.frames_per_video):
            images = torch.stack([frame.image for frame in batch])
            for frame, faces in zip(batch, detector(images), strict=True):
                records.append([_record(clip, len(records), frame, f, options) for f in faces])
                found.append(faces)
    except (UnreadableError, UnsupportedError, OSError) as error:
        return [], ClipReport(clip.key, clip.split, clip.label, failure=str(error))
    tracks = link(found)
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
    )
    return kept, report


def crop_face(
    image: Tensor, face: Face, margin: float, max_size: int
) -> tuple[Tensor, Tensor, float] | None:
    """Cuts a face out with its surroundings.

    Args:
        image: (3, H, W) uint8.
        face: Its box and landmarks in pixels of ``image``.
        margin: As in :class:`Extraction`.
        max_size: As in :class:`Extraction`.

    Returns:
        The crop (3, h, w) uint8, the landmarks (68, 2) in its pixels, and its pixels per pixel of
        ``image``; None if no part of the face is on the picture or a landmark is not a number.
        Landmarks off the picture stay off the crop.
    """
    if not (face.landmarks.isfinite().all() and face.box.isfinite().all()):
        return None
    low = torch.minimum(face.box[:2], face.landmarks.amin(0))
    high = torch.maximum(face.box[2:], face.landmarks.amax(0))
    around = margin * (high - low)
    left, top = (low - around).floor().int().clamp(min=0).tolist()
    right, bottom = (high + around).ceil().int().tolist()
    crop = image[:, top : max(bottom + 1, 0), left : max(right + 1, 0)]
    if not crop.numel():
        return None
    landmarks = face.landmarks - torch.tensor([left, top], dtype=torch.float32)
    scale = min(1.0, max_size / max(crop.shape[1:]))
    if scale == 1:
        return crop, landmarks, 1.0
    size = [max(1, round(side * scale)) for side in (crop.shape[2], crop.shape[1])]
    pixels = Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy())
    smaller = np.array(pixels.resize((size[0], size[1]), Image.Resampling.LANCZOS))
    ratio = torch.tensor([size[0] / crop.shape[2], size[1] / crop.shape[1]])
    # Pixel centres are at whole numbers, so the picture's corner, which stays, is at (-0.5, -0.5).
    landmarks = (landmarks + 0.5) * ratio - 0.5
    return torch.from_numpy(smaller).permute(2, 0, 1), landmarks, scale


def _batches(path: Path, count: int) -> Iterator[list[Frame]]:
    """Yields consecutive frames of one size together."""
    batch: list[Frame] = []
    for frame in frames(path, count):
        other_size = batch and batch[0].image.shape != frame.image.shape
        if other_size or len(batch) == _FRAMES_PER_BATCH:
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


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
