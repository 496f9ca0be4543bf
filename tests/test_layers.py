"""The architecture: a layer imports only from those above it."""

import ast
from pathlib import Path

import deepregions

PACKAGE = Path(deepregions.__file__).parent

# From the ground up. A name with a dot is one module of a package that spans two layers.
LAYERS = (
    ("types", "errors", "files", "memory", "devices", "pages"),
    ("assets", "people", "safe_pickle"),
    ("media", "pixels", "roc"),
    ("faces", "metrics"),
    ("forge",),
    ("data",),
    ("detectors",),
    ("fusion",),
    ("system",),
    ("weights",),
    ("deploy",),
    ("pipeline",),
    ("evaluation",),
    ("doctor", "study", "service", "archive"),
    ("fit", "commands"),
    ("__main__",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}

# What a layer may not know of, although it lies above.
FORBIDDEN = {
    "media": {"faces"},
    "metrics": {"media", "faces"},
    "data": {"detectors"},
    "detectors": {"media", "faces", "data", "forge"},
    "fusion": {"media", "faces", "data", "detectors", "forge"},
    "weights": {"media", "data"},
    "deploy": {"media", "data"},
    "pipeline": {"data"},
}


def layer_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> set[str]:
    """The names inside this package that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = "deepregions."
    names = {name.removeprefix(prefix) for name in found if name.startswith(prefix)}
    return {layer_of(name) for name in names} & HEIGHT.keys()


def test_imports_run_downwards_only():
    wrong = []
    for path in modules():
        own = layer_of(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        assert own in HEIGHT, f"{own} is in no layer: place it in LAYERS"
        wrong += [
            f"{path.relative_to(PACKAGE)} should not know {other}"
            for other in imports(path) - {own}
            if HEIGHT[other] > HEIGHT[own] or other in FORBIDDEN.get(own, ())
        ]
    assert not wrong


def test_an_upward_import_would_be_seen(tmp_path):
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from deepregions.commands import cli\n")
    assert imports(file) == {"commands"}
