"""Looks at a running test: what they see, when the rule stops, and how often it is wrong."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyrolatent.abtest.analysis import analyze
from pyrolatent.abtest.looks import as_numbers, stops
from pyrolatent.abtest.monitoring import Monitoring, doubts_of_rates, monitor
from pyrolatent.abtest.null_tests import Rates, known_rows, null_scores, rates_of
from pyrolatent.abtest.trial import as_trial
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.models.abtest import Priors
from pyrolatent.seeds import numpy_generator


def within(rate: float, num: int) -> float:
    """Four standard errors of a rate of `num` simulations."""
    return 4 * math.sqrt(rate * (1 - rate) / num)


def table(num_rows: int, effect: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Rows of two arms of equal size, in random order."""
    random = np.random.default_rng(seed)
    group = random.permuted(np.array(["a", "b"])[np.arange(num_rows) % 2])
    return pd.DataFrame({"y": 5 + random.normal(size=num_rows) + effect * (group == "b"), "g": group})


# The looks


@pytest.fixture(scope="module")
def watched() -> Monitoring:
    return monitor(table(800, 0.3, 1), "y", "g", looks=4, rope=0.05, seed=0)


def test_looks_are_analyses_of_the_rows_so_far(watched: Monitoring) -> None:
    frame = table(800, 0.3, 1)
    assert watched.looks.index.tolist() == [200, 400, 600, 800]
    for number in (200, 800):
        plain = analyze(frame.iloc[:number], "y", "g", rope=0.05, seed=0)
        line = watched.looks.loc[number]
        for name in ("absolute", "absolute_low", "absolute_high", "p_better", "p_in_rope"):
            assert line[name, "b"] == plain.lift.loc["b", name]
        assert [line["expected_loss", arm] for arm in "ab"] == plain.arms["expected_loss"].tolist()


def test_the_rule_stops_at_the_first_look_beyond_the_threshold(watched: Monitoring) -> None:
    better = watched.looks["p_better"]["b"]
    stop = (better > 0.95) | (better < 0.05)
    assert watched.looks["stop"].tolist() == stop.tolist() and watched.looks["stop"].dtype == bool
    assert watched.stopped_at == stop.index[stop][0]
    assert f"The rule stops at {watched.stopped_at} rows, where b is better than a with" in watched.sentence
    assert f"stop {watched.false_positive_rate:.1%} of tests" in watched.sentence
    assert f"A threshold of {watched.suggested_threshold:.5g} would stop 5.0% of them" in watched.sentence
    assert watched.warnings == ()


def test_looks_do_not_see_later_rows(watched: Monitoring) -> None:
    frame = table(800, 0.3, 1)
    frame.loc[400:, "y"] += 3 * (frame.loc[400:, "g"] == "a")
    other = monitor(frame, "y", "g", looks=[200, 400, 800], rope=0.05, seed=0)
    pd.testing.assert_frame_equal(other.looks.loc[:400], watched.looks.loc[:400])
    assert other.looks.loc[800, ("absolute", "b")] < 0 < watched.looks.loc[800, ("absolute", "b")]


def test_rows_come_in_the_order_of_a_column(watched: Monitoring) -> None:
    frame = table(800, 0.3, 1).assign(day=pd.date_range("2024-01-01", periods=800, freq="h"))
    mixed = frame.sample(frac=1, random_state=0)
    found = monitor(mixed, "y", "g", order="day", looks=4, rope=0.05, seed=0)
    pd.testing.assert_frame_equal(found.looks, watched.looks)
    rates = (found.false_positive_rate, found.single_look_rate, found.suggested_threshold)
    assert rates == (watched.false_positive_rate, watched.single_look_rate, watched.suggested_threshold)


def test_one_look_is_wrong_as_often_as_its_threshold_says() -> None:
    found = monitor(table(400), "y", "g", looks=1, threshold=0.9, num_simulations=4_000, seed=1)
    assert found.false_positive_rate == found.single_look_rate
    assert found.single_look_rate == pytest.approx(0.2, abs=within(0.2, 4_000))
    assert found.looks.index.tolist() == [400]


def test_a_test_that_never_stops() -> None:
    frame = table(300)
    frame["y"] -= frame.groupby("g")["y"].transform("mean")
    found = monitor(frame, "y", "g", looks=[300], seed=2)
    assert found.stopped_at is None and found.sentence.startswith("The rule stops at no look.")
    assert not found.looks["stop"].any()


def test_three_arms_missing_cells_and_another_control() -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"y": (random.random(900) < 0.3).astype(float), "g": np.arange(900) % 3 * 1.0})
    frame.loc[frame["g"] == 2.0, "y"] = (random.random(300) < 0.7).astype(float)
    frame.loc[::10, "g"], frame.loc[5::10, "y"] = np.nan, np.nan
    found = monitor(frame, "y", "g", looks=2, family="bernoulli", control=1.0, seed=0)
    assert list(found.looks["p_better"].columns) == [0.0, 2.0]
    assert list(found.looks["expected_loss"].columns) == [0.0, 1.0, 2.0]
    assert found.stopped_at == 450 and "where 2 is better than 1" in found.sentence
    rows = known_rows(as_trial(frame, "y", "g", (), "bernoulli", 2, Priors()), 1.0, [450, 900])
    null = null_scores(rows, 1_000, numpy_generator(0, "monitor"))
    assert found.false_positive_rate == rates_of(null, 0.95).of_looks > found.single_look_rate


def test_truth_values_are_yes_or_no() -> None:
    random = np.random.default_rng(4)
    frame = pd.DataFrame({"y": random.random(300) < 0.3, "g": np.where(random.random(300) < 0.4, "a", "b")})
    truth, numbers = (
        monitor(some, "y", "g", looks=2, family="bernoulli", shares={"a": 0.4, "b": 0.6}, seed=0)
        for some in (frame, frame.assign(y=frame["y"] * 1.0))
    )
    pd.testing.assert_frame_equal(truth.looks, numbers.looks)
    assert truth.false_positive_rate == numbers.false_positive_rate > truth.single_look_rate
    with pytest.warns(FitWarning, match="Labels are not in the planned shares"):
        monitor(frame, "y", "g", looks=[300], family="bernoulli", seed=0)


def test_looks_that_come_too_early_are_left_out() -> None:
    frame = table(200)
    frame.loc[:40, "y"] = np.where(frame.loc[:40, "g"] == "b", 5.0, frame.loc[:40, "y"])
    with pytest.warns(FitWarning, match="are left out"):
        found = monitor(frame, "y", "g", looks=[1, 40, 200], seed=0)
    assert found.looks.index.tolist() == [200]
    assert found.warnings == (
        "Looks at [1, 40] rows are left out: an arm has no two different outcomes by then. Look later.",
    )


def test_early_looks_are_no_rougher_than_others() -> None:
    found = monitor(table(220, 3.0), "y", "g", looks=[20, 40, 220], seed=0)
    assert found.stopped_at == 20
    assert found.warnings == ()  # HMC has no normal approximation


def test_rough_thresholds_are_told() -> None:
    rough = doubts_of_rates(Rates(0.1, 0.02, 0.99), 1_000, 0.99)
    assert rough == (
        "The suggested threshold rests on fewer than 20 of 1000 simulations. "
        "Pass num_simulations=2_000 or more.",
    )
    extreme = doubts_of_rates(Rates(0.6, 0.1, 0.99995), 1_000, 0.95)
    assert len(extreme) == 1 and "0.99995, is closer to 1 than 10,000 draws tell" in extreme[0]
    (finer,) = doubts_of_rates(Rates(0.0, 0.0, 0.99), 1_000_000, 0.99995)
    assert finer == "The threshold, 0.99995, is closer to 1 than 10,000 draws tell."
    assert doubts_of_rates(Rates(0.3, 0.1, 0.994), 1_000, 0.95) == ()


def test_counts_that_vary_more_than_the_family_allows_are_told() -> None:
    """By permutation of labels under the Poisson posterior 92 % and 58 % of tests stop."""
    counts = np.random.default_rng(7).negative_binomial(0.3, 0.1, 1_000)
    frame = pd.DataFrame({"y": counts, "g": np.random.default_rng(6).choice(["a", "b"], 1_000)})
    with pytest.warns(FitWarning) as told:
        found = monitor(frame, "y", "g", family="poisson", looks=[500, 1_000], seed=0)
    messages = " ".join(str(warning.message) for warning in told)
    assert (
        f"One look stops {found.single_look_rate:.1%} of tests without a difference, and 10.0% at" in messages
    )
    assert "At 500 rows: Counts vary more than Poisson ones do" in messages
    assert 0.5 < found.single_look_rate < 0.65
    assert doubts_of_rates(Rates(0.3, 0.19, 0.994), 1_000, 0.95, 3) == ()
    assert doubts_of_rates(Rates(0.3, 0.19, 0.994), 1_000, 0.95, 2) != ()


def test_thresholds_are_the_same_on_both_sides() -> None:
    """1 - 0.95 is above 0.05 in binary numbers."""
    columns = pd.MultiIndex.from_tuples([("p_better", "b")])
    at = pd.DataFrame([[0.95], [0.05], [0.9501], [0.0499]], columns=columns)
    assert stops(at, 0.95).tolist() == [False, False, True, True]


# Errors


def refused(frame: pd.DataFrame, **settings: Any) -> str:
    with pytest.raises((ArgumentError, DataError)) as error:
        monitor(frame, **{"outcome": "y", "group": "g", "seed": 0, **settings})
    return str(error.value)


def test_numbers_of_looks() -> None:
    assert as_numbers(3, 100) == [33, 67, 100]
    assert as_numbers([50, 20, 50], 100) == [20, 50]
    assert as_numbers(range(10, 31, 10), 30) == [10, 20, 30]
    assert as_numbers(np.int64(3), 100) == [33, 67, 100]
    assert as_numbers(np.array([50, 20]), 100) == [20, 50]


def test_settings_without_meaning_are_refused() -> None:
    frame = table(40)
    for threshold in (0.5, 0.3, 1.0, math.nan):
        assert f"threshold must lie between 0.5 and 1: got {threshold}" in refused(frame, threshold=threshold)
    assert "looks is too small: got 0" in refused(frame, looks=0)
    assert "looks is too small: got 0" in refused(frame, looks=[0, 10])
    for looks in (2.5, [2.5]):
        assert "looks is no whole number: got 2.5" in refused(frame, looks=looks)
    assert "looks is no number: got None" in refused(frame, looks=None)
    assert "threshold is no number: got '0.9'" in refused(frame, threshold="0.9")
    assert "there are more looks than rows: 41 looks at 40 rows" in refused(frame, looks=41)
    assert "got [10, 50], and the table has 40. pass numbers from 1 to 40" in refused(frame, looks=[10, 50])
    assert "looks are no numbers of rows: got []" in refused(frame, looks=[])
    assert "num_simulations is too small" in refused(frame, num_simulations=0)
    assert "there is no arm 'c': the arms are ['a', 'b']" in refused(frame, control="c")
    assert "rope is no range" in refused(frame, rope=-1)


def test_ugly_tables_are_refused() -> None:
    frame = table(40)
    assert "column 'g': no label is known. label rows of each arm" in refused(frame.assign(g=np.nan))
    assert "the table lacks columns of the test" in refused(frame, order="day")
    holes = frame.assign(day=[np.nan, *range(39)])
    assert "column 'day': the order of rows is not known: 1 of 40 rows have none" in refused(
        holes, order="day"
    )
    mixed = frame.assign(day=pd.Series(["x", *range(39)], dtype=object))
    assert "column 'day': values cannot be ordered" in refused(mixed, order="day")
    assert (
        "columns ['y', 'g']: no look has two different outcomes in each arm: looks are at [1, 2]"
        in refused(frame, looks=[1, 2])
    )
    assert "an arm has fewer than two outcomes" in refused(frame.assign(g=["c", *frame["g"][1:]]))
