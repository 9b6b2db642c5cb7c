"""The analysis of a test in one call, from Python and from the command line."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

import pyrolatent as pyl
from pyrolatent.abtest.analysis import ABResult, analyze
from pyrolatent.abtest.choices import arm_table, as_range, lift_table
from pyrolatent.cli import main
from pyrolatent.errors import ArgumentError, DataError, FitWarning


def twin(seed: int = 0) -> pd.DataFrame:
    """Rows like those of the article's file: 476 and 484 labels with its means and spreads, 240 without."""
    random = np.random.default_rng(seed)

    def exactly(number: int, mean: float, sd: float) -> Any:
        noise = random.normal(size=number)
        return mean + sd * (noise - noise.mean()) / noise.std(ddof=1)

    rows = [
        exactly(476, 49.79, 9.77),
        exactly(484, 56.13, 11.84),
        exactly(120, 49.79, 9.77),
        exactly(120, 56.13, 11.84),
    ]
    group = [*["control"] * 476, *["treatment"] * 484, *[None] * 240]
    return pd.DataFrame({"sales": np.concatenate(rows), "group": group}).sample(frac=1, random_state=seed)


def quiet(*args: Any, **settings: Any) -> ABResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return analyze(*args, **{"seed": 0, **settings})


@pytest.fixture(scope="module")
def result() -> ABResult:
    return quiet(twin(), "sales", "group", rope=7.0)


def test_arms_and_uplift(result: ABResult) -> None:
    arms, lift = result.arms, result.lift
    assert list(arms.index) == ["control", "treatment"] and arms["rows"].tolist() == [476, 484]
    assert result.control == "control" and list(lift.index) == ["treatment"]
    # 240 rows without labels move each mean by a fraction of its standard error, 0.45 and 0.54
    assert arms.loc["control", "mean"] == pytest.approx(49.79, abs=0.25)
    assert arms.loc["treatment", "mean"] == pytest.approx(56.13, abs=0.25)
    assert arms["share"].sum() == pytest.approx(1.0)
    assert arms.loc["treatment", "p_best"] > 0.999 and arms.loc["treatment", "expected_loss"] < 1e-3
    line = lift.loc["treatment"]
    assert line["absolute"] == pytest.approx(arms.loc["treatment", "mean"] - arms.loc["control", "mean"])
    assert line["relative"] == pytest.approx(line["absolute"] / arms.loc["control", "mean"], rel=0.01)
    width = line["absolute_high"] - line["absolute_low"]
    error = math.hypot(9.77 / math.sqrt(476), 11.84 / math.sqrt(484))
    assert 0.85 < width / (2 * 1.6449 * error) < 1.0  # rows without labels narrow it a little
    assert 0.5 < line["p_in_rope"] < 0.95


def test_welch_is_that_of_scipy(result: ABResult) -> None:
    rows = twin().dropna()
    parts = [rows.loc[rows["group"] == name, "sales"] for name in ("treatment", "control")]
    expected = stats.ttest_ind(*parts, equal_var=False)
    assert result.lift.loc["treatment", "t"] == pytest.approx(expected.statistic)
    assert result.lift.loc["treatment", "p"] == pytest.approx(expected.pvalue)
    assert abs(result.lift.loc["treatment", "t"]) == pytest.approx(9.054, abs=0.02)


def test_the_sentence_and_the_page(result: ABResult, tmp_path: Path) -> None:
    assert result.sentence.startswith("treatment is +6.")
    assert "against control (90 % interval +5." in result.sentence
    assert result.sentence.endswith("Choosing treatment is expected to lose next to nothing.")
    assert result.warnings == ()
    page = result.report(tmp_path / "result.html")
    assert (tmp_path / "result.html").read_text(encoding="utf-8") == page
    assert result.sentence in page and "Nothing speaks against this result" in page
    assert set(result.to_inference_data()["posterior"].data_vars) >= {"mean", "sd", "share"}
    figure = result.plot()
    assert [axes.get_xlabel() for axes in figure.axes] == ["mean of sales", "above the control"]


def test_markup_in_labels_is_text() -> None:
    frame = twin().replace({"group": {"treatment": "<b>new</b>"}})
    page = quiet(frame, "sales", "group", method=pyl.EM(num_draws=200)).report()
    assert "<b>new</b>" not in page and "&lt;b&gt;new&lt;/b&gt;" in page


def test_hmc_gives_the_same(result: ABResult) -> None:
    sampled = quiet(twin(), "sales", "group", method=pyl.HMC(num_chains=16, num_warmup=100, num_draws=200))
    difference = (sampled.arms["mean"] / result.arms["mean"] - 1).abs()
    assert (difference < 0.01).all()
    assert sampled.lift.loc["treatment", "absolute"] == pytest.approx(
        result.lift.loc["treatment", "absolute"], abs=0.15
    )


def test_a_covariate_from_before_narrows_the_interval() -> None:
    random = np.random.default_rng(1)
    before = random.normal(size=1_000)
    group = np.array(["a", "b"])[random.integers(2, size=1_000)]
    frame = pd.DataFrame(
        {"y": 3 * before + (group == "b") + random.normal(size=1_000), "g": group, "before": before}
    )
    plain = quiet(frame, "y", "g").lift.loc["b"]
    adjusted = quiet(
        frame, "y", "g", covariates=["before"], method=pyl.EM(num_starts=1, num_draws=4_000)
    ).lift.loc["b"]
    widths = [line["absolute_high"] - line["absolute_low"] for line in (plain, adjusted)]
    # the outcome has variance 10 of which the covariate takes 9
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(0.1), rel=0.1)
    assert adjusted["absolute"] == pytest.approx(1.0, abs=4 * 2 / math.sqrt(1_000))


def test_no_label_at_all_is_told() -> None:
    frame = twin().assign(group=np.nan)
    for found in (quiet(frame, "sales", "group"), quiet(frame, "sales")):
        told = " ".join(found.warnings)
        assert "No label is known" in told and "nats more likely than a single component" in told
        assert list(found.arms.index) == ["arm 1", "arm 2"]
        assert found.arms["mean"].is_monotonic_increasing
        assert "t" not in found.lift.columns


def test_labels_in_the_wrong_shares_are_told() -> None:
    frame = twin()
    fewer = frame.drop(index=frame.index[frame["group"] == "control"][:200])
    assert "sample ratio mismatch" in " ".join(quiet(fewer, "sales", "group").warnings)
    planned = {"control": 276 / 760, "treatment": 484 / 760}
    assert quiet(fewer, "sales", "group", shares=planned).warnings == ()


def test_few_outcomes_are_told_of_em_alone() -> None:
    frame = twin().dropna().groupby("group").head(12)
    assert "Arms ['control', 'treatment'] have fewer than 30 outcomes" in " ".join(
        quiet(frame, "sales", "group").warnings
    ) or ("fewer than 30 outcomes" in " ".join(quiet(frame, "sales", "group").warnings))
    sampled = quiet(frame, "sales", "group", method=pyl.HMC(num_chains=16, num_warmup=100, num_draws=100))
    assert not any("fewer than 30" in message for message in sampled.warnings)


def test_labels_that_look_alike_are_told() -> None:
    frame = twin()
    frame.iloc[::9, 1] = frame.iloc[::9, 1].map({"control": "Control ", "treatment": "treatment"})
    found = quiet(frame, "sales", "group")
    assert "['Control ', 'control'] differ by spaces or capitals alone" in " ".join(found.warnings)


def test_rows_that_say_nothing_are_counted() -> None:
    frame = pd.concat([twin(), pd.DataFrame({"sales": [np.nan] * 3, "group": [None] * 3})])
    found = quiet(frame, "sales", "group")
    assert "3 rows have neither outcome nor label" in " ".join(found.warnings)
    assert found.arms.loc["control", "mean"] == pytest.approx(
        quiet(twin(), "sales", "group").arms.loc["control", "mean"], abs=0.05
    )


def refused(frame: pd.DataFrame, **settings: Any) -> str:
    with pytest.raises((ArgumentError, DataError)) as error:
        quiet(frame, **{"outcome": "sales", "group": "group", **settings})
    return str(error.value)


def test_ugly_tables_are_refused_with_what_to_do() -> None:
    frame = twin()
    assert "['grop']: the table lacks columns of the test" in refused(frame, group="grop")
    assert "column 'sales': a column has two parts in the test" in refused(frame, group="sales")
    one = frame.assign(group="control")
    assert "all labels are the same" in refused(one)
    typo = frame.copy()
    typo.iloc[0, 1] = "tretment"
    assert "an arm has fewer than two outcomes: 'tretment': 1" in refused(typo)
    empty = frame.assign(group=frame["group"].astype(pd.CategoricalDtype(["control", "treatment", "third"])))
    assert "an arm has no rows: ['third'] of its categories" in refused(empty)
    assert "frame['group'].cat.remove_unused_categories()" in refused(empty)
    assert "1200 different labels are no arms" in refused(frame.assign(group=np.arange(1200)))
    assert "constant" in refused(frame.assign(sales=5.0))
    assert "column 'sales', row" in refused(frame.assign(sales=frame["sales"] - 60), family="lognormal")
    assert "there is no arm 'placebo': the arms are ['control', 'treatment']" in refused(
        frame, control="placebo"
    )
    assert "rope is no range: got -1" in refused(frame, rope=-1)
    assert "column 'sales'" in refused(frame, family="bernoulli")
    assert "column 'sales'" in refused(frame.assign(sales=frame["sales"].astype(str) + " EUR"))
    mixed = frame["group"].map({"control": 1, "treatment": "b"}).astype(object)
    assert "column 'group': labels of several types: int, str" in refused(frame.assign(group=mixed))
    assert "infinite" in refused(frame.assign(sales=frame["sales"].where(frame["sales"] < 80, np.inf)))


def test_answers_in_words_and_an_arm_without_any_yes() -> None:
    random = np.random.default_rng(3)
    group = np.array(["a", "b"])[random.integers(2, size=400)]
    yes = random.random(400) < np.where(group == "a", 0.2, 0.4)
    frame = pd.DataFrame({"bought": np.where(yes, "yes", "no"), "group": group})
    numbers = frame.assign(bought=yes.astype(float))
    found, same = (quiet(table, "bought", "group", family="bernoulli") for table in (frame, numbers))
    pd.testing.assert_frame_equal(found.arms, same.arms)
    assert found.lift.loc["b", "t"] == pytest.approx(
        stats.ttest_ind(yes[group == "b"], yes[group == "a"], equal_var=False).statistic
    )
    never = frame.assign(bought=np.where(yes & (group == "b"), "yes", "no"))
    never = never.assign(bought=never["bought"].astype(str))
    weak = quiet(never, "bought", "group", family="bernoulli")
    assert weak.sentence.endswith("Read the warnings first.") and "'probability'" in " ".join(weak.warnings)


# Decisions from draws


def test_decisions_from_draws() -> None:
    means = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 3.0], [2.0, 4.0, 2.0], [4.0, 5.0, 3.0]])
    arms = arm_table(means, ["a", "b", "c"])
    assert arms["p_best"].tolist() == [0.0, 0.75, 0.25]
    assert arms["expected_loss"].tolist() == [1.5, 0.75, 1.5]
    lift = lift_table(means, ["a", "b", "c"], "a", (-1.0, 1.0))
    assert lift["absolute"].tolist() == [0.75, 0.0]
    assert lift["p_better"].tolist() == [0.75, 0.25]
    assert lift["p_in_rope"].tolist() == [0.75, 0.75]
    assert lift.loc["b", "relative"] == pytest.approx(np.mean([1.0, -1.0, 1.0, 0.25]))
    assert lift_table(means - 1.5, ["a", "b", "c"], "a", None)["relative"].isna().all()
    assert as_range(None) is None and as_range(2) == (-2.0, 2.0) and as_range((0.0, 1.0)) == (0.0, 1.0)


# The command line


def test_the_command(tmp_path: Path) -> None:
    twin().to_csv(tmp_path / "sales.csv", index=False)
    options = [
        "--outcome",
        "sales",
        "--group",
        "group",
        "--rope",
        "1",
        "--seed",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(main, ["abtest", str(tmp_path / "sales.csv"), *options])
    assert done.exit_code == 0, done.output
    assert "treatment is +6." in done.output and "report.html in a browser" in done.output
    names = {"arms.csv", "lift.csv", "report.html", "posterior.nc", "fit.json"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
    arms = pd.read_csv(tmp_path / "out" / "arms.csv", index_col="arm")
    assert arms["rows"].tolist() == [476, 484]
    again = CliRunner().invoke(main, ["abtest", str(tmp_path / "sales.csv"), *options])
    assert again.exit_code == 1 and "already exists and is not empty" in again.output


def test_the_command_takes_labels_as_they_are_typed(tmp_path: Path) -> None:
    frame = twin()
    frame["group"] = frame["group"].map({"control": 0.0, "treatment": 1.0})
    frame.to_csv(tmp_path / "sales.csv", index=False)
    base = ["abtest", str(tmp_path / "sales.csv"), "--outcome", "sales", "--group", "group", "--seed", "0"]
    done = CliRunner().invoke(main, [*base, "--control", "1", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "0 is -6." in done.output
    wrong = CliRunner().invoke(main, [*base, "--control", "2", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 1 and wrong.output == "Error: there is no arm '2': the arms are [0.0, 1.0].\n"
    assert not (tmp_path / "other").exists()


def test_the_command_tells_weak_results(tmp_path: Path) -> None:
    twin().assign(group=np.nan).to_csv(tmp_path / "sales.csv", index=False)
    options = ["--outcome", "sales", "--group", "group", "--seed", "0", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["abtest", str(tmp_path / "sales.csv"), *options])
    assert done.exit_code == 0
    assert done.output.count("Warning: No label is known") == 1
    assert done.output.count("nats more likely than a single component") == 1
