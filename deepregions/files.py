"""Files and folders that appear whole or not at all; output folders with one writer; digests.

A writer holds a lock on the hidden partial file or folder that it fills (``.NAME.xxxxxxxx.part``):
so what a killed run has left is told from what is being written, and cleared away by the next.
"""

import ctypes
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deepregions.errors import UnreadableError, UsageError

_LONGEST = 120  # bytes of a name: room for endings, and for the hidden name of a partial file
_PARTIAL = re.compile(r"\..*\.[0-9a-f]{8}[0-9-]*\.part", re.DOTALL)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what names no path
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; on success it becomes ``path``, on any error it is removed.

    Over a symbolic link, the file that it leads to is replaced. What is no regular file, such as
    ``/dev/null``, is yielded itself.

    Raises:
        OSError: The folder cannot be made or written, or the disk is full; it names the path.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _partial(path, path.parent, folder=False) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it replaces ``path``, on any error it is removed.

    On Linux the old and the new folder change places in one step; elsewhere the old one is put
    aside first, and the next writer brings it back if this one was killed in between. Over a
    symbolic link, the folder that it leads to is replaced. A mount point cannot be replaced: what
    is in it is put aside, the new files are moved in, and hidden files stay.

    Raises:
        OSError: The parent cannot be made or written, or the disk is full; it names the path.
    """
    path = Path(os.path.realpath(path))
    in_place = _stays(path)
    home = path if in_place else path.parent
    home.mkdir(parents=True, exist_ok=True)
    aside = _hidden(path, home, ".old")
    if in_place:
        _roll_back(path, aside)
    elif aside.is_dir():
        _remove(aside) if path.exists() else aside.rename(path)
    with _partial(path, home, folder=True) as partial:
        yield partial
        (_move_in if in_place else _swap)(partial, path, aside)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a temporary folder of this process, and removes it, or else the next process does.

    Raises:
        UsageError: The folder for such folders is another user's.
    """
    home = Path(tempfile.gettempdir()) / f"deepregions-{getattr(os, 'getuid', int)()}"
    home.mkdir(mode=0o700, exist_ok=True)
    about = home.lstat()
    if sys.platform != "win32" and (about.st_uid != os.getuid() or about.st_mode & 0o77):
        raise UsageError(f"{home} is open to other users", "let TMPDIR name another folder")
    with _partial(home / "scratch", home, folder=True) as folder:
        yield folder


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Lets what the system says of a full disk name the file, which it does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            error.filename = str(path)
        raise


@contextmanager
def lock_folder(path: Path | None, command: str) -> Iterator[None]:
    """Makes this process the only one that writes to an output folder; with None nothing is locked.

    What a killed run has left half written in the folder, or one level below, is cleared away. The
    lock is a hidden file beside the folder (inside, where that is a mount point).

    Raises:
        UsageError: Another process has it; the message says which, and its ``command``.
    """
    if path is None:
        yield
        return
    path = Path(os.path.realpath(path))
    lock = _hidden(path, path if _stays(path) else path.parent, ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _hold(lock, path)
    try:
        about = {"command": command, "pid": os.getpid(), "host": socket.gethostname()}
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
        for left in (*path.glob(".*.part"), *path.glob("*/.*.part")):
            if _PARTIAL.fullmatch(left.name):
                _discard(left)
        yield
    finally:
        if _same(lock, descriptor):
            _remove(lock)
        os.close(descriptor)


def is_empty(path: Path) -> bool:
    """Returns whether a folder holds nothing but hidden files, such as those of this module."""
    return not _visible(path)


_STAND_INS = (  # how a file begins, what it is, what to do about it
    (b"version https://git-lfs", "a pointer of git-LFS", "git lfs pull fetches what it points to"),
    (b"<!doctype html", "a web page", "download the file that the page offers"),
    (b"<html", "a web page", "download the file that the page offers"),
)


def refuse_stand_in(path: Path, head: bytes, wanted: str) -> None:
    """Raises an UnreadableError for what is often saved in a file's stead, by its first bytes."""
    for start, what, hint in _STAND_INS:
        if head.lstrip().lower().startswith(start):
            raise UnreadableError(f"{path} is {what}, not {wanted}", hint)


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _partial(path: Path, home: Path, *, folder: bool) -> Iterator[Path]:
    """Yields an empty hidden file or folder of this process alone, and removes it if it is left."""
    partial, descriptor = _claim(path, home, folder=folder)
    try:
        with named_errors(path):
            yield partial
    except OSError as error:
        if error.filename is not None:  # the reader does not know the hidden name
            error.filename = str(error.filename).replace(str(partial), str(path))
        raise
    finally:
        left = _same(partial, descriptor)
        if left:
            _remove(partial)
        os.close(descriptor)
        if folder and not left:  # the old one has changed places with it
            _discard(partial)


def _claim(path: Path, home: Path, *, folder: bool) -> tuple[Path, int]:
    """Makes the partial file or folder of a path, or takes over what a killed run has left."""
    for number in itertools.count():
        partial = _hidden(path, home, f"-{number}.part" if number else ".part")
        try:
            if folder:
                partial.mkdir()  # modes are as the umask says
            else:
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            created = True
        except FileExistsError:
            created = False
        try:
            flags = (os.O_RDONLY | os.O_DIRECTORY) if folder else os.O_RDWR
            descriptor = os.open(partial, flags | os.O_NOFOLLOW)
        except OSError:  # another user's, or just gone
            continue
        locked = try_lock(descriptor)
        if (locked or (created and locked is None)) and _same(partial, descriptor):
            if folder:
                for each in partial.iterdir():
                    _remove(each)
            else:
                os.truncate(descriptor, 0)
            return partial, descriptor
        os.close(descriptor)
    raise AssertionError


def _discard(partial: Path) -> None:
    """Removes a partial file or folder, unless another writer has claimed it by now."""
    with suppress(OSError):
        descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW)
        if try_lock(descriptor) is not False and _same(partial, descriptor):
            _remove(partial)
        os.close(descriptor)


def _hold(lock: Path, path: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        if try_lock(descriptor) is False:
            os.close(descriptor)
            raise UsageError(
                f"{path} is being written by {_holder(lock)}",
                "wait until it has finished, or name another folder",
            )
        if _same(lock, descriptor):
            return descriptor
        os.close(descriptor)  # its holder has just removed it


def try_lock(descriptor: int) -> bool | None:
    """Locks an open file; returns False if another process has, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def _same(path: Path, descriptor: int) -> bool:
    """Returns whether an open file is still the one at its path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _holder(lock: Path) -> str:
    try:
        about = json.loads(lock.read_text("utf-8"))
        return "{command} (process {pid} on {host})".format_map(about)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _hidden(path: Path, home: Path, ending: str) -> Path:
    """Returns the hidden name of something that stands for a path; never longer than the path's."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return home / f".{path.name[:32]}.{digest}{ending}"


def _stays(path: Path) -> bool:
    """Returns whether a folder cannot be replaced: a mount point, or in a folder of others."""
    if not path.is_dir():
        return False
    if path.is_mount() or not os.access(path.parent, os.W_OK):
        return True
    try:  # a folder bound to another one on the same disk
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", errors="surrogateescape")
    except OSError:
        return False
    name = str(path).replace("\\", r"\134").replace(" ", r"\040")
    return any(line.split(" ")[4:5] == [name] for line in mounts.splitlines())


def _swap(new: Path, path: Path, aside: Path) -> None:
    """Puts a folder in another one's place, in one step where the system can."""
    try:
        os.rename(new, path)  # noqa: PTH104  # nothing is there, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    names = os.fsencode(new), os.fsencode(path)
    if exchange and exchange(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return  # what is now at ``new`` is removed as any partial folder
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise
    _remove(aside)


def _move_in(new: Path, path: Path, aside: Path) -> None:
    """Fills a folder that cannot be replaced, once what it held is put aside."""
    aside.mkdir()
    try:
        for each in _visible(path):
            each.rename(aside / each.name)
        for each in sorted(new.iterdir()):
            each.rename(path / each.name)
    except OSError:
        _roll_back(path, aside)
        raise
    aside.rename(new)  # which is empty: from here on the old is rubbish, nothing to bring back


def _roll_back(path: Path, aside: Path) -> None:
    """Brings back what was put aside when moving in was cut off."""
    if not aside.is_dir():
        return
    for each in sorted(aside.iterdir()):
        _remove(path / each.name)
        each.rename(path / each.name)
    aside.rmdir()


def _visible(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if not each.name.startswith("."))


def _remove(path: Path) -> None:
    """Removes a file or folder, as far as it can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


class Names:
    """Gives each input a file name of its own, on any system."""

    def __init__(self) -> None:
        self._used = {"results", "index"}

    def take(self, name: str) -> None:
        """Marks a name as used."""
        self._used.add(_folded(name))

    def unused(self, stem: str) -> str:
        """Returns the stem made plain, with a number where another input has it."""
        plain = re.sub(r"[^\w.+ ()-]", "_", stem).strip(" .-") or "input"
        plain = plain.encode()[:_LONGEST].decode(errors="ignore").rstrip(" .")
        name, number = plain, 2
        while _folded(name) in self._used:
            name, number = f"{plain}-{number}", number + 1
        self.take(name)
        return name


def _folded(name: str) -> str:
    """Returns what two names share that are one to a system that ignores case and accents' form."""
    return unicodedata.normalize("NFKC", name).casefold()
