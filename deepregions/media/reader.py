"""Reading many files, each in a process that may hang or die, the next ahead of the current."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from deepregions.errors import DeepregionsError, UnreadableError, UnsupportedError
from deepregions.media.frames import DEFAULT_LIMITS, Frame, Limits, MediaInfo
from deepregions.media.provenance import Credentials, Provenance, received
from deepregions.media.sampling import Sampling
from deepregions.media.sandbox import Child, Died
from deepregions.media.wire import Message

logger = logging.getLogger(__name__)

_BATCH_BYTES = 256 << 20  # pixels in a batch at most: ten frames of 4K, or one of 85 MP
_FILES = 500  # that one process reads: what decoders leak does not add up further
_ERRORS: dict[str, type[DeepregionsError]] = {
    error.__name__: error for error in (UnreadableError, UnsupportedError)
}


class OpenMedia:
    """A file that is being read; :meth:`MediaReader.open_all` makes these.

    ``info`` and ``choice`` (which frames were chosen, and how, as JSON values) are None before the
    first frame has come, or if none will. Notes on damage are complete when the frames are.
    """

    def __init__(self, path: Path, child: Child, reader: MediaReader) -> None:
        self.path = path
        self.info: MediaInfo | None = None
        self.choice: dict[str, Any] | None = None
        self._child = child
        self._reader = reader
        # running: frames or their end are still to come; waiting: more may be asked for
        self._state: Literal["running", "waiting", "failed", "dead", "closed"] = "running"

    def batches(self, at_once: int = 8) -> Iterator[list[Frame]]:
        """Yields the frames that sampling chose, in order, consecutive ones of one size together.

        At most ``at_once`` of them; fewer of frames larger than 4K.

        Raises:
            UnreadableError: The file is damaged, or reading it takes too much.
            UnsupportedError: It is of a kind that is not read here.
        """
        batch: list[Frame] = []
        for frame in self._frames():
            full = (len(batch) + 1) * frame.image.nbytes > _BATCH_BYTES or len(batch) >= at_once
            if batch and (full or batch[0].image.shape != frame.image.shape):
                yield batch
                batch = []
            batch.append(frame)
        if batch:
            yield batch

    def read(self, numbers: Sequence[int], at_once: int = 8) -> Iterator[list[Frame]]:
        """Yields more frames, in order of time, when :meth:`batches` has come to its end.

        A frame that was lost to damage comes as the one before it, under its own number.
        """
        if self._state != "waiting":
            raise RuntimeError(f"{self.path} is not waiting for requests but {self._state}")
        try:
            self._child.send({"kind": "read", "numbers": [int(number) for number in numbers]})
        except Died as error:
            raise self._died(error) from error
        self._state = "running"
        return self.batches(at_once)

    def provenance(self) -> Provenance | None:
        """Returns what the file says of where it comes from; None where the reader dies of it."""
        said = self._asked("origin")
        if said is None:
            return None
        credentials = None
        if said.get("credentials") is not None:
            died = {"problems": ["they cannot be read: what reads them died"]}
            credentials = received(Credentials, self._asked("credentials") or died)
        return received(Provenance, said, credentials=credentials)

    def _asked(self, kind: str) -> Message | None:
        if self._state not in ("waiting", "failed"):
            return None
        try:
            self._child.send({"kind": kind})
            message, _ = self._child.receive()
            if message["kind"] == kind:
                return dict(message["said"])
        except (Died, KeyError, TypeError, ValueError) as error:
            logger.info("%s: %s: %s", self.path, kind, error)
        self._child.close()
        self._state = "dead"
        return None

    def close(self) -> None:
        """Gives the file up."""
        usable = self._state in ("waiting", "failed")
        if self._state == "waiting":
            try:
                self._child.send({"kind": "close"})
            except Died:
                usable = False
        if self._state != "closed":
            self._reader.release(self._child, usable=usable)
        self._state = "closed"

    def _frames(self) -> Iterator[Frame]:
        while self._state == "running":
            try:
                message, pixels = self._child.receive()
                if pixels is None:
                    self._understand(message)
                    continue
                frame = Frame(int(message["number"]), float(message["time"]), pixels)
            except Died as error:
                raise self._died(error) from error
            except (KeyError, TypeError, ValueError) as error:
                raise self._died(Died("its decoder went wrong")) from error
            yield frame

    def _understand(self, message: Message) -> None:
        if message["kind"] == "error":
            self._state = "failed"
            error = _ERRORS.get(message["error"], DeepregionsError)
            raise error(message["message"], message["hint"])
        info = message["info"]
        self.info = MediaInfo(**{**info, "notes": tuple(info["notes"])})
        if message["kind"] == "opened":
            self.choice = message["choice"]
        else:
            self._state = "waiting"

    def _died(self, error: Died) -> UnreadableError:
        self._child.close()
        self._state = "dead"
        return UnreadableError(f"{self.path}: {error}", "convert it, or get another copy")


class MediaReader:
    """Reads files in processes of their own, the next while the caller works on the current.

    A decoder that hangs, dies, or wants too much costs one :class:`UnreadableError`; the next file
    is read by a fresh process. Not for several threads at once. ``ahead`` files are opened before
    their turn, and 32 MB of their frames decoded, at least one.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, ahead: int = 1) -> None:
        self._limits = limits
        self._ahead = ahead
        self._children: set[Child] = set()
        self._idle: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; what is still open can be read no further."""
        self._idle.clear()
        while self._children:
            self._children.pop().close()

    def start(self) -> None:
        """Starts a process before the first file is known, while its caller gets ready."""
        child = Child(self._limits)
        self._children.add(child)
        self._idle.append(child)

    def open_all(
        self, paths: Iterable[Path], sampling: Sampling
    ) -> Generator[OpenMedia, None, None]:
        """Yields files in their order, each until the next is asked for.

        A file that cannot be read raises only when its frames are asked for.

        Raises:
            DeepregionsError: The processes cannot be started.
        """
        waiting = iter(paths)
        opened: deque[OpenMedia] = deque()
        try:
            while True:
                for path in islice(waiting, self._ahead + 1 - len(opened)):
                    opened.append(self._started(path, sampling))
                if not opened:
                    return
                yield opened[0]
                opened.popleft().close()
        finally:
            while opened:
                opened.popleft().close()

    def _started(self, path: Path, sampling: Sampling) -> OpenMedia:
        request = {"kind": "open", "path": str(path), "sampling": asdict(sampling)}
        while True:
            child = self._idle.pop() if self._idle else Child(self._limits)
            self._children.add(child)
            try:
                child.send(request)
            except Died:  # while it was idle
                self._children.discard(child)
                continue
            child.served += 1
            return OpenMedia(path, child, self)

    def release(self, child: Child, *, usable: bool) -> None:
        """Takes back a process, to read the next file or to be ended."""
        if usable and child in self._children and child.served < _FILES:
            self._idle.append(child)
        else:  # one in the midst of a file has to end, with all that it has sent
            self._children.discard(child)
            child.close()
