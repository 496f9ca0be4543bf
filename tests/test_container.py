"""The files that make the container, read without a Docker daemon."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from deepregions.commands.cli import run

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
SERVICE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"][
    "deepregions"
]


def told(word: str) -> list[str]:
    """What stands behind an instruction, wherever it is given."""
    return [line.removeprefix(f"{word} ") for line in LINES if line.startswith(f"{word} ")]


def test_what_is_copied_is_there_and_sent() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert sent[0] == "*"
    for line in told("COPY"):
        if not line.startswith("--from"):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in sent


@pytest.mark.parametrize("command", [json.loads(told("CMD")[-1]), SERVICE["command"]])
def test_its_command_is_one_of_ours(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes as far as the keys, which it needs as it binds more than loopback."""
    assert json.loads(told("ENTRYPOINT")[0]) == ["deepregions"]
    assert run([str(tmp_path) if each == "/data" else each for each in command]) == 2
    assert "there is no key yet" in capsys.readouterr().err


def test_it_is_nobody_who_may_write_to_its_volume_alone() -> None:
    user, group = told("USER")[-1].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert any(f"--uid {user} " in line for line in told("RUN"))
    assert told("VOLUME") == ["/data"]
    assert SERVICE["read_only"]
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert SERVICE["volumes"] == ["data:/data"]
    assert SERVICE["mem_limit"]


def test_its_health_is_asked_at_a_path_that_is_there() -> None:
    code = shlex.split(json.loads(re.sub(r"^.*?CMD ", "", told("HEALTHCHECK")[0]))[2])
    app = (ROOT / "deepregions/service/app.py").read_text(encoding="utf-8")
    (path,) = re.findall(r"8000(/\w+)", " ".join(code))
    assert f'"{path}"' in app
    assert told("EXPOSE") == ["8000"]
