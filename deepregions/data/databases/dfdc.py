"""The Deepfake Detection Challenge's database, and the preview that came before it."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from deepregions.data.clips import Clip
from deepregions.data.databases.base import (
    DEFAULT,
    Adapter,
    DatabaseInfo,
    Listing,
    is_there,
    read_json,
    video_folder,
    videos,
)
from deepregions.data.splits import Splitting
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL

_METADATA, _LABELS, _DATASET = "metadata.json", "labels.csv", "dataset.json"
_DEPTH = 3  # folders between the root and a part's metadata.json
_LEAST_PARTS = 10  # of the training set, for parts to be kept whole
_NO_LABEL = "its metadata has no label"


class Dfdc(Adapter):
    """The Deepfake Detection Challenge's database (Dolhansky et al. 2020).

    A part's ``metadata.json`` maps file names to ``{"label": "FAKE" or "REAL", "original": name}``;
    the lines of ``labels.csv`` are ``filename,label``, 1 is fake. A fake and its original have one
    identity, as who is in a video is not published.
    """

    name = "dfdc"
    facts = DatabaseInfo(
        title="DFDC",
        url="https://ai.meta.com/datasets/dfdc/",
        licence="its own terms (registration, research)",
        layout="dfdc_train_part_*/metadata.json with their videos, or test/labels.csv",
        published={
            "train original": 19154,
            "train fake": 100000,
            "val original": 2000,
            "val fake": 2000,
            "test original": 2500,
            "test fake": 2500,
        },
        optional=frozenset({"val original", "val fake", "test original", "test fake"}),
        tolerance=0.01,  # sources differ; each part's own list tells what it lacks
        source="Dolhansky et al. 2020; SCLBD/DeepfakeBench, issue 63",
        splits="50 training parts, a validation and a test part",
    )

    def __init__(self, root: Path, splitting: Splitting = DEFAULT) -> None:
        super().__init__(root, splitting)
        self._parts: list[Path] = []
        self._labels: dict[str, Path] = {}
        for name, below, names in os.walk(root, onerror=_refuse, followlinks=True):
            folder = Path(name)
            # A folder with a list is not entered, nor what is hidden or deep.
            deep = len(folder.relative_to(root).parts) == _DEPTH
            below[:] = () if deep or _METADATA in names else [n for n in below if n[0] != "."]
            if _LABELS in names:
                split = {"test": "test", "validation": "val"}.get(folder.name)
                if split or folder == root:
                    self._labels[split or "test"] = folder / _LABELS
            elif _METADATA in names:
                self._parts.append(folder)
        if not self._parts and not self._labels:
            raise self._wrong_root(_METADATA)
        self.scheme = "official" if "test" in self._labels else "paper"

    def listing(self) -> Listing:
        """Lists the training parts by number, then validation, then test."""
        found = Listing()
        for part in sorted(self._parts, key=lambda part: (_number(part), part)):
            metadata = _mapping(part / _METADATA)
            labels = {name: _label(entry) for name, entry in metadata.items()}
            originals = {
                name: str(entry.get("original") or name) if labels[name] == FAKE else name
                for name, entry in metadata.items()
            }
            self._list(part / _METADATA, part.name, labels, originals, found)
        for split in ("val", "test"):
            if split in self._labels:
                self._list(self._labels[split], split, _read_labels(self._labels[split]), {}, found)
        first = {clip.key: clip for clip in reversed(found.clips)}
        found.left_out["there is another of that name"] += len(found.clips) - len(first)
        found.clips = [clip for clip in found.clips if first[clip.key] is clip]
        return found

    def group_of(self, clip: Clip) -> str:
        """The official split and the class."""
        return f"{clip.split} {clip.method}"

    def _list(
        self,
        file: Path,
        top: str,
        labels: Mapping[str, int | None],
        originals: Mapping[str, str],
        found: Listing,
    ) -> None:
        """Adds the videos that a file lists; without originals, each shows somebody else."""
        folder = video_folder(file.parent)
        there = {path.name for path in videos(file.parent)}
        split = "train" if originals else top
        group = top if originals and len(self._parts) >= _LEAST_PARTS else ""
        for name in sorted(labels):
            label, key = labels[name], f"{top}/{PurePosixPath(name).stem}"
            if name not in there:
                found.absent.append(f"{top if originals else folder.name}/{name}")
            elif label is None:
                found.left_out[_NO_LABEL] += 1
            else:
                method = "fake" if label == FAKE else ORIGINAL
                people = (PurePosixPath(originals[name]).stem if originals else key,)
                clip = Clip(folder / name, key, label, method, "", people, split, group)
                found.clips.append(clip)
        found.left_out[f"not in its folder's {file.name}"] += len(there - labels.keys())


class DfdcPreview(Adapter):
    """The preview of the Deepfake Detection Challenge's database (Dolhansky et al. 2019).

    Its ``dataset.json`` maps paths such as ``method_A/<id>/<id>_A/<name>.mp4`` to ``{"label":
    "fake" or "real", "set": "train" or "test", "target_id": number, "swapped_id": number or null}``
    and more.
    """

    name = "dfdc-preview"
    needs = (_DATASET,)
    facts = DatabaseInfo(
        title="DFDC Preview",
        url="https://ai.meta.com/datasets/dfdc/",
        licence="its own terms (registration, research)",
        layout=f"{_DATASET}, original_videos/, method_A/ and method_B/",
        published={
            "train original": 855,
            "train fake": 3618,
            "test original": 276,
            "test fake": 501,
        },
        tolerance=0.01,  # counted by others; its own list tells what is lacking
        source="SCLBD/DeepfakeBench, issue 63",
        splits="training and test set of different people; no validation part",
    )

    def listing(self) -> Listing:
        """Lists the files by path."""
        found = Listing()
        dataset = _mapping(self.root / _DATASET)
        for name in sorted(dataset):
            entry = dataset[name]
            label = _label(entry)
            top, *below = PurePosixPath(name).parts or ("",)
            path = self.root / name
            if not is_there(path):  # as DeepfakeBench and others keep them, frames beside
                path = self.root.joinpath(top, "videos", *below)
            if not is_there(path):
                found.absent.append(name)
            elif label is None:
                found.left_out[_NO_LABEL] += 1
            elif (top == "original_videos") != (label == BONA_FIDE):
                found.disputed.append(f"{name} is {entry['label']} in {_DATASET}")
            else:
                method = top if label == FAKE else ORIGINAL
                key = PurePosixPath(name).with_suffix("").as_posix()
                split = {"train": "train", "test": "test"}.get(str(entry.get("set", "")), "")
                people = _preview_people(entry, PurePosixPath(name).stem, label)
                found.clips.append(Clip(path, key, label, method, "", people, split))
        return found

    def group_of(self, clip: Clip) -> str:
        """The official split and the class."""
        return f"{clip.split} {ORIGINAL if clip.label == BONA_FIDE else 'fake'}"


def dfdc_preview_people(stem: str) -> tuple[str, ...]:
    """Who is in a video by its name: ``<swapped>_<target>_A_001`` or ``<target>_A_001``."""
    numbers = re.match(r"(?:(\d+)_)?(\d+)_[A-Z]+_", stem)
    return tuple(name for name in numbers.groups()[::-1] if name) if numbers else ()


def _preview_people(entry: Mapping[str, Any], stem: str, label: int) -> tuple[str, ...]:
    """Target and then source; the names of files say it too."""
    named = [entry.get("target_id"), entry.get("swapped_id") if label == FAKE else None]
    people = tuple(dict.fromkeys(str(name) for name in named if name is not None))
    return people or dfdc_preview_people(stem) or (stem,)


def _label(entry: Mapping[str, Any]) -> int | None:
    return {"FAKE": FAKE, "REAL": BONA_FIDE}.get(str(entry.get("label", "")).upper())


def _mapping(path: Path) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UsageError(f"{path} does not map file names to objects", "download it again")
    return content


def _read_labels(path: Path) -> dict[str, int | None]:
    labels: dict[str, int | None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                labels[str(row["filename"]).strip()] = int(row["label"])
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", "expected filename,label with 1 for fake"
        ) from error
    if set(labels.values()) - {BONA_FIDE, FAKE}:
        raise UsageError(f"{path} has labels other than 0 and 1", "download it again")
    return labels


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename}: {error.strerror}", "check its permissions") from error


def _number(part: Path) -> int:
    named = re.search(r"(\d+)$", part.name)
    return int(named[1]) if named else -1
