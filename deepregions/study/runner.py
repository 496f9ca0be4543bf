"""Runs the steps of a study, each in a process of its own; what is finished is not done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deepregions.errors import DeepregionsError, UsageError
from deepregions.files import atomic_file
from deepregions.study.plan import Step

if sys.platform != "win32":
    import fcntl

_PATIENCE = 60.0  # seconds for a training to write its checkpoint after Ctrl-C
_PAUSE = 0.2
_LOCK = "lock"

Tell = Callable[[Step, str], None]


class StepError(DeepregionsError):
    """A step of a study failed; the others that do not need it were done."""


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    device: str


class Study:
    """Steps and the folder that they write to.

    Args:
        steps: In an order in which they can be done.
        out: The folder of everything.
        devices: On which trainings run, one on each at a time: ``cpu``, ``cuda:0`` and so on.
        tell: Told what becomes of each step.

    Raises:
        UsageError: A finished step was done with other options than these.
    """

    def __init__(
        self, steps: Sequence[Step], out: Path, devices: Sequence[str], tell: Tell
    ) -> None:
        self.steps = tuple(steps)
        self.out = out
        self._devices = list(devices)
        self._tell = tell
        self._lock: tuple[int, ...] = ()  # a descriptor that steps hold too
        for step in self.steps:
            self._check(step)

    def run(self) -> None:
        """Does what is not finished, after whatever an earlier run has left running.

        Raises:
            StepError: A step failed; its log is named.
            KeyboardInterrupt: Steps were told to stop; trainings keep their last epoch.
        """
        if all(step.finished for step in self.steps):
            return
        with self._alone():
            self._run()

    def _run(self) -> None:
        waiting = [step for step in self.steps if not step.finished]
        failed: dict[str, int] = {}
        running: list[_Running] = []
        try:
            while waiting or running:
                for step in list(waiting):
                    if any(name in failed for name in step.after):
                        waiting.remove(step)
                        failed[step.name] = 0
                        self._tell(step, "left out")
                    elif (device := self._free(step, waiting, running)) is not None:
                        waiting.remove(step)
                        running.append(self._start(step, device))
                time.sleep(_PAUSE)
                for each in [one for one in running if one.process.poll() is not None]:
                    running.remove(each)
                    if not self._succeeded(each):
                        failed[each.step.name] = each.process.returncode or 1
        finally:
            self._stop(running)
        culprits = [name for name, code in failed.items() if code]
        if culprits:
            log = self._log(next(step for step in self.steps if step.name == culprits[0]))
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            more = f" ({len(culprits) - 1} more failed too)" if len(culprits) > 1 else ""
            raise StepError(
                f"{culprits[0]} failed: {_said(last[0])}{more}",
                f"its output is in {log}; the same command goes on where it was",
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other run, and no step that one has left behind, works on the study.

        Whoever kills a run with SIGKILL leaves its steps running: to begin these again beside
        them would write two times to one folder. Steps inherit the lock, so it is theirs until
        they end.
        """
        if sys.platform == "win32":
            yield
            return
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / _LOCK).open("ab") as stream:
            told = False
            while not _locked(stream.fileno()):
                if not told:
                    first = next((s for s in self.steps if not s.finished), self.steps[0])
                    self._tell(first, "waits for what another run has begun, and is at work on")
                told = True
                time.sleep(_PAUSE)
            self._lock = (stream.fileno(),)
            try:
                yield
            finally:
                self._lock = ()

    def _free(self, step: Step, waiting: Sequence[Step], running: Sequence[_Running]) -> str | None:
        """Where a step can run now; None if it must wait."""
        busy = {each.step.name for each in running} | {each.name for each in waiting}
        if any(name in busy for name in step.after):
            return None
        taken = [each.device for each in running]
        if not step.trains:  # it takes all cores, or all of the first device
            return self._devices[0] if not running else None
        return next((device for device in self._devices if device not in taken), None)

    def _start(self, step: Step, device: str) -> _Running:
        command = [sys.executable, "-m", "deepregions", *step.command]
        checkpoint = step.checkpoint
        if checkpoint is not None:
            command += ["--ckpt_path", str(checkpoint)]
        log = self._log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._tell(step, f"{'begun' if checkpoint is None else 'gone on with'} on {device}")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=self._lock,
                env={**os.environ, **_environment(device, len(self._devices))},
            )
        return _Running(step, process, device)

    def _succeeded(self, each: _Running) -> bool:
        """Whether a step did; it is then remembered with its options."""
        if each.process.returncode or not each.step.finished:
            self._tell(each.step, "failed")
            return False
        with atomic_file(self._note(each.step)) as partial:
            partial.write_text(json.dumps(each.step.command) + "\n", encoding="utf-8")
        self._tell(each.step, "finished")
        return True

    def _stop(self, running: Sequence[_Running]) -> None:
        for each in running:
            with suppress(ProcessLookupError):
                each.process.send_signal(signal.SIGTERM)
        for each in running:
            try:
                each.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()

    def _check(self, step: Step) -> None:
        note = self._note(step)
        if not (step.finished and note.is_file()):
            return
        if tuple(json.loads(note.read_text(encoding="utf-8"))) != step.command:
            raise UsageError(
                f"{step.result} was made with other options",
                f"delete it, or choose another --out (its options are in {note})",
            )

    def _log(self, step: Step) -> Path:
        return self.out / "logs" / f"{step.name}.log"

    def _note(self, step: Step) -> Path:
        return self.out / "done" / f"{step.name}.json"


def _said(line: str) -> str:
    """A command's last line without what every error begins with."""
    return line.removeprefix("deepregions: ").removeprefix("error: ")


def _environment(device: str, devices: int) -> Mapping[str, str]:
    """A process sees its own device only."""
    kind, _, number = device.partition(":")
    if kind == "cuda":
        return {"CUDA_VISIBLE_DEVICES": number or "0"}
    threads = max(1, _cores() // devices)
    return {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads)}


def _locked(descriptor: int) -> bool:
    """Locks a file for this process and its children, if nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        return True
    return True


def _cores() -> int:
    """How many cores this process may use: fewer than there are under taskset or in a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
