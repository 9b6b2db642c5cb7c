import numpy as np
import pytest

from pyrolatent.shares import Values, check, limits, shares


def values(observed: list[float], posterior: list[list[float]] | np.ndarray, **others: object) -> Values:
    return Values("q", np.array(observed, dtype=float), np.array(posterior, dtype=float), None, **others)


def test_shares_are_those_of_numpy_histograms() -> None:
    drawn = np.random.default_rng(0).normal(size=(7, 100))
    edges = np.linspace(-1, 2, 9)
    expected = [np.histogram(row, edges)[0] / 100 for row in drawn]
    np.testing.assert_array_equal(shares(drawn, edges), expected)


def test_ends_belong_to_the_bins_and_what_is_not_a_number_to_none() -> None:
    drawn = np.array([[0.0, 1.0, 2.0, 2.0], [np.nan, np.inf, -np.inf, 0.5]])
    np.testing.assert_array_equal(shares(drawn, np.array([0.0, 1.0, 2.0])), [[0.25, 0.75], [0.25, 0]])


def test_labels_have_a_bin_each() -> None:
    found = check(values([0, 2, 2], [[0, 1, 2], [1, 1, 1]], levels=("a", "b", "c")))
    assert found.levels == ("a", "b", "c") and not found.marks.size
    np.testing.assert_allclose(found.observed, [1 / 3, 0, 2 / 3])
    np.testing.assert_allclose(found.posterior, [[1 / 3, 1 / 3, 1 / 3], [0, 1, 0]])
    # |1/3 - 1/6| + |0 - 2/3| + |2/3 - 1/6|, halved.
    assert found.distance == pytest.approx(2 / 3)


def test_few_whole_numbers_have_a_bin_each() -> None:
    found = check(values([1] * 9 + [3, 4], [[1, 2, 3] + [5] * 8]))
    assert found.levels == ("1", "2", "3", "4", "5")
    assert found.edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    np.testing.assert_allclose(found.observed, np.array([9, 0, 1, 1, 0]) / 11)


def test_many_whole_numbers_share_bins_of_whole_width() -> None:
    observed = np.arange(200.0)
    found = check(values(observed.tolist(), observed[None]))
    assert found.levels == ()
    assert set(np.diff(found.edges)) == {19.0}  # 200 over 11 bins, rounded up
    assert found.edges[0] == -0.5 and found.edges[-1] >= 199.5
    assert found.observed.sum() == pytest.approx(1)


def test_numbers_far_apart_are_binned_in_logs_if_all_are_positive() -> None:
    observed = np.geomspace(0.5, 900.0, 50)
    assert check(values(observed.tolist(), observed[None])).logs
    assert not check(values(observed.tolist(), -observed[None])).logs
    assert not check(values((observed + 100).tolist(), observed[None] + 100)).logs


def test_few_values_are_kept_as_marks() -> None:
    assert check(values([0.5, 2.5], [[0.1, 0.2]])).marks.tolist() == [0.5, 2.5]
    assert not check(values(np.linspace(0, 1, 10).tolist(), [[0.1] * 10])).marks.size


def test_all_observed_values_are_in_range_and_draws_far_off_are_not() -> None:
    observed = np.linspace(0.0, 1.0, 20)
    drawn = np.concatenate([np.linspace(-0.2, 1.2, 1000), np.full(100, 1e9)])
    low, high = limits(observed, drawn)
    assert -0.2 <= low <= -0.18 and high == pytest.approx(1 + 3 * 0.77, abs=0.1)  # three quartile distances
    assert limits(observed, drawn[:0]) == (0.0, 1.0)
    assert limits(np.array([2.0]), np.array([2.0, 2.0])) == (1.5, 2.5)
