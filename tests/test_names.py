"""Names mean one thing, and no two modules import each other."""

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import deepregions

PACKAGE = Path(deepregions.__file__).parent


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_a_class_name_is_unique() -> None:
    found = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert not twice


def test_no_module_uses_another_s_private_names() -> None:
    found = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepregions"):
                private = [each.name for each in node.names if each.name.startswith("_")]
                found += [f"{name}: {node.module}.{each}" for each in private if each[:2] != "__"]
    assert not found


def imports(path: Path) -> set[str]:
    """The modules of this package that one imports, at any depth, but not for names of types."""
    tree = ast.parse(path.read_text())
    of_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    found = set()
    for node in {*ast.walk(tree)} - of_types:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner if inner <= MODULES.keys() else {*inner, node.module}
    return found & MODULES.keys()


def test_no_modules_import_each_other() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # or its error names the circle
