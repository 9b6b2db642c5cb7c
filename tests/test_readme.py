"""The Python of README.md and of the pages about methods and tables runs from top to bottom, as pasted."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

from pyrolatent import FitWarning

ROOT = Path(__file__).parent.parent
AUTOENCODERS = ["training is unfinished"]
WARNS = {
    "README.md": [],
    "docs/methods.md": ["Pareto k of the normal approximation"],
    "docs/tables.md": [],
    "docs/abtests.md": ["more likely than a single component", "No label is known"],
    "docs/long_runs.md": [],
    "docs/plots.md": [],
    "docs/autoencoders.md": AUTOENCODERS,
}


@pytest.mark.parametrize("page", WARNS)
def test_python_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        runpy.run_path(str(script))
    assert len(caught) == len(WARNS[page]), [str(warning.message) for warning in caught]
    for warning, expected in zip(caught, WARNS[page], strict=True):
        assert expected in str(warning.message)
