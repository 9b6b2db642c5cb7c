"""Imports go down the layers of docs/architecture.md, never round in a circle, and nothing is pickled."""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyrolatent"
TOP = {"pyrolatent", "pyrolatent.__main__"}  # above the table: they may import everything

Layers = dict[str, int]
Imports = dict[str, set[str]]


def table(text: str) -> Layers:
    """Module or package -> layer, from the rows `| 3 | `capture`, `kernels` | ... |` of a page."""
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, flags=re.MULTILINE)
    return {name: int(layer) for layer, names in rows for name in re.findall(r"`(\w+)`", names)}


def trees(package: Path) -> dict[str, ast.Module]:
    """Dotted name -> syntax tree of every file of a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import of a file, those inside functions and for types included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def own_imports(files: dict[str, ast.Module]) -> Imports:
    """Every file -> the files of the package it imports; `from package import name` may name a file."""
    root = next(iter(files)).split(".")[0]

    def resolve(module: str, name: str | None) -> str:
        return f"{module}.{name}" if f"{module}.{name}" in files else module

    return {
        file: {resolve(*pair) for pair in imported(tree) if pair[0].split(".")[0] == root}
        for file, tree in files.items()
    }


def unit(file: str) -> str:
    """The name under which a file stands in the table: `pyrolatent.capture.density` -> `capture`."""
    return file.split(".")[1]


def upward(imports: Imports, layers: Layers) -> list[str]:
    """The imports that break the rule, readable."""
    return [
        f"{file} (layer {layers[unit(file)]}) imports {other}"
        for file, others in sorted(imports.items())
        for other in sorted(others)
        if file not in TOP and (other in TOP or layers[unit(other)] > layers[unit(file)])
    ]


def circle(imports: Imports) -> list[str]:
    """One circle of imports, or nothing."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def files() -> dict[str, ast.Module]:
    return trees(PACKAGE)


@pytest.fixture(scope="module")
def layers() -> Layers:
    return table((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def test_the_table_names_every_file_and_nothing_else(files: dict[str, ast.Module], layers: Layers):
    assert {unit(file) for file in files if file not in TOP} == set(layers)


def test_imports_only_go_down(files: dict[str, ast.Module], layers: Layers):
    assert upward(own_imports(files), layers) == []


def test_imports_form_no_circle(files: dict[str, ast.Module]):
    assert circle(own_imports(files)) == []


def test_only_export_knows_arviz(files: dict[str, ast.Module]):
    roots = {file: {module.split(".")[0] for module, _ in imported(tree)} for file, tree in files.items()}
    assert {file for file, modules in roots.items() if "arviz" in modules} <= {"pyrolatent.export"}


def test_nothing_is_pickled(files: dict[str, ast.Module]):
    found = {file: list(pickling(tree)) for file, tree in files.items()}
    assert {file: what for file, what in found.items() if what} == {}


PICKLING_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PICKLING_CALLS = {"torch.load", "torch.save", "torch.serialization.load", "torch.serialization.save"}
PICKLING_WORDS = {"read_pickle", "to_pickle", "allow_pickle"}


def pickling(tree: ast.Module) -> Iterator[str]:
    """Every way into pickle that a file mentions, with its line where it has one."""
    for module, name in imported(tree):
        if module.split(".")[0] in PICKLING_MODULES or f"{module}.{name}" in PICKLING_CALLS:
            yield f"import of {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (
            ast.unparse(node) in PICKLING_CALLS or node.attr in PICKLING_WORDS
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.keyword) and node.arg in PICKLING_WORDS:
            yield f"line {node.lineno}: {node.arg}"


# The checks themselves, on a package that breaks every rule.

BAD = {
    "__init__.py": "",
    "low.py": "def f():\n    from pyrolatent.high import part\n",
    "high/__init__.py": "from pyrolatent import low\n",
    "high/part.py": "import pyrolatent\nimport torch.nn\n",
}


@pytest.fixture
def bad(tmp_path: Path) -> dict[str, ast.Module]:
    for name, text in BAD.items():
        path = tmp_path / "pyrolatent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return trees(tmp_path / "pyrolatent")


def test_checks_find_upward_imports(bad: dict[str, ast.Module]):
    layers = table("| layer | modules | what |\n| 0 | `low` | x |\n| 1 | `high` | `y` |\n")
    assert layers == {"low": 0, "high": 1}
    assert upward(own_imports(bad), layers) == [
        "pyrolatent.high.part (layer 1) imports pyrolatent",
        "pyrolatent.low (layer 0) imports pyrolatent.high.part",
    ]


def test_checks_find_circles(bad: dict[str, ast.Module]):
    assert circle(own_imports(bad)) == []
    bad["pyrolatent.high.part"] = ast.parse("from pyrolatent.low import f")
    assert set(circle(own_imports(bad))) == {"pyrolatent.low", "pyrolatent.high.part"}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "from torch import load",
        "import torch\ntorch.load('x')",
        "np.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
    ],
)
def test_checks_find_pickling(source: str):
    assert len(list(pickling(ast.parse(source)))) == 1


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="line 1: relative import"):
        list(imported(ast.parse("from . import seeds")))
