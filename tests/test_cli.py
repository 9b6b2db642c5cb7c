import importlib.util
import json
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from click.testing import CliRunner, Result

import pyrolatent.demo
from pyrolatent.ampute import ampute
from pyrolatent.cells import cell_table
from pyrolatent.cli import columns_in_words, main
from pyrolatent.column import KINDS
from pyrolatent.datasets import job_satisfaction_correlation
from pyrolatent.errors import FitWarning
from pyrolatent.fit import fit
from pyrolatent.infer.hmc import HMC
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.schema import infer_schema
from pyrolatent.store import load
from pyrolatent.summary import summary
from pyrolatent.tables import read_frame, write_frame
from tests.small_fits import SHORT, completed, full_table, holed_table

SETTINGS = ["--chains", "4", "--warmup", "20", "--draws", "10", "--seed", "1", "--no-compile"]
STORED = ["SHA256SUMS", "fit.json", "frame.json", "tensors.safetensors"]
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="Parquet needs pyarrow, which is not installed"
)
RUN = sorted([*STORED, "posterior.nc", "report.html", "summary.csv"])


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def one_line(result: Result) -> str:
    """The only line of a refused command."""
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "holes.csv"
    write_frame(holed_table().reset_index(), path)
    return path


@pytest.fixture(scope="module")
def fitted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder that `fit` wrote, and what it printed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return run, call("fit", table, "--model", "mvn", "--eta", "2", "--out", run, *SETTINGS)


def test_fit_writes_a_folder(fitted: tuple[Path, Result]) -> None:
    run, result = fitted
    assert result.exit_code == 0, result.output
    assert names(run) == RUN
    stored = load(run)
    assert (stored.method, stored.seed, stored.pair.eta, stored.pair.standardise) == (SHORT, 1, 2.0, True)
    assert stored.problem.compile is False
    posterior = xr.open_dataset(run / "posterior.nc", group="posterior", engine="h5netcdf")
    np.testing.assert_array_equal(posterior["mean"].to_numpy(), stored.samples["mean"].numpy())
    written = pd.read_csv(run / "summary.csv", index_col="name")
    pd.testing.assert_frame_equal(written, summary(stored), check_names=False, rtol=1e-14)
    assert "Completed cells" in (run / "report.html").read_text(encoding="utf-8")


def test_fit_equals_the_function(fitted: tuple[Path, Result], table: Path) -> None:
    stored = load(fitted[0])
    frame = read_frame(table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        again = fit(BayesianMVN(stored.schema, 2.0), frame, SHORT, seed=1, compile=False)
    assert torch.equal(again.samples["covariance"], stored.samples["covariance"])


def test_fit_says_what_it_did(fitted: tuple[Path, Result]) -> None:
    run, result = fitted
    lines = result.stdout.splitlines()
    assert lines[0] == "40 rows, 5 columns:"
    assert any(line.split() == ["when", "datetime", "0.0", "%", "missing"] for line in lines)
    missing = 100 * holed_table()["visits"].isna().mean()
    assert any(line.split() == ["visits", "count", f"{missing:.1f}", "%", "missing"] for line in lines)
    assert any(line.startswith("4 chains of 10 draws") and "nested R-hat" in line for line in lines)
    assert lines[-1].startswith(f"Wrote {run}: open {run / 'report.html'}") and lines[-1].endswith(" s)")


def test_warnings_of_a_fit_are_lines(fitted: tuple[Path, Result]) -> None:
    run, result = fitted
    lines = result.stderr.splitlines()
    assert [f"Warning: {message}" for message in load(run).warnings] == lines[: len(load(run).warnings)]
    assert any("effective sample size" in line for line in lines)
    assert lines[-1].startswith("Warning: Imputations of ['visits']")


def test_quiet_leaves_warnings_only(table: Path, tmp_path: Path) -> None:
    result = call("fit", table, "--out", tmp_path / "run", "--quiet", "--no-standardise", *SETTINGS)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Warning: " in result.stderr
    assert load(tmp_path / "run").pair.standardise is False


def test_columns_can_be_dropped(table: Path, tmp_path: Path) -> None:
    full_table().drop(columns="when").to_csv(tmp_path / "full.csv", index=False)
    run = tmp_path / "run"
    result = call("fit", tmp_path / "full.csv", "--out", run, "--drop", "visits", "--quiet", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert load(run).schema.names == ("<b>height</b> & more", "$weight$")
    line = one_line(call("fit", table, "--out", tmp_path / "other", "--drop", "wieght"))
    assert "no columns ['wieght'] to drop" in line and "'$weight$'" in line


def test_impute_writes_completed_tables(fitted: tuple[Path, Result], table: Path, tmp_path: Path) -> None:
    run, out = fitted[0], tmp_path / "completed"
    result = call("impute", run, "--draws", "3", "--out", out)
    assert result.exit_code == 0, result.output
    assert names(out) == ["cells.csv", "imputed_01.csv", "imputed_02.csv", "imputed_03.csv"]
    assert result.stdout.startswith(f"Wrote 3 completed tables and cells.csv to {out}.")
    expected = completed(load(run), num_draws=3)
    for number, frame in enumerate(expected.frames, start=1):
        pd.testing.assert_frame_equal(read_frame(out / f"imputed_0{number}.csv"), plain_numbers(frame))
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == read_frame(table).isna().sum().sum()
    pd.testing.assert_frame_equal(cells, cell_table(expected), rtol=1e-14)


def plain_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """A table without holes as a file tells it: integers and text are no longer nullable."""
    return frame.astype({"visits": "int64"})


def test_impute_takes_new_rows_and_a_seed(fitted: tuple[Path, Result], table: Path, tmp_path: Path) -> None:
    new = read_frame(table).iloc[:7]
    write_frame(new, tmp_path / "new.csv")
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        arguments = ["--data", tmp_path / "new.csv", "--seed", seed, "--draws", 1, "--out", tmp_path / name]
        result = call("impute", fitted[0], *arguments)
        assert result.exit_code == 0, result.output
    a, b, c = (read_frame(tmp_path / name / "imputed_01.csv") for name in "abc")
    assert len(a) == 7 and a.equals(b) and not a.equals(c)


def test_numbers_of_tables_are_padded(fitted: tuple[Path, Result], tmp_path: Path) -> None:
    result = call("impute", fitted[0], "--draws", "100", "--out", tmp_path / "completed")
    assert names(tmp_path / "completed")[1] == "imputed_001.csv"
    assert result.stdout.startswith("Wrote 40 completed tables")  # the fit has no more draws


def test_ampute_hides_cells(tmp_path: Path) -> None:
    write_frame(full_table(), tmp_path / "full.csv")
    arguments = ["--mechanism", "mcar", "--fraction", "0.25", "--seed", "3", "--out", tmp_path / "holes.csv"]
    result = call("ampute", tmp_path / "full.csv", *arguments)
    full, holes = read_frame(tmp_path / "full.csv"), read_frame(tmp_path / "holes.csv")
    pd.testing.assert_frame_equal(holes, ampute(full, fraction=0.25, seed=3))
    hidden = holes.isna().to_numpy().sum()
    assert result.stdout == f"Wrote {tmp_path / 'holes.csv'}: {hidden} of 200 cells hidden.\n"
    assert "already exists" in one_line(call("ampute", tmp_path / "full.csv", *arguments))
    assert call("ampute", tmp_path / "full.csv", *arguments, "--force").exit_code == 0


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = HMC(num_chains=4, num_warmup=20, num_draws=10)
    monkeypatch.setattr(pyrolatent.demo, "fit", partial(fit, method=short))
    out = tmp_path / "out"
    result = call("demo", "--out", out)
    assert result.exit_code == 0, result.output
    tables = [f"imputed_{number:02}.csv" for number in range(1, 21)]
    assert names(out) == sorted([*RUN, "cells.csv", *tables])
    stored = load(out)
    assert stored.problem.frame.shape == (263, 12)
    assert not read_frame(out / "imputed_20.csv").isna().any(axis=None)
    fitted = stored.samples["correlation"].mean((0, 1)).numpy()
    plain = stored.problem.frame.corr().to_numpy()
    for matrix in (fitted, plain):
        error = np.abs(matrix - job_satisfaction_correlation().to_numpy()).sum() / (12 * 11)
        assert f"{error:.4f}" in result.stdout
    for words in ("90 % intervals hold", "nested R-hat", "smallest effective sample size", " s)"):
        assert words in result.stdout
    assert "true value" in (out / "report.html").read_text(encoding="utf-8")
    assert "already exists" in one_line(call("demo", "--out", out))


@pytest.mark.parametrize("command", ["fit", "impute"])
def test_folders_are_checked_before_the_work(tmp_path: Path, command: str) -> None:
    """The input does not exist either, so the message tells which was looked at first."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fit.json").touch()
    line = one_line(call(command, tmp_path / "absent", "--out", tmp_path / "run"))
    assert "run: already exists and is not empty" in line and "--force" in line
    assert "absent" in one_line(call(command, tmp_path / "absent", "--out", tmp_path / "run", "--force"))
    assert names(tmp_path / "run") == ["fit.json"]
    assert "cannot be written" in one_line(call(command, tmp_path / "absent", "--out", tmp_path / "a" / "b"))


def test_force_replaces_a_run(fitted: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "completed"
    for draws in (12, 2):
        assert call("impute", fitted[0], "--draws", draws, "--out", out, "--force").exit_code == 0
    assert names(out) == ["cells.csv", "imputed_01.csv", "imputed_02.csv"]


def test_bad_tables_are_refused_in_one_line(tmp_path: Path) -> None:
    write_frame(pd.DataFrame({"a": [1.5, 2.5, 2.0], "b": [7, 7, 7]}), tmp_path / "constant.csv")
    write_frame(pd.DataFrame({"a": [1.5, 2.5, 2.0], "b": ["x", "y", "x"]}), tmp_path / "labels.csv")
    out = tmp_path / "run"
    assert "column 'b': constant column" in one_line(call("fit", tmp_path / "constant.csv", "--out", out))
    labels = call("fit", tmp_path / "labels.csv", "--out", out, "--quiet")
    assert "columns ['b']: a multivariate normal cannot hold" in one_line(labels)
    assert not out.exists()


def test_settings_are_checked_before_the_table_is_read(tmp_path: Path) -> None:
    line = one_line(call("fit", tmp_path / "absent.csv", "--out", tmp_path / "o", "--draws", "1"))
    assert "num_draws is too small" in line


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    result = call("fit", tmp_path / "a.csv", "--model", "vae", "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert "'vae' is not" in result.stderr and "'mvn'" in result.stderr


def test_only_the_first_columns_of_a_wide_table_are_listed() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(5, 45)), columns=[f"v{number}" for number in range(45)])
    lines = columns_in_words(frame, infer_schema(frame)).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (42, "5 rows, 45 columns:", "  and 5 more")


def test_schema_prints_what_fit_reads(table: Path, tmp_path: Path) -> None:
    result = call("schema", table)
    assert result.exit_code == 0, result.output
    columns = json.loads(result.stdout)["columns"]
    expected = infer_schema(read_frame(table)).kinds
    assert columns == expected and columns["visits"] == "count"
    path = tmp_path / "schema.json"
    path.write_text(result.stdout.replace('"visits": "count"', '"visits": "positive"'), encoding="utf-8")
    run = tmp_path / "run"
    fitted = call("fit", table, "--schema", path, "--drop", "$weight$", "--out", run, *SETTINGS)
    assert fitted.exit_code == 0, fitted.output
    kinds = {**expected, "visits": "positive"}
    del kinds["$weight$"]
    assert load(run).schema.kinds == kinds
    assert any(line.split()[:2] == ["visits", "positive"] for line in fitted.stdout.splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"columns": {"visit": "count"}}',
            "a kind is declared for 'visit', which is no column: the table has",
        ),
        ('{"columns": {"visits": "counts"}}', "column 'visits': unknown kind 'counts'. Use one of real, "),
        ('{"columns": {"visits": "unit"}}', "column 'visits', row "),
        ('{"columns": {\n"visits": count}}', "schema.json: is not JSON: line 2, column 11: Expecting value"),
    ],
)
def test_schemas_that_do_not_fit_are_refused_in_one_line(
    table: Path, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text, encoding="utf-8")
    assert message in one_line(call("fit", table, "--schema", path, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_schema_is_read_before_the_table(tmp_path: Path) -> None:
    line = one_line(
        call("fit", "absent.csv", "--schema", tmp_path / "absent.json", "--out", tmp_path / "run")
    )
    assert "absent.json: cannot be read" in line


@needs_pyarrow
def test_parquet_goes_in_and_out(tmp_path: Path) -> None:
    full = full_table().set_index(pd.Index([7, 8] * 20, name="household"))
    write_frame(full, tmp_path / "full.parquet")
    holes = tmp_path / "holes.parquet"
    assert call("ampute", tmp_path / "full.parquet", "--out", holes).exit_code == 0
    frame = read_frame(holes)
    pd.testing.assert_frame_equal(frame, ampute(full))
    run, out = tmp_path / "run", tmp_path / "completed"
    assert call("fit", holes, "--out", run, "--quiet", *SETTINGS).exit_code == 0
    pd.testing.assert_frame_equal(load(run).problem.frame, frame)
    result = call("impute", run, "--data", holes, "--draws", 2, "--format", "parquet", "--out", out)
    assert result.exit_code == 0, result.output
    assert names(out) == ["cells.csv", "imputed_01.parquet", "imputed_02.parquet"]
    completed = read_frame(out / "imputed_02.parquet")
    assert completed.dtypes.to_dict() == frame.dtypes.to_dict() and not completed.isna().any(axis=None)
    pd.testing.assert_index_equal(completed.index, frame.index)
    assert call("impute", run, "--draws", 1, "--out", out, "--force").exit_code == 0
    assert names(out) == ["cells.csv", "imputed_01.csv"]


def test_without_pyarrow_nothing_is_begun(
    fitted: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    out = tmp_path / "out"
    line = one_line(call("impute", fitted[0], "--format", "parquet", "--out", out))
    assert "Parquet needs pyarrow, which is not installed. pip install" in line
    assert "Parquet needs pyarrow" in one_line(call("ampute", "absent.csv", "--out", tmp_path / "a.parquet"))
    assert "Parquet needs pyarrow" in one_line(call("fit", tmp_path / "a.parquet", "--out", out))
    assert not list(tmp_path.iterdir())


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    commands = ("ampute", "demo", "fit", "impute", "schema")
    assert all(f"\n  {command} " in result.stdout for command in commands)
    assert all(kind in call("schema", "--help").stdout for kind in KINDS)
    assert "--seed" in call("fit", "-h").stdout


def test_the_package_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "pyrolatent", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("pyrolatent, version ")


def test_completed_tables_never_replace_the_fit(fitted: tuple[Path, Result]) -> None:
    run = fitted[0]
    for out in (run, run.parent):
        line = one_line(call("impute", run, "--out", out, "--force"))
        assert "the completed tables would replace the fit" in line
    assert names(run) == RUN
