"""Broken files of every kind that strangers' files have, some of each; tools/fuzz.py tries many."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaign import Campaign
from fuzz import counted
from fuzzing import TARGETS, Target, attempt, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Tint

import deepregions.detectors
from deepregions.errors import DeepregionsError, UnreadableError

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = {
    "checkpoint": 200,
    "image": 150,
    "video": 100,
    "landmarks": 200,
    "openface": 100,
    "manifest": 100,
    "scores": 100,
    "provenance": 500,
}


@pytest.fixture(scope="module", params=sorted(TARGETS))
def prepared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[Path], None], list[bytes]]]:
    target = TARGETS[request.param]
    with pytest.MonkeyPatch.context() as patch:  # takes back what load() does for good
        patch.setattr(deepregions.detectors, "Tint", Tint, raising=False)
        yield request.param, target.load(), target.seeds(tmp_path_factory.mktemp("seeds"))


def test_broken_files_are_read_or_refused(
    prepared: tuple[str, Callable[[Path], None], list[bytes]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name, read, corpus = prepared
    folder = tmp_path_factory.mktemp("desk")

    @settings(max_examples=EXAMPLES.get(name, 40), suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32))
    def try_one(seed: int) -> None:
        attempt(TARGETS[name], read, folder, mutated(random.Random(seed), corpus))

    try_one()


def test_files_to_start_from_are_read_and_refused(
    prepared: tuple[str, Callable[[Path], None], list[bytes]], tmp_path: Path
) -> None:
    """Otherwise only refusals would be fuzzed."""
    name, read, corpus = prepared
    outcomes = {attempt(TARGETS[name], read, tmp_path, content) for content in corpus}
    assert True in outcomes
    assert name in ("bundle", "provenance") or False in outcomes


def strict(path: Path) -> None:
    """A reader with a fault of each kind."""
    content = path.read_bytes()
    if content == b"bug":
        raise KeyError("a bug")
    if content == b"write":
        (path.parent / "written").write_text("x")
    if content == b"lines":
        raise DeepregionsError("a message that names nothing")
    if content == b"no":
        raise UnreadableError(f"{path}: no", "hint")


def test_what_must_hold_is_looked_at(tmp_path: Path) -> None:
    target = Target(lambda _: [], lambda: strict)
    campaign = Campaign(target, tmp_path)
    for content in (b"fine", b"no", b"bug", b"bug", b"lines"):
        campaign.try_one(content)
    assert counted(tmp_path) == (5, 1)
    found = sorted(path.read_bytes() for path in tmp_path.glob("found-????????????"))
    assert found == [b"bug", b"lines"]
    assert any("KeyError" in path.read_text() for path in tmp_path.glob("found-*.txt"))
    with pytest.raises(AssertionError, match="something was written"):
        attempt(target, strict, tmp_path / "desk", b"write")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/fuzz.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_counts_what_it_tried(tmp_path: Path) -> None:
    done = fuzz("landmarks", "--seconds", "2", "--engine", "own", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert " inputs tried by own in " in done.stdout
    assert done.stdout.endswith(" 0 findings\n")
    assert not (tmp_path / "out").exists()


PROGRAM = """
import os, sys, time
sys.path += {paths!r}
import campaign
campaign.SECONDS = 0.5
tried = 0
def read(path):
    global tried
    tried += 1
    if tried == 5:
        {fault}
campaign.run_own(campaign.Target(lambda _: [b"seed"], lambda: read), float(sys.argv[3]), 0,
                 campaign.Path(sys.argv[5]))
"""


@pytest.mark.parametrize("fault", ["os.kill(os.getpid(), 11)", "time.sleep(99)", "raise KeyError"])
def test_the_command_keeps_what_it_found(tmp_path: Path, fault: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.replace("{paths!r}", repr([str(REPOSITORY / "tools")])).replace("{fault}", fault)
    )
    out = tmp_path / "out"
    done = fuzz(
        "made", "--seconds", "1.5", "--engine", "own", "--out", str(out), "--program", str(program)
    )
    assert done.returncode == 1, done.stderr
    assert "findings in" in done.stdout
    assert list(out.glob("made-*.txt"))
