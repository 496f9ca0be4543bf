"""``deepregions reproduce``: a whole study from one plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepregions.study.plan import DatabasePlan, DetectorPlan

if TYPE_CHECKING:
    from deepregions.study.plan import Plan, Step


def reproduce(
    *,
    databases: list[DatabasePlan],
    detectors: list[DetectorPlan],
    out: Path,
    regions: list[str] | None = None,
    seeds: list[str] | None = None,
    evaluate: list[str] | None = None,
    devices: list[str] | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Prepares, trains and evaluates what a plan names, each step once.

    Every database is prepared, every detector is trained on every region of every database, and
    all are fused, calibrated and evaluated within and across databases (see deepregions evaluate).
    A run that was stopped anywhere goes on where it was when it is started again: finished steps
    are not done again, a training goes on with its last epoch. See configs/paper.yaml.

    Args:
        databases: Trained and evaluated on: of each its database, root, name, options, forge and
            train. For a config file.
        detectors: Of each its config files, name and options. For a config file.
        out: The folder of everything.
        regions: Which; all five by default.
        seeds: Everything is trained once for each; 0 by default.
        evaluate: Further options of deepregions evaluate.
        devices: On which networks are trained, one on each at a time: cpu, cuda:0, cuda:1 and so
            on; by default all GPUs there are, or the CPU.
        dry_run: Only show the steps, and what they take in time and on disk.
        json: Print JSON instead of a table (of a dry run).
    """
    from deepregions.errors import UsageError
    from deepregions.study.plan import Plan
    from deepregions.study.runner import Study
    from deepregions.types import REGIONS

    try:
        numbers = [int(seed) for seed in seeds or ["0"]]
    except ValueError as error:
        raise UsageError(f"seeds {seeds}", "whole numbers") from error
    plan = Plan(databases, detectors, out, regions or REGIONS, numbers, evaluate or ())
    steps = list(plan.steps())
    if dry_run:
        _show_plan(plan, steps, as_json=json)
        return 0
    study = Study(steps, out, devices or _devices(), _tell)
    study.run()
    _print_results(steps)
    return 0


def _devices() -> list[str]:
    import torch

    count = torch.cuda.device_count()
    return [f"cuda:{number}" for number in range(count)] or ["cpu"]


def _tell(step: Step, what: str) -> None:
    import sys
    from datetime import datetime

    now = datetime.now().astimezone().strftime("%H:%M:%S")
    sys.stderr.write(f"{now} {step.name}: {what}\n")


def _print_results(steps: list[Step]) -> None:
    import sys

    for step in steps:
        if step.name.startswith("evaluate/"):
            sys.stdout.write(f"{step.result / step.mark}\n")


def _show_plan(plan: Plan, steps: list[Step], *, as_json: bool) -> None:
    import shlex

    from rich.table import Table

    from deepregions.commands import checks
    from deepregions.study.estimates import estimates

    expected = estimates(plan, steps)
    if as_json:
        checks.print_json(
            [
                {
                    "step": step.name,
                    "state": _state(step),
                    "command": ["deepregions", *step.command],
                    "seconds": round(expected[step.name].seconds, 1),
                    "bytes": round(expected[step.name].size),
                }
                for step in steps
            ]
        )
        return
    console = checks.output()
    table = Table("step", "state", "time", "disk", "command", box=None)
    for step in steps:
        each = expected[step.name]
        words = shlex.join(step.command)
        told = words if len(words) < _WIDE else f"{words[:_WIDE]} ..."
        table.add_row(step.name, _state(step), _time(each.seconds), _size(each.size), told)
    console.print(table)
    left = [expected[step.name] for step in steps if not step.finished]
    console.print(
        f"{len(left)} of {len(steps)} steps to do: about {_time(sum(x.seconds for x in left))} on "
        f"one device like this machine's, and {_size(sum(x.size for x in left))}"
    )


_WIDE = 100  # characters


def _state(step: Step) -> str:
    if step.finished:
        return "finished"
    return "begun" if step.checkpoint is not None else "to do"


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
