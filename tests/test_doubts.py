"""What is told of families that do not fit: never of those that do, and always where the answer is wrong."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pyrolatent as pyl
from pyrolatent.abtest.doubts import dispersion, errors_between, events, tails, tells_its_mean
from pyrolatent.errors import FitWarning

ROWS = 400


def two_arms(outcomes: Any, labelled: float = 1.0) -> pd.DataFrame:
    group = pd.Series(np.where(np.arange(len(outcomes)) % 2, "a", "b"))
    known = np.random.default_rng(0).random(len(outcomes)) < labelled
    return pd.DataFrame({"y": np.asarray(outcomes, float), "g": group.where(known)})


def doubts(frame: pd.DataFrame, family: Any, **settings: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        method = pyl.EM(num_starts=1, num_draws=500)
        found = pyl.abtest.analyze(frame, "y", "g", family=family, method=method, seed=0, **settings)
    return " ".join(message for message in found.warnings if "fit:" in message or "vary more" in message)


def drawn(family: str, seed: int) -> Any:
    random = np.random.default_rng(seed)
    amounts = np.exp(random.normal(3.0, (0.5, 1.0, 2.0)[seed % 3], ROWS))
    return {
        "normal": lambda: random.normal(50.0, 10.0, ROWS),
        "student": lambda: random.standard_t(4.0, ROWS),
        "lognormal": lambda: amounts,
        "bernoulli": lambda: random.random(ROWS) < 0.2,
        "poisson": lambda: random.poisson((0.1, 3.0, 50.0)[seed % 3], ROWS),
        "negative_binomial": lambda: random.negative_binomial(0.7, 0.1, ROWS),
        "revenue": lambda: np.where(random.random(ROWS) < 0.2, amounts, 0.0),
    }[family]()


@pytest.mark.parametrize(
    ("family", "seeds"),
    [
        *((family, 20) for family in ("normal", "lognormal", "bernoulli", "poisson", "revenue")),
        *((family, 3) for family in ("negative_binomial", "student")),  # which take seconds each
    ],
)
def test_families_that_fit_give_no_doubt(family: str, seeds: int) -> None:
    told = [doubts(two_arms(drawn(family, seed)), family) for seed in range(seeds)]
    assert told == [""] * seeds


def test_poisson_on_counts_that_vary_more_is_told() -> None:
    random = np.random.default_rng(0)
    counts = two_arms(random.negative_binomial(0.5, 0.2, 1_000))
    assert 'Take the family "negative_binomial"' in doubts(counts, "poisson")
    assert doubts(counts, "negative_binomial") == ""
    before = counts.assign(x=random.normal(size=1_000))
    assert doubts(before, "poisson", covariates=["x"]) == ""


@pytest.mark.parametrize("rate", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("rows", [5, 2_000])
def test_the_test_of_dispersion_holds_its_level(rate: float, rows: int) -> None:
    random = np.random.default_rng(0)
    tests = [
        dispersion({name: random.poisson(rate, rows).astype(float) for name in "ab"}) for _ in range(1_000)
    ]
    # at a level of 5 %, four standard errors of 1,000 tests above it
    assert np.mean(np.array(tests) < 0.05) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1_000)


def test_dispersion_by_hand() -> None:
    from scipy import stats

    counts = np.array([0.0, 1.0, 5.0, 30.0])
    spread = ((counts - 9.0) ** 2 / 9.0).sum()
    assert dispersion({"a": counts}) == pytest.approx(stats.chi2.sf(spread, 3))
    # 4 events in 1,000 rows, two of them in one: 6 pairs, of which 0.006 are expected in the same row
    sparse = np.zeros(1_000)
    sparse[:3] = 2.0, 1.0, 1.0
    assert dispersion({"a": sparse}) == pytest.approx(stats.poisson.sf(0, 0.006))
    assert dispersion({"a": np.zeros(10)}) == 1.0


def test_lognormal_on_amounts_near_zero_is_told() -> None:
    random = np.random.default_rng(0)
    amounts = np.where(random.random(1_000) < 0.3, 1e-6, random.uniform(5.0, 15.0, 1_000))
    told = doubts(two_arms(amounts), "lognormal")
    assert "The family 'lognormal' does not fit: the mean by the model is more than 4 standard errors" in told
    assert doubts(two_arms(amounts), "normal") == ""
    assert doubts(two_arms(amounts, labelled=0.9), "lognormal") == ""  # whose means may differ from the rest


def test_which_means_are_evidence() -> None:
    values = np.tile([1.0, 3.0], 50)
    assert tells_its_mean(values) and not tells_its_mean(values[:28]) and not tells_its_mean(np.ones(100))
    assert not tells_its_mean(np.eye(1, 100)[0])  # a single success
    assert errors_between(3.0, values) == pytest.approx(1.0 / np.sqrt(100 / 99) * 10)


def test_events_are_what_tells_the_parameters() -> None:
    values = np.array([0.0, 0.0, 0.0, 2.0, 3.0])
    assert events(values, "normal") == 5 and events(values, "revenue") == 2
    assert events(values, "poisson") == events(values, "negative_binomial") == 5.0
    assert events(1 - (values > 0), "bernoulli") == 2


def test_a_mean_that_a_few_draws_make_is_told() -> None:
    arms = pd.DataFrame({"mean": [0.4, 3.0], "low": 0.0, "high": [0.1, 3.2], "sd": 1.0}, index=["a", "b"])
    (told,) = tails(arms)
    assert told.startswith("The mean of ['a'] lies outside its 90 % interval")
    assert tails(arms.loc[["b"]]) == []
