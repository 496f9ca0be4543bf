"""A campaign: one process that tries inputs on a reader until its time is over.

``fuzz.py`` starts it: ``python campaign.py TARGET ENGINE SECONDS SEED FOLDER``; the readers are
those of ``tests/fuzzing.py``.
"""

from __future__ import annotations

import faulthandler
import hashlib
import mmap
import random
import resource
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from fuzzing import LONGEST, TARGETS, Target, attempt, mutated

SECONDS = 20.0  # an input may take, on a busy machine; the slowest honest ones take 1
MEMORY = 2 << 30  # bytes an input may take


class Campaign:
    """Tries inputs; what it finds, and how far it is, are files that outlast it.

    Args:
        target: The reader.
        folder: Receives ``input`` (the one that is being tried), ``count``, and ``found-*``.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._read = target.load()
        self._folder = folder
        self._desk = folder / "desk"
        self._desk.mkdir(exist_ok=True)
        self._places: set[str] = set()
        with (folder / "count").open("w+b") as file:
            file.write(bytes(16))
            file.flush()
            self._count = mmap.mmap(file.fileno(), 16)

    def try_one(self, content: bytes) -> None:
        """Tries an input, and keeps it if something is wrong that was not seen before."""
        (self._folder / "input").write_bytes(content)
        try:
            accepted = attempt(self._target, self._read, self._desk, content)
        except Exception as error:  # noqa: BLE001 - which ones come out is the question
            place = "".join(traceback.format_tb(error.__traceback__)[-1:]) + type(error).__name__
            if place not in self._places:
                self._places.add(place)
                name = f"found-{hashlib.sha256(content).hexdigest()[:12]}"
                (self._folder / name).write_bytes(content)
                (self._folder / f"{name}.txt").write_text(traceback.format_exc())
            accepted = False
        tried, read = struct.unpack("<QQ", self._count[:])
        self._count[:] = struct.pack("<QQ", tried + 1, read + accepted)


def inputs(target: Target, folder: Path, seed: int) -> Iterator[bytes]:
    """Yields the seeds, then changed ones without end."""
    (folder / "seeds").mkdir()
    corpus = target.seeds(folder / "seeds")
    yield from corpus
    chance = random.Random(seed)  # noqa: S311
    while True:
        yield mutated(chance, corpus)


def run_own(target: Target, seconds: float, seed: int, folder: Path) -> None:
    """Tries changed inputs blindly; an input that takes too long ends the process."""
    campaign = Campaign(target, folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    end = time.monotonic() + seconds
    for content in inputs(target, folder, seed):
        if time.monotonic() > end:
            break
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        campaign.try_one(content)
        faulthandler.cancel_dump_traceback_later()


def run_atheris(target: Target, seconds: float, seed: int, folder: Path) -> None:
    """Tries inputs that atheris makes, guided by coverage."""
    import atheris  # noqa: PLC0415 - it is not always there

    (folder / "seeds").mkdir()
    (folder / "corpus").mkdir()
    for number, content in enumerate(target.seeds(folder / "seeds")):
        (folder / "corpus" / str(number)).write_bytes(content)
    with atheris.instrument_imports(include=["deepregions", "PIL", "json", "csv"]):
        campaign = Campaign(target, folder)
    options = {
        "max_total_time": max(int(seconds), 1),
        "seed": seed + 1,  # 0 would be the time
        "timeout": int(SECONDS),
        "rss_limit_mb": (MEMORY >> 20) + 1024,
        "max_len": LONGEST,
        "artifact_prefix": f"{folder}/died-",
        "verbosity": 0,
        "print_final_stats": 1,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(folder / "corpus")], campaign.try_one)
    atheris.Fuzz()


ENGINES = {"own": run_own, "atheris": run_atheris}

if __name__ == "__main__":
    name, engine, seconds_, seed_, folder_ = sys.argv[1:]
    faulthandler.enable()
    ENGINES[engine](TARGETS[name], float(seconds_), int(seed_), Path(folder_))
