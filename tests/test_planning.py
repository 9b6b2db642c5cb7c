"""How many rows a test needs: closed forms against integrals, simulations and textbooks."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from pyrolatent.abtest.planning import mean_loss, p_wrong, plan, power_at, rows_for_loss, unit_loss
from pyrolatent.errors import ArgumentError


def test_the_unit_loss_is_its_integral() -> None:
    for x in (-2.0, 0.0, 0.5, 3.0):
        found, _ = integrate.quad(lambda z, x=x: (z - x) * stats.norm.pdf(z), x, 40)
        assert unit_loss(x) == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize(("rows", "effect"), [(5, 0.1), (50, 0.3), (200, 0.5), (1_000, 0.4)])
def test_the_mean_loss_is_its_integral(rows: int, effect: float) -> None:
    variance = 2 * 1.5**2
    error = math.sqrt(variance / rows)
    m = effect / error

    def stated(u: float) -> float:
        return error * float(unit_loss(abs(u))) * stats.norm.pdf(u - m)

    found = sum(integrate.quad(stated, *ends, epsabs=1e-14)[0] for ends in ((-20, 0), (0, max(m, 1) + 20)))
    assert mean_loss(rows, effect, variance) == pytest.approx(found, rel=1e-6)


def test_curve_is_that_of_simulated_tests() -> None:
    """Tests from raw outcomes, each with draws of its posterior."""
    random, num_tests, num_draws, rows, sd, effect = np.random.default_rng(0), 5_000, 200, 40, 2.0, 0.5
    outcomes = random.normal(size=(2, num_tests, rows)) * sd
    observed = outcomes[1].mean(1) + effect - outcomes[0].mean(1)
    error = sd * math.sqrt(2 / rows)
    draws = observed[:, None] + error * random.normal(size=(num_tests, num_draws))
    losses = np.where(observed > 0, np.maximum(-draws, 0).mean(1), np.maximum(draws, 0).mean(1))
    passed, wrong = stats.norm.cdf(observed / error) > 0.9, observed < 0
    expected = (
        mean_loss(rows, effect, 2 * sd**2),
        power_at(rows, effect, 2 * sd**2, 0.9),
        p_wrong(rows, effect, 2 * sd**2),
    )
    for values, known in zip((losses, passed, wrong), expected, strict=True):
        assert values.mean() == pytest.approx(float(known), abs=4 * values.std() / math.sqrt(num_tests))


def test_rows_for_a_rate_are_those_of_simulated_tests() -> None:
    num_tests, random = 20_000, np.random.default_rng(1)
    found = plan(effect=0.03, mean=0.1, family="bernoulli", expected_loss=0.001)
    rates = [random.binomial(found.rows_per_arm, p, num_tests) / found.rows_per_arm for p in (0.1, 0.13)]
    error = np.sqrt(sum(rate * (1 - rate) for rate in rates) / found.rows_per_arm)
    losses = error * unit_loss(np.abs(rates[1] - rates[0]) / error)
    # variances are known only from the rows: an error of order 1 / rows, far below that of the simulation
    assert losses.mean() == pytest.approx(0.001, abs=4 * losses.std() / math.sqrt(num_tests))


def test_power_is_the_textbook_formula() -> None:
    # (1.6449 + 0.8416)^2 * 2 * 10^2 / 0.5^2 = 4946.0
    found = plan(effect=0.5, sd=10.0)
    exact = (stats.norm.ppf(0.95) + stats.norm.ppf(0.8)) ** 2 * 2 * 10**2 / 0.5**2
    assert found.rows_for_power == math.ceil(exact) == 4947
    assert found.rows_per_arm == found.rows_for_power
    assert found.curve.loc[4947, "power"] == pytest.approx(0.8, abs=1e-4)
    # two-sided error of 5 % and power of 80 %: 16 sd^2 / effect^2 (Lehr 1992), in fact 15.7
    lehr = plan(effect=1.0, sd=10.0, threshold=0.975)
    assert lehr.rows_for_power == math.ceil(15.698 * 100)
    rates = plan(effect=0.02, mean=0.10, family="bernoulli", threshold=0.975, power=0.9)
    score = (stats.norm.ppf(0.975) + stats.norm.ppf(0.9)) ** 2
    assert rates.rows_for_power == math.ceil(score * (0.1 * 0.9 + 0.12 * 0.88) / 0.02**2)


@pytest.mark.parametrize("expected_loss", [0.5, 0.1, 0.01, 1e-4])
def test_rows_are_the_fewest_with_that_loss(expected_loss: float) -> None:
    found = plan(effect=0.5, sd=10.0, expected_loss=expected_loss)
    at = [float(mean_loss(found.rows_per_arm - k, 0.5, 200.0)) for k in (0, 1)]
    assert at[0] <= expected_loss < at[1]
    assert found.curve.loc[found.rows_per_arm, "expected_loss"] == at[0]
    # the units of the outcome do not matter
    scaled = plan(effect=500.0, sd=10_000.0, expected_loss=1_000 * expected_loss)
    assert abs(scaled.rows_per_arm - found.rows_per_arm) <= 1  # a root at a whole number may round


def test_losses_that_any_test_has() -> None:
    assert plan(effect=0.5, sd=1.0, expected_loss=10.0).rows_per_arm == 2
    assert rows_for_loss(5.0, 2.0, 1e-12) < rows_for_loss(0.5, 2.0, 1e-12)
    assert plan(effect=20.0, sd=1.0).rows_per_arm == 2
    assert plan(effect=0.5, sd=1.0, threshold=0.6, power=0.1).rows_for_power == 2


@pytest.mark.parametrize("expected_loss", [1e-30, 1e-200])
def test_losses_far_below_the_effect(expected_loss: float) -> None:
    """log g(x) is -x^2 / 2 beside logs of x, and x = effect sqrt(rows / (2 V))."""
    rows = plan(effect=1.0, sd=10.0, expected_loss=expected_loss).rows_per_arm
    assert mean_loss(rows, 1.0, 200.0) <= expected_loss < mean_loss(rows - 1, 1.0, 200.0)
    assert rows == pytest.approx(-4 * math.log(expected_loss) * 200.0, rel=0.15)


@pytest.mark.parametrize(
    "settings", [{"effect": 1e-9, "sd": 1e3}, {"effect": 1e-300, "sd": 1.0}, {"effect": 1.0, "sd": 1e150}]
)
def test_more_rows_than_can_be_counted_are_refused(settings: dict[str, float]) -> None:
    assert "a test would need more than 4.5e+15 rows in each arm" in refused(**settings)
    settings = {"effect": 1e-12, "sd": 1.0, "expected_loss": 1e-10, "threshold": 0.6, "power": 0.3}
    assert "pass a larger effect or expected_loss" in refused(**settings)


def test_units_of_any_size() -> None:
    plain = plan(effect=0.5, sd=10.0, expected_loss=0.01)
    for unit in (1e-60, 1e60):
        scaled = plan(effect=0.5 * unit, sd=10.0 * unit, expected_loss=0.01 * unit)
        assert (scaled.rows_per_arm, scaled.rows_for_power) == (plain.rows_per_arm, plain.rows_for_power)


def test_the_curve_falls_and_holds_what_was_asked() -> None:
    found = plan(effect=0.01, mean=0.1, family="bernoulli", expected_loss=1e-4)
    curve = found.curve
    assert {found.rows_per_arm, found.rows_for_power} <= set(curve.index)
    assert curve.index.is_monotonic_increasing and curve.index.is_unique
    assert curve["expected_loss"].is_monotonic_decreasing and curve["p_wrong"].is_monotonic_decreasing
    assert curve["power"].is_monotonic_increasing
    assert curve.index[-1] == 2 * max(found.rows_per_arm, found.rows_for_power)


def test_a_worse_arm_needs_as_many_rows() -> None:
    better, worse = (plan(effect=effect, sd=3.0, expected_loss=0.02) for effect in (0.3, -0.3))
    assert (better.rows_per_arm, better.rows_for_power) == (worse.rows_per_arm, worse.rows_for_power)
    assert "P(better) passes 0.95 with probability" in better.sentence
    assert "P(better) falls below 0.05 with probability" in worse.sentence


def test_the_sentence() -> None:
    assert plan(effect=0.5, sd=10.0, expected_loss=0.01).sentence == (
        "With 3,276 rows in each arm the choice at the end is expected to lose 0.01, and is wrong with "
        "probability 0.022; P(better) passes 0.95 with probability 0.65, and with 4,947 rows, 0.8."
    )
    assert plan(effect=0.5, sd=10.0).sentence.endswith("P(better) passes 0.95 with probability 0.8.")


def refused(**settings: Any) -> str:
    with pytest.raises(ArgumentError) as error:
        plan(**{"effect": 0.1, **settings})
    return str(error.value)


def test_settings_without_meaning_are_refused() -> None:
    for effect in (0, math.nan, math.inf):
        told = f"effect must be a difference: got {effect}. pass the smallest difference"
        assert told in refused(effect=effect, sd=1)
    for name in ("effect", "sd", "expected_loss", "threshold", "power"):
        assert f"{name} is no number: got '1'" in refused(**{"sd": 1.0, name: "1"})
    assert "mean is no number: got '1'" in refused(mean="1", family="bernoulli")
    for sd in (None, 0, -1.0, math.nan, math.inf, 1e-200, 1e200):
        told = f"sd must be positive: got {sd}. pass the standard deviation of outcomes in an arm"
        assert told in refused(sd=sd)
    for mean in (None, 0, 1.0, 1.2, math.nan):
        told = f"mean must lie between 0 and 1: got {mean}. pass the rate of the control"
        assert told in refused(mean=mean, family="bernoulli")
    for loss in (0, -0.1, math.nan):
        assert f"expected_loss must be positive: got {loss}. pass the loss" in refused(
            sd=1, expected_loss=loss
        )
    assert "the rate of the other arm must lie between 0 and 1: 0.95 and 0.1 give 1.05" in refused(
        mean=0.95, family="bernoulli"
    )
    assert "sd is for normal outcomes: got 1" in refused(mean=0.5, sd=1, family="bernoulli")
    assert "mean is for bernoulli outcomes: got 0.5" in refused(mean=0.5, sd=1)
    assert "the family cannot be planned for: got 'poisson'. choose one of normal, bernoulli" in refused(
        sd=1, family="poisson"
    )
    assert "threshold must lie between 0.5 and 1: got 0.4" in refused(sd=1, threshold=0.4)
    assert "power must lie between 0 and 1: got 1" in refused(sd=1, power=1)
