"""A table of anybody's photographs and videos."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from deepregions.data.clips import Clip
from deepregions.data.databases.base import (
    DEFAULT,
    SPLIT_NAMES,
    Adapter,
    DatabaseInfo,
    Listing,
    is_there,
)
from deepregions.data.splits import Splitting
from deepregions.errors import UsageError
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL

_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "method", "compression", "identities", "split")
_LABELS = {
    **dict.fromkeys(("0", "real", "genuine", "original", "bonafide", "bona fide"), BONA_FIDE),
    **dict.fromkeys(("1", "fake"), FAKE),
}
_FOLDERS = {"real": BONA_FIDE, "fake": FAKE}


class Manifest(Adapter):
    """A CSV file with a header and a line for each photo or video (docs/databases.md)."""

    name = "csv"
    facts = DatabaseInfo(
        title="a CSV manifest",
        url="",
        licence="your own",
        layout="a CSV file with the columns path and label, and if you like method, compression, "
        "identities and split",
        splits="its column split, where it has one",
    )

    def __init__(self, root: Path, name: str = "csv", splitting: Splitting = DEFAULT) -> None:
        super().__init__(root, splitting)
        self.name = name
        self._file = root / "manifest.csv" if root.is_dir() else root
        if not self._file.is_file():
            raise self._wrong_root(self._file.name)
        self._rows = self._read()
        self.scheme = "official" if any(row["split"] for row in self._rows) else "paper"

    def listing(self) -> Listing:
        """Lists the files in the order of their lines."""
        found = Listing()
        seen: set[str] = set()
        for row in self._rows:
            label = _LABELS[row["label"].lower()]
            path = self._file.parent / row["path"]
            folders = [part.lower() for part in Path(row["path"]).parts[:-1]]
            said = next((_FOLDERS[part] for part in reversed(folders) if part in _FOLDERS), label)
            if row["path"] in seen:
                found.left_out["listed before"] += 1
            elif not is_there(path):
                found.absent.append(row["path"])
            elif said != label:
                found.disputed.append(f"{row['path']} is {row['label']} in {self._file.name}")
            else:
                method = row["method"] or (ORIGINAL if label == BONA_FIDE else "fake")
                people = tuple(filter(None, re.split(r"\s*;\s*", row["identities"])))
                people = people or (row["path"],)
                given = (method, row["compression"], people, row["split"])
                found.clips.append(Clip(path, row["path"], label, *given))
            seen.add(row["path"])
        return found

    def _read(self) -> list[dict[str, str]]:
        rows = []
        try:
            content = self._file.read_bytes()
            wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
            text = content.decode("utf-16" if wide else "utf-8-sig")
            heads = text.partition("\n")[0]
            between = max(",;\t", key=heads.count)
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [name for name in _NEEDED if name not in reader.fieldnames]
            if missing:
                raise self._wrong_root(f"the column {missing[0]!r}")
            for line in reader:
                row = {name: str(line.get(name) or "").strip() for name in _COLUMNS}
                self._check(row, reader.line_num)
                rows.append(row)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{self._file} cannot be read: {error}", "save it as UTF-8") from error
        return rows

    def _check(self, row: dict[str, str], line: int) -> None:
        where = f"{self._file}, line {line}"
        if not row["path"] or "\0" in row["path"]:
            raise UsageError(f"{where}: no path", "each line names a file")
        if row["label"].lower() not in _LABELS:
            raise UsageError(f"{where}: label {row['label']!r}", f"one of {', '.join(_LABELS)}")
        if row["split"] and row["split"].lower() not in SPLIT_NAMES:
            raise UsageError(f"{where}: split {row['split']!r}", f"one of {', '.join(SPLIT_NAMES)}")
        row["split"] = SPLIT_NAMES.get(row["split"].lower(), "")
