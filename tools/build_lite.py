"""Builds the wheel of deepregions-lite: scoring without PyTorch; see ``--help``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement

from deepregions.commands.cli import run_program
from deepregions.deploy.bundle_graph import read_graph
from deepregions.files import atomic_file

ROOT = Path(__file__).parents[1]
NEEDED = (
    "av",
    "dlib-bin",
    "face_recognition_models",
    "jinja2",
    "jsonargparse",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python",
    "pillow",
    "platformdirs",
    "pyyaml",
    "rich",
    "scipy",
)
"""Of deepregions' dependencies, those that scoring takes."""
EXTRAS = ("c2pa", "heif", "openvino", "serve")
"""Of its extras, those that do without PyTorch."""
_FACTS = ("version", "requires-python", "license", "keywords")
_PYPROJECT = """\
[build-system]
requires = {requires}
build-backend = "hatchling.build"

[project]
name = "deepregions-lite"
description = "deepregions without PyTorch: scores photographs and videos, and nothing else."
readme = "README.md"
{facts}
dependencies = {dependencies}

[project.optional-dependencies]
{extras}

[project.scripts]
deepregions = "deepregions.__main__:main"

[tool.hatch.build.targets.wheel]
packages = ["deepregions"]
"""


def build_lite(*, out: Path = Path("dist"), bundle: Path | None = None) -> int:
    """Builds the wheel of deepregions-lite.

    It holds the same code as deepregions, asks for none of the packages that training takes, and
    brings a bundle with its graph. Only one of the two can be installed in an environment. Prints
    the wheel's path.

    Args:
        out: The folder to write it to.
        bundle: A bundle that has a graph (`deepregions export --into-bundle`); without, the one
            that comes with deepregions.
    """
    folder = bundle or ROOT / "checkpoints" / "default"
    read_graph(folder)
    with TemporaryDirectory() as made:
        stage = Path(made, "stage")
        package = stage / "deepregions"
        shutil.copytree(ROOT / "deepregions", package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(folder, package / "checkpoints" / "default")
        shutil.copyfile(ROOT / "README.md", stage / "README.md")
        (stage / "pyproject.toml").write_text(pyproject(), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*command, "--wheel-dir", made, str(stage)], check=True)
        (wheel,) = Path(made).glob("*.whl")
        out.mkdir(parents=True, exist_ok=True)
        with atomic_file(out / wheel.name) as partial:
            shutil.copyfile(wheel, partial)
    sys.stdout.write(f"{out / wheel.name}\n")
    return 0


def pyproject() -> str:
    """Returns the project's file, derived from that of deepregions."""
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = whole["project"]
    dependencies = [text for text in project["dependencies"] if Requirement(text).name in NEEDED]
    extras = project["optional-dependencies"]
    return _PYPROJECT.format(
        requires=whole["build-system"]["requires"],
        facts="\n".join(f"{name} = {project[name]!r}" for name in _FACTS),
        dependencies=dependencies,
        extras="\n".join(f"{name} = {extras[name]!r}" for name in EXTRAS),
    )


if __name__ == "__main__":
    sys.exit(run_program(build_lite, sys.argv[1:]))
