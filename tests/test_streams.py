"""What commands do where their output cannot be written, and how fast they start."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deepregions.commands.cli import COMMANDS

PROGRAM = f"{sys.executable} -m deepregions"
HEAVY = {"torch", "timm", "pytorch_lightning", "matplotlib", "pandas", "scipy", "pyarrow"}
NOT_SCORING = {*HEAVY, "torchvision", "torchmetrics", "torch._dynamo", "huggingface_hub", "jinja2"}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", ["--help", "databases list", "databases list --json"])
def test_a_closed_pipe_ends_quietly(command):
    """The reader is gone before anything is written."""
    done = shell(f"{{ sleep 0.1; {PROGRAM} {command}; }} | true")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("command", ["--help", "databases list", "databases list --json"])
@pytest.mark.parametrize(
    ("where", "message"),
    [(">/dev/full", "standard output: No space left"), (">&-", "standard output is closed")],
)
def test_an_output_that_takes_nothing_is_one_line(command, where, message):
    if "full" in where and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for unbuffered in ("", "1"):
        done = shell(f"PYTHONUNBUFFERED={unbuffered} {PROGRAM} {command} {where}")
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_encoding_without_a_character_shows_it_escaped(tmp_path):
    (tmp_path / "ä").mkdir()
    done = shell(f"{PROGRAM} databases check folder --root {tmp_path}/ä", PYTHONIOENCODING="ascii")
    assert done.returncode == 1
    assert "\\xe4" in done.stdout
    assert "Traceback" not in done.stderr


def imported(*lines: str, fine: str = "--help") -> dict[str, set[str]]:
    """What was imported when command lines, run one after another, were done; one ends well."""
    code = (
        "import contextlib, io, json, sys\n"
        f"fine = {fine!r}\n"
        "from deepregions.commands.cli import run\n"
        "done = {}\n"
        "for line in sys.argv[1:]:\n"
        "    out = io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n"
        "        assert bool(run(line.split())) == (line != fine), line\n"
        "    assert 'usage:' in out.getvalue() or '--help' not in line, line\n"
        "    done[line] = sorted(sys.modules)\n"
        "print(json.dumps(done))"
    )
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line: {*modules} for line, modules in json.loads(done.stdout).items()}


WRONG = (
    "detect nowhere.jpg",
    "detect . --bundle nowhere",
    "detect . --config nowhere.yaml",
    "explain nowhere.jpg --out o",
    "segment nowhere.jpg --out o",
    "forge nowhere.jpg --out o",
    "forge --store nowhere --out o",
    "prepare --database ffpp --root nowhere --out o",
    "databases check ffpp --root nowhere",
    "databases describe nowhere",
    "fit --config nowhere.yaml",
    "fit --config xception.yaml --data.store nowhere",
    "fit --config ffpp.yaml --config xception.yaml",
    "fuse --store nowhere --out o",
    "import nowhere --out o",
    "models show nowhere",
    "models verify nowhere",
    "bundle push nowhere a/b",
    "evaluate --store nowhere --out o",
    "export --store nowhere --out o",
    "reproduce nowhere.yaml",
)


def test_help_and_wrong_paths_import_nothing_heavy(tmp_path, monkeypatch):
    """Not even a parser for the list of commands; no network for a command's options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.delenv("DEEPREGIONS_MODELS", raising=False)
    lines = ["--help", *(f"{name} --help" for name in COMMANDS if name != "fit")]  # a LightningCLI
    seen = imported(*lines, *WRONG)
    assert not seen["--help"] & {*HEAVY, "jsonargparse", "numpy", "rich"}
    for line, modules in seen.items():
        assert not modules & HEAVY, line


def test_detect_imports_only_what_computes(portrait):
    """With the rest, half of the time to the first answer went into imports."""
    line = f"detect {portrait} --json --device cpu"
    (modules,) = imported(line, fine=line).values()
    assert not modules & NOT_SCORING
    line += " --runtime torch"
    (modules,) = imported(line, fine=line).values()
    assert "torch" in modules
    assert not modules & (NOT_SCORING - {"torch"})
