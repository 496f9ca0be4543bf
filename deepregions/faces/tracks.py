"""Who is who through a video: faces of successive frames linked by the overlap of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deepregions.faces.landmarks import Face


@dataclass
class _Track:
    box: Tensor
    last: int  # the frame in which it was seen last


def link(
    faces: Sequence[Sequence[Face]], min_iou: float = 0.2, max_gap: int = 3
) -> list[list[int]]:
    """Gives each face of each frame the number of its track.

    In each frame, faces go to tracks so that the sum of their overlaps is the largest possible
    (Hungarian method; Kuhn 1955); a face that overlaps with none begins a track.

    Args:
        faces: The faces of successive frames, of one video.
        min_iou: The least intersection over union of a face's box with the last of its track.
            One person, moving, between frames 0.4 s apart: 0.35 at least on the shared clips with
            YuNet's boxes, 0.28 with HOG's.
        max_gap: In how many successive frames a track's face may be missing.

    Returns:
        As ``faces``, the track of each face: 0, 1, ... in order of first appearance. A track has
        at most one face a frame.
    """
    tracks: list[_Track] = []
    numbers = []
    for frame, found in enumerate(faces):
        alive = [n for n, track in enumerate(tracks) if frame - track.last <= max_gap + 1]
        assigned = _assigned([tracks[n].box for n in alive], [face.box for face in found], min_iou)
        own = []
        for index, face in enumerate(found):
            number = alive[assigned[index]] if index in assigned else len(tracks)
            tracks[number : number + 1] = [_Track(face.box, frame)]  # replaces, or appends
            own.append(number)
        numbers.append(own)
    return numbers


def _assigned(tracks: list[Tensor], faces: list[Tensor], min_iou: float) -> dict[int, int]:
    """Returns which track's box goes to which face: {face: track}, by their places in the lists."""
    if not tracks or not faces:
        return {}
    overlap = iou(torch.stack(faces).double().numpy(), torch.stack(tracks).double().numpy())
    overlap = np.where(overlap >= min_iou, overlap, 0.0)  # also where a box is no box (NaN)
    pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
    return {int(face): int(track) for face, track in pairs if overlap[face, track] > 0}


def iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the (N, M) intersections over unions of (N, 4) and (M, 4) boxes x0, y0, x1, y1."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=2)
    areas = [
        np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)
    ]
    union = areas[0][:, None] + areas[1][None] - common
    overlaps: NDArray[np.float64] = np.zeros_like(common)
    np.divide(common, union, out=overlaps, where=union > 0)
    return overlaps
