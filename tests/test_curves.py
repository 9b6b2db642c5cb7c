import numpy as np
import pytest
from matplotlib.axes import Axes

from pyrolatent.plots.curves import check_plot, sorted_shares, trace_plot, weight_plot
from pyrolatent.plots.figures import png_uri
from pyrolatent.plots.training import loss_plot, running_mean
from pyrolatent.shares import Check, Values, check


def lines(axes: Axes) -> list[list[np.ndarray]]:
    """Points `(T, 2)` of the lines of each bundle."""
    return [[path.vertices for path in bundle.get_paths()] for bundle in axes.collections]


def test_a_trace_has_every_chain_and_their_mean() -> None:
    draws = np.array([[0.0, 2.0, 4.0], [2.0, 2.0, 0.0]])
    (axes,) = trace_plot(draws, "lp").axes
    assert [path[:, 1].tolist() for path in lines(axes)[0]] == draws.tolist()
    assert axes.lines[0].get_ydata().tolist() == [1.0, 2.0, 2.0]


def test_losses_have_every_refit_their_means_and_the_rows_held_out() -> None:
    train = np.arange(200.0).reshape(2, 100)
    validation = np.array([[5.0, 4.0], [3.0, 2.0]])
    (axes,) = loss_plot(train, validation).axes
    raw, smooth, held_out = lines(axes)
    np.testing.assert_array_equal([path[:, 1] for path in raw], train)
    # Means of two neighbours, at the second of them.
    np.testing.assert_array_equal([path[:, 1] for path in smooth], train[:, 1:] - 0.5)
    assert smooth[0][:, 0].tolist() == list(range(2, 101))
    assert [path.tolist() for path in held_out] == [[[50, 5], [100, 4]], [[50, 3], [100, 2]]]
    assert len(lines(loss_plot(train).axes[0])) == 2


def test_a_running_mean_is_that_of_neighbours() -> None:
    values = np.array([[1.0, 2.0, 6.0, np.nan]])
    np.testing.assert_array_equal(running_mean(values, 2), [[1.5, 4.0, np.nan]])


def test_losses_that_fall_far_are_drawn_as_logs() -> None:
    steps = np.arange(1000)
    (axes,) = loss_plot((1000 * np.exp(-steps / 50) + 1)[None]).axes
    assert axes.get_yscale() == "log"


def test_the_start_of_losses_that_cross_zero_may_lie_above_the_picture() -> None:
    steps = np.arange(1000)
    losses = 1e6 * np.exp(-steps / 3) - 10 - steps / 1000
    (axes,) = loss_plot(losses[None]).axes
    assert axes.get_yscale() == "linear"
    low, high = axes.get_ylim()
    assert -11.2 < low < -10.9 and -10.1 < high < -9.5


@pytest.mark.parametrize("losses", [[3.0], [np.nan, np.nan], [2.0, 2.0, 2.0]], ids=str)
def test_odd_losses_can_be_drawn(losses: list[float]) -> None:
    png_uri(loss_plot(np.array([losses])))


def test_weights_are_shares_from_the_heaviest_down() -> None:
    logs = np.log([1.0, 4.0, 3.0]) + 700  # up to a constant that overflows
    np.testing.assert_allclose(sorted_shares(logs), [0.5, 0.375, 0.125], rtol=1e-12)
    smoothed = np.log([0.3, 0.35, 0.35])
    (axes,) = weight_plot(logs, smoothed).axes
    raw, smooth, equal = axes.lines
    np.testing.assert_allclose(raw.get_ydata(), [0.5, 0.375, 0.125], rtol=1e-12)
    np.testing.assert_allclose(smooth.get_ydata(), [0.35, 0.35, 0.3], rtol=1e-12)
    assert set(equal.get_ydata()) == {1 / 3}
    low, high = axes.get_ylim()
    assert low < 0.125 and high > 0.5


def test_a_draw_that_weighs_nothing_is_left_below() -> None:
    png_uri(weight_plot(np.array([0.0, -np.inf, -2000.0]), np.array([0.0, -np.inf, -2000.0])))


# Checks


def checked(observed: list[float], levels: tuple[str, ...] = (), prior: bool = True) -> Check:
    draws = np.random.default_rng(0).choice(observed, size=(20, len(observed)))
    return check(Values("q", np.array(observed), draws, draws[:5] if prior else None, levels))


def test_levels_are_bars_with_intervals() -> None:
    found = checked([0.0, 0.0, 1.0, 2.0], ("red", "green", "blue"))
    (axes,) = check_plot(found).axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.25, 0.25]
    (intervals,) = lines(axes)
    expected = np.quantile(found.posterior, [0.05, 0.95], axis=0).T
    np.testing.assert_allclose([path[:, 1] for path in intervals], expected, rtol=1e-12)
    posterior, prior = axes.lines
    np.testing.assert_array_equal(posterior.get_ydata(), found.posterior.mean(0))
    np.testing.assert_array_equal(prior.get_ydata(), found.prior.mean(0))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["red", "green", "blue"]


def test_intervals_are_outlines_over_what_was_observed() -> None:
    found = checked(np.random.default_rng(1).normal(size=50).tolist())
    (axes,) = check_plot(found).axes
    observed, posterior, prior = (patch.get_data() for patch in axes.patches)
    np.testing.assert_array_equal(observed.values, found.observed)
    np.testing.assert_array_equal(posterior.values, found.posterior.mean(0))
    np.testing.assert_array_equal(prior.values, found.prior.mean(0))
    np.testing.assert_array_equal(observed.edges, found.edges)
    assert axes.get_ylim()[1] > max(observed.values.max(), posterior.values.max())
    assert len(check_plot(checked([0.5] * 20, prior=False)).axes[0].patches) == 2


def test_few_values_are_marked_one_by_one() -> None:
    found = checked([0.5, 1.5, 2.25])
    (axes,) = check_plot(found).axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0.5, 1.5, 2.25]
    assert len(axes.patches) == 2  # posterior and prior


def test_logs_are_drawn_on_a_log_scale() -> None:
    found = checked(np.geomspace(1.0, 1e5, 30).tolist())
    assert found.logs
    assert check_plot(found).axes[0].get_xscale() == "log"
