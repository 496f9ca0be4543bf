"""What commands check and print alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from deepregions.errors import UsageError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

_WIDE = 240  # characters of a table in a file or pipe

Item = TypeVar("Item")


def positive(**options: int) -> None:
    """Checks that options are at least 1."""
    for name, value in options.items():
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {value}", "it must be 1 or more")


def exclude(hint: str, **options: bool) -> None:
    """Checks that at most one of some options is given."""
    given = [f"--{name.replace('_', '-')}" for name, on in options.items() if on]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together", hint)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints JSON on standard output at once; without an indent, on one line."""
    sys.stdout.write(f"{json.dumps(value, indent=indent, allow_nan=False)}\n")
    sys.stdout.flush()


def print_lines(*lines: str) -> None:
    """Prints lines on standard output, whatever strangers' names are in them."""
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    sys.stdout.flush()


def warn(line: str) -> None:
    """Prints a line on standard error, as this program's."""
    sys.stderr.write(f"deepregions: {printable(line)}\n")


def output() -> Console:
    """Returns what prints on standard output; into a file or pipe no table is folded."""
    from rich.console import Console

    class _Output(Console):
        """A console that lets a closed pipe through, for which rich exits with code 1."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = _Output(soft_wrap=True)
    return console if console.is_terminal else _Output(soft_wrap=True, width=_WIDE)


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    right: Collection[str] = (),
    title: str = "",
) -> None:
    """Prints a table; a row without cells is a line across it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, title=Text(printable(title)) if title else None)
    table.title_justify = "left"
    for head in heads:
        table.add_column(
            Text(printable(head)), justify="right" if head in right else "left", overflow="fold"
        )
    for row in rows:
        if not row:
            table.add_section()
            continue
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    output().print(table)


def progress_bar(*columns: Any) -> Progress:
    """Returns a progress bar on standard error; it is shown if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yields items, with a progress bar on standard error if that is a terminal."""
    with progress_bar() as bar:
        yield from bar.track(items, total, description=what)


@contextmanager
def counted(what: str, unit: str = "faces") -> Iterator[Callable[..., None]]:
    """Yields what shows progress on standard error: what is done, all, and faces if others."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int, faces: int | None = None) -> None:
            told = f"{what}: {done if faces is None else faces} {unit}"
            bar.update(task, completed=done, total=total, description=told)

        yield show


def every(items: Iterable[Item], show: Callable[..., None], step: int = 1000) -> Iterator[Item]:
    """Yields items, and says after every ``step`` of them how many there were."""
    for number, item in enumerate(items):
        if number % step == 0:
            show(number, None)
        yield item
