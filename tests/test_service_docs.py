"""The examples of docs/service.md, as they stand, against a service."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detect_json import read_detect
from service_process import running

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "service.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the first example in a language, with the address of a service."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "portrait.png").write_bytes(b"photograph")
    with contextlib.chdir(folder), running(folder / "data") as client:

        def example(language: str, containing: str) -> str:
            blocks = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
            (code,) = (block for block in blocks if containing in block)
            return str(code).replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))

        yield example


def test_curl(asked: Callable[[str, str], str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    code = asked("sh", "127.0.0.1")
    shown = subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True)
    assert read_detect(shown.stdout)["input"] == "portrait.png"


def test_python(asked: Callable[[str, str], str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(asked("python", "httpx"), "service.md", "exec"), {})
    assert shown.getvalue() == "done no_face\n"


def test_javascript(asked: Callable[[str, str], str], tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v\n").split(".")[0]) < 20:
        pytest.skip(f"node {version.strip()} has no openAsBlob; 20 has")
    script = tmp_path / "example.mjs"
    script.write_text(asked("js", "fetch"))
    shown = subprocess.run([node, script], capture_output=True, text=True, check=True)
    assert shown.stdout == "no_face\n"


def test_what_it_says_of_options_routes_and_metrics_is_there() -> None:
    program = [sys.executable, "-m", "deepregions", "serve", "--help"]
    help = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    for option, default in re.findall(r"`(--[a-z-]+) (\d[^ `]*)`", TEXT):
        shown = re.search(rf"{option} .*?\(default: (\w+)\)", help, re.DOTALL)
        assert shown, option
        assert shown[1] == default
    app = (DOCS.parent / "deepregions/service/app.py").read_text()
    for route in re.findall(r"`(?:GET|POST|DELETE) (/[^ ?`]*)", TEXT):
        assert f'"{route.replace("ID", "{id}")}"' in app
    metrics = (DOCS.parent / "deepregions/service/metrics.py").read_text()
    for name in re.findall(r"`(deepregions_\w+)`", TEXT):
        assert f'"{name.removesuffix("_total")}"' in metrics
