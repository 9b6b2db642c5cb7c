"""Rubin's rules: published worked examples, closed cases, and what cannot be pooled."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student

from pyrolatent import ArgumentError, FitWarning, infer_schema
from pyrolatent.imputations import Imputations
from pyrolatent.pooling import pool

VALUES = np.array([[1.0, -20.0], [1.5, -22.0], [0.9, -27.0], [1.4, -21.0]])
VARIANCES = np.array([[0.2, 9.0], [0.3, 11.0], [0.25, 8.0], [0.2, 10.0]])
SCALES = ["estimate", "std_error", "lower", "upper"]
SQUARES = ["within", "between", "total"]
RATIOS = ["df", "statistic", "p_value", "riv", "lambda", "fmi"]

# Published examples


def test_the_example_of_pool_scalar_in_the_mice_manual() -> None:
    """lm(bmi ~ age) on 25 rows of nhanes, two tables (mice 3.19, help page of pool.scalar)."""
    pooled = pool([-1.5457, -1.428], [0.9723**2, 1.041**2], df_complete=25 - 2)
    printed = {
        "estimate": -1.48685,
        "within": 1.014524,
        "between": 0.006926645,
        "total": 1.024914,
        "df": 20.97025,
        "riv": 0.01024122,
        "fmi": 0.09272831,
    }
    for name, value in printed.items():
        assert pooled[name].item() == pytest.approx(value, rel=5e-7), name


# lm(chl ~ age + bmi + hyp) on nhanes2, two tables, df_complete 20 (mice 3.19, help page of pool.table).
# Of a term: estimate, std.error, statistic, df, p.value, conf.low, conf.high, riv, lambda, fmi, ubar, b, t
# as pooled; then the estimates and standard errors of both tables, which are printed to three digits.
CHOLESTEROL = """
(Intercept) 2.979488 55.739299 0.05345398 18.09145 0.957956041 -114.082019 120.04099 0.008166507
    0.008100355 0.1021574 3081.702712 16.77783124 3106.869459 0.0831 58.1 5.88 52.8
age40-59 52.005346 19.704085 2.63931807 16.49810 0.017526719 10.336814 93.67388 0.055814663
    0.052864073 0.1500157 367.726421 13.68301760 388.250947 49.4 19.8 54.6 18.6
age60-99 70.077449 25.817663 2.71432191 7.29272 0.028863238 9.521628 130.63327 0.338109344
    0.252676917 0.3978908 498.129498 112.28149168 666.551735 62.6 22.7 77.6 21.9
bmi 6.006762 1.982587 3.02975940 18.08472 0.007175381 1.842899 10.17062 0.008456294
    0.008385384 0.1024454 3.897692 0.02197335 3.930652 5.90 2.07 6.11 1.87
hypyes -4.347543 20.462257 -0.21246647 17.63466 0.834179684 -47.401078 38.70599 0.024808694
    0.024208122 0.1187861 408.567912 6.75735741 418.703948 -2.51 22.1 -6.19 18.1
"""
# lm(y1 ~ y4 + x1) on anscombe, five tables, df_complete 8 (M. Nguyen, A Guide on Data Analysis, chapter
# "Imputation (Missing Data)", output of mice; repository mikenguyen13/data_analysis, 11-imputation).
# Of a term: estimate, std.error, statistic, df, p.value, riv, lambda, fmi, ubar, b, t as pooled; then
# estimate and standard error in each table.
ANSCOMBE = """
(Intercept) 7.0445966 2.9378849 2.397846 5.805314 0.05483678 0.11112601 0.10001207 0.3044313 7.76794670
    0.719350800 8.63116766 7.33 2.44 7.27 2.90 6.54 2.80 5.93 3.08 8.16 2.67
y4 -0.3896685 0.2733843 -1.425350 5.706243 0.20638512 0.12644909 0.11225460 0.3161877 0.06634920
    0.006991497 0.07473900 -0.416 0.223 -0.435 0.273 -0.322 0.255 -0.286 0.282 -0.489 0.251
x1 0.3727865 0.1615538 2.307508 6.178032 0.05923999 0.05502168 0.05215218 0.2586992 0.02473847
    0.001134293 0.02609962 0.371 0.141 0.387 0.160 0.362 0.156 0.418 0.176 0.326 0.151
"""
TEST = ["estimate", "std_error", "statistic", "df", "p_value"]
SHARES = ["riv", "lambda", "fmi", "within", "between", "total"]
EXAMPLES = {
    "chl ~ age + bmi + hyp": (CHOLESTEROL, [*TEST, "lower", "upper", *SHARES], 20),
    "y1 ~ y4 + x1": (ANSCOMBE, [*TEST, *SHARES], 8),
}


def example(name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, int]:
    """Return the printed pooled table, and values and standard errors (m, k) of the single tables."""
    text, columns, df_complete = EXAMPLES[name]
    rows = [line.split() for line in text.replace("\n    ", " ").split("\n") if line]
    numbers = np.array([row[1:] for row in rows], dtype=float)
    printed = pd.DataFrame(numbers[:, : len(columns)], index=[row[0] for row in rows], columns=columns)
    single = numbers[:, len(columns) :]
    return printed, single[:, ::2].T, single[:, 1::2].T, df_complete


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_pooled_by_mice_from_their_tables(name: str) -> None:
    """The tables' numbers have three digits: an estimate errs by half of its last one at most.

    The mean errs by as much, the spread of m values by at most sqrt(m / (m - 1)) of it, and a squared
    standard error by a relative 2 * 0.0025, that of "19.8" and "2.00" alike.
    """
    printed, values, errors, df_complete = example(name)
    pooled = pool(pd.DataFrame(values, columns=printed.index), errors**2, df_complete)
    m, half_a_digit = len(values), 0.5 * 10.0 ** (np.floor(np.log10(np.abs(values).max(0))) - 2)
    assert pooled.index.tolist() == printed.index.tolist()
    assert (np.abs(pooled["estimate"] - printed["estimate"]) <= half_a_digit).all()
    assert pooled["within"].to_numpy() == pytest.approx(printed["within"].to_numpy(), rel=5e-3)
    spread = np.sqrt(pooled["between"]) - np.sqrt(printed["between"])
    assert (np.abs(spread) <= math.sqrt(m / (m - 1)) * half_a_digit).all()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_pooled_by_mice_to_the_last_digit(name: str) -> None:
    """Values with the printed mean and variance, and variances with the printed mean, give all the rest."""
    printed, values, _, df_complete = example(name)
    pattern = np.arange(len(values)) - (len(values) - 1) / 2
    pattern /= pattern.std(ddof=1)
    exact = printed["estimate"].to_numpy() + pattern[:, None] * np.sqrt(printed["between"].to_numpy())
    pooled = pool(exact, np.tile(printed["within"], (len(values), 1)), df_complete)
    np.testing.assert_allclose(pooled[printed.columns].to_numpy(), printed.to_numpy(), rtol=1e-6)


# Closed cases


@pytest.mark.parametrize("df_complete", [5, 20.0, 149])
def test_with_nothing_missing_the_degrees_are_the_observed_ones(df_complete: float) -> None:
    pooled = pool([2.0, 2.0, 2.0], [0.2, 0.3, 0.4], df_complete).iloc[0]
    df = (df_complete + 1) / (df_complete + 3) * df_complete
    assert pooled[["estimate", "within", "between", "total", "riv", "lambda"]].tolist() == pytest.approx(
        [2.0, 0.3, 0.0, 0.3, 0.0, 0.0]
    )
    assert pooled["df"] == pytest.approx(df)
    assert (pooled["lower"], pooled["upper"]) == pytest.approx(student.interval(0.95, df, 2.0, 0.3**0.5))
    infinite = pool([2.0, 2.0, 2.0], [0.2, 0.3, 0.4]).iloc[0]
    assert infinite["df"] == math.inf
    assert infinite["fmi"] == 0
    assert infinite["upper"] == pytest.approx(2.0 + 1.959963985 * 0.3**0.5)


def test_of_an_infinite_table_the_degrees_are_those_of_1987() -> None:
    pooled = pool(VALUES, VARIANCES)
    between = VALUES.var(0, ddof=1)
    df = 3 * (1 + VARIANCES.mean(0) / (1.25 * between)) ** 2
    np.testing.assert_allclose(pooled["df"], df, rtol=1e-12)
    np.testing.assert_allclose(pool(VALUES, VARIANCES, 1e12)["df"], df, rtol=1e-9)
    r = pooled["riv"]
    np.testing.assert_allclose(pooled["fmi"], (r + 2 / (df + 3)) / (1 + r), rtol=1e-12)


@pytest.mark.parametrize("df_complete", [1, 7, 30.5, 1e4])
def test_degrees_are_fewer_than_those_of_the_complete_table(df_complete: float) -> None:
    """The harmonic sum of two degrees is below each of them."""
    pooled = pool(VALUES, VARIANCES, df_complete)
    observed = (df_complete + 1) / (df_complete + 3) * df_complete * (1 - pooled["lambda"])
    assert (pooled["df"] < np.minimum(observed, pool(VALUES, VARIANCES)["df"])).all()
    assert (pooled["df"] < df_complete).all()


@pytest.mark.parametrize("df_complete", [9.0, math.inf])
@pytest.mark.parametrize("factor", [1e-6, -3.0, 1e6])
def test_units_of_the_quantities_do_not_matter(factor: float, df_complete: float) -> None:
    ours, theirs = (pool(c * VALUES, c**2 * VARIANCES, df_complete) for c in (1.0, factor))
    ends = ["upper", "lower"] if factor < 0 else ["lower", "upper"]
    np.testing.assert_allclose(theirs["estimate"], factor * ours["estimate"], rtol=1e-9)
    np.testing.assert_allclose(theirs[["lower", "upper"]], factor * ours[ends], rtol=1e-9)
    np.testing.assert_allclose(theirs["std_error"], abs(factor) * ours["std_error"], rtol=1e-9)
    np.testing.assert_allclose(theirs[SQUARES], factor**2 * ours[SQUARES], rtol=1e-9)
    ratios = [name for name in RATIOS if name != "statistic"]
    np.testing.assert_allclose(theirs[ratios], ours[ratios], rtol=1e-9)


def test_a_shift_moves_estimates_and_ends_only() -> None:
    ours, theirs = pool(VALUES, VARIANCES, 12), pool(VALUES + 1e3, VARIANCES, 12)
    moved = ["estimate", "lower", "upper"]
    np.testing.assert_allclose(theirs[moved], ours[moved] + 1e3, rtol=1e-12)
    same = [name for name in ours if name not in (*moved, "statistic", "p_value")]
    np.testing.assert_allclose(theirs[same], ours[same], rtol=1e-9)


def test_quantities_and_the_order_of_tables_do_not_mix() -> None:
    together = pool(VALUES, VARIANCES, 12)
    for k in range(2):
        alone = pool(VALUES[::-1, k], VARIANCES[::-1, k], 12)
        np.testing.assert_allclose(alone.iloc[0], together.iloc[k], rtol=1e-12)


def test_intervals_cover_as_they_claim() -> None:
    """Of 4,000 quantities known up to sampling and imputation error, 95 % lie within their intervals.

    Each is 0; within-variance 1 is known exactly (df_complete infinite) and a between-variance of 0.5 is
    seen in 5 tables.  Rubin's t is an approximation here; four standard errors are 1.4 %.
    """
    rng = np.random.default_rng(0)
    centre = rng.normal(scale=(1.0 + 0.5) ** 0.5, size=4_000)
    values = centre + rng.normal(scale=0.5**0.5, size=(5, 4_000))
    pooled = pool(values, np.ones_like(values))
    covered = (pooled["lower"] < 0) & (pooled["upper"] > 0)
    assert covered.mean() == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4_000) ** 0.5)


# What cannot be pooled


@pytest.mark.parametrize(
    ("values", "variances", "df_complete", "message"),
    [
        ([1.0], [1.0], 9, "at least two completed tables: got 1. impute with num_draws=20"),
        (np.empty((0, 2)), np.empty((0, 2)), 9, "at least two completed tables: got 0"),
        (VALUES, VARIANCES[:, :1], 9, r"the shape \(tables, quantities\): got \(4, 2\) and \(4, 1\)"),
        (VALUES, VARIANCES[:3], 9, r"got \(4, 2\) and \(3, 2\)"),
        (VALUES[None], VARIANCES[None], 9, r"got \(1, 4, 2\) and \(1, 4, 2\)"),
        (3.0, 1.0, 9, r"got \(\) and \(\)"),
        (VALUES * [1, np.nan], VARIANCES, 9, "table 0, quantity 1: an estimate is not finite: got nan"),
        (VALUES, VARIANCES * [[1], [1], [np.inf], [1]], 9, "table 2, quantity 0: a variance is not finite"),
        (VALUES, VARIANCES - [0, 9], 9, "quantity 1: variances must not be negative.*: got -1 to 2"),
        (VALUES, VARIANCES * [0, 1], 9, "quantity 0: .* nor 0 in every table.* squared standard errors"),
        (VALUES, VARIANCES, 0, "df_complete must be positive: got 0"),
        (VALUES, VARIANCES, math.nan, "df_complete must be positive: got nan"),
    ],
)
def test_what_cannot_be_pooled_is_refused(
    values: Any, variances: Any, df_complete: float, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        pool(values, variances, df_complete)


# Over completed tables

FRAME = pd.DataFrame({"a": [1.5, -2.0, np.nan, 4.25, 6.0], "b": [0.5, -0.7, 1.5, np.nan, 9.25]})


@pytest.fixture
def imputations() -> Imputations:
    """Four tables of five rows with a missing cell in each of two columns, in the table's units."""
    cells = torch.tensor([[3.0, 1.0], [2.5, 2.0], [3.5, 1.5], [2.0, 0.0]], dtype=torch.float64)
    return Imputations(FRAME, infer_schema(FRAME, standardise=False), cells, num_frames=4)


def means(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return frame.mean(), frame.var() / len(frame)


def test_pool_analyses_every_completed_table(imputations: Imputations) -> None:
    tables = list(imputations.frames)
    assert len(tables) == 4
    pooled = imputations.pool(means, df_complete=4)
    expected = pool(
        np.stack([table.mean() for table in tables]), np.stack([table.var() / 5 for table in tables]), 4
    )
    assert pooled.index.tolist() == ["a", "b"]
    np.testing.assert_array_equal(pooled, expected)
    assert pooled.loc["a", "estimate"] == pytest.approx((1.5 - 2 + 4.25 + 6 + 2.75) / 5)
    assert pooled.loc["a", "between"] == pytest.approx(np.var([3, 2.5, 3.5, 2], ddof=1) / 25)


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (lambda m, v: (m["a"], v["a"]), [0]),
        (lambda m, v: (m.tolist(), v.tolist()), [0, 1]),
        (lambda m, v: (m.to_numpy(), torch.tensor(v.to_numpy())), [0, 1]),
        (lambda m, v: (dict(m), dict(v)), ["a", "b"]),
        (lambda m, v: (m, v.to_numpy()), ["a", "b"]),
        (lambda m, v: (m, v[::-1]), ["a", "b"]),
    ],
    ids=["numbers", "lists", "arrays", "dictionaries", "series and array", "another order"],
)
def test_estimates_come_in_several_forms(
    imputations: Imputations, result: Callable[[pd.Series, pd.Series], Any], names: list[Any]
) -> None:
    pooled = imputations.pool(lambda frame: result(*means(frame)), 4)
    assert pooled.index.tolist() == names
    np.testing.assert_array_equal(pooled, imputations.pool(means, 4).iloc[: len(names)])


def changing(first: Any, then: Any) -> Callable[[pd.DataFrame], Any]:
    """Return an analysis that says one thing of the first table and another of the others."""

    def results() -> Iterator[Any]:
        yield first
        while True:
            yield then

    said = results()
    return lambda frame: next(said)


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        (lambda frame: frame["a"].mean(), r"table 0: estimate must return \(values, variances\): got float"),
        (lambda frame: ([1.0, 2.0], np.eye(2)), "table 0: .*: 2 values, 4 variances.* the diagonal of"),
        (changing(([1.0, 2.0], [1.0, 1.0]), ([1.0], [1.0])), r"table 1: estimate names other.*\[0\] where"),
        (
            changing(({"p": 1.0}, {"p": 1.0}), ({"q": 1.0}, {"q": 1.0})),
            r"table 1: .*: \['q'\] where table 0 has \['p'\]",
        ),
        (changing((1.0, 1.0), (np.nan, 1.0)), "table 1, quantity 0: an estimate is not finite"),
    ],
)
def test_analyses_that_cannot_be_pooled_are_refused(
    imputations: Imputations, estimate: Callable[[pd.DataFrame], Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        imputations.pool(estimate)


def test_one_completed_table_is_not_enough(imputations: Imputations) -> None:
    with pytest.raises(ArgumentError, match="at least two completed tables: got 1"):
        replace(imputations, num_frames=1).pool(means)


def test_pooling_from_one_trained_network_warns(imputations: Imputations) -> None:
    shared = replace(imputations, one_network=True)
    with pytest.warns(FitWarning, match=r"one trained network is improper.* SVI\(num_refits=20\)") as warned:
        pooled = shared.pool(means, 4)
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_frame_equal(pooled, imputations.pool(means, 4))
