"""The driver: gives the files of a manifest to workers, and keeps what comes of them."""

import json
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

from deepregions.archive.manifest import FileManifest, Listed
from deepregions.archive.parts import ArchiveResults, OpenPart, unfinished
from deepregions.archive.scoring import given_up
from deepregions.archive.workers import FileOutcome, ScoredFile, ScorerPool
from deepregions.files import atomic_file, lock_folder

_OPEN = 8  # parts that are worked on at once: one slow file holds up no others
_PARTS = 2048  # that an archive has at most, as long as no part is larger than the largest
_SMALLEST, _LARGEST = 256, 4096  # files of a part
_HELD = 64  # files that wait, at most, for another of their size to be scored
_BEAT = 5.0  # seconds between two reports of how far it is


class Driver:
    """Scores one shard of a manifest, counted from 1, into a folder of results.

    The folder's first run decides how many files a part has; by default 256, in large archives up
    to 4096. ``show`` is told how many files of the shard are finished, and how many it has.
    """

    def __init__(
        self,
        manifest: FileManifest,
        folder: ArchiveResults,
        pool: ScorerPool,
        *,
        shard: int = 1,
        shards: int = 1,
        part_size: int | None = None,
        reuse_copies: bool = False,
        show: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        # Files whose results this run made, that had one before, and that another run has.
        self.done = self.skipped = self.busy = 0
        self._manifest, self._folder, self._pool = manifest, folder, pool
        self._shard, self._shards, self._show = shard, shards, show
        usual = min(max(manifest.rows // _PARTS, _SMALLEST), _LARGEST)
        self._shared = manifest.shared_sizes() if reuse_copies else None
        self._size = part_size or folder.part_size() or usual
        self._run: Mapping[str, Any] = {}
        self._parts: dict[int, OpenPart] = {}  # that are worked on, by the ids of their files
        self._open: list[OpenPart] = []
        self._again: deque[Listed] = deque()  # what comes back goes first
        self._twins: Counter[int] = Counter()  # that are being scored, by size
        self._held: deque[Listed] = deque()  # each may be a copy of one of these
        self._started, self._told = time.time(), 0.0

    def score(self) -> None:
        """Scores what has no result yet; refuses results of other files, networks or settings.

        Raises:
            UsageError: The results are those of other files, networks or settings, or another
                process works on the shard.
            DeepregionsError: No worker can be started.
            OSError: Results cannot be written, such as on a full disk.
        """
        shard = self._folder.shard(self._shard, self._shards)
        with lock_folder(shard, "archive score"), ExitStack() as at_end:
            at_end.callback(self._close_parts)
            at_end.callback(self._pool.close)
            run = dict(self._pool.start())
            run["settings"] = {**run["settings"], "part_size": self._size}
            self._run = self._folder.begin(run)
            self._started = time.time()
            files = self._files()
            while True:
                self._feed(files)
                if not self._parts:
                    break
                for outcome in self._pool.wait():
                    self._take(outcome)
                self._tell()
            self._tell(ended=True)

    def _files(self) -> Iterator[Listed | None]:
        """Yields what is to be scored; None as long as enough parts are open."""
        finished = self._folder.finished()
        for chunk in self._manifest.chunks(self._size, self._shard, self._shards):
            left = unfinished(chunk, finished)
            self.skipped += len(chunk) - len(left)
            if not len(left):
                continue
            while len(self._open) >= _OPEN:
                yield None
            part = self._opened(left)
            if part is not None:
                yield from self._begun(part, left)

    def _opened(self, files: pa.Table) -> OpenPart | None:
        """Opens a part, unless another run works on it, or has just finished it."""
        try:
            part = OpenPart(self._folder, files)
        except BlockingIOError:
            self.busy += len(files)
            return None
        if self._folder.part(part.span).exists():
            part.drop()
            self.skipped += len(files)
            return None
        return part

    def _begun(self, part: OpenPart, files: pa.Table) -> Iterator[Listed]:
        waiting = part.waiting
        self.skipped += len(files) - len(waiting)
        self._parts |= dict.fromkeys((each.id for each in waiting), part)
        self._open.append(part)
        self._finish(part)  # it may be full: an earlier run ended before it was made Parquet
        for file in waiting:
            if why := part.lost(file.id):
                self._keep(given_up(file, why))
            else:
                yield file._replace(twin=self._shared is not None and file in self._shared)

    def _feed(self, files: Iterator[Listed | None]) -> None:
        while self._pool.room() > 0:
            file = self._next(files)
            if file is None:
                self._pool.flush()
                return
            if file.twin and file.size:
                self._twins[file.size] += 1
            self._parts[file.id].begin(file.id)
            self._pool.put(file)

    def _next(self, files: Iterator[Listed | None]) -> Listed | None:
        """Returns what is scored next; what may be a copy comes after its like, as far as it can.

        No worker waits for that.
        """
        if self._again:
            return self._again.popleft()
        while len(self._held) < _HELD and (file := next(files, None)) is not None:
            if not (file.twin and file.size and self._twins[file.size]):
                return file
            self._held.append(file)
        return self._held.popleft() if self._held else None

    def _let_go(self, size: int) -> None:
        """Has the next file of a size scored, where no other is."""
        self._twins -= Counter([size])
        if not self._twins[size]:
            file = next((each for each in self._held if each.size == size), None)
            if file is not None:
                self._held.remove(file)
                self._again.append(file)

    def _take(self, outcome: FileOutcome) -> None:
        file = outcome.file
        if file.twin and file.size:
            self._let_go(file.size)
        if outcome.scored is not None:
            self._keep(outcome.scored)
            return
        part = self._parts[file.id]
        if outcome.killed:
            part.blame(file.id, outcome.killed)
        if why := part.lost(file.id):
            self._keep(given_up(file, why))
        else:
            self._again.append(file)

    def _keep(self, scored: ScoredFile) -> None:
        if scored.page:
            with atomic_file(self._folder.page(scored.id)) as partial:
                partial.write_text(scored.page, encoding="utf-8", errors="backslashreplace")
        part = self._parts[scored.id]
        part.add(scored.id, scored.line)
        del self._parts[scored.id]
        self.done += 1
        self._finish(part)

    def _finish(self, part: OpenPart) -> None:
        if part.full:
            part.finish(self._run)
            self._open.remove(part)

    def _tell(self, *, ended: bool = False) -> None:
        """Says how far it is, to whoever watches and in a file for ``status``."""
        if time.time() - self._told < _BEAT and not ended:
            return
        self._told = time.time()
        total = self._manifest.count(self._size, self._shard, self._shards)
        self._show(self.skipped + self.done, total)
        about = {"host": socket.gethostname(), "pid": os.getpid(), "ended": ended}
        about |= {"files": self._manifest.rows, "done": self.done}
        about |= {"seconds": self._told - self._started, "time": self._told}
        with atomic_file(self._folder.shard(self._shard, self._shards)) as partial:
            partial.write_text(json.dumps(about), encoding="ascii")

    def _close_parts(self) -> None:
        for part in self._open:
            part.close()
