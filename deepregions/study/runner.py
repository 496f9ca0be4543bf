"""Runs the steps of a study one after another; what is finished is not done again.

Each step is a process of its own and is locked while it runs. Several runners may work on one
study, such as one for each GPU: each takes the next step that nobody has begun.
"""

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deepregions.errors import DeepregionsError, UsageError
from deepregions.files import atomic_file, lock_folder
from deepregions.study.plan import Step

_PATIENCE = 60.0  # seconds for a training to write its checkpoint after SIGTERM
_PAUSE = 2.0  # seconds until it is seen again whether another runner is done
_PR_SET_PDEATHSIG = 1  # of Linux's prctl

Tell = Callable[[Step, str], None]


class StepError(DeepregionsError):
    """A step of a study failed; the others that do not need it were done."""


class StudyRunner:
    """Runs the steps of a study.

    Raises:
        UsageError: A finished step was done with other options than these.
    """

    def __init__(self, steps: Sequence[Step], out: Path, tell: Tell) -> None:
        self._steps = {step.name: step for step in steps}
        self._out = out
        self._tell = tell
        self._failed: dict[str, str] = {}  # what it said, or nothing if it was left out
        for step in steps:
            note = self._note(step)
            if not (step.finished and note.is_file()):
                continue
            if tuple(json.loads(note.read_text(encoding="utf-8"))) != step.command:
                raise UsageError(
                    f"{step.mark.parent} was made with other options",
                    f"delete it, or choose another --out (its options are in {note})",
                )

    def run(self) -> None:
        """Does what is not finished.

        Raises:
            StepError: A step failed; its log is named.
        """
        while left := [
            step
            for step in self._steps.values()
            if not step.finished and step.name not in self._failed
        ]:
            if not any(self._take(step) for step in left):
                time.sleep(_PAUSE)  # another runner is at work on what the rest needs
        culprits = {name: said for name, said in self._failed.items() if said}
        if culprits:
            name, said = next(iter(culprits.items()))
            more = f" ({len(culprits) - 1} more failed too)" if len(culprits) > 1 else ""
            raise StepError(
                f"{name} failed: {said}{more}",
                f"its output is in {self._log(self._steps[name])}; the same command continues",
            )

    def _take(self, step: Step) -> bool:
        """Runs a step, or leaves it out for good; returns False if it cannot be begun now."""
        if any(name in self._failed for name in step.after):
            self._failed[step.name] = ""
            self._tell(step, "left out")
            return True
        if not all(self._steps[name].finished for name in step.after if name in self._steps):
            return False
        try:
            with lock_folder(self._note(step), "reproduce"):
                if not step.finished:
                    self._run(step)
        except UsageError:  # another runner has it
            return False
        return True

    def _run(self, step: Step) -> None:
        command = [sys.executable, "-m", "deepregions", *step.command]
        checkpoint = step.checkpoint
        if checkpoint is not None:
            command += ["--ckpt_path", str(checkpoint)]
        self._tell(step, "started" if checkpoint is None else "continued")
        log = self._log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
            try:
                code = process.wait()
            finally:
                _stop(process)
        if code or not step.finished:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
            said = lines[-1].removeprefix("deepregions: ").removeprefix("error: ")
            self._failed[step.name] = said or f"exit code {code}"
            self._tell(step, "failed")
            return
        with atomic_file(self._note(step)) as partial:
            partial.write_text(json.dumps(step.command) + "\n", encoding="utf-8")
        self._tell(step, "finished")

    def _log(self, step: Step) -> Path:
        return self._out / "logs" / f"{step.name}.log"

    def _note(self, step: Step) -> Path:
        return self._out / "done" / f"{step.name}.json"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a step that still runs, as when this process is told to stop."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    """Lets the system stop this process when the one that started it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
