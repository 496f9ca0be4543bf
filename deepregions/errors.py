"""The exceptions of this package, and the one way to ask for an optional module."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

_HARMLESS = (
    "\u00a0\u200c\u200d"  # spaces and joiners, of Persian words and emoji: they hide nothing
)


class DeepregionsError(Exception):
    """An error that its user can act on: commands print it as one line, and exit non-zero.

    As a string it is that line, whatever the names in it (see :func:`printable`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0])
        return printable(f"{message} ({self.hint})" if self.hint else message)

    def __reduce__(self) -> tuple[type[DeepregionsError], tuple[str, str]]:
        return type(self), (str(self.args[0]), self.hint)  # the hint survives worker processes


class UsageError(DeepregionsError):
    """An argument that makes no sense: a misspelt name, a path that is not there."""

    exit_code = 2


class UnreadableError(DeepregionsError):
    """A file that is there but cannot be read as what it should be."""


class UnsupportedError(DeepregionsError):
    """A file of a kind that this package does not open."""


class UnreachableError(DeepregionsError):
    """Files elsewhere that cannot be fetched, one after the other: not what one of them is."""


class AssetError(DeepregionsError):
    """A model file that is missing and cannot be fetched, or is not the file it should be."""


class BundleError(DeepregionsError):
    """A bundle that is missing, incomplete, of an unknown schema, or altered."""


class StoreError(DeepregionsError):
    """A face store that is missing, incomplete or of an unknown schema."""


class UndefinedMetricError(DeepregionsError):
    """Scores of one class only, or none: there is nothing to measure."""

    exit_code = 4


class ExportError(DeepregionsError):
    """A graph that cannot be made, or does not compute what PyTorch does."""


class OutOfMemoryError(DeepregionsError):
    """A batch that does not fit into memory, even if it is of one face."""


class MissingExtraError(DeepregionsError):
    """An optional package that is not installed."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts a file's name before the message of an :class:`UnreadableError` that lacks it."""
    try:
        yield
    except UnreadableError as error:
        if str(path) in str(error.args[0]):
            raise
        raise UnreadableError(f"{path}: {error.args[0]}", error.hint) from error


def printable(text: str) -> str:
    r"""Returns a text as one line that any terminal or page shows as it stands.

    A file's name may hold line breaks, escape sequences that rewrite the terminal, marks that
    turn the reading direction, and bytes that are no text: these become ``\n``, ``\x1b``,
    ``\u202e``, ``\udcff``.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _HARMLESS
        else character.encode("unicode_escape").decode()
        for character in text
    )


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional module, or raises MissingExtraError with the command that installs it.

    Raises:
        MissingExtraError: It is not installed; the hint is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module.partition('.')[0]} is not installed", f"pip install 'deepregions[{extra}]'"
        ) from error
