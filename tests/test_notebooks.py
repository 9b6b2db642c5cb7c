"""Notebooks run from top to bottom in small size, without Jupyter, and hold the outputs of a full run.

The metadata of a notebook say how it becomes small and what it needs:

    "pyrolatent": {"small": "ROWS = 50\\nSTEPS = 20", "needs": ["credit_default"]}

`small` stands in for the one code cell tagged "sizes", and sets the same names.  `needs` are folders in
PYROLATENT_DATA, without which the notebook is not run here.  Cells are plain Python in one namespace, where
lines that begin with % are left out and `display` is known; what they show small, the stored outputs show.
"""

import ast
import base64
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.public_data import needs

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LARGEST = 2 * 1024**2  # bytes of a file
OF_A_MACHINE = re.compile(r"(/home/|/root/|/tmp/|/work/|/Users/|site-packages|ipykernel|at 0x[0-9a-f]{6})")

Cell = dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[Cell]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def joined(text: str | list[str]) -> str:
    """The format allows text as lines, too."""
    return "".join(text)


def plain(cell: Cell) -> str:
    """The code of a cell without magics."""
    lines = joined(cell["source"]).splitlines()
    return "\n".join("" if line.startswith("%") else line for line in lines)


def kinds(cell: Cell) -> list[str]:
    """The MIME types of all that a cell shows."""
    return [kind for output in cell["outputs"] for kind in output.get("data", {})]


def is_sizes(cell: Cell) -> bool:
    return "sizes" in cell["metadata"].get("tags", [])


def names_set(code: str) -> set[str]:
    """The names that code gives values to."""
    found = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))
    return {node.id for node in found if isinstance(node.ctx, ast.Store)}


def shown(code: str, where: str, namespace: dict[str, Any]) -> list[Any]:
    """Run a cell and return what it displays, the value of its last line included."""
    values: list[Any] = []
    namespace["display"] = values.append
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), namespace)
    if isinstance(last, ast.Expr):
        values.append(eval(compile(ast.Expression(last.value), where, "eval"), namespace))
    return [value for value in values if value is not None]


def with_data() -> list[Any]:
    """The notebooks, those marked that need data sets which may be absent."""
    wanted = [read(path)["metadata"]["pyrolatent"]["needs"] for path in NOTEBOOKS]
    return [
        pytest.param(path, id=path.stem, marks=[needs(*(f"{name}/" for name in names))] if names else [])
        for path, names in zip(NOTEBOOKS, wanted, strict=True)
    ]


@pytest.mark.parametrize("path", with_data())
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = read(path)
    small = joined(notebook["metadata"]["pyrolatent"]["small"])
    (sizes,) = filter(is_sizes, code_cells(notebook))
    assert names_set(small) == names_set(plain(sizes)), "sizes, and what stands in for them"
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "notebook"}
    for number, cell in enumerate(code_cells(notebook), 1):
        where = f"{path.name}, code cell {number}"
        values = shown(small if cell is sizes else plain(cell), where, namespace)
        figures = [value for value in values if isinstance(value, Figure)]
        for figure in figures:
            figure.savefig(BytesIO(), dpi=50)  # it can be drawn
        assert bool(figures) == ("image/png" in kinds(cell)), f"{where}: pictures, and stored ones"
        assert len(values) == 0 or "text/plain" in kinds(cell), f"{where}: nothing is stored of what it shows"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_of_a_full_run_are_stored(path: Path) -> None:
    notebook = read(path)
    assert notebook["nbformat"] == 4
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert path.stat().st_size < LARGEST
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any("execution" in cell["metadata"] for cell in notebook["cells"]), "times of a run"
    pictures = 0
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] in ("stream", "display_data", "execute_result"), output
        data = output.get("data", {})
        text = joined(output["text"] if output["output_type"] == "stream" else data["text/plain"])
        assert output.get("name") != "stderr", text
        assert not (found := OF_A_MACHINE.search(text)), found
        assert text.startswith("<Figure") == ("image/png" in data), text
        if "image/png" in data:
            assert base64.b64decode(joined(data["image/png"])).startswith(b"\x89PNG")
            pictures += 1
    assert pictures, "there is no picture"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
