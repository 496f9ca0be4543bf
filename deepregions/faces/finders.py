"""Finders of faces for dlib's landmarks: YuNet, and dlib's own HOG detector.

HOG looks at a reduced copy first and at a larger one only where that shows no face. YuNet finds all
faces that are wanted, in pictures of any size; memory is bounded by tiles.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import dlib
import numpy as np
import onnx
from numpy.typing import NDArray

from deepregions.assets import Asset
from deepregions.devices import import_runtime, threads

Image = NDArray[np.uint8]

YUNET = Asset(
    name="yunet_n_640_640.onnx",
    url="https://github.com/ShiqiYu/libfacedetection.train/raw/0047ac2/onnx/yunet_n_640_640.onnx",
    sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
    license="Apache-2.0",
    source="ShiqiYu/libfacedetection.train, commit 0047ac2",
)


# Of YuNet, in pixels of what it is shown. A face that is at least CLEAR wide is well located; one
# of NOTICED is seen. A face is looked at again on cut-outs that reach AROUND widths about its
# middle, in which it has the widths CLOSER: measured on 150 photographs, docs/faces.md.
_CLEAR, _NOTICED, _AROUND, _CLOSER = 36, 14, 1.2, (80, 112)
_WORTH = 0.8  # of the least width: smaller faces are not looked at again
# A face below UPRIGHT may lie on its side: turned upright, most are surer by SURER, of those that
# are upright 1 of 128 is.
_UPRIGHT, _SURER = 0.93, 0.02
_TILE, _SHARED = 1280, 96
_LEAST_SIDE = 16
_STRIDES = (8, 16, 32)  # of YuNet's maps, in pixels
_ANSWERS = [f"{what}_{stride}" for stride in _STRIDES for what in ("cls", "obj", "bbox", "kps")]


@dataclass(frozen=True)
class FaceDetection:
    """A face without landmarks, in pixels of the image."""

    box: NDArray[np.float64]  # (4,) x0, y0, x1, y1: the finder's own
    square: NDArray[np.float64]  # (3,) centre x, y and side of the box of dlib's HOG
    roll: float  # radians by which the eyes' line is turned, clockwise on screen; 0 if unknown
    score: float  # on the finder's own scale
    points: NDArray[np.float64] | None = None  # (5, 2) eyes, nose, mouth, left before right


class FaceFinder(Protocol):
    """Finds faces in one image."""

    name: str
    version: str

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""


class YuNetFinder:
    """YuNet (Wu et al., 2023): faces from 12 pixels on are noticed, and small ones looked at again.

    It looks at a copy reduced to ``side`` pixels, and at one in which a face of ``least`` pixels,
    the smallest that is wanted, has ``NOTICED``, in tiles. A face that is small there, or doubtful,
    counts if it is found again on a cut-out of its own, which also says where its points are.
    Doubtful faces, and pictures without any, are turned by quarters.
    """

    # On the shared clips, faces score 0.91 and more at 640 pixels, what is no face at most 0.66.
    threshold = 0.7
    doubtful = 0.3  # of a face to look at again: of those 14 pixels wide, 99 % have it
    overlap = 0.3  # IoU above which the weaker of two boxes is dropped; YuNet's own default
    side = 640

    name = "yunet"
    version = f"yunet {YUNET.sha256[:8]}, small faces again"

    def __init__(self, model: Path, least: float = 40.0) -> None:
        self._session = _any_size(model)
        self._least = least

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""
        if min(image.shape[:2]) < _LEAST_SIDE:
            return []
        whole = min(1.0, self.side / max(image.shape[:2]))
        tiled = min(1.0, _NOTICED / self._least)
        reduced = _resized(image, whole)
        closer = self._at(image, _resized(image, tiled)) if tiled > 1.1 * whole else []
        found = self._sure(image, self._at(image, reduced), whole, closer)
        for turns in (1, 3, 2) if not found else ():
            turned = np.rot90(image, turns)
            noticed = self._at(turned, np.rot90(reduced, turns))
            if found := self._sure(turned, noticed, whole):
                # They may stand on their heads: YuNet finds such faces too, and is less sure.
                righted = (self._righted(turned, one) for one in found)
                return [_turned_back(one, turns, image) for one in righted]
        return [self._righted(image, one) for one in found]

    def _righted(self, image: Image, face: FaceDetection) -> FaceDetection:
        """Returns a doubtful face as it is seen when turned by quarters, if that makes it surer."""
        if face.score >= _UPRIGHT or _width(face) < _WORTH * self._least:
            return face
        (left, top, right, bottom), wide = _around(face), _width(face)
        cut = _resized(image[top:bottom, left:right], _CLOSER[0] / wide)
        scores = [
            max((one.score for one in self._at(turned, turned)), default=0.0)
            for turned in (np.rot90(cut, turns) for turns in range(4))
        ]
        turns = int(np.argmax(scores))
        if scores[turns] < max(face.score, scores[0]) + _SURER:
            return face
        turned = np.rot90(image, turns)
        found = self._again(turned, _turned_back(face, 4 - turns, turned))
        return face if found is None else _turned_back(found, turns, image)

    def _sure(
        self,
        image: Image,
        noticed: list[FaceDetection],
        scale: float,
        closer: Sequence[FaceDetection] = (),
    ) -> list[FaceDetection]:
        """Returns those that are faces, of those noticed at a scale and at a larger one."""
        sure: list[FaceDetection] = []
        again = []
        for place, one in enumerate((*noticed, *closer)):
            width = _width(one)
            small = width < _WORTH * self._least
            clear = place < len(noticed) and width * scale >= _CLEAR
            if one.score >= self.threshold and (small or clear):
                sure += [one] * _is_new(one, sure)
            elif not small:
                again.append(one)
        for one in sorted(again, key=lambda each: -each.score):
            if _is_new(one, sure) and (found := self._again(image, one)):
                sure += [found] * _is_new(found, sure)
        return sure

    def _again(self, image: Image, face: FaceDetection) -> FaceDetection | None:
        """Looks again on cut-outs, where all of them show a face; returns their average."""
        left, top, right, bottom = _around(face)
        offset = np.array([left, top])
        found = []
        for pixels in _CLOSER:
            cut = image[top:bottom, left:right]
            faces = self._at(cut, _resized(cut, pixels / _width(face)))
            moved = [
                _face(f.box + np.tile(offset, 2), np.asarray(f.points) + offset, f.score)
                for f in faces
            ]
            found += sorted(moved, key=lambda one: -_shared(one, face)[0])[:1]
        score = float(np.mean([one.score for one in found])) if found else 0.0
        if len(found) < len(_CLOSER) or score < self.threshold:
            return None
        box = np.mean([one.box for one in found], axis=0)
        return _face(box, np.mean([np.asarray(one.points) for one in found], axis=0), score)

    def _at(self, image: Image, resized: Image) -> list[FaceDetection]:
        """Returns the faces noticed on a resized copy, sure or not, in pixels of the image."""
        ratio = np.array(resized.shape[1::-1]) / image.shape[1::-1]
        size = resized.shape[1::-1]
        found = []
        for y in range(0, max(size[1] - _SHARED, 1), _TILE - _SHARED):
            for x in range(0, max(size[0] - _SHARED, 1), _TILE - _SHARED):
                tile = cv2.cvtColor(resized[y : y + _TILE, x : x + _TILE], cv2.COLOR_RGB2BGR)
                for row in self.rows(np.asarray(tile, np.uint8)):
                    corners = np.stack([row[:2], row[:2] + row[2:4], *row[4:14].reshape(5, 2)])
                    corners = (corners + (x, y) + 0.5) / ratio - 0.5
                    found.append(_face(corners[:2].ravel(), corners[2:], float(row[14])))
        return found

    def rows(self, tile: Image) -> NDArray[np.float64]:
        """Returns the faces of (H, W, 3) uint8 BGR as OpenCV's detector for YuNet does.

        (N, 15), the surest first: the box's corner and size, five points, the score.
        """
        height, width = (-(-side // _STRIDES[-1]) * _STRIDES[-1] for side in tile.shape[:2])
        given = np.zeros((1, 3, height, width), np.float32)  # black at the right and below
        for plane, own in zip(given[0], cv2.split(tile), strict=True):
            plane[: tile.shape[0], : tile.shape[1]] = own
        answers = iter(self._session.run(_ANSWERS, {"input": given}))
        found = []
        for stride, *maps in zip(_STRIDES, answers, answers, answers, answers, strict=True):
            score = np.sqrt(np.prod([np.clip(each[0, :, 0], 0, 1) for each in maps[:2]], axis=0))
            kept = np.flatnonzero(score >= self.doubtful)
            cell = np.stack([kept % (width // stride), kept // (width // stride)], axis=1)
            box, points = maps[2][0, kept], maps[3][0, kept].reshape(-1, 5, 2)
            middle, size = (cell + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride
            points = (cell[:, None] + points) * stride
            parts = [middle - size / 2, size, points.reshape(-1, 10), score[kept, None]]
            found.append(np.concatenate(parts, axis=1).astype(np.float64))
        rows = np.concatenate(found)
        rows = rows[np.isfinite(rows).all(axis=1)]
        whole = rows[:, :4].astype(np.int64).tolist()  # as OpenCV's own detector compares them
        best = cv2.dnn.NMSBoxes(whole, rows[:, 14].tolist(), self.doubtful, self.overlap)
        return rows[np.asarray(best, np.int64).reshape(-1)]


def _any_size(model: Path) -> Any:
    """Opens a network whose file is for one size of picture for all sizes."""
    library = import_runtime("onnxruntime")
    graph = onnx.load(model)
    for value in (*graph.graph.input, *graph.graph.output):
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_value >= _LEAST_SIDE:
                dimension.dim_param = f"{value.name} {axis}"
    options = library.SessionOptions()
    options.intra_op_num_threads = threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # it would keep what the largest picture took
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return library.InferenceSession(graph.SerializeToString(), options, providers=providers)


def _resized(image: Image, scale: float) -> Image:
    height, width = image.shape[:2]
    size = max(round(width * scale), _LEAST_SIDE), max(round(height * scale), _LEAST_SIDE)
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = image if scale == 1 else cv2.resize(image, size, interpolation=filter_)
    return np.asarray(resized, np.uint8)


def _face(box: NDArray[np.float64], points: NDArray[np.float64], score: float) -> FaceDetection:
    """A face from YuNet's box (4,) and points (5, 2)."""
    eyes, mouth, across = points[:2].mean(axis=0), points[3:].mean(axis=0), points[1] - points[0]
    # dlib's landmarks want the box of its HOG detector, whose centre lies midway between the
    # middles of eyes and mouth. Its side is estimated in two ways (medians of 702 faces).
    spread = np.hypot(*across) + np.hypot(*(eyes - mouth))
    area = np.prod(np.maximum(box[2:] - box[:2], 0))
    side = (0.929 * np.sqrt(area) + 1.182 * spread) / 2
    square = np.array([*(eyes + mouth) / 2, side])
    return FaceDetection(box, square, float(np.arctan2(*across[::-1])), score, points)


def _width(face: FaceDetection) -> float:
    """A face's width, from ear to ear, by its box alone."""
    return float(max(0.93 * np.sqrt(np.prod(np.maximum(face.box[2:] - face.box[:2], 0))), 1.0))


def _around(face: FaceDetection) -> tuple[int, int, int, int]:
    """Where the cut-out of a face begins and ends: left, top, right, bottom."""
    reach, middle = _AROUND * _width(face), (face.box[:2] + face.box[2:]) / 2
    left, top = (max(int(corner), 0) for corner in middle - reach)
    right, bottom = (int(corner) + 2 for corner in middle + reach)
    return left, top, right, bottom


def _shared(one: FaceDetection, other: FaceDetection) -> tuple[float, float]:
    """Area that two boxes share, over that of both together and over that of the first."""
    low, high = np.maximum(one.box[:2], other.box[:2]), np.minimum(one.box[2:], other.box[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    own, others = (float(np.prod(np.maximum(f.box[2:] - f.box[:2], 1e-6))) for f in (one, other))
    return both / (own + others - both), both / own


def _is_new(face: FaceDetection, sure: Iterable[FaceDetection]) -> bool:
    """Whether a face is none of those that are sure, nor a part of one."""
    return all(iou <= 0.3 and part <= 0.6 for iou, part in (_shared(face, one) for one in sure))


def _turned_back(face: FaceDetection, turns: int, image: Image) -> FaceDetection:
    """A face of ``np.rot90(image, turns)`` in the image's own pixels."""
    points = np.concatenate([face.box.reshape(2, 2), np.asarray(face.points)])
    for turn in range(turns, 0, -1):  # one quarter back clockwise, to what was turned once less
        x, y = points.T
        points = np.stack([image.shape[turn % 2] - 1 - y, x], axis=1)
    box = np.concatenate([points[:2].min(axis=0), points[:2].max(axis=0)])
    return _face(box, points[2:], face.score)


class HogFinder:
    """dlib's frontal face detector (histograms of oriented gradients, faces from 80 pixels on).

    It looks at images enlarged up to fourfold, and takes faces that are nearly sure if none is.
    """

    name = "hog"
    version = "hog from -0.25"
    sides = (640, 960, 1440)
    doubtful = -0.25  # the least score of a face where none has one above 0, dlib's own threshold

    def __init__(self) -> None:
        self._detector = dlib.get_frontal_face_detector()

    def __call__(self, image: Image) -> list[FaceDetection]:
        """Returns the faces of an (H, W, 3) uint8 RGB image."""
        best: list[FaceDetection] = []
        for reduced, scale in _reduced(image, self.sides, enlarge=4.0):
            rows = self._detector.run(np.ascontiguousarray(reduced), 0, self.doubtful)
            found = []
            for box, score in zip(*rows[:2], strict=True):
                corners = np.array([[box.left(), box.top()], [box.right(), box.bottom()]]) + 0.5
                corners = corners / scale - 0.5
                side = np.sqrt(np.prod(corners[1] - corners[0] + 1))
                square = np.array([*corners.mean(axis=0), side])
                found.append(FaceDetection(corners.ravel(), square, 0.0, float(score)))
            if sure := [one for one in found if one.score > 0]:
                return sure
            best = max(best, found, key=lambda own: max((one.score for one in own), default=-1.0))
        return best


def _reduced(
    image: Image, sides: tuple[int, ...], enlarge: float = 1.0
) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Yields the image at each longer side that makes a difference, with its (x, y) scale."""
    height, width = image.shape[:2]
    if min(height, width) < _LEAST_SIDE:  # less than any face that is looked for
        return
    last = 0.0
    for side in sides:
        scale = min(side / max(height, width), enlarge if last else 1.0)
        if scale <= last:
            return
        last = scale
        if round(min(height, width) * scale) >= _LEAST_SIDE:
            resized = _resized(image, scale)
            yield resized, np.array(resized.shape[1::-1]) / (width, height)
