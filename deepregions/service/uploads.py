"""Uploads, files that strangers send: written as they come, under our own names, and measured."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deepregions.errors import printable
from deepregions.media.kinds import known_ending
from deepregions.service.jobs import Upload
from deepregions.service.problems import ProblemError

FIELD = "file"
_SILENCE = 60.0  # seconds without a byte, after which an upload is given up
_GATHERED = 1 << 18  # bytes that are written together: handing them to a thread takes longer
_LONGEST_NAME = 200  # characters
_HINT = "send multipart/form-data with a field named file: curl -F file=@PATH"


async def receive(
    stream: AsyncIterator[bytes],
    headers: Mapping[str, str],
    folder: Path,
    *,
    max_size: int,
    most: int,
) -> list[Upload]:
    """Writes the files of a form to a folder; if any is refused, none is left there.

    Raises:
        ProblemError: There is no file, or there are more than ``most``; one has more than
            ``max_size`` bytes; the request is no form, or stops.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise ProblemError(415, "the request is no form with files", _HINT)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most * (max_size + (1 << 16)):
        raise _too_large(max_size)
    form = _Form(folder, max_size, most)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        pieces = bytearray()
        while piece := await _next(stream):
            pieces += piece
            if len(pieces) >= _GATHERED:
                await run_sync(parser.write, bytes(pieces))
                pieces.clear()
        await run_sync(parser.write, bytes(pieces))
        parser.finalize()
        if not form.whole:
            raise ProblemError(400, "the form ends in the middle", "send it again")
        if not form.uploads:
            raise ProblemError(422, "the form has no file", _HINT)
    except (FormParserError, ValueError) as error:
        form.drop()
        raise ProblemError(400, "the form cannot be read", _HINT) from error
    except BaseException:
        form.drop()
        raise
    return form.uploads


def remove(folder: Path, file: str) -> None:
    """Removes a file that was uploaded, if it is there."""
    with suppress(OSError):
        (folder / file).unlink(missing_ok=True)


class _Form:
    def __init__(self, folder: Path, max_size: int, most: int) -> None:
        self.uploads: list[Upload] = []
        self.whole = False
        self._folder, self._max_size, self._most = folder, max_size, most
        self._header: list[bytes] = [b"", b""]
        self._headers: dict[bytes, bytes] = {}
        self._file: BinaryIO | None = None
        self._name = self._shown = ""
        self._size = 0
        self._digest = hashlib.sha256()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin,
            "on_part_data": self._write,
            "on_part_end": self._end,
            "on_end": lambda: setattr(self, "whole", True),
        }

    def drop(self) -> None:
        if self._file is not None:
            self._file.close()
            remove(self._folder, self._name)
        for upload in self.uploads:
            remove(self._folder, upload.file)

    def _add(self, which: int, text: bytes) -> None:
        self._header[which] += text

    def _end_header(self) -> None:
        self._headers[self._header[0].lower()] = self._header[1]
        self._header = [b"", b""]

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if options.get(b"name") != FIELD.encode():
            return  # another field, which is passed over
        if len(self.uploads) >= self._most:
            what = "file" if self._most == 1 else "files"
            raise ProblemError(413, f"a form may have {self._most} {what} here", "send fewer")
        self._shown = _shown(options.get(b"filename", b""))
        self._name = secrets.token_urlsafe(18) + known_ending(self._shown)
        self._size, self._digest = 0, hashlib.sha256()
        self._file = (self._folder / self._name).open("xb")

    def _write(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            return
        self._size += end - start
        if self._size > self._max_size:
            raise _too_large(self._max_size)
        part = data[start:end]
        self._digest.update(part)
        self._file.write(part)

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            digest = self._digest.hexdigest()
            self.uploads.append(Upload(self._name, digest, self._size, self._shown))


def _shown(name: bytes) -> str:
    """Returns what a file is called by its sender: to be shown, never to be a path."""
    text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return printable(text)[:_LONGEST_NAME] or "file"


def _too_large(max_size: int) -> ProblemError:
    return ProblemError(413, f"a file may have {max_size:,} bytes", "send a smaller or shorter one")


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    """Returns the next piece that is not empty; none at the end."""
    try:
        async with asyncio.timeout(_SILENCE):
            async for piece in stream:
                if piece:
                    return piece
    except TimeoutError as error:
        raise ProblemError(408, f"no byte has come for {_SILENCE:g} s", "send it again") from error
    return b""
