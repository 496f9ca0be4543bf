"""Databases as DeepfakeBench rearranges them: a JSON file that lists frames by video."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
)
from deepregions.data.databases.celebdf import celebdf_people
from deepregions.data.databases.dfdc import dfdc_preview_people
from deepregions.data.splits import Splitting
from deepregions.data.store import SPLITS
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL

_COMPRESSIONS = ("raw", "c23", "c40")
_NO_VIDEO = "an entry that is no video"
_PRECEDENCE = ("test", "val", "train")


class DeepfakeBench(Adapter):
    """A file of DeepfakeBench's ``preprocessing/rearrange.py`` (Yan et al. 2023).

    Its form is ``{database: {label: {split: {[compression:] {video: {"label": label, "frames":
    [path, ...]}}}}}}``. What ends with "real" is genuine, such as ``FF-real`` or ``UADFV_Real``.
    Frames are found in the folder ``images``, or in the JSON file's folder, or in folders above,
    with or without the first parts of their paths. A video is in one split: test before val before
    train.
    """

    name = "deepfakebench"
    facts = DatabaseInfo(
        title="DeepfakeBench's JSON",
        url="https://github.com/SCLBD/DeepfakeBench",
        licence="that of the database rearranged; DeepfakeBench: CC BY-NC 4.0",
        layout="a JSON file {database: {label: {split: {video: {label, frames}}}}} and its frames",
        splits="train, val and test, made disjoint",
    )

    def __init__(
        self,
        root: Path,
        compression: str = "c23",
        images: Path | None = None,
        name: str = "deepfakebench",
        splitting: Splitting = DEFAULT,
    ) -> None:
        super().__init__(root, splitting)
        self.name = name
        self._compression = compression
        self._images = images or (root if root.is_dir() else root.parent)
        self._content = self._read()
        if not isinstance(self._content, dict) or not all(map(_is_tree, self._content.values())):
            raise self._wrong_root("such a structure")

    def _read(self) -> Any:
        if not self.root.is_file():
            raise self._wrong_root(self.root.name)
        return read_json(self.root)

    def listing(self) -> Listing:
        """Lists the videos by label and name."""
        found = Listing()
        place: tuple[Path, int] | None = None
        clips: dict[str, Clip] = {}
        for label, split, compression, video, entry in self._entries(found):
            frames = [str(frame).replace("\\", "/") for frame in entry["frames"]]
            key = "/".join(filter(None, (label, compression, video)))
            if not frames:
                found.left_out["it has no frames"] += 1
                continue
            if str(entry.get("label", label)) != label:
                found.disputed.append(f"{key} is {entry['label']} in itself")
                continue
            base, skipped = place = place or self._base_of(frames[0])
            names = (PurePosixPath(name).parts[skipped:] for name in sorted(frames, key=_natural))
            paths = tuple(filter(is_there, (base.joinpath(*parts) for parts in names)))
            if not paths:
                found.absent.append(key)
                continue
            genuine = label.lower().endswith("real")
            clip = Clip(
                path=paths[0].parent,
                key=key,
                label=BONA_FIDE if genuine else FAKE,
                method=ORIGINAL if genuine else label,
                compression=compression,
                identities=_people(label, video),
                split=split,
                frames=paths,
            )
            before = clips.setdefault(key, clip)
            if _PRECEDENCE.index(split) < _PRECEDENCE.index(before.split):
                clips[key] = replace(before, split=split)
        found.clips = [clips[key] for key in sorted(clips)]
        return found

    def _entries(self, found: Listing) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
        """Yields label, split, compression, video and its entry; others are counted."""
        for labels in self._content.values():
            yield from _entries_of(labels, self._compression, found)

    def _base_of(self, frame: str) -> tuple[Path, int]:
        """Returns where the first frame is found, and how many parts of its path are left out."""
        parts = PurePosixPath(frame).parts
        for base in (self._images, *self._images.resolve().parents):
            for skipped in range(max(1, len(parts) - 1)):  # at least folder/file
                if is_there(base.joinpath(*parts[skipped:])):
                    return base, skipped
        raise UsageError(
            f"{self.root}: its frame {frame} is not in {self._images} nor in a folder above",
            "say with --images which folder the paths are relative to",
        )


class DF40(DeepfakeBench):
    """DF40 (Yan et al. 2024): fakes of 40 methods as frames, listed by files of DeepfakeBench's.

    As some files call genuine and fake by another method's name, a fake's method is its file's
    name.
    """

    name = "df40"
    facts = DatabaseInfo(
        title="DF40",
        url="https://github.com/YZY-stack/DF40",
        licence="CC BY-NC 4.0",
        layout="dataset_json/<method>_<ff or cdf>.json as published, and the frames that they list",
        splits="train and test as published, made disjoint",
    )

    def _read(self) -> Any:
        inner = self.root / "dataset_json"
        files = sorted((inner if inner.is_dir() else self.root).glob("[!.]*.json"))
        if not files:
            raise self._wrong_root("dataset_json/*.json")
        contents = [read_json(file) for file in files]
        if not all(isinstance(content, dict) for content in contents):
            raise self._wrong_root("such a structure")
        return {name: labels for content in contents for name, labels in content.items()}

    def _entries(self, found: Listing) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
        for name, labels in self._content.items():
            method, _, domain = name.rpartition("_")
            family = {"ff": "ff", "cdf": "celebdf"}.get(domain, "")
            fake = f"{family}-{method}" if family else name
            for one in _entries_of(labels, self._compression, found):
                genuine = f"{family or name}-real"
                label = genuine if one[0].lower().endswith("real") else fake
                yield label, *one[1:4], {**one[4], "label": label}


def _is_tree(labels: Any) -> bool:
    return isinstance(labels, dict) and all(
        isinstance(splits, dict) and splits.keys() <= set(SPLITS) for splits in labels.values()
    )


def _entries_of(
    labels: Mapping[str, Any], asked: str, found: Listing
) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    for label, splits in labels.items():
        for split in SPLITS:
            videos = splits.get(split, {})
            compression = ""
            if isinstance(videos, dict) and videos.keys() & set(_COMPRESSIONS):
                compression = asked
                videos = videos.get(compression, {})
            if not isinstance(videos, dict):
                found.left_out[_NO_VIDEO] += 1
                continue
            for video, entry in videos.items():
                if isinstance(entry, dict) and isinstance(entry.get("frames"), list):
                    yield label, split, compression, video, entry
                else:  # its DFDC loop leaves one video's entry in place of all
                    found.left_out[_NO_VIDEO] += 1


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders frames by the numbers in their names, with or without leading zeros."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def _people(label: str, video: str) -> tuple[str, ...]:
    """Who is in a video, as far as its name says in the database that its label is of."""
    family = re.split(r"[-_]", label)[0].lower()
    people: tuple[str, ...] = ()
    if family == "ff" and re.fullmatch(r"\d+(_\d+)?", video):
        people = tuple(video.split("_"))
    elif family == "dfd" and re.match(r"\d+(_\d+)?__", video):
        people = tuple(video.split("__", maxsplit=1)[0].split("_"))
    elif family.startswith("celebdf"):
        people = celebdf_people(video)
    elif family == "dfdcp":
        people = dfdc_preview_people(video)
    elif family == "uadfv":
        people = (video.removesuffix("_fake"),)
    return people or (f"{label}/{video}",)
