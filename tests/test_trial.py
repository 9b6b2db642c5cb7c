"""What analyze makes of the columns of a test, and what it refuses before any model is fitted."""

import math
import warnings
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pyrolatent as pyl
from pyrolatent.abtest.analysis import ABResult, analyze
from pyrolatent.abtest.balance import balance
from pyrolatent.abtest.trial import Trial, as_trial, likely_control
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.models.abtest import Family, Priors

ROWS = 2_000


def table(rows: int = ROWS, **columns: Any) -> pd.DataFrame:
    """Two arms of equal size; outcomes of both are N(10, 1)."""
    random = np.random.default_rng(0)
    group = np.array(["control", "treatment"])[np.arange(rows) % 2]
    return pd.DataFrame({"y": 10 + random.normal(size=rows), "g": group}).assign(**columns)


def quiet(frame: pd.DataFrame, **settings: Any) -> ABResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return analyze(frame, **{"outcome": "y", "group": "g", "seed": 0, **settings})


def trial_of(frame: pd.DataFrame, family: Family = "normal", covariates: Any = ()) -> Trial:
    return as_trial(frame, "y", "g", covariates, family, 2, Priors())


def refused(frame: Any, **settings: Any) -> str:
    with pytest.raises((ArgumentError, DataError)) as error:
        analyze(frame, **{"outcome": "y", "group": "g", **settings})
    return str(error.value)


# Covariates


def with_premium(rows: int, form: str) -> pd.DataFrame:
    """y = 10 + 5 b + 0.5 treated + N(0, 1) with P(b = 1) = 0.8; `form` says how b is written."""
    random, frame = np.random.default_rng(1), table(rows)
    b = random.random(rows) < 0.8
    frame["y"] += 5 * b + 0.5 * (frame["g"] == "treatment")
    holes = random.random(rows) < 0.2
    written = {
        "numbers": b.astype(float),
        "truth": b,
        "truth with holes": pd.Series(b, dtype=object).mask(holes),
        "nullable": pd.Series(b, dtype="boolean").mask(holes),
        "whole": 2 * b.astype(int) + 1,
    }
    return frame.assign(b=written[form])


@pytest.mark.parametrize("form", ["numbers", "truth", "truth with holes", "nullable", "whole"])
def test_means_are_those_of_an_average_row(form: str) -> None:
    frame = with_premium(4_000, form)
    found = quiet(frame, covariates=["b"])
    variance = 1 if "holes" not in form and form != "nullable" else 1 + 0.2 * 25 * 0.16
    error = math.sqrt(25 * 0.16 / 4_000 + variance / 2_000)
    assert found.arms.loc["control", "mean"] == pytest.approx(14.0, abs=4 * error)
    assert found.arms.loc["treatment", "mean"] == pytest.approx(14.5, abs=4 * error)
    assert found.lift.loc["treatment", "relative"] == pytest.approx(0.5 / 14, abs=4 * 2 * error / 14)


def test_a_skewed_covariate_takes_all_that_it_explains() -> None:
    random = np.random.default_rng(2)
    before = random.lognormal(size=ROWS)
    frame = table(before=before)
    frame["y"] += 2 * before
    width = {}
    for covariates in ((), ("before",)):
        line = quiet(frame, covariates=covariates).lift.loc["treatment"]
        width[covariates] = line["absolute_high"] - line["absolute_low"]
    within = frame[["y", "before"]] - frame.groupby("g")[["y", "before"]].transform("mean")
    rest = 1 - np.corrcoef(within.to_numpy().T)[0, 1] ** 2
    # each width is that of two quantiles of 10,000 draws, whose relative error is 1.3 %; squared, twice
    assert (width["before",] / width[()]) ** 2 == pytest.approx(rest, rel=4 * 0.013 * 2 * math.sqrt(2))
    assert rest < 0.1


@pytest.mark.parametrize("column", [np.arange(ROWS), np.arange(ROWS)[::-1], np.arange(ROWS) % 3])
def test_whole_numbers_are_covariates_in_any_order(column: Any) -> None:
    found = trial_of(table(x=column), covariates=["x"])
    learnt = next(c for c in found.pair.columns.columns if c.name == "x")
    assert learnt.kind == "real" and learnt.location == pytest.approx(column.mean())
    assert learnt.scale == pytest.approx(column.std())


def test_one_covariate_may_be_named_alone() -> None:
    assert trial_of(table(age=np.arange(ROWS)), covariates="age").pair.covariates == ("age",)


def test_covariates_that_are_no_numbers_are_refused_with_what_to_do() -> None:
    for labels in (["x", "y"], ["x", "y", "z"]):
        city = np.resize(labels, ROWS)
        dummies = "pandas.get_dummies(frame['city'], drop_first=True, dtype=float)"
        assert dummies in refused(table(city=city), covariates=["city"])
        told = refused(table(city=pd.Categorical(city)), covariates=["city"])
        assert told.startswith("column 'city': categories where a covariate is a number") and dummies in told
    days = pd.date_range("2024-01-01", periods=ROWS)
    for times in (days, days.strftime("%Y-%m-%d"), days - days[0], days.to_period("D")):
        frame = table(since=times)
        told = refused(frame, covariates=["since"])
        assert told.startswith("column 'since': times where a covariate is a number. pass a number of days")
        t = eval(told.split("t = ")[1].split(":")[0], {"frame": frame})
        assert ((t - t.min()) / pd.Timedelta(days=1)).tolist() == list(range(ROWS))
    assert "'x': constant column: its only value is 3.0. leave it out of covariates=" in refused(
        table(x=3.0), covariates=["x"]
    )
    assert "'x': every cell is missing. leave it out of covariates=" in refused(
        table(x=np.nan), covariates=["x"]
    )
    assert "infinite value" in refused(table(x=[math.inf, *range(ROWS - 1)]), covariates=["x"])


def test_labels_as_the_refusal_makes_numbers_of_them_are_covariates() -> None:
    frame = table(city=np.resize(["Bergen", "Bergen", "Oslo", "Oslo", "Rome", "Rome"], 1_998), rows=1_998)
    dummies = pd.get_dummies(frame["city"], drop_first=True, dtype=float)
    frame["y"] += 4 * dummies["Oslo"] - 3 * dummies["Rome"]
    found = quiet(frame.join(dummies), covariates=["Oslo", "Rome"])
    assert found.arms["mean"].to_numpy() == pytest.approx(10 + 1 / 3, abs=4 / math.sqrt(999))
    assert found.arms["sd"].to_numpy() == pytest.approx(1.0, abs=4 / math.sqrt(2 * 999))  # given the city


# Covariates and arms


def test_balance_is_the_analysis_of_variance_of_scipy() -> None:
    random = np.random.default_rng(3)
    frame = table(x=random.normal(size=ROWS))
    frame.loc[::5, "x"] = np.nan
    frame.loc[1::7, "g"] = None
    rows = frame.dropna()
    parts = [rows.loc[rows["g"] == name, "x"] for name in ("control", "treatment")]
    assert balance(frame, "x", "g") == pytest.approx(stats.ttest_ind(*parts).pvalue)
    assert math.isnan(balance(frame.assign(x=1.0), "x", "g"))
    assert math.isnan(balance(frame.assign(x=frame["x"].where(frame["g"] == "control")), "x", "g"))


def test_a_covariate_that_the_test_moves_is_told() -> None:
    random = np.random.default_rng(4)
    frame = table(before=random.normal(size=ROWS), during=random.normal(size=ROWS))
    frame["during"] += 0.3 * (frame["g"] == "treatment")
    p = balance(frame, "during", "g")
    found = quiet(frame, covariates=["before", "during"])
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith(f"Covariate 'during' differs between arms (p = {p:.1e})")
    assert "an effect that goes through it is taken away" in found.warnings[0]
    assert trial_of(frame, covariates=["before"]).imbalances == {}


def test_the_limit_is_shared_by_all_covariates() -> None:
    """A covariate with p just below 1e-3 is told alone, and not among others."""
    random = np.random.default_rng(5)
    x, treated = random.normal(size=ROWS), np.arange(ROWS) % 2
    x -= np.where(treated == 1, x[treated == 1].mean(), x[treated == 0].mean())
    frame = table(z=random.normal(size=ROWS))
    for p, alone in ((0.9e-3, True), (1.1e-3, False)):
        t = stats.t.isf(p / 2, ROWS - 2)
        frame["x"] = x + treated * t * math.sqrt((x @ x) / (ROWS - 2) * (2 / (ROWS / 2)))
        assert balance(frame, "x", "g") == pytest.approx(p)
        assert ("x" in trial_of(frame, covariates=["x"]).imbalances) is alone
        assert trial_of(frame, covariates=["x", "z"]).imbalances == {}


def test_a_covariate_that_is_the_arm_or_the_outcome_is_refused() -> None:
    frame = table()
    told = refused(frame.assign(x=(frame["g"] == "treatment") * 1.0), covariates=["x"])
    assert told.startswith("column 'x': the covariate tells the arm exactly: it does not vary within arms")
    for same in (frame["y"], 3 - 2 * frame["y"], frame["y"] + 7 * (frame["g"] == "treatment")):
        told = refused(frame.assign(x=same), covariates=["x"])
        assert told.startswith("column 'x': the covariate is the outcome in other words: its correlation")
    told = refused(frame.assign(x=frame["y"]), group=None, covariates=["x"])
    assert told.startswith("column 'x': the covariate is the outcome in other words")
    noise = np.random.default_rng(6).normal(size=ROWS)
    assert trial_of(frame.assign(x=frame["y"] + 0.1 * noise), covariates=["x"]).imbalances == {}


def test_a_covariate_known_without_labels_alone_is_no_doubt() -> None:
    frame = table(x=np.random.default_rng(7).normal(size=ROWS))
    frame.loc[::3, "g"] = None
    frame["x"] = frame["x"].where(frame["g"].isna())
    assert trial_of(frame, covariates=["x"]).imbalances == {}


# Names and settings


def test_columns_are_named_by_text() -> None:
    frame = table().set_axis([0, 1], axis=1)
    told = refused(frame, outcome=0, group=1)
    assert "columns of a test are named by text: got [0, 1]" in told and "frame.rename(columns=str)" in told
    again = quiet(frame.rename(columns=str), outcome="0", group="1")
    pd.testing.assert_frame_equal(again.arms, quiet(table()).arms)
    assert "named by text: got [2]" in refused(table(**{"x": 1.0}), covariates=[2])


def test_tables_and_numbers_of_arms_are_checked() -> None:
    assert "the table of a test is a pandas.DataFrame: got dict" in refused({"y": [1.0], "g": ["a"]})
    for group in ("g", None):
        assert "num_arms is no whole number: got 2.5" in refused(table(), group=group, num_arms=2.5)
        assert "num_arms is too small: got 1" in refused(table(), group=group, num_arms=1)
    assert "the family is unknown: got 'gamma'" in refused(table(), family="gamma")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["B", "control "], 1),
        (["B", "Control group"], 1),
        (["a", "control"], 1),
        (["b", " A"], 1),
        (["x", "y"], 0),
        ([1.0, 0.0], 1),
        ([True, False], 1),
    ],
)
def test_the_control_is_found_by_its_name(names: list[Any], expected: int) -> None:
    assert likely_control(names) == expected


def test_shares_are_those_of_the_arms() -> None:
    told = refused(table(), shares={"contrl": 0.5, "treatment": 0.5})
    assert told.startswith("shares are not those of the arms") and "['control', 'treatment']" in told
    assert "not those of the arms" in refused(table(), shares={"control": 1.0})
    assert "not those of the arms" in refused(table(), shares=[0.5, 0.5])
    for wrong in ((0.5, -0.5), (50, 50), (0.5, math.nan), (1.0, 0.0), (0.5, "0.5"), (0.6, 0.5), (True, 0.5)):
        told = refused(table(), shares=dict(zip(("control", "treatment"), wrong, strict=True)))
        assert told.startswith("shares are no shares: got") and "positive numbers that sum to 1" in told
    assert "no label is known" in refused(table(), group=None, shares={"arm 1": 0.5, "arm 2": 0.5})
    assert quiet(table(), shares={"treatment": 0.5, "control": 0.5}).warnings == ()
    assert "sample ratio mismatch" in " ".join(
        quiet(table(), shares={"treatment": 0.1, "control": 0.9}).warnings
    )


def test_shares_of_two_digits_need_not_sum_to_one() -> None:
    frame = table(1_500, g=np.resize(["a", "b", "c"], 1_500))
    assert quiet(frame, shares=dict.fromkeys("abc", 0.33)).warnings == ()


# Outcomes


@pytest.mark.parametrize(
    "pair", [("no", "yes"), ("No ", "YES"), ("false", "True"), ("n", "Y"), ("F", "t"), (0, 1), (False, True)]
)
def test_successes_are_found_by_their_names(pair: tuple[Any, Any]) -> None:
    yes = pd.Series(np.arange(ROWS) % 8 == 1)
    written = yes.map({False: pair[0], True: pair[1]}).mask(np.arange(ROWS) % 5 == 0)
    for column in (written, written.astype("category") if isinstance(pair[0], str) else written):
        found = trial_of(table(y=column), "bernoulli").table["y"]
        expected = yes.astype(float).mask(written.isna()).rename("y")
        pd.testing.assert_series_equal(found, expected)


def test_other_pairs_are_refused_with_the_line_that_says_which_is_the_success() -> None:
    bought = np.resize(["not bought", "bought", "not bought"], ROWS)
    frame = table(y=bought)
    told = refused(frame, family="bernoulli")
    line = "frame['y'] = frame['y'] == 'bought'"
    assert told.startswith("column 'y': bernoulli outcomes are yes or no") and told.endswith(f"{line}.")
    exec(line)
    assert quiet(frame, family="bernoulli").arms["mean"].tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.05)
    assert "frame['y'] == 2" in refused(table(y=np.resize([2, 1], ROWS)), family="bernoulli")
    assert "frame['y'] = (frame['y'] == 'bought').where(frame['y'].notna())" in refused(
        table(y=pd.Series(bought).mask(np.arange(ROWS) % 5 == 0)), family="bernoulli"
    )
    told = refused(table(), family="bernoulli")
    assert 'and 1995 more. numbers have another family, such as "normal"' in told
    assert "['low', 'mid', 'top']" in refused(
        table(y=np.resize(["low", "mid", "top"], ROWS)), family="bernoulli"
    )


def test_monitor_takes_the_same_outcomes_as_analyze() -> None:
    yes = np.random.default_rng(8).random(400) < 0.4
    settings: dict[str, Any] = {"family": "bernoulli", "looks": 2, "seed": 0, "num_simulations": 500}
    words, numbers = (
        pyl.abtest.monitor(table(400, y=column), "y", "g", **settings)
        for column in (np.where(yes, "yes", "no"), yes.astype(float))
    )
    pd.testing.assert_frame_equal(words.looks, numbers.looks)
    assert words.false_positive_rate == numbers.false_positive_rate


def test_monitor_leaves_out_looks_that_do_not_tell_a_spread() -> None:
    random = np.random.default_rng(9)
    amounts = np.where(random.random(200) < 0.5, random.lognormal(size=200), 0.0)
    amounts[:40] = 0.0
    amounts[[0, 1, 2]] = [1.0, 2.0, 3.0]  # by 40 rows one amount of treatment, two of control
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        found = pyl.abtest.monitor(
            table(200, y=amounts), "y", "g", family="revenue", looks=[40, 200], seed=0, num_simulations=50
        )
    assert found.looks.index.tolist() == [200]
    assert found.warnings[0].startswith("Looks at [40] rows are left out")


@pytest.mark.parametrize("family", ["normal", "student", "lognormal", "revenue"])
def test_an_arm_of_equal_outcomes_is_refused(family: Family) -> None:
    frame = table()
    frame.loc[frame["g"] == "treatment", "y"] = 0.1 + 0.2
    frame.loc[1, "y"] = 0.3  # equal up to rounding
    told = refused(frame, family=family)
    assert "outcomes of an arm are equal, so their spread cannot be told" in told
    assert "the 1000 of 'treatment' are 0.3" in told
    assert "constant column: its only value is 5.0" in refused(frame.assign(y=5.0), family=family)
    frame.loc[1, "y"] = 0.31
    assert trial_of(frame, family).counts == [1_000, 1_000]


def test_amounts_have_a_spread_of_their_own() -> None:
    frame = table()
    frame.loc[frame["g"] == "treatment", "y"] = 0.0
    frame.loc[1, "y"] = 3.0
    told = refused(frame, family="revenue")
    assert "an arm has fewer than two positive outcomes: 'treatment': 1" in told
    assert "family \"bernoulli\", with frame['y'] = frame['y'] > 0" in told
    frame.loc[3, "y"] = 3.0
    assert "all positive outcomes of an arm are equal" in refused(frame, family="revenue")
    frame.loc[3, "y"] = 4.0
    assert trial_of(frame, "revenue").counts == [1_000, 1_000]


def test_a_category_without_rows_is_refused_with_what_to_do() -> None:
    frame = table(g=pd.Categorical(np.resize(["a", "b", "c"], ROWS)))
    part = frame[frame["g"] != "c"].copy()
    told = refused(part)
    assert "column 'g': an arm has no rows: ['c'] of its categories ['a', 'b', 'c']" in told
    assert "frame['g'] = frame['g'].cat.remove_unused_categories()" in told
    part["g"] = part["g"].cat.remove_unused_categories()
    assert trial_of(part).names == ["a", "b"]


def test_outcomes_that_are_no_numbers_are_refused_with_what_to_do() -> None:
    y = table()["y"].round(1)
    told = refused(table(y=y - y.min()), family="lognormal")
    assert "value that is not positive: 0.0" in told and 'amounts that may be 0 have family "revenue"' in told
    assert "have family" in refused(table(), family="poisson")
    for yes in (y > 10, np.where(y > 10, "yes", "no")):
        told = refused(table(y=yes))
        assert told == (
            "column 'y': normal outcomes are numbers, and these are yes or no. pass family=\"bernoulli\"."
        )
    text = y.astype(str)
    assert 'pandas.read_csv(..., decimal=",")' in refused(table(y=text.str.replace(".", ",")))
    euro = table(y="€" + text)
    told = refused(euro)
    assert "text where an outcome is a number: '€" in told
    assert "frame['y'] = pandas.to_numeric(frame['y'].str.strip('€$ '))" in told
    assert "make frame['y'] = pandas.to_numeric(frame['y'])" in refused(table(y=text))
    assert "row 3: text where an outcome is a number: 'none'." in refused(
        table(y=text.where(y.index != 3, "none"))
    )
    days = refused(table(y=pd.date_range("2024-01-01", periods=ROWS)))
    assert days.startswith("column 'y': times where an outcome is a number")
    decimals = refused(table(y=[Decimal(value) for value in text]))
    assert decimals.startswith("column 'y': decimal cells where an outcome is a number")
    assert "make frame['y'] = frame['y'].astype(float)" in decimals
    for told in (days, decimals):
        assert "text" not in told
    for message in (days, decimals, refused(euro), refused(table(), family="bernoulli")):
        assert "declare" not in message and "infer_schema" not in message
