"""What commands check and show alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, track

from deepregions.errors import UsageError

_WIDE = 240  # characters

Item = TypeVar("Item")


def positive(**options: int) -> None:
    """Checks that options are at least 1.

    Raises:
        UsageError: One is not.
    """
    for name, value in options.items():
        if value < 1:
            raise UsageError(f"--{name} is {value}", "it must be 1 or more")


def print_json(value: Any) -> None:
    """Prints JSON on standard output."""
    sys.stdout.write(f"{json.dumps(value, indent=2, allow_nan=False)}\n")


class _Output(Console):
    """A console that lets a closed pipe through, for which rich exits with code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output() -> Console:
    """Returns what prints on standard output; into a file or pipe no table is folded."""
    console = _Output(soft_wrap=True)
    return console if console.is_terminal else _Output(soft_wrap=True, width=_WIDE)


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """Goes through items with a progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(items, what, total, console=console, transient=True, disable=hidden)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """Yields what shows progress on standard error: of files done, all files, and faces so far."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int, faces: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{what}: {faces} faces")

        yield show
