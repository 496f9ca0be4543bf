"""Anybody's photographs and videos, sorted into folders."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from deepregions.data.clips import Clip, assert_identity_disjoint
from deepregions.data.databases.base import DEFAULT, SPLIT_NAMES, Adapter, DatabaseInfo, Listing
from deepregions.data.splits import Splitting
from deepregions.errors import UsageError
from deepregions.media import find_media
from deepregions.types import BONA_FIDE, FAKE, ORIGINAL


class Folder(Adapter):
    """Photos and videos in ``real/`` and ``fake/``, at any depth; all genuine without ``fake/``.

    Folders ``train/``, ``val/`` and ``test/`` above them are the official split. By default the
    first part of a file's name is a person, and in the name of a fake the second part another, if
    both are numbers of equal length. Else ``identity`` is a regular expression, searched in the
    path below ``real/`` or ``fake/`` without the suffix: its groups are the people, or the whole
    match if it has none. The first folder below ``fake/``, if any, is the manipulation's name.
    """

    name = "folder"
    facts = DatabaseInfo(
        title="a folder",
        url="",
        licence="your own",
        layout="real/ and fake/, or train/, val/ and test/ with these in each",
        splits="train/, val/ and test/, where they are there",
    )

    def __init__(
        self,
        root: Path,
        name: str = "folder",
        identity: str | None = None,
        splitting: Splitting = DEFAULT,
    ) -> None:
        super().__init__(root, splitting)
        self.name = name
        try:
            self._identity = re.compile(identity) if identity is not None else None
        except re.error as error:
            raise UsageError(f"identity {identity!r} is no regular expression: {error}") from error
        there = {path.name.lower(): path for path in sorted(root.glob("[!.]*")) if path.is_dir()}
        self._parts = {there[name]: split for name, split in SPLIT_NAMES.items() if name in there}
        used = {*self._parts} or {root / "real", root / "fake"}
        self._others = [path for path in there.values() if path not in used]
        self.scheme = "official" if self._parts else "paper"
        for folder in self._classes():
            if folder.name == "real" and not folder.is_dir():
                raise UsageError(
                    f"{folder} is not there",
                    f"expected {root}/real and {root}/fake, or {root}/train/real, "
                    f"{root}/train/fake, {root}/val/real and so on",
                )

    def listing(self) -> Listing:
        """Lists the files by path: real before fake, train before val before test.

        Raises:
            UsageError: A folder is empty, a name does not fit ``identity``, or somebody is in two
                of the given splits.
        """
        tops = [top for top in self._classes() if top.is_dir()]
        found = Listing([self._clip(path, top) for top in tops for path in find_media([top])])
        if self.splitting.scheme == "official":
            assert_identity_disjoint(found.clips)
        why = ", which is no split" if self._parts else ""
        for other in self._others:
            with suppress(UsageError):  # nothing in it
                found.left_out[f"in {other.name}/{why}"] += len(find_media([other]))
        return found

    def _classes(self) -> list[Path]:
        tops = [*self._parts] or [self.root]
        return [top / name for top in tops for name in ("real", "fake")]

    def _clip(self, path: Path, top: Path) -> Clip:
        below = path.relative_to(top)
        key = path.relative_to(self.root).as_posix()
        label, method = BONA_FIDE, ORIGINAL
        if top.name == "fake":
            label, method = FAKE, below.parts[0] if len(below.parts) > 1 else "fake"
        people = self._people(below, label)
        return Clip(path, key, label, method, "", people, self._parts.get(top.parent, ""))

    def _people(self, below: Path, label: int) -> tuple[str, ...]:
        if self._identity is None:
            first, second = ([*re.split(r"[_\-. ]+", below.stem), ""])[:2]
            numbers = first.isdecimal() and second.isdecimal() and len(first) == len(second)
            return (first or below.stem, second)[: 1 + (label == FAKE and numbers)]
        found = self._identity.search(below.with_suffix("").as_posix())
        people = tuple(filter(None, (found.groups() or (found[0],)) if found else ()))
        if not people:
            raise UsageError(
                f"{below} names nobody by the identity {self._identity.pattern!r}",
                "it must match every path below real/ and fake/, without the suffix",
            )
        return people
