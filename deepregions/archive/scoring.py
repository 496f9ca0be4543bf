"""The function that scores files of an archive, the same wherever it runs."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from deepregions.archive.columns import as_line
from deepregions.archive.contents import KnownContents
from deepregions.archive.manifest import Listed
from deepregions.archive.remote import NOT_THERE, Fetcher, is_remote
from deepregions.archive.workers import ScoredFile
from deepregions.errors import printable

if TYPE_CHECKING:
    from deepregions.archive.ray_networks import RemoteNetworks
    from deepregions.pipeline.analyser import Analyser
    from deepregions.pipeline.results import Result
    from deepregions.pipeline.scorer import PatchScorer

_NOTHING = Path(os.devnull)  # stands for a file that need not be looked at


@dataclass(frozen=True)
class ScorerFactory:
    """Makes what scores, in the process that scores: a copy of this is sent there."""

    make_analyser: Callable[..., Analyser]  # given the name of what runs the networks
    runtime: str | None = None
    workers: int = 1  # that share the machine's cores
    pages: bool = False  # of files at or above the chosen threshold
    contents: Path | None = None  # results of what may have copies, to score it once
    networks: RemoteNetworks | None = None  # elsewhere; None where this process runs them

    def analyser(self) -> Analyser:
        """Loads the networks."""
        from deepregions.devices import share_cores  # noqa: PLC0415 - torch, which drivers lack

        share_cores(self.workers)
        return self.make_analyser(self.runtime)

    def __call__(self) -> AnalyserScorer:
        """Loads what finds faces, and networks where no others are asked."""
        if self.networks is None:
            analyser = self.analyser()
        else:
            on_cpu = partial(self.make_analyser, cpu=True)
            analyser = replace(self, runtime=None, make_analyser=on_cpu).analyser()
            analyser.scorer = cast("PatchScorer", self.networks)
            analyser.facts = self.networks.facts
        return AnalyserScorer(analyser, pages=self.pages, contents=self.contents)

    def settled(self, run: Mapping[str, Any]) -> Self:
        """Returns this with what the first scorer has found out: the fastest runtime."""
        return replace(self, runtime=run["facts"]["runtime"])


class AnalyserScorer:
    """Scores files as ``detect`` does; ``run`` says what decides results, and all facts."""

    def __init__(
        self, analyser: Analyser, *, pages: bool = False, contents: Path | None = None
    ) -> None:
        from deepregions.media import MediaReader  # noqa: PLC0415 - slow, and drivers need none
        from deepregions.pipeline.results_folder import SETTINGS  # noqa: PLC0415

        settings = {name: analyser.facts.get(name) for name in SETTINGS}
        settings["sampling"] = asdict(analyser.sampling)
        self.run: Mapping[str, Any] = {"settings": settings, "facts": analyser.facts}
        self._analyser, self._pages, self._reader = analyser, pages, MediaReader()
        self._fetcher: Fetcher | None = None
        self._contents = None if contents is None else KnownContents(contents)

    def __call__(self, files: Iterable[Listed]) -> Iterator[ScoredFile]:
        """Yields what came of each file."""
        begun: deque[_Opened] = deque()

        def paths() -> Iterator[Path]:
            for file in files:
                opened = self._open(file)
                copy = bool(opened.content) and (
                    any(each.content == opened.content for each in begun)
                    or self._known(opened) is not None
                )
                begun.append(opened._replace(copy=copy))
                yield _NOTHING if copy else opened.path

        start, analyse = time.perf_counter(), self._analyser.analyse
        # The next file comes when there is a result.
        with closing(analyse(paths(), self._reader, together=False)) as results:  # type: ignore[type-var]
            for result in results:
                opened = begun[0]
                told = self._told(opened, result)
                page = self._page(opened) if self._pages and told.get("above_threshold") else ""
                self._drop(opened)
                begun.popleft()
                number, now = opened.file.id, time.perf_counter()
                yield ScoredFile(number, as_line(number, told, now - start), page)
                start = now

    def _open(self, file: Listed) -> _Opened:
        if not is_remote(file.path):
            now, path, why = Listed.look(file.id, file.path), Path(file.path), ""
        else:
            self._fetcher = self._fetcher or Fetcher()
            path, size, mtime, why = self._fetcher.fetch(file.path)
            now = Listed(file.id, file.path, size, mtime)
        changed = "" if why and why != NOT_THERE else _changed(file, now)
        wanted = self._contents is not None and file.twin and not why
        content = self._contents.key(path) if self._contents and wanted else ""
        return _Opened(file, path, changed, why, content)

    def _known(self, opened: _Opened) -> dict[str, Any] | None:
        return self._contents.find(opened.content) if self._contents is not None else None

    def _told(self, opened: _Opened, result: Result) -> dict[str, Any]:
        """Returns what came of a file, which is that of the same content where there is one."""
        told = self._known(opened) if opened.copy else None
        if told is None:
            if opened.copy:  # the one like it could not be kept
                (result,) = self._analyser.analyse([opened.path], self._reader)
            told = opened.named(result).to_dict()
            if self._contents is not None and opened.content:
                self._contents.keep(opened.content, told, opened.file.text)
        return told | {"warnings": [*opened.changed_warnings, *told["warnings"]]}

    def _drop(self, opened: _Opened) -> None:
        if self._fetcher is not None and is_remote(opened.file.path):
            self._fetcher.drop(opened.path)

    def _page(self, opened: _Opened) -> str:
        """Returns the page of a file, which is judged again: pictures of all would take longer."""
        self._analyser.pictures = True
        try:
            (result,) = self._analyser.analyse([opened.path], self._reader)
        finally:
            self._analyser.pictures = False
        named = opened.named(result)
        return replace(named, warnings=(*opened.changed_warnings, *named.warnings)).to_html()


class _Opened(NamedTuple):
    """A file, and where it can be read; ``why`` says why there is no copy of one elsewhere."""

    file: Listed
    path: Path
    changed: str
    why: str = ""
    content: str = ""  # what tells it, where that matters
    copy: bool = False  # whether another file has the same

    @property
    def changed_warnings(self) -> tuple[str, ...]:
        return (self.changed,) if self.changed else ()

    def named(self, result: Result) -> Result:
        """Returns its result under its own name, not that of the copy that was fetched."""
        ours, text = str(self.path), self.file.text
        if not is_remote(self.file.path):
            return replace(result, input=text)
        reason = f"{text}: {self.why}" if self.why else result.reason.replace(ours, text)
        warnings = tuple(each.replace(ours, text) for each in result.warnings)
        return replace(result, input=text, reason=reason, warnings=warnings)


def _changed(file: Listed, now: Listed) -> str:
    """Says what has become of a file since it was listed; nothing where it is as it was."""
    if file.size is None:
        return ""
    if now.size is None:
        return "it was there when it was listed, and is not now"
    if now.size != file.size:
        return f"it has changed since it was listed: {file.size:,} bytes then, {now.size:,} now"
    if file.mtime is not None and now.mtime != file.mtime:
        return "it has changed since it was listed: it was written to"
    return ""


def given_up(file: Listed, why: str) -> ScoredFile:
    """Returns what came of a file on which workers or runs have ended."""
    from deepregions.media import is_video  # noqa: PLC0415
    from deepregions.pipeline.results import Result  # noqa: PLC0415 - torch, which drivers lack
    from deepregions.types import Status  # noqa: PLC0415

    kind = "video" if is_video(Path(file.path)) else "image"
    result = Result(file.text, kind, Status.ERROR, f"{printable(file.path)}: {why}")
    return ScoredFile(file.id, as_line(file.id, result.to_dict(), 0.0))
