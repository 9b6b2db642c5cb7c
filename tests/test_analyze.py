"""The analysis of a test in one call, from Python and from the command line."""

import io
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
from pyrolatent.abtest.words import components_in_words, decimals_of, no_result, sentence_of
from pyrolatent.cli import main
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.models.abtest import Priors
from pyrolatent.plots.arms import arm_plot


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
    assert line["relative"] == pytest.approx(line["absolute"] / arms.loc["control", "mean"])
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
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "mean of sales",
        "above control",
    ]
    assert figure.get_supxlabel() == "90 % intervals; grey: differences as good as none"
    band = figure.axes[1].patches[-1].get_extents().transformed(figure.axes[1].transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-7.0, 7.0))
    for fact in (
        "sales, family &#39;normal&#39;",
        "EM: intervals are normal approximations, 10,000 draws",
        "1,200: 960 with outcome and label, 240 with an outcome alone",
        "from -7 to 7",
        "equal",
    ):
        assert fact in page


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
        assert list(found.arms.columns) == ["rows", "mean", "low", "high", "sd", "share"]
        assert not {"t", "p_better"} & set(found.lift.columns)
        assert "better" not in found.sentence and "Choosing" not in found.sentence
        assert "Against arm 1" in found.report()


def test_components_in_words() -> None:
    draws = {"mean": np.array([[1.0, 5.0], [2.0, 6.0], [30.0, 7.0]]), "share": np.full((3, 2), 0.5)}
    arms = pd.DataFrame({"low": [1.0, 5.0], "high": [3.0, 7.0]}, index=["arm 1", "arm 2"])
    found = components_in_words(draws, arms, {"nats_over_one_component": 12.0})
    assert found.startswith(
        "Outcomes look like a mixture of 2 components with means 2.0 and 6.0 and shares 0.50 and 0.50."
    )
    assert components_in_words(draws, arms, {}) == found
    weak = components_in_words(draws, arms, {"nats_over_one_component": 3.14})
    assert weak.startswith("No result: a mixture of 2 components is 3.1 nats more likely than a single one")


def test_labels_in_the_wrong_shares_are_told() -> None:
    frame = twin()
    fewer = frame.drop(index=frame.index[frame["group"] == "control"][:200])
    assert "sample ratio mismatch" in " ".join(quiet(fewer, "sales", "group").warnings)
    planned = {"control": 276 / 760, "treatment": 484 / 760}
    assert quiet(fewer, "sales", "group", shares=planned).warnings == ()


def test_few_outcomes_are_told_of_em_alone() -> None:
    frame = twin().dropna().groupby("group").head(12)
    told = " ".join(quiet(frame, "sales", "group", method=pyl.EM(num_starts=1)).warnings)
    assert "fewer than 30 outcomes" in told and "Use HMC (method=pyl.HMC(), or --method hmc)" in told
    sampled = quiet(frame, "sales", "group")
    assert isinstance(sampled.fit.method, pyl.HMC)
    assert not any("fewer than 30" in message for message in sampled.warnings)
    # normal outcomes with flat priors: each mean has a t distribution, and that of the difference is about
    # one with Welch's degrees of freedom (Behrens and Fisher)
    parts = [frame.loc[frame["group"] == name, "sales"] for name in ("treatment", "control")]
    welch = stats.ttest_ind(*parts, equal_var=False)
    exact = stats.t.cdf(welch.statistic, welch.df)
    assert sampled.lift.loc["treatment", "p_better"] == pytest.approx(exact, abs=0.02)
    line, bounds = sampled.lift.loc["treatment"], welch.confidence_interval(0.9)
    width = line["absolute_high"] - line["absolute_low"]
    assert width == pytest.approx(bounds.high - bounds.low, rel=0.1)


def yes_or_no(first: tuple[int, int], second: tuple[int, int]) -> pd.DataFrame:
    cells = [np.arange(n) < k for k, n in (first, second)]
    group = np.repeat(["a", "b"], [first[1], second[1]])
    return pd.DataFrame({"y": np.concatenate(cells).astype(float), "g": group})


@pytest.mark.parametrize("counts", [((0, 100), (2, 100)), ((1, 100), (3, 100))])
def test_few_successes_by_default(counts: tuple[tuple[int, int], tuple[int, int]]) -> None:
    found = quiet(yes_or_no(*counts), "y", "g", family="bernoulli")
    random = np.random.default_rng(0)
    base, other = (random.beta(1 + k, 1 + n - k, 400_000) for k, n in counts)
    line, low = found.lift.loc["b"], np.quantile(base, 0.05)
    # 8,000 draws that count for 2,000 at least: standard error 0.0085 of a probability of 0.82
    assert line["p_better"] == pytest.approx((other > base).mean(), abs=0.03)
    assert line["absolute"] == pytest.approx((other - base).mean(), abs=0.0015)
    assert found.arms.loc["a", "expected_loss"] == pytest.approx(
        np.maximum(other - base, 0).mean(), abs=0.0015
    )
    assert found.arms.loc["a", "low"] == pytest.approx(low, abs=0.001)
    assert "Read the warnings first" not in found.sentence and "No warnings." in found.report()
    assert np.isnan(line["relative"]) == (counts[0][0] == 0)
    if counts[0][0]:  # the ratio of the means, E[b] / E[a] - 1 = (4 / 102) / (2 / 102) - 1
        assert line["relative"] == pytest.approx(1.0, abs=0.15)


def test_priors_count_by_default() -> None:
    frame, priors = yes_or_no((60, 400), (90, 400)), Priors(share=5000.0)
    found = quiet(frame, "y", "g", family="bernoulli", priors=priors)
    assert found.fit.method == pyl.EM(num_starts=1, penalised=True, num_draws=10_000)
    assert found.arms["mean"].tolist() == pytest.approx([5059 / 10_398, 5089 / 10_398], abs=2e-4)
    assert "priors, or the family 'bernoulli', do not fit" in " ".join(found.warnings)
    few = quiet(yes_or_no((20, 200), (30, 200)), "y", "g", family="bernoulli", priors=priors)
    assert isinstance(few.fit.method, pyl.HMC)
    assert few.arms["mean"].tolist() == pytest.approx([5020 / 10_200, 5030 / 10_200], abs=6e-4)


def test_labels_that_look_alike_are_told() -> None:
    frame = twin()
    frame.iloc[::9, 1] = frame.iloc[::9, 1].map({"control": "Control ", "treatment": "treatment"})
    found = quiet(frame, "sales", "group")
    assert "['Control ', 'control'] differ by spaces or capitals alone" in " ".join(found.warnings)


def test_rows_that_say_nothing_are_counted() -> None:
    frame = pd.concat([twin(), pd.DataFrame({"sales": [np.nan] * 3, "group": [None] * 3})])
    found = quiet(frame, "sales", "group")
    assert (
        found.warnings == ()
        and "960 with outcome and label" in found.report()
        and "3 with neither" in found.report()
    )
    more = pd.concat([frame, pd.DataFrame({"sales": [np.nan] * 30, "group": [None] * 30})])
    assert "33 rows have neither outcome nor label" in " ".join(quiet(more, "sales", "group").warnings)
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
    for rope in (-1, 0, (1,), (2, 1), (1, "x"), "x", "ab", True, math.inf, math.nan, (0, math.inf)):
        assert f"rope is no range: got {rope!r}. pass its half width" in refused(frame, rope=rope)
    for method in ("em", pyl.EM):
        assert "pass pyrolatent.HMC() or pyrolatent.EM()" in refused(frame, method=method)
    assert "priors are no priors of a test: got 3" in refused(frame, priors=3)
    unused = refused(frame, priors=Priors(), method=pyl.EM())
    assert "priors do not count by this method" in unused and "pass EM(penalised=True) or HMC()" in unused
    assert "a seed is a whole number from 0: got 'x'" in refused(frame, seed="x")
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
    assert weak.arms.loc["a", "mean"] == pytest.approx(1 / (2 + (group == "a").sum()), rel=0.1)
    assert weak.lift.loc["b", "p_better"] > 0.999 and np.isnan(weak.lift.loc["b", "relative"])


# Decisions from draws


def test_decisions_from_draws() -> None:
    means = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 3.0], [2.0, 4.0, 2.0], [4.0, 5.0, 3.0]])
    arms = arm_table(means, ["a", "b", "c"])
    assert arms["p_best"].tolist() == [0.0, 0.75, 0.25]
    assert arms["expected_loss"].tolist() == [1.5, 0.75, 1.5]
    lift = lift_table(means, ["a", "b", "c"], "a", (-1.0, 1.0))
    assert lift["absolute"].tolist() == [0.75, 0.0]
    assert lift["p_better"].tolist() == [0.75, 0.375]  # equal means count half
    assert lift["p_in_rope"].tolist() == [0.75, 0.75]
    assert lift["relative"].tolist() == pytest.approx([0.75 / 2.0, 0.0])
    assert lift.loc["b", "relative_high"] == pytest.approx(1.0)  # of 1, -1, 1 and 0.25
    assert lift_table(means - 1.5, ["a", "b", "c"], "a", None)["relative"].isna().all()
    assert as_range(None) is None and as_range(2) == (-2.0, 2.0) and as_range((0.0, 1.0)) == (0.0, 1.0)
    assert as_range(np.float32(2)) == (-2.0, 2.0) == as_range(np.array([-2, 2]))


def test_equal_means_share_a_draw() -> None:
    arms = arm_table(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]), ["a", "b"])
    assert arms["p_best"].tolist() == [0.375, 0.625]


def test_relative_needs_a_control_away_from_zero() -> None:
    positive = np.linspace(0.0, 1.0, 10_001)[:, None] + np.array([[1e-9, 0.5]])
    # its 90 % interval is 0.05 to 0.95: at 0.0556 of its width from 0; less 0.01 it is at 0.0444
    assert lift_table(positive, ["a", "b"], "a", None).loc["b", "relative"] == pytest.approx(1.0)
    closer = positive**1.05
    assert lift_table(closer, ["a", "b"], "a", None)["relative"].isna().all()
    assert lift_table(-positive, ["a", "b"], "a", None).loc["b", "relative"] == pytest.approx(-1.0)


def test_draws_that_are_not_finite_make_no_result() -> None:
    means = np.array([[1.0, 2.0], [1.0, np.inf], [1.0, 3.0]])
    with np.errstate(invalid="ignore"):
        arms, lift = arm_table(means, ["a", "b"]), lift_table(means, ["a", "b"], "a", None)
    assert no_result(arms, lift) == "No result: draws of the mean of ['b'] are not finite."
    assert no_result(arm_table(means[::2], ["a", "b"]), lift_table(means[::2], ["a", "b"], "a", None)) == ""
    arm_plot(arms, lift, "y", "a", None).savefig(io.BytesIO())


def test_the_best_of_three_is_named_with_its_probability() -> None:
    means = np.array(
        [[54_311.0, 54_000.0, 55_111.0], [54_311.0, 55_000.0, 54_811.0], [54_311.0, 54_000.0, 54_711.0]]
    )
    arms, lift = (
        table(means, list("abc"), *more) for table, more in ((arm_table, ()), (lift_table, ("a", None)))
    )
    assert sentence_of(arms, lift, "a").endswith(
        "and better with probability above 0.999. c is the best of 3 arms with probability 0.667. "
        "Choosing c is expected to lose 63."
    )
    assert sentence_of(arms, lift, "a").startswith("c is +567 against a (90 % interval +410 to +770")


@pytest.mark.parametrize(
    ("width", "decimals"), [(1600.0, 0), (12.0, 1), (1.8, 2), (0.05, 3), (0.0, 2), (np.inf, 2)]
)
def test_decimals_bear_two_digits_of_half_the_interval(width: float, decimals: int) -> None:
    assert decimals_of(0.0, width) == decimals


def test_the_sd_of_counts_that_are_nearly_poisson_is_a_number() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"y": random.poisson(3.0, 600).astype(float), "g": np.repeat(["a", "b"], 300)})
    found = quiet(frame, "y", "g", family="negative_binomial")
    line = found.lift.loc["b"]  # of the difference, the sd is sqrt(2 * 3 / 300)
    width = float(line["absolute_high"] - line["absolute_low"])
    assert width == pytest.approx(2 * 1.645 * math.sqrt(0.02), rel=0.1)
    # Poisson counts have sd sqrt(3) = 1.73, with standard error 0.07 of 300 rows
    assert found.arms["sd"].tolist() == pytest.approx([math.sqrt(3.0)] * 2, abs=0.3)


def test_the_page_has_digits_and_judges_what_is_decided() -> None:
    frame = twin().assign(sales=lambda rows: 1_000 * rows["sales"])
    page = quiet(frame, "sales", "group").report()
    assert "e+0" not in page and (">49,8" in page or ">49,7" in page)
    random = np.random.default_rng(0)
    even = pd.DataFrame({"y": random.normal(size=400), "g": np.repeat(["a", "b"], 200)})
    assert "No warnings." in quiet(even, "y", "g").report()


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
    assert "By EM: intervals are normal approximations, 10,000 draws." in done.output
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


def test_the_command_takes_shares_and_a_range(tmp_path: Path) -> None:
    frame = twin()
    frame = frame.drop(index=frame.index[frame["group"] == "control"][:200])
    frame["group"] = frame["group"].map({"control": 0.0, "treatment": 1.0})
    frame.to_csv(tmp_path / "sales.csv", index=False)
    base = ["abtest", str(tmp_path / "sales.csv"), "--outcome", "sales", "--group", "group", "--seed", "0"]
    uneven = CliRunner().invoke(main, [*base, "--rope", "-1,7", "--out", str(tmp_path / "first")])
    assert uneven.exit_code == 0 and "(shares=, or --shares)" in uneven.output
    assert "p_in_rope" in (tmp_path / "first" / "lift.csv").read_text()
    assert "from -1 to 7" in (tmp_path / "first" / "report.html").read_text()
    planned = ["--shares", "0=0.36,1=0.64", "--out", str(tmp_path / "second")]
    even = CliRunner().invoke(main, [*base, *planned])
    assert even.exit_code == 0 and "Warning" not in even.output
    for option, value, message in (
        ("--shares", "0.9", "--shares are no shares: got '0.9'. pass --shares control=0.9,treatment=0.1."),
        ("--rope", "x", "--rope is no range: got 'x'. pass --rope 1 for -1 to 1, or --rope -1,2."),
        ("--rope", "1,2,3", "--rope is no range: got '1,2,3'. pass --rope 1"),
    ):
        wrong = CliRunner().invoke(main, [*base, option, value, "--out", str(tmp_path / "third")])
        assert wrong.exit_code == 1 and f"Error: {message}" in wrong.output


def test_the_command_tells_weak_results(tmp_path: Path) -> None:
    twin().assign(group=np.nan).to_csv(tmp_path / "sales.csv", index=False)
    options = ["--outcome", "sales", "--group", "group", "--seed", "0", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, ["abtest", str(tmp_path / "sales.csv"), "--num-arms", "3", *options])
    assert done.exit_code == 0 and len(pd.read_csv(tmp_path / "out" / "arms.csv")) == 3
    assert done.output.count("Warning: No label is known") == 1
    assert done.output.count("nats more likely than a single component") == 1


@pytest.mark.parametrize("seed", [2, 3])
def test_tails_at_their_edge_take_nothing_from_the_interval_of_the_means(seed: int) -> None:
    random = np.random.default_rng(seed)
    group = np.array(["a", "b"] * 500)
    frame = pd.DataFrame({"y": random.normal(5, 2, 1_000) + 0.3 * (group == "b"), "g": group})
    line = quiet(frame, "y", "g", family="student").lift.loc["b"]
    width = float(line["absolute_high"] - line["absolute_low"])
    spread = frame.groupby("g")["y"].var().sum() / 500
    assert width == pytest.approx(2 * 1.645 * math.sqrt(spread), rel=0.05)
