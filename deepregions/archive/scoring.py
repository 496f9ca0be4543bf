"""The function that scores files of an archive, the same wherever it runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from deepregions.archive.columns import as_line
from deepregions.archive.manifest import Listed
from deepregions.archive.remote import NOT_THERE, Fetcher, is_remote
from deepregions.archive.workers import ScoredFile
from deepregions.errors import printable

if TYPE_CHECKING:
    from deepregions.pipeline.analyser import Analyser
    from deepregions.pipeline.results import Result


@dataclass(frozen=True)
class ScorerFactory:
    """Makes what scores, in the process that scores: a copy of this is sent there.

    Attributes:
        make_analyser: Loads the networks, given the name of what runs them.
        runtime: That name.
        workers: How many processes share the machine's cores.
        pages: Whether files at or above the chosen threshold get a page.
    """

    make_analyser: Callable[[Any], Analyser]
    runtime: str = "torch"
    workers: int = 1
    pages: bool = False

    def __call__(self) -> AnalyserScorer:
        """Loads the networks."""
        from deepregions.devices import share_cores  # noqa: PLC0415 - torch, which drivers lack

        share_cores(self.workers)
        return AnalyserScorer(self.make_analyser(self.runtime), pages=self.pages)

    def settled(self, run: Mapping[str, Any]) -> Self:
        """Returns this with what the first scorer has found out: the fastest runtime."""
        return replace(self, runtime=run["facts"]["runtime"])


class AnalyserScorer:
    """Scores files as ``detect`` does; ``run`` says what decides results, and all facts."""

    def __init__(self, analyser: Analyser, *, pages: bool = False) -> None:
        from deepregions.media import MediaReader  # noqa: PLC0415 - slow, and drivers need none
        from deepregions.pipeline.results_folder import SETTINGS  # noqa: PLC0415

        settings = {name: analyser.facts.get(name) for name in SETTINGS}
        settings["sampling"] = asdict(analyser.sampling)
        self.run: Mapping[str, Any] = {"settings": settings, "facts": analyser.facts}
        self._analyser, self._pages, self._reader = analyser, pages, MediaReader()
        self._fetcher: Fetcher | None = None

    def __call__(self, files: Iterable[Listed]) -> Iterator[ScoredFile]:
        """Yields what came of each file."""
        begun: deque[_Opened] = deque()

        def paths() -> Iterator[Path]:
            for file in files:
                begun.append(self._open(file))
                yield begun[-1].path

        start, analyse = time.perf_counter(), self._analyser.analyse
        # The next file comes when there is a result.
        with closing(analyse(paths(), self._reader, together=False)) as results:  # type: ignore[type-var]
            for result in results:
                opened = begun.popleft()
                told = opened.named(result)
                page = self._page(opened) if self._pages and told.above_threshold else ""
                self._drop(opened)
                number, now = opened.file.id, time.perf_counter()
                yield ScoredFile(number, as_line(number, told.to_dict(), now - start), page)
                start = now

    def _open(self, file: Listed) -> _Opened:
        if not is_remote(file.path):
            now = Listed.look(file.id, file.path)
            return _Opened(file, Path(file.path), _changed(file, now))
        self._fetcher = self._fetcher or Fetcher()
        copy = self._fetcher.fetch(file.path)
        if copy.why and copy.why != NOT_THERE:
            return _Opened(file, copy.path, "", copy.why)
        now = Listed(file.id, file.path, copy.size, copy.mtime)
        return _Opened(file, copy.path, _changed(file, now), copy.why)

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
        return opened.named(result).to_html()


class _Opened(NamedTuple):
    """A file, and where it can be read; ``why`` says why there is no copy of one elsewhere."""

    file: Listed
    path: Path
    changed: str
    why: str = ""

    def named(self, result: Result) -> Result:
        """Returns its result under its own name, not the copy's, with what has become of it."""
        ours, text = str(self.path), self.file.text
        reason = result.reason
        warnings = ((self.changed,) if self.changed else ()) + result.warnings
        if is_remote(self.file.path):
            reason = f"{text}: {self.why}" if self.why else reason.replace(ours, text)
            warnings = tuple(each.replace(ours, text) for each in warnings)
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
