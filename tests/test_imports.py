"""Packages import only from packages below them, no two files import each other, and class names are used once."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deeplayer_cli"
ORDER = [
    *("app", "commands", "report", "evaluation", "bench", "reference", "demo", "runtime", "engine", "cost", "pruning"),
    *("checkpoints", "models", "device", "formats", "sources", "sinks", "images", "schema", "boxes", "errors"),
]
"""The list of README.md: a package may import from those behind it only."""

LISTS = ("__init__.py", "README.md")
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
NAMES_INTERNVL = {"models", "checkpoints", "demo", "bench"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """The package's modules that a file imports anywhere, for type checkers too."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{name.name}" for name in node.names}
            found |= submodules & MODULES.keys() or {node.module}
    return {name for name in found if name in MODULES and name != module_of(path)}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", [name for name in MODULES if package_of(name) in ORDER])
def test_imports_only_go_down_the_list(module: str) -> None:
    own = ORDER.index(package_of(module))
    below = [name for name in imports_of(MODULES[module]) if package_of(name) != package_of(module)]
    up = [name for name in below if name != "deeplayer_cli" and ORDER.index(package_of(name)) <= own]
    assert not up, f"{module} imports {', '.join(up)}, and that is not below {ORDER[own]}"


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {name: imports_of(path) - {"deeplayer_cli"} for name, path in MODULES.items()}
    # A package's __init__ collects its files; that they import each other by their own names is no circle.
    left = {name: {one for one in names if not name.startswith(f"{one}.")} for name, names in graph.items()}
    while ends := [name for name, names in left.items() if not names & left.keys()]:
        for name in ends:
            del left[name]
    assert not left, f"in circles: {sorted(left)}"


def test_there_is_no_loose_module() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "app", "boxes", "errors"}
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} <= set(ORDER)


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES} - {PACKAGE}), ids=lambda path: path.name)
def test_every_file_is_on_the_list_of_its_package(folder: Path) -> None:
    """Its docstring or README says what each file is for. A file may also have the name of a command or method."""
    docstring, readme = (path.read_text() if path.exists() else "" for path in map(folder.joinpath, LISTS))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    named = set(re.findall(r"\b(\w+)\.py\b", docstring)) - {"NAME"}
    assert named <= files, "the docstring names a file that is not here"
    named.update(*re.findall(r"\b(\w+)\.py\b|^## deeplayer (\w+) ?(\w*)", readme, re.MULTILINE))
    assert files <= named or folder.name == "methods", "a file is missing"


def test_a_class_name_is_used_once() -> None:
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_are_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef) and path.parent.name != "commands":  # Typer's signatures are long
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in NAMES_INTERNVL], ids=module_of
)
def test_only_some_packages_know_internvl(path: Path) -> None:
    """Prose may name it everywhere."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    assert [token.string for token in tokens if token.type == tokenize.NAME and "InternVL" in token.string] == []
