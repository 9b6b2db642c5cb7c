"""EM against plain loops, brute force and closed forms; its two ways of running against each other."""

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import capture_density
from pyrolatent.capture.expectation import expected, log_total
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.messages import is_observation
from pyrolatent.errors import ArgumentError, FitWarning, ModelError
from pyrolatent.fit import as_input
from pyrolatent.infer.em import EM
from pyrolatent.infer.em_setup import FEW, SCREENED, screening_steps, steps_of
from pyrolatent.infer.em_steps import Latents, MixtureSteps, ModelSteps, Steps, counted
from pyrolatent.infer.em_structure import read_structure
from pyrolatent.infer.points import Points
from pyrolatent.infer.shared_rows import SharedRows
from pyrolatent.pair import as_pair
from pyrolatent.result import Problem
from pyrolatent.seeds import generator
from tests import em_models as models

ALL = {**models.MIXTURES, **models.OTHERS}
CPU = torch.device("cpu")
FLOAT = torch.float64


def problem_of(model: Any, data: dict[str, Any]) -> Problem:
    tensors = {name: as_input(value, FLOAT, CPU) for name, value in data.items()}
    return Problem(as_pair(model), tensors, None, 0, FLOAT, CPU, False, False)


def quiet(model: Any, data: Any, method: EM | None = None, **settings: Any) -> pyl.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return pyl.fit(model, data, method or EM(), **{"seed": 0, "progress": False, **settings})


def general(problem: Problem, *, penalised: bool = False) -> ModelSteps:
    """The way that runs a model's code at every iteration, for any model."""

    def total(joint: Any) -> Tensor:
        return log_total(counted(joint, penalised))

    density = capture_density(problem.pair.model, problem.data, seed=0, total=total)
    with density.context():
        structure = read_structure(
            density.model, density.data, density.sites, generator(0, "structure"), penalised
        )
    points = Points(density, 1, None)
    return ModelSteps(structure.formulas, Latents(density, structure.formulas.layout), points, penalised)


def random_latents(steps: Steps, number: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    position = 2 * torch.rand(number, steps.latents.density.dim, generator=random, dtype=FLOAT) - 1
    return steps.latents.of_positions(position)


@pytest.fixture
def context() -> Iterator[None]:
    with model_context(FLOAT, CPU), torch.no_grad():
        yield


# One iteration


def plain_iteration(
    x: Tensor, shares: Tensor, location: Tensor, spread: Tensor
) -> tuple[float, list[Tensor]]:
    """The textbook's: responsibilities row by row, then weighted means."""
    cells = [
        [math.log(w) + stats.norm.logpdf(v, m, s) for w, m, s in zip(shares, location, spread, strict=True)]
        for v in x
    ]
    total = sum(np.logaddexp.reduce(row) for row in cells)
    parts = torch.from_numpy(np.exp(np.array(cells) - np.logaddexp.reduce(cells, axis=1)[:, None]))
    weight = parts.sum(0)
    mean = (parts * x[:, None]).sum(0) / weight
    variance = (parts * (x[:, None] - mean) ** 2).sum(0) / weight
    return float(total), [weight / len(x), mean, variance.sqrt()]


@pytest.mark.usefixtures("context")
def test_an_iteration_is_that_of_the_textbook() -> None:
    problem = problem_of(models.normal, models.normal_data(60))
    steps, _ = steps_of(problem, False)
    latents = random_latents(steps, 4)
    totals, better = steps.improved(latents)
    for start in range(4):
        shares, location, spread = latents[start].split(2)
        total, found = plain_iteration(problem.data["x"], shares, location, spread)
        assert float(totals[start]) == pytest.approx(total, abs=1e-9)
        torch.testing.assert_close(better[start], torch.cat(found), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("name", models.MIXTURES)
def test_mixtures_run_without_their_code_and_do_the_same(name: str) -> None:
    model, data = models.MIXTURES[name]
    problem = problem_of(model, data())
    fast, _ = steps_of(problem, False)
    slow = general(problem)
    assert isinstance(fast, MixtureSteps)
    assert bool(slow.formulas.known.all())
    latents = random_latents(slow, 3)
    for found, wanted in zip(fast.improved(latents), slow.improved(latents), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    position = slow.latents.position(latents)
    for found, wanted in zip(fast.log_likelihood(position), slow.log_likelihood(position), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("name", ALL)
def test_the_likelihood_never_falls(name: str) -> None:
    model, data = ALL[name]
    steps, _ = steps_of(problem_of(model, data()), False)
    latents = random_latents(steps, 2)
    last = torch.full((2,), -torch.inf, dtype=FLOAT)
    for _ in range(15):
        total, latents = steps.improved(latents)
        assert (total >= last - 1e-9).all()
        last = total


@pytest.mark.usefixtures("context")
def test_what_is_not_a_mixture_runs_its_code() -> None:
    for name, (model, data) in models.OTHERS.items():
        steps, _ = steps_of(problem_of(model, data()), False)
        assert isinstance(steps, ModelSteps), name
    steps, _ = steps_of(problem_of(models.log_spreads, models.normal_data()), False)
    known = steps.latents.layout.unpack(steps.formulas.known)
    assert known["shares"].all() and not known["location"].any() and not known["log_spread"].any()


@pytest.mark.usefixtures("context")
def test_expected_values_of_a_chain_are_those_of_brute_force() -> None:
    problem = problem_of(models.chain, models.chain_data())
    steps = general(problem)
    density, position = steps.latents.density, torch.linspace(-0.5, 0.7, 5, dtype=FLOAT)
    total, weights = expected(counted(evaluate(density.model, density.data, density.sites, position), False))
    latents = {name: value[0] for name, value in density.constrain(position[None]).items()}
    moves, location, spread = latents["moves"], latents["location"], latents["spread"]
    joint, counts = [], torch.zeros(2, 2, dtype=FLOAT)
    paths = list(itertools.product(range(2), repeat=8))
    for path in paths:
        value = torch.tensor(0.5).log()
        for t, state in enumerate(path):
            value = value + dist.Normal(location[state], spread).log_prob(problem.data["y"][t])
            value = value + (moves[path[t - 1], state].log() if t else 0.0)
        joint.append(value)
    probability = torch.stack(joint).softmax(0)
    for path, share in zip(paths, probability, strict=True):
        for before, after in itertools.pairwise(path):
            counts[before, after] += share
    assert float(total) == pytest.approx(float(torch.stack(joint).logsumexp(0)), abs=1e-9)
    better = steps.latents.layout.unpack(steps.improved(steps.latents.of_positions(position[None]))[1][0])
    torch.testing.assert_close(better["moves"], counts / counts.sum(1, keepdim=True))
    assert weights["y_0"].sum() == pytest.approx(1.0)


@pytest.mark.usefixtures("context")
def test_equal_rows_are_counted_once_and_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(models.counts, models.counts_data())
    steps, _ = steps_of(problem, False)
    assert isinstance(steps, MixtureSteps)
    assert steps.rows.design.shape[1] == len(problem.data["x"].unique())
    latents = random_latents(steps, 3)
    whole = steps.improved(latents)
    index = torch.repeat_interleave(torch.arange(len(steps.rows.counts)), steps.rows.counts.long())
    ones = torch.ones(len(index), dtype=FLOAT)
    one_each = replace(steps.rows, design=steps.rows.design[:, index], counts=ones, once=True)
    monkeypatch.setattr("pyrolatent.infer.shared_rows.CELLS", 1)
    for found, wanted in zip(replace(steps, rows=one_each).improved(latents), whole, strict=True):
        torch.testing.assert_close(found, wanted)
    assert isinstance(one_each, SharedRows)


# Whole fits


def test_the_peak_is_that_of_scikit_learn() -> None:
    x = models.normal_data()["x"]
    found = quiet(models.normal, {"x": x})
    peer = GaussianMixture(2, tol=1e-12, max_iter=5_000, n_init=5, random_state=0, reg_covar=0).fit(
        x.numpy()[:, None]
    )
    assert found.info["log_likelihood"] == pytest.approx(peer.score(x.numpy()[:, None]) * len(x), abs=1e-6)
    order = np.argsort(peer.means_[:, 0])
    means = found.state["position"]
    assert means.isfinite().all()
    location = found.samples["location"].mean((0, 1)).sort().values
    sd = found.samples["location"].std((0, 1)).max()
    assert (location - torch.tensor(peer.means_[order, 0])).abs().max() < 4 * sd / math.sqrt(1_000)


@pytest.mark.parametrize("name", ["labelled", "masked labels"])
def test_labels_are_told_either_way(name: str) -> None:
    model, data = ALL[name]
    found = quiet(model, data(), EM(num_starts=2))
    assert found.info["log_likelihood"] == pytest.approx(LABELLED, abs=1e-6)


def labelled_likelihood() -> float:
    """The highest log-likelihood, by the textbook's loop with labels kept."""
    data = models.labelled_data()
    x, label, known = (data[name].numpy() for name in ("x", "label", "known"))
    given = np.where(known[:, None], np.eye(2)[label], 0.5)
    parts, total = given, 0.0
    for _ in range(2_000):
        weight = parts.sum(0)
        mean = (parts * x[:, None]).sum(0) / weight
        spread = np.sqrt((parts * (x[:, None] - mean) ** 2).sum(0) / weight)
        cells = np.log(weight / len(x)) + stats.norm.logpdf(x[:, None], mean, spread)
        cells = np.where(known[:, None] & (np.eye(2)[label] == 0), -np.inf, cells)
        rows = np.logaddexp.reduce(cells, axis=1)
        parts, total = np.exp(cells - rows[:, None]), float(rows.sum())
    return total


LABELLED = labelled_likelihood()


def test_complete_rows_give_means_and_their_standard_errors() -> None:
    x = models.normal_data()["x"]
    found = quiet(models.complete, {"x": x}, EM(num_draws=40_000))
    location, spread = found.samples["location"][0], found.samples["spread"][0]
    sd = float(x.std(unbiased=False))
    error = sd / math.sqrt(len(x))
    # 40,000 draws: the standard error of a mean is 0.005 of theirs, of a standard deviation 0.0035
    assert float(location.mean()) == pytest.approx(float(x.mean()), abs=4 * 0.005 * error)
    assert float(location.std()) == pytest.approx(error, rel=4 * 0.0035)
    assert float(spread.log().std()) == pytest.approx(1 / math.sqrt(2 * len(x)), rel=4 * 0.0035)
    assert found.info["num_peaks"] == 1 and found.warnings == ()


def test_standard_errors_are_those_of_the_observed_information() -> None:
    x = models.normal_data()["x"]
    found = quiet(models.normal, {"x": x})
    position = found.state["position"]
    density = general(problem_of(models.normal, {"x": x})).latents.density

    def likelihood(flat: Tensor) -> Tensor:
        weights = torch.cat([flat[:1], flat.new_zeros(1)]).log_softmax(0)
        return (
            torch.stack(
                [
                    w + dist.Normal(m, s.exp()).log_prob(x)
                    for w, m, s in zip(weights, flat[1:3], flat[3:], strict=True)
                ]
            )
            .logsumexp(0)
            .sum()
        )

    sites = {name: value[0] for name, value in density.constrain(position[None]).items()}
    own = torch.cat(
        [(sites["shares"][0] / sites["shares"][1]).log()[None], sites["location"], sites["spread"].log()]
    )
    covariance = torch.linalg.inv(-torch.autograd.functional.hessian(likelihood, own))
    location = found.samples["location"][0].std(0)
    expected_sd = covariance.diagonal().sqrt()[1:3]
    torch.testing.assert_close(location, expected_sd, rtol=4 / math.sqrt(2 * 1_000), atol=0)


def test_penalised_it_finds_the_highest_posterior_density() -> None:
    def known_noise(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(1.0, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 2.0), obs=x)

    x = models.normal_data(50)["x"]
    found = quiet(known_noise, {"x": x}, EM(penalised=True))
    precision = 1 / 0.5**2 + len(x) / 4
    assert float(found.state["position"]) == pytest.approx(
        float((1 / 0.5**2 + x.sum() / 4) / precision), abs=1e-8
    )
    assert float(found.state["covariance"]) == pytest.approx(1 / precision, rel=1e-6)
    plain = quiet(known_noise, {"x": x})
    assert float(plain.state["position"]) == pytest.approx(float(x.mean()), abs=1e-8)


def test_one_seed_one_result_and_a_fit_to_start_from() -> None:
    data = models.normal_data()
    first, again = quiet(models.normal, data), quiet(models.normal, data)
    torch.testing.assert_close(first.samples["location"], again.samples["location"], rtol=0, atol=0)
    on = quiet(models.normal, data, start=first)
    assert on.info["log_likelihood"] == pytest.approx(first.info["log_likelihood"], abs=1e-9)
    assert on.info["num_steps"] <= 6
    sampled = quiet(models.normal, data, start=quiet(models.normal, data, pyl.Laplace()))
    assert sampled.info["log_likelihood"] == pytest.approx(first.info["log_likelihood"], abs=1e-6)


def test_a_killed_run_goes_on_where_its_last_stage_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = models.normal_data()
    whole = quiet(models.normal, data)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("pyrolatent.infer.em_climb.newton_ascent", killed)
        with pytest.raises(KeyboardInterrupt):
            quiet(models.normal, data, checkpoint=tmp_path / "kept")
    monkeypatch.setattr("pyrolatent.infer.em_climb.Search.iterated", killed)  # has been done before
    on = quiet(models.normal, data, resume=tmp_path / "kept")
    assert on.info["num_steps"] == whole.info["num_steps"]
    for name, draws in whole.samples.items():
        torch.testing.assert_close(on.samples[name], draws, rtol=0, atol=0)


def test_labels_of_rows_are_drawn_and_large_tables_keep_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = models.normal_data()
    found = quiet(models.normal, data)
    position = found.samples["location"][0].mean(0).argsort()
    high = (found.samples["z"][0] == position[1]).double().mean(0)
    far = (data["x"] > 3.5) | (data["x"] < 0.5)
    torch.testing.assert_close(high[far], (data["x"][far] > 2).double(), rtol=0, atol=0.1)
    monkeypatch.setattr("pyrolatent.infer.em_samples.MAX_NUMBERS", 1_000)
    assert set(quiet(models.normal, data).samples) == {"shares", "location", "spread"}


@pytest.mark.parametrize("model", [models.normal, models.log_spreads])
def test_many_rows_are_screened_and_agree(model: Any) -> None:
    data = models.normal_data(12_000)
    problem = problem_of(model, data)
    _, sites = steps_of(problem, False)
    some = screening_steps(problem, sites, False)
    assert some is not None and some.latents.density.sites.rows in (FEW, SCREENED)
    found = quiet(model, data)
    x = data["x"].numpy()[:, None]
    peer = GaussianMixture(2, tol=1e-12, max_iter=5_000, random_state=0, reg_covar=0).fit(x)
    assert found.info["log_likelihood"] == pytest.approx(peer.score(x) * len(x), abs=1e-5)


def test_fits_are_saved(tmp_path: Path) -> None:
    found = quiet(models.normal, models.normal_data(), EM(num_starts=3))
    pyl.save(found, tmp_path / "fit")
    loaded = pyl.load(tmp_path / "fit", model=models.normal)
    assert loaded.method == EM(num_starts=3)
    pd.testing.assert_frame_equal(pyl.summary(loaded), pyl.summary(found))


# What is weak, and what is refused


def told(model: Any, data: Any, method: EM | None = None) -> str:
    return " ".join(quiet(model, data, method).warnings)


def test_a_single_component_that_does_as_well_is_told() -> None:
    x = torch.randn(200, generator=models.generator(2), dtype=FLOAT)
    assert "nats more likely than a single component (< 10)" in told(models.normal, {"x": x})


def test_a_spike_is_never_the_best() -> None:
    x = torch.cat([models.normal_data(200)["x"], torch.full((6,), 1.2345, dtype=FLOAT)])
    found = quiet(models.normal, {"x": x}, EM(num_starts=20))
    assert float(found.samples["spread"].mean((0, 1)).min()) > 0.1
    assert "spike" not in " ".join(found.warnings)


def test_only_the_sum_of_two_locations_is_known() -> None:
    def two_means(x: Tensor) -> None:
        first, second = (
            pyro.sample("first", dist.Normal(0.0, 1.0)),
            pyro.sample("second", dist.Normal(0.0, 1.0)),
        )
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(first + second, 1.0), obs=x)

    found = quiet(two_means, {"x": torch.tensor([5.0, 6.0, 7.0])}, EM(num_starts=2))
    assert "does not tell 1 of 2 directions, in sites ['first', 'second']" in " ".join(found.warnings)


def test_a_peak_at_the_edge_is_told() -> None:
    def share(x: Tensor) -> None:
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    assert "'p'" in told(share, {"x": torch.ones(20, dtype=FLOAT)})


def test_starts_that_are_cut_are_told() -> None:
    assert "EM was still gaining after 3 iterations" in told(
        models.normal, models.normal_data(), EM(num_steps=1)
    )


def test_latents_of_rows_that_are_not_normal_are_refused() -> None:
    def local(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Bernoulli(logits=z), obs=x)

    with pytest.raises(ModelError, match=r"\['z'\].*not normal given all else"):
        quiet(local, {"x": torch.ones(5, dtype=FLOAT)})


def test_rows_that_depend_on_each_other_are_refused() -> None:
    def centred(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z - z.mean(), 1.0), obs=x)

    with pytest.raises(ModelError, match=r"\['z'\].*rows of the model depend on each other"):
        quiet(centred, {"x": torch.ones(5, dtype=FLOAT)})


def test_latents_of_rows_beside_discrete_sites_are_refused() -> None:
    def both(x: Tensor) -> None:
        location = pyro.sample("location", dist.Normal(torch.zeros(2), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(location[k] + z, 1.0), obs=x)

    with pytest.raises(ModelError, match=r"sites \['z', 'k'\].*there are discrete sites too"):
        quiet(both, models.normal_data())


# Settings


@pytest.mark.parametrize("setting", ["num_starts", "num_steps", "num_draws"])
def test_settings_too_small_are_refused(setting: str) -> None:
    with pytest.raises(ArgumentError, match=f"{setting} is too small"):
        EM(**{setting: 0})


# Weighted samples


@pytest.mark.parametrize(
    "kind", [dist.Normal, dist.LogNormal, dist.Bernoulli, dist.Poisson, dist.Exponential]
)
def test_the_most_likely_distribution_of_a_weighted_sample(kind: Any) -> None:
    random = models.generator()
    value = (
        (torch.rand(30, generator=random) < 0.4).double()
        if kind is dist.Bernoulli
        else 0.2 + torch.poisson(torch.full((30,), 4.0), generator=random).double()
    )
    value = value.round() if kind is dist.Poisson else value
    weights = torch.rand(2, 30, generator=random, dtype=FLOAT)
    best = pyl.fit_weighted(kind, value, weights)
    assert best.batch_shape == (2,)

    def likelihood(distribution: Any) -> Tensor:
        return (weights * distribution.log_prob(value[:, None]).mT).sum(1)

    names = [name for name in ("loc", "scale", "probs", "rate") if name in kind.arg_constraints]
    top = likelihood(best)
    for name in names:
        for factor in (0.99, 1.01):
            others = {n: getattr(best, n) * (factor if n == name else 1.0) for n in names}
            assert (likelihood(kind(**others)) < top).all()


def test_weighted_labels() -> None:
    best = pyl.fit_weighted(dist.Categorical, torch.tensor([0, 2, 2]), torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(best.probs, torch.tensor([0.25, 0.0, 0.75]))


def test_weighted_samples_that_are_refused() -> None:
    with pytest.raises(ArgumentError, match="most likely Gamma has no formula"):
        pyl.fit_weighted(dist.Gamma, torch.ones(3), torch.ones(3))
    with pytest.raises(ArgumentError, match="without weight"):
        pyl.fit_weighted(dist.Normal, torch.ones(3), torch.zeros(3))


def test_only_observed_sites_and_labels_count() -> None:
    problem = problem_of(models.normal, models.normal_data())
    with model_context(FLOAT, CPU):
        density = general(problem).latents.density
        joint = evaluate(density.model, density.data, density.sites, torch.zeros(density.dim, dtype=FLOAT))
    assert set(counted(joint, False)) == {"z", "x"}
    assert is_observation(joint.messages["x"])
    assert set(counted(joint, True)) == {"shares", "location", "spread", "z", "x"}
