"""Arms of a test in the latents of an autoencoder, and outcomes that nobody saw.

The test is simulated: outcome = covariate + effect * arm + 0.6 * noise, labels at random, a third of labels
and outcomes hidden.  An autoencoder is approximate: after `iwae(20)` and 800 steps its effects were 4 to 11 %
below those of least squares in 4 simulations, so tests allow 15 % of the effect and two standard errors.
"""

import dataclasses
import functools
import re
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import pyrolatent as pyl
from pyrolatent.abtest import asked
from pyrolatent.abtest.asked import interval_of, parts
from pyrolatent.abtest.latents import (
    Latents,
    distances,
    latent_difference,
    latents_of,
    one_hot,
    p_value,
    permuted,
    resampled,
)
from pyrolatent.abtest.what_if import average_effect, counterfactual, doubts_of
from pyrolatent.result import Fit
from tests.small_fits import table_fit

ROWS, NOISE, HIDDEN = 600, 0.6, 0.3
STANDARD_ERROR = 2 * NOISE / np.sqrt(ROWS * (1 - HIDDEN) ** 2)  # of an effect, least squares
TOLERANCE = 0.15 + 2 * STANDARD_ERROR  # of an effect of 1
KINDS = {"group": "categorical"}


def simulated(effect: float, seed: int = 0, hidden: float = HIDDEN, rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    covariate, arm = random.normal(size=rows), random.integers(2, size=rows)
    outcome = covariate + effect * arm + NOISE * random.normal(size=rows)
    frame = pd.DataFrame(
        {"outcome": outcome, "covariate": covariate, "group": np.where(arm == 1, "treated", "control")}
    )
    for name in ("outcome", "group"):
        frame[name] = frame[name].mask(random.random(rows) < hidden)
    return frame


def trained(frame: pd.DataFrame, num_steps: int = 800, kinds: dict | None = None, **settings: Any) -> Fit:
    pair = pyl.models.VAE(pyl.infer_schema(frame, kinds=kinds or KINDS), 2, hidden=(16,))
    method = pyl.SVI(
        settings.pop("objective", pyl.iwae(20)), num_steps=num_steps, lr=1e-2, batch_size=200, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)  # some are too short to be finished
        return pyl.fit(pair, frame, method, seed=0, progress=False, compile=False)


@functools.cache
def fitted(effect: float) -> Fit:
    return trained(simulated(effect))


@functools.cache
def short() -> Fit:
    """Three steps: for what does not hang on what was learnt."""
    frame = simulated(1.0, hidden=0.0, rows=60)
    mixed = frame.assign(
        paid=frame["outcome"] > 0.5,
        bought=np.where(frame["outcome"] > 0, "yes", "no"),
        number=np.arange(60) % 3,
        notes=np.where(np.arange(60) % 2 == 0, "even", "odd"),
    )
    mixed.index = pd.Index([f"unit {row}" for row in range(60)], name="unit")
    return trained(mixed, 3, {**KINDS, "notes": "skip", "number": "count"})


def quiet(verb: Any, *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        return verb(*args, **kwargs)


# Distances


def toy(labels: np.ndarray, shifts: np.ndarray, seed: int) -> Latents:
    """Latents whose means have variance 0.8 and whose posteriors 0.2, so that a shift is a distance."""
    random = np.random.default_rng(seed)
    means = shifts[labels] + np.sqrt(0.8) * random.normal(size=(len(labels), shifts.shape[1]))
    names = [f"z[{k}]" for k in range(shifts.shape[1])]
    return Latents(means[None], np.full((1, *means.shape), 0.2), names)


LABELS = np.repeat([0, 1], [150, 120])
SHIFTS = np.array([[0.0, 0.0], [0.6, -0.8]])  # a distance of 1


def test_moments_and_distance_are_those_of_the_formulas() -> None:
    labels = np.repeat([0, 1, 2], [5, 7, 6])
    latents = toy(labels, np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 1.0]]), 0)
    weights = one_hot(labels[None], 3)
    mean, spread, within = latents.moments(weights)
    arms = [latents.means[0][labels == k] for k in range(3)]
    np.testing.assert_allclose(mean[:, 0], [arm.mean(0) for arm in arms])
    np.testing.assert_allclose(spread[:, 0], [arm.var(0, ddof=1) for arm in arms])
    np.testing.assert_allclose(within, 0.2)
    pooled = sum((len(arm) - 1) * (arm.var(0, ddof=1) + 0.2) for arm in arms) / 15
    expected = [np.sqrt(((arm.mean(0) - arms[1].mean(0)) ** 2 / pooled).sum()) for arm in arms]
    np.testing.assert_allclose(latents.distances(weights, 1)[:, 0], expected)


@pytest.mark.parametrize("change", ["scale", "order", "origin"])
def test_the_scale_the_order_and_the_origin_of_latents_do_not_matter(change: str) -> None:
    latents, weights = toy(LABELS, SHIFTS, 0), one_hot(LABELS[None], 2)
    scale, order = np.array([1e-3, -40.0]), [1, 0]
    changed = {
        "scale": Latents(latents.means * scale, latents.variances * scale**2, latents.names),
        "order": Latents(latents.means[..., order], latents.variances[..., order], latents.names),
        "origin": Latents(latents.means + 100.0, latents.variances, latents.names),
    }[change]
    np.testing.assert_allclose(changed.distances(weights, 0), latents.distances(weights, 0), rtol=1e-9)


def test_a_latent_that_is_not_used_adds_next_to_nothing() -> None:
    """Its means hardly move, however far apart they are beside their own spread."""
    latents, weights = toy(LABELS, SHIFTS, 0), one_hot(LABELS[None], 2)
    unused = 1e-3 * LABELS[None, :, None]
    wider = Latents(
        np.concatenate([latents.means, unused], 2),
        np.concatenate([latents.variances, np.ones_like(unused)], 2),
        [*latents.names, "z[2]"],
    )
    np.testing.assert_allclose(wider.distances(weights, 0), latents.distances(weights, 0), rtol=1e-5)


def test_a_latent_without_any_spread_is_no_division_by_zero() -> None:
    still = Latents(np.ones((1, 4, 1)), np.zeros((1, 4, 1)), ["z[0]"])
    assert (still.distances(one_hot(np.array([[0, 0, 1, 1]]), 2), 0) == 0).all()


def test_the_bootstrap_interval_covers_the_distance() -> None:
    """90 % of 200 simulations; the binomial 99.9 % range is 83 to 97 %, and the bootstrap is biased a bit."""
    covered = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        again = distances(toy(LABELS, SHIFTS, seed), 0, 200, resampled(random, LABELS))
        low, high = interval_of(again)
        covered.append(low < 1.0 < high)
    assert 0.82 < np.mean(covered) < 0.97


def p_of_toy(shifts: np.ndarray, seed: int) -> float:
    latents, random = toy(LABELS, shifts, seed), np.random.default_rng(seed)
    observed = float(latents.distances(one_hot(LABELS[None], 2), 0).max())
    return p_value(observed, distances(latents, 0, 199, permuted(random, LABELS)))


def test_p_values_are_uniform_without_a_difference_and_small_with_one() -> None:
    by_chance = [p_of_toy(0 * SHIFTS, seed) for seed in range(200)]
    assert stats.kstest(by_chance, "uniform").pvalue > 0.01
    assert max(p_of_toy(SHIFTS, seed) for seed in range(5)) == 1 / 200


def test_bootstrap_samples_and_permutations_keep_the_sizes_of_arms() -> None:
    random = np.random.default_rng(0)
    for weighted in (resampled(random, LABELS), permuted(random, LABELS)):
        weights = weighted(7)
        assert weights.shape == (2, 7, 270)
        np.testing.assert_array_equal(weights.sum(2), [[150] * 7, [120] * 7])
    assert (resampled(random, LABELS)(3)[:, :, LABELS == 1][0] == 0).all()


def test_many_rows_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "AT_ONCE", 1_000)
    assert list(parts(10, 300)) == [3, 3, 3, 1]
    assert list(parts(2, 5_000)) == [1, 1]
    assert distances(toy(LABELS, SHIFTS, 0), 0, 8, permuted(np.random.default_rng(0), LABELS)).shape == (8,)


# Latents of a fit


def test_a_difference_is_found_where_there_is_one() -> None:
    found = latent_difference(fitted(1.0), "group")
    assert found.p_value < 0.01
    assert found.interval[0] < found.distance < found.interval[1]
    assert found.control == "control"
    assert found.arms.loc["treated", "distance"] == found.distance
    assert found.warnings == ()


def test_there_is_none_where_there_is_none() -> None:
    """Rows that the network has not seen, and whose labels are random: p-values are uniform."""
    frames = [simulated(0.0, seed, rows=150) for seed in range(1, 31)]
    values = [latent_difference(fitted(1.0), "group", frame, num_bootstrap=199).p_value for frame in frames]
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert latent_difference(fitted(0.0), "group").p_value > 0.05


def test_arms_are_those_of_the_labels_and_latents_those_of_encode() -> None:
    frame = simulated(1.0)
    found = latent_difference(fitted(1.0), "group")
    latents = pyl.encode(fitted(1.0), frame.assign(group=np.nan))
    for name, of_arm in latents.groupby(frame["group"]):
        for latent in latents.columns:
            assert found.arms.loc[name, f"{latent}_mean"] == pytest.approx(of_arm[latent].mean(), abs=1e-5)
            between = found.arms.loc[name, f"{latent}_variance_of_means"]
            assert between == pytest.approx(of_arm[latent].var(), rel=1e-4)
            assert found.arms.loc[name, f"{latent}_variance"] > between
    assert found.arms["rows"].to_dict() == frame["group"].value_counts().to_dict()
    assert found.num_rows == frame["group"].notna().sum()
    assert found.num_rows + found.num_unlabelled == ROWS


def test_the_order_of_rows_does_not_matter() -> None:
    """The article takes the first rows for the control, after it has shuffled them."""
    mixed = simulated(1.0).sample(frac=1.0, random_state=1)
    first, second = (latent_difference(fitted(1.0), "group", frame) for frame in (None, mixed))
    pd.testing.assert_frame_equal(first.arms, second.arms, rtol=1e-4)


def test_labels_do_not_enter_unless_they_are_to() -> None:
    frame = simulated(1.0).dropna(subset="group")
    turned = frame.assign(group=frame["group"].map({"control": "treated", "treated": "control"}))
    first, second = (latent_difference(fitted(1.0), "group", some) for some in (frame, turned))
    exchanged = second.arms.loc[["treated", "control"]].set_axis(first.arms.index)
    pd.testing.assert_frame_equal(first.arms.drop(columns="distance"), exchanged.drop(columns="distance"))
    assert first.distance == second.distance
    told, told_else = (
        latent_difference(fitted(1.0), "group", some, see_labels=True) for some in (frame, turned)
    )
    assert told.distance > first.distance + 0.1
    assert told.distance > told_else.distance + 0.1


def test_random_labels_are_seen_as_the_labels_were() -> None:
    """Latents that differ because the encoder was told so are no evidence."""
    values = []
    for seed in range(1, 21):
        frame = simulated(0.0, seed, rows=100)
        found = latent_difference(fitted(1.0), "group", frame, see_labels=True, num_bootstrap=199)
        values.append(found.p_value)
    assert stats.kstest(values, "uniform").pvalue > 0.01
    column = fitted(1.0).schema.modelled[2]
    seen = latents_of(fitted(1.0), "group", simulated(0.0).dropna(), column, True)
    assert seen.means.shape[0] == 2
    assert not np.allclose(seen.means[0], seen.means[1], atol=0.01)


def test_labels_that_the_model_does_not_see() -> None:
    found = latent_difference(short(), "notes", num_bootstrap=50)
    assert found.arms["rows"].to_dict() == {"even": 30, "odd": 30}
    assert found.control == "even"
    assert found.warnings == ()
    with pytest.raises(pyl.ArgumentError, match="the encoder cannot see the labels: the model has no column"):
        latent_difference(short(), "notes", see_labels=True)


def test_one_seed_has_one_result() -> None:
    results = [latent_difference(fitted(1.0), "group", seed=seed, num_bootstrap=50) for seed in (1, 1, 2)]
    assert results[0].interval == results[1].interval != results[2].interval
    with pytest.raises(dataclasses.FrozenInstanceError):
        results[0].distance = 0.0  # type: ignore[misc]


# Outcomes that nobody saw


@pytest.mark.parametrize("effect", [1.0, 0.0])
def test_the_average_effect_comes_near(effect: float) -> None:
    with pytest.warns(pyl.FitWarning, match="one trained network does not know"):
        found = average_effect(fitted(effect), "outcome", "group", "control", "treated")
    assert abs(found.effect - effect) < (TOLERANCE if effect else 2 * STANDARD_ERROR)
    assert found.rows_interval[0] < found.effect < found.rows_interval[1]
    assert found.effect == pytest.approx(found.means["treated"] - found.means["control"])
    arms = simulated(effect).groupby("group")["outcome"].mean()
    assert found.observed == pytest.approx(arms["treated"] - arms["control"])
    known = simulated(effect).dropna().groupby("group")["outcome"]
    error = np.sqrt((known.var() / known.size()).sum())
    assert np.diff(found.observed_interval) == pytest.approx(2 * stats.norm.ppf(0.95) * error)
    assert sum(found.observed_interval) / 2 == pytest.approx(found.observed)
    assert found.num_rows == ROWS
    assert len(found.warnings) == 1


def test_refits_widen_the_interval() -> None:
    """What networks differ by is most of what is not known of an effect."""
    frame = simulated(1.0, rows=200)
    fit = trained(frame, 300, num_refits=4)
    found = quiet(average_effect, fit, "outcome", "group", "control", "treated", num_draws=40)
    assert not any("one trained network" in message for message in found.warnings)
    single = quiet(average_effect, fitted(1.0), "outcome", "group", "control", "treated", frame, num_draws=40)
    widths = [high - low for low, high in (found.rows_interval, single.rows_interval)]
    assert widths[0] > 2 * widths[1]


def test_intervals_of_rows_hold_their_outcomes() -> None:
    fresh = simulated(1.0, seed=5, hidden=0.0)
    for arm in ("control", "treated"):
        rows = fresh[fresh["group"] == arm]
        found = counterfactual(fitted(1.0), "outcome", "group", arm, rows)
        pd.testing.assert_index_equal(found.index, rows.index)
        assert 0.84 < rows["outcome"].between(found["low"], found["high"]).mean() < 0.96
        error = rows["outcome"] - found["mean"]
        assert abs(error.mean()) < 0.2
        assert error.std() < 1.2 * NOISE


def test_a_rows_own_outcome_and_label_do_not_enter() -> None:
    frame = simulated(1.0).head(50)
    bare = frame.drop(columns=["outcome", "group"])
    other = frame.assign(outcome=100.0, group="control")
    means = [
        counterfactual(fitted(1.0), "outcome", "group", arm, some, num_draws=20)["mean"].mean()
        for arm, some in (("control", other), ("treated", frame))
    ]
    found = quiet(average_effect, fitted(1.0), "outcome", "group", "control", "treated", bare, num_draws=20)
    assert found.means.tolist() == means
    assert np.isnan([found.observed, *found.observed_interval]).all()
    assert len(found.warnings) == 1


def test_a_truth_value_has_a_probability() -> None:
    found = quiet(counterfactual, short(), "paid", "group", "control", num_draws=50)
    assert found["mean"].between(0, 1).all()
    assert found["mean"].nunique() > 2
    assert found.index.name == "unit"
    counted = quiet(counterfactual, short(), "number", "group", "control", num_draws=50)
    assert (counted["low"] >= 0).all()


# What is said


def test_an_encoder_that_never_did_without_is_mentioned() -> None:
    with pytest.warns(pyl.FitWarning, match="Every row of the fit has its label, so the encoder"):
        found = latent_difference(short(), "group", num_bootstrap=20)
    assert len(found.warnings) == 1
    assert latent_difference(short(), "group", see_labels=True, num_bootstrap=20).warnings == ()
    with pytest.warns(pyl.FitWarning, match="Every row of the fit has its outcome, so the encoder"):
        counterfactual(short(), "outcome", "group", "treated", num_draws=20)


def test_a_network_that_does_not_follow_the_outcome_is_mentioned() -> None:
    lazy = trained(simulated(1.0, hidden=0.1), 100, objective=pyl.elbo())
    found = quiet(average_effect, lazy, "outcome", "group", "control", "treated", num_draws=50)
    assert "is far from the difference of the mean outcomes of the arms" in found.warnings[1]
    assert abs(found.effect) < 0.3 < found.observed


def test_an_effect_that_shrinks_is_mentioned() -> None:
    """elbo() pays more for latents than labels are worth: the fitted joint of label and outcome is shrunk.

    The true effect, 4, is 4 standard errors above what the network expects, and 0.2 above what is observed.
    """
    shrunk = trained(simulated(4.0, hidden=1 / 3, rows=400), 400, objective=pyl.elbo())
    found = quiet(average_effect, shrunk, "outcome", "group", "control", "treated", num_draws=50)
    low, high = found.observed_interval
    assert found.effect < low < 4.0 < high
    assert found.rows_interval[1] < 4.0
    assert any(
        "is far from the difference of the mean outcomes of the arms" in told for told in found.warnings
    )


@pytest.mark.parametrize(("off", "told"), [(1.9, 0), (-1.9, 0), (2.1, 1), (-2.1, 1)])
def test_two_standard_errors_are_far(off: float, told: int) -> None:
    single = len(list(doubts_of(short(), 3.0, 3.0, 0.5)))
    assert len(list(doubts_of(short(), 3.0 + off * 0.5, 3.0, 0.5))) == single + told
    assert len(list(doubts_of(short(), 3.0, np.nan, np.nan))) == single


@pytest.mark.parametrize(
    ("group", "settings", "error", "message"),
    [
        ("sex", {}, pyl.DataError, "'sex': the fit's table lacks the column: it has ['outcome', 'covari"),
        (
            "outcome",
            {},
            pyl.DataError,
            "column 'outcome': the column holds no arms: its kind is 'real'. name",
        ),
        ("number", {}, pyl.DataError, "declare it: infer_schema(frame, kinds={'number': \"categorical\"})."),
        ("group", {"control": "placebo"}, pyl.ArgumentError, "there is no arm 'placebo': the arms are ['con"),
        ("group", {"num_bootstrap": 0}, pyl.ArgumentError, "num_bootstrap is too small: got 0. give"),
    ],
)
def test_what_cannot_be_compared(group: str, settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        latent_difference(short(), group, **settings)


def test_arms_need_rows() -> None:
    frame = short().problem.frame
    few = frame[frame["group"] == "control"]
    message = "column 'group': an arm has fewer than two labelled rows: 'treated': 0. pass rows of all arms"
    with pytest.raises(pyl.DataError, match=re.escape(message)):
        latent_difference(short(), "group", few)
    with pytest.raises(pyl.DataError, match=re.escape("there are not two different labels: ['even']")):
        latent_difference(short(), "notes", frame[frame["notes"] == "even"])
    with pytest.raises(pyl.DataError, match="there are no rows"):
        average_effect(short(), "outcome", "group", "control", "treated", frame.head(0))


@pytest.mark.parametrize(
    ("outcome", "group", "arm", "error", "message"),
    [
        ("outcome", "group", "placebo", pyl.ArgumentError, "there is no arm 'placebo'"),
        (
            "group",
            "group",
            "control",
            pyl.ArgumentError,
            "column 'group': a column has two parts in the test",
        ),
        ("bought", "group", "control", pyl.DataError, "the outcome is no number: labels ['no', 'yes']"),
        ("notes", "group", "control", pyl.DataError, "the outcome is no number: its kind is 'skip'"),
        ("sales", "group", "control", pyl.DataError, "'sales': the fit's table lacks the column"),
        ("outcome", "notes", "odd", pyl.DataError, "the column holds no arms: its kind is 'skip'"),
    ],
)
def test_what_cannot_be_asked(outcome: str, group: str, arm: str, error: type, message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        counterfactual(short(), outcome, group, arm)


def test_settings_without_a_meaning() -> None:
    with pytest.raises(pyl.ArgumentError, match="num_draws is too small: got 0"):
        counterfactual(short(), "outcome", "group", "control", num_draws=0)
    with pytest.raises(
        pyl.ArgumentError, match="control and treatment are the same arm: got 'control' twice"
    ):
        average_effect(short(), "outcome", "group", "control", "control")


def test_numbers_and_fits_of_another_type() -> None:
    for wrong in ("5", 2.5):
        told = f"is no whole number: got {wrong!r}"
        with pytest.raises(pyl.ArgumentError, match=f"num_draws {told}"):
            counterfactual(short(), "outcome", "group", "control", num_draws=wrong)
        with pytest.raises(pyl.ArgumentError, match=f"num_bootstrap {told}"):
            latent_difference(short(), "group", num_bootstrap=wrong)
    for verb, args in (
        (latent_difference, ("group",)),
        (counterfactual, ("outcome", "group", "control")),
        (average_effect, ("outcome", "group", "control", "treated")),
    ):
        with pytest.raises(pyl.ArgumentError, match="there is no fit: got None"):
            verb(None, *args)


def test_a_fit_without_an_encoder_is_refused() -> None:
    for verb, args in ((latent_difference, ("visits",)), (counterfactual, ("$weight$", "visits", 1))):
        with pytest.raises(pyl.ModelError, match="the model has no latents of rows"):
            verb(table_fit(), *args)


def test_a_fit_to_tensors_is_refused() -> None:
    frame = simulated(1.0, rows=60)
    pair = pyl.models.VAE(pyl.infer_schema(frame, kinds=KINDS), 2)
    data = {
        name: value.float() if name == "x" else value for name, value in pair.schema.encode(frame).items()
    }
    method = pyl.SVI(num_steps=2)
    fit = quiet(pyl.fit, pair, data, method, seed=0, progress=False, compile=False)
    assert torch.isfinite(fit.losses["train"]).all()
    with pytest.raises(pyl.ModelError, match="arms are labels in a column of a table, and the fit is to"):
        latent_difference(fit, "group")


@pytest.mark.parametrize("dtype", ["float64", "Int64", "category", "boolean"])
def test_labels_of_any_dtype(dtype: str) -> None:
    frame = simulated(1.0, rows=80)
    codes = frame["group"].map({"control": 0.0, "treated": 1.0})
    frame["group"] = codes.astype("Int64").astype(dtype)
    fit = trained(frame, 3)
    control, treatment = fit.schema.modelled[2].categories
    found = latent_difference(fit, "group", num_bootstrap=20)
    assert found.num_rows == codes.notna().sum()
    assert found.control == control
    effect = quiet(average_effect, fit, "outcome", "group", control, treatment, num_draws=10)
    arms = frame["outcome"].groupby(codes).mean()
    assert effect.observed == pytest.approx(arms[1.0] - arms[0.0])


def deaf(x: torch.Tensor, mask: torch.Tensor) -> None:
    """A model of the cells alone, which takes missing ones for zeros."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.sample("x", dist.Normal(z.expand(*z.shape[:-1], x.shape[-1]), scale).to_event(1), obs=x)


def encoder(x: torch.Tensor, mask: torch.Tensor) -> None:
    weight = pyro.param("weight", torch.zeros(x.shape[-1], 1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ weight, 1.0).to_event(1))


def test_a_model_that_takes_missing_outcomes_for_observed_ones_is_refused() -> None:
    frame = simulated(1.0, hidden=0.0, rows=40)
    pair, method = pyl.as_pair(deaf, encoder), pyl.SVI(num_steps=2)
    fit = quiet(pyl.fit, pair, frame, method, seed=0, progress=False, compile=False)
    with pytest.raises(
        pyl.ModelError, match=r"column 'outcome', sites \['x'\]: the model does not say which"
    ):
        counterfactual(fit, "outcome", "group", "control")
    assert len(quiet(latent_difference, fit, "group", num_bootstrap=20).arms) == 2
