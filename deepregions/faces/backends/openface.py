"""Landmarks that OpenFace 2 has written (Baltrušaitis et al., FG 2018): its CSV files.

There are two layouts (its RecorderCSV.cpp), both with one row a face:

* a photograph's (FaceLandmarkImg): ``face, confidence, ..., x_0 ... x_67, y_0 ... y_67, ...``;
* a video's (FeatureExtraction, FaceLandmarkVidMulti): ``frame, face_id, timestamp, confidence,
  success, ..., x_0 ...``, frames from 1, in order of display.

Its 68 points are iBUG's, and its pixels have their centres at whole numbers, as ours have.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepregions.errors import UnreadableError, UsageError
from deepregions.faces.landmarks import Face, Frames, Place, largest_first
from deepregions.faces.regions import canvas
from deepregions.types import NUM_LANDMARKS

MAX_FACES = 500_000  # more than four hours at 30 frames a second; 300 MB
MAX_LINE = 1 << 18  # bytes; OpenFace's longest lines have 714 columns and about 8,000
_FARTHEST = 1e6  # pixels

_POINTS = tuple(f"{axis}_{number}" for axis in "xy" for number in range(NUM_LANDMARKS))
_HINT = "OpenFace 2 writes such files: FaceLandmarkImg and FeatureExtraction, with -2Dfp"


@dataclass(frozen=True, eq=False)
class OpenFaceTable:
    """The N faces of a photograph or a video, with OpenFace's own confidence, in [0, 1]."""

    path: Path
    video: bool
    frame: NDArray[np.int64]
    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]

    def faces(self, number: int) -> list[Face]:
        """Returns a frame's faces, largest first; their boxes are their canvases."""
        first, last = np.searchsorted(self.frame, [number, number + 1])
        points = self.landmarks[first:last]
        # From the first pixel's edge to the last one's.
        boxes = canvas(torch.from_numpy(points)).float().numpy() - 0.5
        sure = self.confidence[first:last].tolist()
        return largest_first(map(Face, boxes, points, sure, sure))


def read_openface(path: Path) -> OpenFaceTable:
    """Reads a file of OpenFace 2, of either layout.

    Columns are found by name; those that are not needed are ignored, and rows may lack them.
    Rows in which OpenFace had no success are left out.

    Raises:
        UnreadableError: Not there, not such a file, or more than ``MAX_FACES`` faces.
    """
    rows: list[list[float]] = []
    try:
        if path.exists() and not path.is_file():  # a pipe would never end
            raise UnreadableError(f"{path}: no regular file", _HINT)
        with path.open(encoding="utf-8-sig", newline="\n") as stream:
            lines = iter(partial(stream.readline, MAX_LINE + 1), "")
            header = [name.strip() for name in next(lines, "").split(",")]
            video = "frame" in header
            places = _places(path, header, ("success", "frame") if video else ("face",))
            for number, line in enumerate(lines, start=2):
                if len(line) > MAX_LINE:
                    raise UnreadableError(f"{path}: a line of more than {MAX_LINE} bytes", _HINT)
                if line.strip() and (row := _row(f"{path}: line {number}", line, places)):
                    rows.append(row)
                if len(rows) > MAX_FACES:
                    raise UnreadableError(f"{path}: more than {MAX_FACES:,} faces", "cut the video")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: no text", _HINT) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"{path}: {reason}", "check the path") from error
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 2 + len(_POINTS))
    table = table[np.argsort(table[:, 0], kind="stable")]
    points = table[:, 2:].astype(np.float32).reshape(len(rows), 2, NUM_LANDMARKS)
    frame, sure = table[:, 0].astype(np.int64) - 1, np.clip(table[:, 1].astype(np.float32), 0, 1)
    return OpenFaceTable(path, video, frame, np.ascontiguousarray(points.transpose(0, 2, 1)), sure)


def _places(path: Path, header: list[str], own: tuple[str, ...]) -> dict[str, int]:
    """Where in a row things are: what the layout has of its own, then what both have."""
    names = ("confidence", *own, *_POINTS)
    if missing := [name for name in names if name not in header]:
        more = f" and {len(missing) - 3} more" if missing[3:] else ""
        raise UnreadableError(f"{path}: no column {', '.join(missing[:3])}{more}", _HINT)
    return {name: header.index(name) for name in (*own, "confidence", *_POINTS)}


def _row(where: str, line: str, places: dict[str, int]) -> list[float]:
    """Returns a face's frame (from 1), confidence and points; nothing where there was none."""
    cells, again = line.split(","), "run OpenFace again"
    if not line.endswith("\n") and len(cells) <= max(places.values()) + 1:  # 12.3 may be of 123.4
        raise UnreadableError(f"{where}: cut short", again)
    values = {"frame": 1.0}
    for name, place in places.items():
        if name == "face":
            continue
        text = cells[place].strip() if place < len(cells) else ""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= _FARTHEST:  # also refuses NaN
            raise UnreadableError(f"{where}: {name} is {text[:20]!r}", again)
        if name == "success" and value <= 0:
            return []
        values[name] = value
    if not values["frame"].is_integer() or values["frame"] < 1:
        raise UnreadableError(f"{where}: frame {values['frame']:g}", "frames are counted from 1")
    return [values["frame"], values["confidence"], *(values[name] for name in _POINTS)]


class OpenFaceLandmarks:
    """OpenFace's landmarks of inputs that OpenFace has seen, as a :class:`LandmarkDetector`.

    The file of ``clips/anna.mp4`` is ``anna.csv`` in the folder, or the one file that is given.

    Raises:
        UsageError: There is no such folder or file.
    """

    name = "openface"

    def __init__(self, source: Path) -> None:
        if not source.exists():
            raise UsageError(f"{source}: no such file or folder", "openface:FOLDER, of CSV files")
        self._source = source
        self._table: OpenFaceTable | None = None
        self._inputs: dict[Path, Path] = {}

    @property
    def version(self) -> str:
        """Names, sizes and times of the files: what has changed was made anew."""
        files = sorted(self._source.glob("*.csv")) if self._source.is_dir() else [self._source]
        digest = hashlib.sha256()
        for file in files:
            status = file.stat()
            digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return f"openface csv, {len(files)} files, {digest.hexdigest()[:16]}"

    def __call__(self, frames: Frames, places: Sequence[Place] = ()) -> list[list[Face]]:
        """Returns each frame's faces, by their places alone; each input needs its own file.

        Raises:
            UnreadableError: An input has no file, or not one of its kind, or its file is another
                input's too.
        """
        if len(places) != len(frames):
            raise ValueError(f"{len(places)} places for {len(frames)} frames")
        found = []
        for place in places:
            table = self._of(place.path)
            if place.number and not table.video:
                what = f"{place.path}: {table.path} has a photograph's layout"
                raise UnreadableError(what, "run OpenFace's FeatureExtraction on the video")
            found.append(table.faces(place.number))
        return found

    def _of(self, path: Path) -> OpenFaceTable:
        file = self._source / f"{path.stem}.csv" if self._source.is_dir() else self._source
        # Two inputs of one name would silently have each other's landmarks.
        other = self._inputs.setdefault(file, path)
        if other != path:
            raise UnreadableError(f"{path}: {file} is for {other} already", "one folder for each")
        if self._table is None or self._table.path != file:
            try:
                self._table = read_openface(file)
            except UnreadableError as error:
                raise UnreadableError(f"{path}: no OpenFace landmarks: {error}") from error
        return self._table
