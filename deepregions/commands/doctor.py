"""``deepregions doctor``: what works here, and what to do about the rest."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepregions.doctor import Check


def doctor(*, json: bool = False) -> int:
    """Shows what is installed, which weights are cached, which devices work, and what to do.

    Downloads nothing. Exits with 1 if something that scoring needs is broken.

    Args:
        json: Print JSON instead of tables.
    """
    from dataclasses import asdict
    from json import dumps

    from deepregions.doctor import State, examine

    checks = list(examine())
    if json:
        sys.stdout.write(dumps([asdict(check) for check in checks], indent=2) + "\n")
    else:
        _show(checks)
    return int(any(check.state is State.BROKEN for check in checks))


def _show(found: Sequence[Check]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from deepregions.commands import checks
    from deepregions.doctor import State

    console = checks.output()
    colours = {State.OK: "green", State.OPTIONAL: "yellow", State.BROKEN: "bold red"}
    table = Table(box=box.SIMPLE)
    for column in ("", "what", "state", "found"):
        table.add_column(column, overflow="fold")
    group = ""
    for check in found:
        first = check.group if check.group != group else ""
        group = check.group
        state = f"[{colours[check.state]}]{check.state}[/]"
        table.add_row(first, escape(check.name), state, escape(check.detail))
    console.print(table)
    for check in found:
        if check.advice:
            console.print(
                f"{check.group}, {check.name}: {check.advice}", highlight=False, markup=False
            )
