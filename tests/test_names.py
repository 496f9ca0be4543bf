"""Names mean one thing, and no two modules import each other."""

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import deepregions

PACKAGE = Path(deepregions.__file__).parent


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_a_class_name_is_unique():
    found = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(name)
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert not twice


UNLIKE = {
    "base": "of a package: what its classes share",
    "cli": "the usual name of a program's command line",
    "types": "the words that every layer shares have no one noun",
    "worker": "the sandbox's other side, which has functions only",
}


def test_a_module_is_named_after_its_main_class_or_noun():
    """Its name has a word of something public in it, or of the sentence that it begins with."""
    wrong = []
    for name, path in MODULES.items():
        module, tree = name.rpartition(".")[2], ast.parse(path.read_text())
        summary = (ast.get_docstring(tree) or "").split("\n\n")[0]
        defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        public = [node.name for node in defined if not node.name.startswith("_")]
        words = re.findall("[A-Z]*[a-z0-9]+|[A-Z]+", " ".join([summary, *public]))
        alike = any(
            word.startswith(own[:4]) or own.startswith(word)
            for own in module.split("_")
            for word in map(str.lower, words)
            if len(word) > 2
        )
        if path.stem not in {"__init__", "__main__", *UNLIKE} and not alike:
            wrong.append(name)
    assert not wrong, "\n".join(wrong)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_module_or_name_is_private_to_another_package():
    """Neither imported, nor reached through a module that is."""
    found = []
    for name, path in MODULES.items():
        modules: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                names = {f"{package}{each.name}": each.asname or each.name for each in node.names}
                ours = {full: name for full, name in names.items() if full[:11] == "deepregions"}
                modules |= {*ours.values()}
                used = [part for full in ours for part in full.split(".")]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules:
                used = [node.attr]
            else:
                continue
            found += [f"{name}: {each}" for each in used if is_private(each)]
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


def test_no_modules_import_each_other():
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # or its error names the circle
