"""Tests without a difference: how often the rule stops them, against plain simulations and tables."""

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from pyrolatent.abtest.analysis import NUM_DRAWS, analyze
from pyrolatent.abtest.null_tests import (
    KnownRows,
    estimates_of,
    known_rows,
    null_scores,
    ranks_of,
    rates_of,
    scores,
)
from pyrolatent.abtest.one_step import likely_concentration, likely_student
from pyrolatent.abtest.trial import as_trial
from pyrolatent.errors import FitWarning
from pyrolatent.infer.em import EM
from pyrolatent.models.abtest import Family, Priors

Array = NDArray[np.float64]


def within(rate: float, num: int) -> float:
    """Four standard errors of a rate of `num` simulations."""
    return 4 * math.sqrt(rate * (1 - rate) / num)


def rows_of(
    outcomes: Array, seen: tuple[int, ...], num_arms: int = 2, family: Family = "normal"
) -> KnownRows:
    """Rows of arms in turn."""
    arms = (np.arange(len(outcomes)) % num_arms).astype(np.int8)
    return KnownRows(arms, num_arms, seen, ranks_of(outcomes), estimates_of(family, outcomes))


def normal_rows(num_rows: int, num_looks: int, num_arms: int = 2, seed: int = 0) -> KnownRows:
    outcomes = np.random.default_rng(seed).normal(size=num_rows)
    return rows_of(outcomes, equal_looks(num_rows, num_looks), num_arms)


def equal_looks(num_rows: int, num_looks: int) -> tuple[int, ...]:
    return tuple(num_rows * k // num_looks for k in range(1, num_looks + 1))


# Normal outcomes


def slow_scores(arms: Any, outcomes: Array, seen: tuple[int, ...], num_arms: int) -> list[float]:
    """The same as `scores` of one simulation of normal outcomes, in loops."""
    found = []
    for number in seen:
        parts = [outcomes[:number][arms[:number] == arm] for arm in range(num_arms)]
        if any(len(set(part)) < 2 for part in parts):
            found.append(0.0)
            continue
        base = parts[0]
        each = [
            abs(part.mean() - base.mean()) / math.sqrt(part.var() / len(part) + base.var() / len(base))
            for part in parts[1:]
        ]
        found.append(max(each))
    return found


@pytest.mark.parametrize("num_arms", [2, 3])
def test_scores_are_those_of_plain_loops(num_arms: int) -> None:
    random = np.random.default_rng(1)
    outcomes, seen = np.rint(random.normal(size=60)), (0, 1, 4, 4, *equal_looks(60, 10))
    rows = rows_of(outcomes, seen, num_arms)
    arms = random.permuted(np.tile(rows.arms, (50, 1)), axis=1)
    slow = np.array([slow_scores(line, outcomes, seen, num_arms) for line in arms])
    assert (slow == 0).any(0).sum() > 4  # looks with arms of equal outcomes are among them
    np.testing.assert_allclose(scores(arms, rows), slow, rtol=1e-9, atol=1e-9)


# Two-sided error of 5 % at each look: Armitage, McPherson and Rowe (1969), table 2
@pytest.mark.parametrize(("num_looks", "known"), [(1, 0.05), (2, 0.083), (5, 0.142), (10, 0.193)])
def test_repeated_looks_inflate_the_rate_as_published(num_looks: int, known: float) -> None:
    null = null_scores(normal_rows(2_000, num_looks), 4_000, np.random.default_rng(2))
    rates = rates_of(null, 0.975)
    assert rates.of_looks == pytest.approx(known, abs=within(known, 4_000))
    assert rates.of_last == pytest.approx(0.05, abs=within(0.05, 4_000))


# Critical values for an error of 5 %: Pocock (1977)
@pytest.mark.parametrize(("num_looks", "critical"), [(1, 1.960), (5, 2.413), (10, 2.555)])
def test_the_suggested_threshold_brings_the_rate_back(num_looks: int, critical: float) -> None:
    rows, num = normal_rows(2_000, num_looks), 4_000
    suggested = rates_of(null_scores(rows, num, np.random.default_rng(3)), 0.95).suggested
    other = null_scores(rows, num, np.random.default_rng(4))
    both = math.sqrt(2) * within(0.05, num)  # the threshold is simulated as well
    assert rates_of(other, suggested).of_looks == pytest.approx(0.05, abs=both)
    assert rates_of(other, stats.norm.cdf(critical)).of_looks == pytest.approx(0.05, abs=within(0.05, num))


def highest_of_fresh_tests(
    shares: tuple[float, ...], num_rows: int, num: int, seed: int
) -> tuple[Array, Array]:
    """|z| of normal means at 4 looks and at the last, of tests with outcomes of their own `(num,)` each."""
    random, ends = np.random.default_rng(seed), np.arange(1, 5) * num_rows // 4
    arms = random.permuted(
        np.tile(np.repeat(np.arange(len(shares)), [round(s * num_rows) for s in shares]), (num, 1)), axis=1
    )
    outcomes = random.normal(size=arms.shape)
    inside = [arms == arm for arm in range(len(shares))]
    number, total, squares = (
        np.stack([np.cumsum(member * power, axis=1)[:, ends - 1] for member in inside])
        for power in (1.0, outcomes, outcomes**2)
    )
    mean = total / number
    error = (squares / number - mean**2) / number
    z = (np.abs(mean[1:] - mean[0]) / np.sqrt(error[1:] + error[0])).max(0)
    return z.max(1), z[:, -1]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (1 / 3, 1 / 3, 1 / 3), (0.9, 0.1)])
def test_rates_hold_for_tests_with_outcomes_of_their_own(shares: tuple[float, ...]) -> None:
    """Also the threshold that is suggested, and where shares are not equal."""
    num_rows, num = 600, 4_000
    outcomes = np.random.default_rng(5).normal(size=num_rows)
    arms = np.repeat(np.arange(len(shares)), [round(share * num_rows) for share in shares]).astype(np.int8)
    rows = KnownRows(
        arms, len(shares), equal_looks(num_rows, 4), ranks_of(outcomes), estimates_of("normal", outcomes)
    )
    rates = rates_of(null_scores(rows, num, np.random.default_rng(6)), 0.95)
    highest, last = highest_of_fresh_tests(shares, num_rows, num, 7)
    limit = special.ndtri(0.95)
    both = math.sqrt(2)
    for rate, found in ((rates.of_looks, highest > limit), (rates.of_last, last > limit)):
        assert rate == pytest.approx(found.mean(), abs=both * within(float(found.mean()), num))
    wrong = float((highest > special.ndtri(rates.suggested)).mean())
    assert wrong == pytest.approx(0.05, abs=both * within(0.05, num))


def test_simulations_do_not_depend_on_how_many_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal_rows(50, 5)
    whole = null_scores(rows, 100, np.random.default_rng(5))
    monkeypatch.setattr("pyrolatent.abtest.null_tests.CELLS", 7 * 50)
    parts = null_scores(rows, 100, np.random.default_rng(5))
    assert whole.shape == (100, 5)
    np.testing.assert_allclose(whole, parts, rtol=1e-12)


# Other families


def table_of(family: str, num_rows: int, seed: int) -> pd.DataFrame:
    """Outcomes of a family, counts that vary more than Poisson's among them, in two arms of equal size."""
    random = np.random.default_rng(seed)
    amounts = random.lognormal(0.0, 1.2, num_rows)
    outcomes = {
        "normal": 5 + random.normal(size=num_rows),
        "bernoulli": random.random(num_rows) < 0.2,
        "poisson": random.negative_binomial(0.3, 0.1, num_rows),
        "negative_binomial": random.negative_binomial(0.3, 0.1, num_rows),
        "lognormal": amounts,
        "revenue": amounts * (random.random(num_rows) < 0.3),
    }
    group = random.permuted(np.array(["a", "b"])[np.arange(num_rows) % 2])
    return pd.DataFrame({"y": outcomes[family], "g": group})


def rows_in(frame: pd.DataFrame, family: Family, numbers: list[int]) -> KnownRows:
    return known_rows(as_trial(frame, "y", "g", (), family, 2, Priors()), "a", numbers)


# How far P(better) may be off by one Newton step and by the delta method, at 100 rows an arm
ROUGH = {"negative_binomial": 0.005, "lognormal": 0.005, "revenue": 0.01}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "family", ["normal", "bernoulli", "poisson", "negative_binomial", "lognormal", "revenue"]
)
def test_scores_are_the_models_probabilities(family: Family, seed: int) -> None:
    """So that the rule which is simulated is the one that is applied."""
    frame = table_of(family, 200, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # of counts that vary more, and of few amounts
        found = analyze(frame, "y", "g", family=family, method=EM(num_starts=1, num_draws=NUM_DRAWS), seed=0)
    better = float(found.lift.loc["b", "p_better"])
    rows = rows_in(frame, family, [200])
    by_score = float(stats.norm.cdf(scores(rows.arms[None], rows)[0, 0]))
    noise = within(by_score, NUM_DRAWS)
    assert max(better, 1 - better) == pytest.approx(by_score, abs=noise + ROUGH.get(family, 0.0))


def gamma_rule(counts: Array, random: np.random.Generator, num: int, seen: tuple[int, ...]) -> Array:
    """Whether P(better) under gamma posteriors of Poisson rates passes 0.95 at each look `(num, L)`."""
    stopped = np.zeros((num, len(seen)), bool)
    arms = np.arange(len(counts)) % 2
    for line in stopped:
        labels = random.permutation(arms)
        for k, number in enumerate(seen):
            some, ours = counts[:number], labels[:number]
            first, second = (
                random.gamma(some[ours == arm].sum(), 1 / (ours == arm).sum(), 500) for arm in (0, 1)
            )
            better = (second > first).mean()
            line[k] = max(better, 1 - better) > 0.95
    return stopped


def test_rates_of_counts_that_vary_more_than_the_family_allows() -> None:
    """A simulation of the rule itself: labels permuted, posteriors drawn; Welch's rates are 22 % and 10 %."""
    counts, seen, slow, num = (
        np.random.default_rng(7).negative_binomial(0.3, 0.1, 1_000),
        equal_looks(1_000, 4),
        800,
        2_000,
    )
    found = gamma_rule(counts, np.random.default_rng(8), slow, seen)
    rows = rows_of(counts.astype(float), seen, family="poisson")
    rates = rates_of(null_scores(rows, num, np.random.default_rng(9)), 0.95)
    for rate, wrong in ((rates.of_looks, found.any(1)), (rates.of_last, found[:, -1])):
        known = float(wrong.mean())
        assert known > 0.5
        assert rate == pytest.approx(known, abs=math.hypot(within(known, slow), within(known, num)))


def amounts_rule(amounts: Array, random: np.random.Generator, num: int, seen: tuple[int, ...]) -> Array:
    """The same of log-normal outcomes: draws of location and log of spread give those of log means."""
    stopped = np.zeros((num, len(seen)), bool)
    arms, logs = np.arange(len(amounts)) % 2, np.log(amounts)
    for line in stopped:
        labels = random.permutation(arms)
        for k, number in enumerate(seen):
            draws = []
            for arm in (0, 1):
                part = logs[:number][labels[:number] == arm]
                spread = part.std() * np.exp(random.normal(size=500) / math.sqrt(2 * len(part)))
                location = part.mean() + part.std() / math.sqrt(len(part)) * random.normal(size=500)
                draws.append(location + spread**2 / 2)
            better = (draws[1] > draws[0]).mean()
            line[k] = max(better, 1 - better) > 0.95
    return stopped


def test_rates_of_amounts_are_those_of_a_plain_simulation() -> None:
    """Logs of these have heavy tails, so that the family is too sure of their spread."""
    random, seen, slow, num = np.random.default_rng(10), equal_looks(400, 2), 1_000, 4_000
    amounts = np.exp(random.standard_t(4, 400))
    found = amounts_rule(amounts, random, slow, seen)
    rates = rates_of(null_scores(rows_of(amounts, seen, family="lognormal"), num, random), 0.95)
    for rate, wrong in ((rates.of_looks, found.any(1)), (rates.of_last, found[:, -1])):
        known = float(wrong.mean())
        assert rate == pytest.approx(known, abs=math.hypot(within(known, slow), within(known, num)))


def test_estimates_do_not_depend_on_units() -> None:
    for family, name in (("normal", "normal"), ("student", "normal"), ("revenue", "revenue")):
        frame = table_of(name, 300, 3)
        units = [rows_in(frame.assign(y=frame["y"] * unit), family, [300]) for unit in (1.0, 1e6)]
        first, second = (float(scores(rows.arms[None], rows)[0, 0]) for rows in units)
        assert first > 0 and first == pytest.approx(second, rel=1e-4)


def test_outcomes_that_are_mostly_alike_are_no_division_by_zero() -> None:
    """Student's spread would shrink to nothing at the zeros."""
    rows = rows_in(table_of("revenue", 300, 3), "student", [300])
    assert scores(rows.arms[None], rows)[0, 0] > 0


# One Newton step


def test_an_arm_is_one_step_from_all_rows() -> None:
    """Half of the rows, against the parameters that are most likely for them alone."""
    random = np.random.default_rng(11)
    counts = random.negative_binomial(0.8, 0.2, 2_000).astype(float)
    part = rows_of(counts, (2_000,), family="negative_binomial").estimates
    log_mean, variance = part.from_sums(part.terms[:1_000].sum(0))
    mean = counts[:1_000].mean()
    dispersion = math.exp(-likely_concentration(counts[:1_000]))
    assert log_mean == pytest.approx(math.log(mean))
    assert variance * 1_000 == pytest.approx(1 / mean + dispersion, rel=0.01)

    outcomes = random.standard_t(4, 2_000)
    half = rows_of(outcomes, (2_000,), family="student").estimates
    location, squared_error = half.from_sums(half.terms[:1_000].sum(0))
    whole = likely_student((outcomes - outcomes.mean()) / outcomes.std())
    own = likely_student((outcomes[:1_000] - outcomes.mean()) / outcomes.std())
    error = math.sqrt(squared_error)
    assert whole[0] + location == pytest.approx(own[0], abs=0.1 * error)
    expected = (own[2] + 3) / (own[2] + 1) / 1_000 * own[1] ** 2  # the inverse Fisher information
    assert squared_error == pytest.approx(expected, rel=0.1)


def test_likely_parameters_are_those_of_scipy() -> None:
    random = np.random.default_rng(12)
    outcomes = random.standard_t(5, 3_000)
    freedom, location, spread = stats.t.fit(outcomes)
    assert likely_student(outcomes) == pytest.approx((location, spread, freedom), rel=1e-2, abs=1e-3)
    counts = random.negative_binomial(2.0, 0.4, 3_000).astype(float)
    mean = counts.mean()

    def loss(concentration: float) -> float:
        return -float(
            stats.nbinom.logpmf(counts, concentration, concentration / (concentration + mean)).sum()
        )

    best = math.exp(likely_concentration(counts))
    assert loss(best) < min(loss(best * 1.01), loss(best / 1.01))


def test_counts_that_vary_less_than_poisson_count_as_poisson() -> None:
    counts = np.random.default_rng(13).binomial(10, 0.5, 400).astype(float)
    found = [
        null_scores(rows_of(counts, (200, 400), family=family), 200, np.random.default_rng(0))
        for family in ("poisson", "negative_binomial")
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)


# Rows


def test_rows_without_label_or_outcome_are_left_out_of_simulations() -> None:
    frame = pd.DataFrame(
        {"y": [1.0, 2.0, np.nan, 4.0, 6.0, 7.0, 8.0], "g": ["b", None, "a", "a", "a", "b", None]}
    )
    trial = as_trial(frame, "y", "g", (), "normal", 2, Priors())
    rows = known_rows(trial, "b", [2, 4, 7])
    assert rows.seen == (1, 2, 4) and rows.arms.tolist() == [0, 1, 1, 0] and rows.num_arms == 2
    assert rows.ranks.tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])


@pytest.mark.parametrize("dtype", ["float", "int", "bool", "boolean", "Int64"])
def test_yes_or_no_of_any_dtype(dtype: str) -> None:
    frame = table_of("bernoulli", 100, 1)
    rows = rows_in(frame.assign(y=frame["y"].astype("int").astype(dtype)), "bernoulli", [100])
    plain = rows_in(frame.assign(y=frame["y"].astype(float)), "bernoulli", [100])
    np.testing.assert_array_equal(rows.estimates.terms, plain.estimates.terms)
    shares = frame.groupby("g")["y"].mean()
    value, _ = rows.estimates.from_sums(rows.estimates.terms[frame["g"] == "a"].sum(0))
    assert special.expit(value) == pytest.approx(shares["a"])
