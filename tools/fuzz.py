"""Feeds a reader broken files until the time is over; see ``--help``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from deepregions.commands.cli import run_program
from deepregions.errors import UsageError

CAMPAIGN = Path(__file__).resolve().with_name("campaign.py")
FOUND = 1
_MOST = 20  # findings, after which going on tells little


def fuzz(
    target: str,
    *,
    seconds: float = 60.0,
    seed: int = 0,
    engine: str = "auto",
    out: Path = Path("fuzz-findings"),
    program: Path = CAMPAIGN,
) -> int:
    """Feeds a reader broken files until the time is over.

    tests/fuzzing.py says what must hold: a result as promised or an error of one line, in bounded
    time and memory, and nothing written. Inputs for which it does not hold are kept, with what was
    seen. Exits with 0 if there are none, else with 1.

    Args:
        target: checkpoint, image, video, landmarks, openface, store, shard, scores, manifest or
            bundle.
        seconds: How long to try.
        seed: Another seed tries other inputs; the same one tries the same again.
        engine: atheris (guided by coverage; the extra fuzz), own (blind, and faster), or auto:
            atheris where it is installed.
        out: The folder for findings.
        program: The program that tries inputs.
    """
    if engine == "auto":
        engine = "atheris" if find_spec("atheris") else "own"
    if engine not in ("atheris", "own"):
        raise UsageError(f"no engine {engine!r}", "engines are auto, atheris and own")
    tried = read = found = 0
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0 and found < _MOST:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            command = [program, target, engine, str(left), str(seed), name]
            done = subprocess.run(
                [sys.executable, *map(str, command)], capture_output=True, check=False
            )
            counts = counted(folder)
            if counts == (0, 0):
                lines = done.stderr.decode(errors="replace").strip().splitlines()
                raise UsageError(
                    f"no target {target!r}, or it does not start", " ".join(lines[-1:])
                )
            tried, read = tried + counts[0], read + counts[1]
            found += _kept(folder, out, target, seed, done)
        seed += 1_000_003  # the next starts elsewhere
    took = time.monotonic() - start
    sys.stdout.write(
        f"{target}: {tried} inputs tried by {engine} in {took:.0f} s, {read} read, "
        f"{tried - read} refused, {found} findings{f' in {out}' if found else ''}\n"
    )
    return FOUND if found else 0


def counted(folder: Path) -> tuple[int, int]:
    """Returns how many inputs a campaign has tried, and how many of them were read."""
    content = (folder / "count").read_bytes() if (folder / "count").exists() else bytes(16)
    return int.from_bytes(content[:8], "little"), int.from_bytes(content[8:], "little")


def _kept(
    folder: Path, out: Path, target: str, seed: int, done: subprocess.CompletedProcess[bytes]
) -> int:
    """Keeps what was found, and the input that the process died of if it did."""
    found = sorted(folder.glob("found-*"))
    for path in found:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / f"{target}-{path.name}")
    number = sum(path.suffix != ".txt" for path in found)
    if done.returncode:
        out.mkdir(parents=True, exist_ok=True)
        name = f"{target}-died-{seed}"
        shutil.copy(folder / "input", out / name)
        (out / f"{name}.txt").write_bytes(b"exit code %d\n" % done.returncode + done.stderr)
        number += 1
    return number


if __name__ == "__main__":
    sys.exit(run_program(fuzz, sys.argv[1:]))
