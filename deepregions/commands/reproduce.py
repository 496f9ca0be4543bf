"""``deepregions reproduce``: a whole study from one plan."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepregions.commands import checks
from deepregions.commands.cli import find_config
from deepregions.commands.options import check_there
from deepregions.errors import UsageError

if TYPE_CHECKING:
    from deepregions.study.plan import Step

_WIDE = 100  # characters


def reproduce(
    plan: Path,
    *,
    out: Path | None = None,
    regions: list[str] | None = None,
    seeds: list[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Prepares, trains and evaluates what a plan names, each step once.

    Every database is prepared, every detector is trained on every region of every database, and
    all networks are fused, calibrated and evaluated within and across databases (see
    `deepregions evaluate`). A run that was stopped continues when it is started again: finished
    steps are not repeated, and a training continues after its last epoch. To use several GPUs,
    start it once for each (CUDA_VISIBLE_DEVICES=0 deepregions reproduce PLAN, and so on): each
    run takes the next step that no other has begun. configs/paper.yaml is an example.

    Args:
        plan: A YAML file with databases, detectors and out; paths in it are relative to it, or to
            the working folder if it comes with deepregions.
        out: The folder for everything, instead of the plan's.
        regions: The regions, instead of the plan's (all five by default).
        seeds: Train everything once for each of these, instead of the plan's (0 by default).
        dry_run: Only show the steps.
        json: Print the steps of a dry run as JSON instead of a table.
    """
    file = find_config(str(plan))
    check_there(file)

    from deepregions.study.plan import Plan
    from deepregions.study.runner import StudyRunner

    changes: dict[str, Any] = {"out": out, "regions": regions}
    if seeds is not None:
        try:
            changes["seeds"] = [int(seed) for seed in seeds]
        except ValueError as error:
            raise UsageError(f"seeds are {' '.join(seeds)}", "whole numbers") from error
    base = None if file == plan else Path.cwd()  # a shipped plan's paths are not those of its copy
    study = Plan.read(file, base, **{key: value for key, value in changes.items() if value})
    steps = list(study.steps())
    if dry_run:
        _show(steps, as_json=json)
        return
    StudyRunner(steps, study.out, _tell).run()
    checks.print_lines(*(str(step.mark) for step in steps if step.name.startswith("evaluate/")))


def _tell(step: Step, what: str) -> None:
    now = datetime.now().astimezone().strftime("%H:%M:%S")
    sys.stderr.write(f"{now} {step.name}: {what}\n")


def _show(steps: list[Step], *, as_json: bool) -> None:
    rows = []
    for step in steps:
        state = "started" if step.checkpoint is not None else "to do"
        rows.append((step.name, "finished" if step.finished else state, step.command))
    if as_json:
        checks.print_json(
            [
                {"step": name, "state": state, "command": ["deepregions", *command]}
                for name, state, command in rows
            ]
        )
        return
    lines = [shlex.join(command) for *_, command in rows]
    shown = [line if len(line) < _WIDE else f"{line[:_WIDE]} ..." for line in lines]
    cells = [(name, state, line) for (name, state, _), line in zip(rows, shown, strict=True)]
    checks.print_table(("step", "state", "command"), cells)
    left = sum(not step.finished for step in steps)
    checks.print_lines(f"{left} of {len(steps)} steps to do")
