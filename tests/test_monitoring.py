"""Looks at a running test: what they see, when the rule stops, and how often it is wrong."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pyrolatent.abtest.analysis import NUM_DRAWS, analyze
from pyrolatent.abtest.monitoring import (
    KnownRows,
    Monitoring,
    Rates,
    as_numbers,
    doubts_of_rates,
    known_rows,
    monitor,
    null_scores,
    rates_of,
    scores,
)
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


def rows_of(num_rows: int, num_looks: int, num_arms: int = 2, seed: int = 0) -> KnownRows:
    outcomes = np.random.default_rng(seed).normal(size=num_rows)
    arms = (np.arange(num_rows) % num_arms).astype(np.int8)
    seen = tuple(num_rows * k // num_looks for k in range(1, num_looks + 1))
    return KnownRows(outcomes - outcomes.mean(), arms, num_arms, seen)


# The rates


def slow_scores(arms: Any, rows: KnownRows) -> list[float]:
    """The same as `scores` of one simulation, in loops."""
    found = []
    for number in rows.seen:
        parts = [rows.outcomes[:number][arms[:number] == arm] for arm in range(rows.num_arms)]
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
    rough = rows_of(60, 10, num_arms)
    rows = KnownRows(np.rint(rough.outcomes), rough.arms, num_arms, (0, 1, 4, 4, *rough.seen))
    arms = random.permuted(np.tile(rows.arms, (50, 1)), axis=1)
    slow = np.array([slow_scores(line, rows) for line in arms])
    assert (slow == 0).any(0).sum() > 4  # looks with arms of equal outcomes are among them
    np.testing.assert_allclose(scores(arms, rows), slow, rtol=1e-9, atol=1e-9)


def test_rates_are_those_of_a_plain_simulation() -> None:
    num, slow_num, rows = 4_000, 1_500, rows_of(60, 10)
    rates = rates_of(null_scores(rows, num, np.random.default_rng(0)), 0.95)
    random, wrong, wrong_at_end = np.random.default_rng(1), 0, 0
    for _ in range(slow_num):
        found = [float(stats.norm.cdf(score)) for score in slow_scores(random.permutation(rows.arms), rows)]
        wrong += max(found) > 0.95
        wrong_at_end += found[-1] > 0.95
    for rate, slow in ((rates.of_looks, wrong / slow_num), (rates.of_last, wrong_at_end / slow_num)):
        assert rate == pytest.approx(slow, abs=math.hypot(within(slow, num), within(slow, slow_num)))


# Two-sided error of 5 % at each look: Armitage, McPherson and Rowe (1969), table 2
@pytest.mark.parametrize(("num_looks", "known"), [(1, 0.05), (2, 0.083), (5, 0.142), (10, 0.193)])
def test_repeated_looks_inflate_the_rate_as_published(num_looks: int, known: float) -> None:
    null = null_scores(rows_of(2_000, num_looks), 4_000, np.random.default_rng(2))
    rates = rates_of(null, 0.975)
    assert rates.of_looks == pytest.approx(known, abs=within(known, 4_000))
    assert rates.of_last == pytest.approx(0.05, abs=within(0.05, 4_000))


# Critical values for an error of 5 %: Pocock (1977)
@pytest.mark.parametrize(("num_looks", "critical"), [(1, 1.960), (5, 2.413), (10, 2.555)])
def test_the_suggested_threshold_brings_the_rate_back(num_looks: int, critical: float) -> None:
    rows, num = rows_of(2_000, num_looks), 4_000
    suggested = rates_of(null_scores(rows, num, np.random.default_rng(3)), 0.95).suggested
    other = null_scores(rows, num, np.random.default_rng(4))
    both = math.sqrt(2) * within(0.05, num)  # the threshold is simulated as well
    assert rates_of(other, suggested).of_looks == pytest.approx(0.05, abs=both)
    assert rates_of(other, stats.norm.cdf(critical)).of_looks == pytest.approx(0.05, abs=within(0.05, num))


def test_simulations_do_not_depend_on_how_many_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(50, 5)
    whole = null_scores(rows, 100, np.random.default_rng(5))
    monkeypatch.setattr("pyrolatent.abtest.monitoring.CELLS", 7 * 50)
    parts = null_scores(rows, 100, np.random.default_rng(5))
    assert whole.shape == (100, 5)
    np.testing.assert_allclose(whole, parts, rtol=1e-12)


def test_rows_without_label_or_outcome_are_left_out_of_simulations() -> None:
    frame = pd.DataFrame(
        {"y": [1.0, 2.0, np.nan, 4.0, 6.0, 7.0, 8.0], "g": ["b", None, "a", "a", "a", "b", None]}
    )
    trial = as_trial(frame, "y", "g", (), "normal", 2, Priors())
    rows = known_rows(trial, "b", [2, 4, 7])
    assert rows.seen == (1, 2, 4) and rows.arms.tolist() == [0, 1, 1, 0] and rows.num_arms == 2
    assert rows.outcomes.tolist() == [-3.5, -0.5, 1.5, 2.5]


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


def test_simulated_scores_are_the_models_probabilities(watched: Monitoring) -> None:
    rows = known_rows(
        as_trial(table(800, 0.3, 1), "y", "g", (), "normal", 2, Priors()), "a", [200, 400, 600, 800]
    )
    better = watched.looks["p_better"]["b"].to_numpy()
    by_score = stats.norm.cdf(np.sign(better - 0.5) * scores(rows.arms[None], rows)[0])
    assert (np.abs(better - by_score) <= [within(p, NUM_DRAWS) + 1 / NUM_DRAWS for p in by_score]).all()


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


def test_looks_that_come_too_early_are_left_out() -> None:
    frame = table(200)
    frame.loc[:40, "y"] = np.where(frame.loc[:40, "g"] == "b", 5.0, frame.loc[:40, "y"])
    with pytest.warns(FitWarning, match="are left out"):
        found = monitor(frame, "y", "g", looks=[1, 40, 200], seed=0)
    assert found.looks.index.tolist() == [200]
    assert found.warnings == (
        "Looks at [1, 40] rows are left out: an arm has no two different outcomes by then. Look later.",
    )


def test_doubts_of_the_looks_that_decide_are_told() -> None:
    frame = table(220, 3.0)
    with pytest.warns(FitWarning) as told:
        few = monitor(frame, "y", "g", looks=[20, 40, 220], seed=0)
    assert [str(warning.message) for warning in told] == list(few.warnings)
    assert few.stopped_at == 20
    assert [message.split(":")[0] for message in few.warnings] == ["At 20 rows"]
    assert "fewer than 30 outcomes" in few.warnings[0]


def test_rough_thresholds_are_told() -> None:
    rough = doubts_of_rates(Rates(0.1, 0.1, 0.99), 1_000, 0.99)
    assert rough == (
        "The suggested threshold rests on fewer than 20 of 1000 simulations. "
        "Pass num_simulations=2_000 or more.",
    )
    extreme = doubts_of_rates(Rates(0.6, 0.1, 0.99995), 1_000, 0.95)
    assert len(extreme) == 1 and "0.99995, is closer to 1 than 10,000 draws tell" in extreme[0]
    assert doubts_of_rates(Rates(0.3, 0.1, 0.994), 1_000, 0.95) == ()


# Errors


def refused(frame: pd.DataFrame, **settings: Any) -> str:
    with pytest.raises((ArgumentError, DataError)) as error:
        monitor(frame, **{"outcome": "y", "group": "g", "seed": 0, **settings})
    return str(error.value)


def test_numbers_of_looks() -> None:
    assert as_numbers(3, 100) == [33, 67, 100]
    assert as_numbers([50, 20, 50], 100) == [20, 50]
    assert as_numbers(range(10, 31, 10), 30) == [10, 20, 30]


def test_settings_without_meaning_are_refused() -> None:
    frame = table(40)
    for threshold in (0.5, 0.3, 1.0, math.nan):
        assert f"threshold must lie between 0.5 and 1: got {threshold}" in refused(frame, threshold=threshold)
    assert "looks is too small: got 0" in refused(frame, looks=0)
    assert "looks is too small: got 0" in refused(frame, looks=[0, 10])
    assert "looks is no whole number: got 2.5" in refused(frame, looks=[2.5])
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
