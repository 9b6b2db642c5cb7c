"""Variational inference learns what is known, treats rows alike, and says when it failed."""

import functools
import itertools
import math
import warnings
from dataclasses import replace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor, nn

from pyrolatent.capture.compile import has_compiler
from pyrolatent.capture.context import model_context
from pyrolatent.errors import ArgumentError, FitWarning, ModelError
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.learner import prepare
from pyrolatent.infer.optimizers import CHECKS, rate
from pyrolatent.infer.rows import Epochs
from pyrolatent.infer.step import eager_step, guarded, step_graph
from pyrolatent.infer.svi import SVI, read
from pyrolatent.objectives import elbo
from pyrolatent.result import Fit
from tests.test_objective_gradient import problem_of
from tests.user_pairs import (
    PAIRS,
    dropout,
    gamma_and_normal,
    local_data,
    local_scales,
    regression,
    regression_data,
    vae,
    vae_data,
)

DOUBLE = torch.float64


def conjugate(y: Tensor) -> None:
    """Two means with known noise: the posterior is a normal, coordinate by coordinate."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)


def conjugate_data(num_rows: int = 30) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    return {"y": torch.tensor([1.0, -0.5]) + torch.randn(num_rows, 2, generator=random, dtype=DOUBLE)}


def exact(y: Tensor) -> tuple[Tensor, float]:
    """Posterior mean (2,) and sd of `conjugate`."""
    precision = len(y) + 0.25
    return y.sum(0) / precision, precision**-0.5


def quiet(*args: Any, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(*args, progress=False, **options)


@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_normal_guide_finds_the_exact_posterior(batch_size: int | None) -> None:
    data = conjugate_data()
    found = quiet(conjugate, data, SVI(num_steps=4_000, lr=0.02, batch_size=batch_size), seed=1)
    mean, sd = exact(data["y"])
    draws = found.samples["mean"][0]
    assert draws.shape == (1_000, 2)
    # 4 standard errors of 1,000 draws, and a little for the end of a stochastic ascent
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=4 * sd / 1_000**0.5 + 0.1 * sd)
    torch.testing.assert_close(draws.std(0), torch.full((2,), sd, dtype=DOUBLE), rtol=0.15, atol=0)
    assert found.info["rung"] == "vmap"
    assert found.problem.dtype == DOUBLE


def test_a_delta_guide_finds_the_mode() -> None:
    data = conjugate_data()
    found = fit(conjugate, data, SVI(num_steps=1_500, lr=0.05), guide=AutoDelta, seed=0, progress=False)
    mean, _ = exact(data["y"])
    torch.testing.assert_close(found.samples["mean"][0, 0], mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.params["AutoDelta.mean"], mean, rtol=0, atol=1e-3)


def test_parameters_alone_are_fitted_by_maximum_likelihood() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    y = torch.tensor([1.0, 2.0, 4.0, 5.0])
    found = fit(model, {"y": y}, SVI(num_steps=1_500, lr=0.05), seed=0, progress=False)
    assert found.params["mean"].item() == pytest.approx(3.0, abs=1e-3)
    assert found.params["scale"].item() == pytest.approx(math.sqrt(2.5), abs=1e-3)
    assert found.samples == {}


def test_learnable_parameters_choose_the_method_and_networks_the_dtype() -> None:
    user = vae()
    with pytest.raises(ModelError, match="learnable parameters"):
        fit(user.model, user.data, HMC(num_chains=4), seed=0)
    short = SVI(num_steps=3, batch_size=8, num_draws=2)
    found = quiet(user.model, user.data, short, guide=user.guide, seed=0)
    assert found.problem.dtype == torch.float32
    assert found.samples == {}, "latents of rows come from the network on demand"
    assert found.draw_shape == (1, 2)


def test_same_seed_same_result_and_nothing_of_the_users_changes() -> None:
    user = vae()
    before = [value.clone() for value in user.model.__self__.parameters()]  # type: ignore[attr-defined]
    method = SVI(num_steps=30, batch_size=16, num_draws=3)
    first, second = (quiet(user.model, user.data, method, guide=user.guide, seed=5) for _ in range(2))
    assert torch.equal(first.losses["train"], second.losses["train"])
    for name, value in first.params.items():
        assert torch.equal(value, second.params[name])
    after = user.model.__self__.parameters()  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_path_of_the_loss_is_that_of_a_plain_loop() -> None:
    """A delta guide draws nothing, so the numbers are equal and not only their expectations."""
    data, num_steps = regression_data(), 40
    found = quiet(regression, data, SVI(num_steps=num_steps, lr=0.05), guide=AutoDelta, seed=3)
    assert found.parameters is not None
    flat = found.parameters.initial.clone().requires_grad_()
    optimizer = torch.optim.Adam([flat], lr=1.0)
    losses, typical = [], torch.zeros((), dtype=DOUBLE)
    with found.context(), torch.enable_grad():
        for step in range(num_steps):
            with found.parameters.at(flat):
                loss = pyro.infer.Trace_ELBO().differentiable_loss(regression, found.guide, **data)
            (gradient,) = torch.autograd.grad(loss, flat)
            _, flat.grad, typical = guarded(loss.detach(), gradient, typical)
            optimizer.param_groups[0]["lr"] = 0.05 * rate(step, num_steps)
            optimizer.step()
            losses.append(loss.detach())
    torch.testing.assert_close(found.losses["train"][0], torch.stack(losses), rtol=1e-9, atol=1e-9)


def test_refits_are_trained_each_on_its_own_bootstrap_rows() -> None:
    data = conjugate_data(200)
    method = SVI(num_steps=1_500, lr=0.03, num_refits=12, num_draws=200)
    found = quiet(conjugate, data, method, guide=AutoDelta, seed=2)
    assert found.samples["mean"].shape == (12, 200, 2)
    assert found.params["AutoDelta.mean"].shape == (12, 2)
    modes = found.params["AutoDelta.mean"]
    # the sd of a bootstrap mean is that of the mean; 12 of them know it to 1 / sqrt(2 * 11) = 21 %
    expected = data["y"].std(0) / 200**0.5
    ratio = (modes.std(0) / expected).log().abs()
    assert (ratio < math.log(2)).all()


def test_refits_side_by_side_equal_refits_alone() -> None:
    """A graph over refits gives each what it would get by itself."""
    user = vae()
    problem = problem_of(user)
    sites = read(problem)
    with model_context(DOUBLE, torch.device("cpu")), torch.no_grad():
        learner = prepare(problem, sites, 6, 0.0, 3)
        gradient = learner.gradient(elbo())
        noise = torch.randn(3, len(learner.parameters.initial), generator=torch.Generator().manual_seed(1))
        flat = learner.parameters.initial + 0.1 * noise
        rows = next(learner.stream().after(0))
        drawn = learner.noise(gradient, elbo()).draw()
        typical, step = torch.ones(3), torch.zeros(())
        inputs = [flat, typical, step, *rows, *drawn]
        graph = step_graph(gradient, inputs)
        assert graph is not None
        together = graph(*inputs)
        module = gradient.noisy.graph.module  # type: ignore[union-attr]
        for r in range(3):
            own = module(flat[r], step, *(value[r] for value in rows), *(part[r] for part in drawn))
            alone = guarded(*own, typical[r])
            for found, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(found[r], expected, rtol=1e-10, atol=1e-10)
        assert len(eager_step(gradient)(flat, typical, step, *rows)[0]) == 3


@pytest.mark.parametrize(("num_rows", "size"), [(10, 3), (10, 10), (4, 7)])
def test_batches_wrap_around_the_shuffled_epoch(num_rows: int, size: int) -> None:
    epochs = Epochs(num_rows, size, torch.Generator().manual_seed(0))
    parts = []
    while sum(part.numel() for part in parts) < num_rows * size:
        parts.append(epochs.deal())
        assert parts[-1].shape[1] == size
    drawn = torch.cat([part.flatten() for part in parts])[: num_rows * size]
    epochs = drawn.reshape(size, num_rows)  # size x num_rows positions are exactly `size` epochs
    assert all(sorted(epoch.tolist()) == list(range(num_rows)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1


def test_early_stopping_keeps_a_copy_of_the_best_state() -> None:
    """Rows held out are known better before the network has learnt the noise of the others."""
    user = vae()
    method = SVI(num_steps=4_000, lr=0.02, validation_fraction=0.4, patience=5, num_draws=1)
    found = quiet(user.model, user.data, method, guide=user.guide, seed=0)
    assert found.info["steps"] < 4_000
    validation = found.losses["validation"][0]
    assert len(validation) == found.info["steps"] // (4_000 // CHECKS)
    smooth, best, at = validation[0], math.inf, 0
    for check, value in enumerate(validation):
        smooth = value if check == 0 else 0.7 * smooth + 0.3 * value
        if smooth < best:
            best, at = smooth, check
    assert at == len(validation) - 1 - 5
    longer = quiet(
        user.model,
        user.data,
        SVI(num_steps=4_000, lr=0.02, validation_fraction=0.4, num_draws=1),
        guide=user.guide,
        seed=0,
    )
    torch.testing.assert_close(longer.losses["validation"][0, : len(validation)], validation)
    assert not torch.equal(longer.state["parameters"], found.state["parameters"])


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [rate(step, 1_000) for step in range(1_000)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[50] == 1.0
    assert rates[-1] < 1e-5
    assert all(a >= b for a, b in itertools.pairwise(rates[50:]))


def test_a_gradient_far_longer_than_the_others_is_shortened() -> None:
    gradient, typical = torch.tensor([30.0, 40.0]), torch.tensor(1.0)
    _, shortened, after = guarded(torch.tensor(0.0), gradient, typical)
    torch.testing.assert_close(shortened, torch.tensor([6.0, 8.0]))
    assert after.item() == pytest.approx(0.95 + 0.05 * 10)
    _, kept, _ = guarded(torch.tensor(0.0), gradient / 10, typical)
    torch.testing.assert_close(kept, gradient / 10)
    _, nothing, _ = guarded(torch.tensor(torch.nan), gradient, typical)
    assert not nothing.any()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state() -> None:
    def model(y: Tensor) -> None:
        rise = pyro.param("rise", torch.tensor(0.5))
        with pyro.plate("data", len(y)):
            # the better the fit, the nearer the scale comes to below zero
            pyro.sample("y", dist.Normal(0.0, 1.0 - rise), obs=y)

    with pytest.warns(
        FitWarning, match=r"not finite at step \d+ \(first to blame: .* site 'y' of the model\)"
    ):
        found = fit(model, {"y": torch.zeros(5)}, SVI(num_steps=2_000, lr=0.01), seed=0, progress=False)
    assert found.params["rise"].item() < 1
    assert found.losses["train"].isfinite().all()
    assert 0 < found.losses["train"].shape[1] < 2_000


def test_a_loss_that_never_was_finite_is_an_error() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1e-200), obs=y)

    with pytest.raises(ModelError, match=r"not finite at the first step.*site 'y' of the model"):
        fit(model, {"y": torch.ones(3)}, SVI(num_steps=10), seed=0, progress=False)


def test_unfinished_training_is_said_aloud() -> None:
    data = conjugate_data()
    far = {"y": data["y"] + 30}
    found = quiet(conjugate, far, SVI(num_steps=1_000, lr=1e-3), guide=AutoDelta, seed=0)
    assert any("training is unfinished. Raise num_steps or lr." in warning for warning in found.warnings)
    done = quiet(conjugate, data, SVI(num_steps=1_000, lr=0.05), seed=0)
    assert not any("unfinished" in warning for warning in done.warnings)


def test_start_continues_with_the_parameters_of_an_earlier_fit() -> None:
    data = conjugate_data()
    first = fit(conjugate, data, SVI(num_steps=3_000, lr=0.02), seed=0, progress=False)
    again = quiet(conjugate, data, SVI(num_steps=50, lr=1e-4), start=first, seed=1)
    assert again.losses["train"][0, :5].mean() < first.losses["train"][0, :5].mean()
    other = fit(conjugate, data, SVI(num_steps=100, lr=0.1), guide=AutoDelta, seed=0, progress=False)
    with pytest.raises(ModelError, match="learnt other parameters"):
        fit(conjugate, data, SVI(num_steps=10), start=other, seed=0, progress=False)


# What is refused


def test_a_guide_made_outside_the_fit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"made outside the fit.*guide=AutoNormal"):
        fit(conjugate, conjugate_data(), SVI(), guide=AutoNormal(conjugate), seed=0)


def test_batches_need_a_plate_that_follows_the_rows() -> None:
    def fixed(y: Tensor, n: int) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", n):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def outside(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)

    def subsampled(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=3) as index:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[index])

    y = torch.zeros(8)
    method = SVI(num_steps=5, batch_size=4)
    with pytest.raises(ModelError, match=r"does not follow the rows.*len\(x\)"):
        fit(fixed, {"y": y, "n": 8}, method, seed=0)
    with pytest.raises(ModelError, match=r"every observation in plate 'data'.*\['y'\]|sites \['y'\]"):
        fit(outside, {"y": y}, method, seed=0)
    with pytest.raises(ModelError, match=r"draws its own subsample.*subsample_size"):
        fit(subsampled, {"y": y}, method, seed=0)


def test_latents_of_rows_without_a_network_cannot_be_divided() -> None:
    with pytest.raises(ModelError, match=r"latents of rows.*\['scale'\]"):
        fit(local_scales, local_data(), SVI(num_steps=5, batch_size=3), seed=0)


def test_a_guide_without_parameters_teaches_nothing() -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises(ModelError, match="nothing to learn"):
        fit(conjugate, conjugate_data(), SVI(num_steps=5), guide=guide, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is too small"),
        ({"lr": 0.0}, "learning rate must be positive"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"batch_size": 0}, "batch_size is too small"),
        ({"num_refits": 0}, "num_refits is too small"),
        ({"patience": 0}, "patience is too small"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SVI(**settings)


def test_batch_norm_is_refused() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x), 1.0).to_event(1), obs=x)

    with pytest.raises(ModelError, match=r"changes its buffers.*BatchNorm"):
        fit(model, {"x": torch.randn(9, 2, generator=torch.Generator().manual_seed(0))}, SVI(), seed=0)


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_steps_give_the_same_losses() -> None:
    user = vae()
    method = SVI(num_steps=20, batch_size=16, num_draws=1)
    plain, compiled = (
        quiet(user.model, user.data, method, guide=user.guide, seed=5, compile=choice, dtype=DOUBLE)
        for choice in (False, True)
    )
    assert compiled.info["compiled"]
    torch.testing.assert_close(compiled.losses["train"], plain.losses["train"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_every_pair_can_be_fitted(name: str) -> None:
    user = PAIRS[name]()
    found = quiet(user.model, user.data, SVI(num_steps=200, lr=0.01, num_draws=5), guide=user.guide, seed=0)
    losses = found.losses["train"][0]
    assert losses[-20:].mean() < losses[:20].mean()
    assert all(draws.shape[:2] == (1, 5) for draws in found.samples.values())
    assert all(draws.isfinite().all() for draws in found.samples.values())


def test_dropout_draws_anew_at_each_step() -> None:
    user = dropout()
    found = quiet(user.model, user.data, SVI(num_steps=12, lr=1e-12), seed=0)
    assert len(found.losses["train"].unique()) == 12


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_dropout_draws_the_same_numbers() -> None:
    user = dropout()
    plain, compiled = (
        quiet(user.model, user.data, SVI(num_steps=12), seed=0, compile=choice, dtype=DOUBLE)
        for choice in (False, True)
    )
    assert (plain.rung, compiled.info["compiled"]) == ("vmap", True)
    torch.testing.assert_close(compiled.losses["train"], plain.losses["train"], rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_draws_inside_of_the_graph_are_the_same() -> None:
    user, method = gamma_and_normal(), SVI(num_steps=12, num_draws=2)
    plain, compiled = (
        quiet(user.model, user.data, method, guide=user.guide, seed=0, compile=choice)
        for choice in (False, True)
    )
    assert compiled.info["compiled"]
    torch.testing.assert_close(compiled.losses["train"], plain.losses["train"], rtol=1e-9, atol=1e-9)


def test_an_autoguide_given_as_a_class_keeps_draws_of_rows() -> None:
    found = quiet(local_scales, local_data(), SVI(num_steps=20, num_draws=5), guide=AutoNormal, seed=0)
    assert set(found.samples) == set(found.sites.latents) == {"mean", "scale"}
    assert found.samples["scale"].shape[:2] == (1, 5)


@pytest.mark.parametrize("settings", [{"num_refits": 2}, {"batch_size": 3}, {"validation_fraction": 0.5}])
def test_a_guide_with_parameters_of_rows_cannot_be_divided(settings: dict[str, Any]) -> None:
    """Bootstrap rows would train the parameters of other rows."""

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(y: Tensor) -> None:
        location = pyro.param("location", torch.zeros(len(y)))
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(location, 1.0))

    with pytest.raises(
        ModelError, match=r"does not follow the rows that the guide is given.*with [347] rows the guide fails"
    ):
        fit(model, {"y": torch.zeros(8)}, SVI(num_steps=2, **settings), guide=guide, seed=0)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_rows_held_out_are_neither_none_nor_all(fraction: float) -> None:
    with pytest.raises(ArgumentError, match=r"no rows to learn from, or none to watch: .* of 10 rows"):
        fit(conjugate, conjugate_data(10), SVI(num_steps=5, validation_fraction=fraction), seed=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(torch.optim.SGD, momentum=0.9),
        functools.partial(torch.optim.AdamW, weight_decay=0.1),
        functools.partial(torch.optim.Adam, foreach=True),
        torch.optim.Adagrad,
    ],
)
def test_optimisers_of_torch_and_their_settings_can_be_used(optimizer: Any) -> None:
    method = SVI(num_steps=100, lr=1e-3, optimizer=optimizer, num_draws=1)
    losses = quiet(conjugate, conjugate_data(), method, guide=AutoDelta, seed=0).losses["train"][0]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, torch.optim.SparseAdam, pyro.optim.Adam])
def test_optimisers_that_take_no_gradient_steps_are_refused(optimizer: Any) -> None:
    with pytest.raises(ArgumentError, match=r"takes no gradient steps.*Adam"):
        fit(conjugate, conjugate_data(), SVI(num_steps=5, optimizer=optimizer), seed=0)


def test_start_takes_parameters_whose_free_form_has_another_shape() -> None:
    def model(y: Tensor) -> None:
        tril = pyro.param("tril", torch.eye(3), constraint=dist.constraints.corr_cholesky)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), scale_tril=tril), obs=y)

    data = {"y": torch.randn(20, 3, generator=torch.Generator().manual_seed(0))}
    first = quiet(model, data, SVI(num_steps=50, lr=0.05), seed=0)
    again = quiet(model, data, SVI(num_steps=1, lr=1e-12), start=first, seed=0)
    torch.testing.assert_close(again.params["tril"], first.params["tril"], rtol=0, atol=1e-9)


def test_a_network_with_frozen_weights_runs_in_the_dtype_of_the_fit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)).requires_grad_(False).eval()
    x = vae_data()["x"][:, :2]

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x), scale).to_event(1), obs=x)

    found = quiet(model, {"x": x}, SVI(num_steps=1_000, lr=0.05), seed=0)
    assert found.problem.dtype == DOUBLE
    assert set(found.params) == {"scale"}
    expected = (x - network(x.float())).square().mean().sqrt()
    assert found.params["scale"].item() == pytest.approx(float(expected), rel=1e-4)


def test_verbs_run_models_that_write_in_place_on_a_rung_that_holds() -> None:
    def written(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        shifted = torch.zeros(2)
        shifted[0] = mean[0]
        shifted[1] = mean[1]
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(shifted, 1.0).to_event(1), obs=y)

    data = conjugate_data()
    found = quiet(written, data, SVI(num_steps=50, num_draws=20), seed=0)
    assert found.info["rung"] == "shim"
    log_likelihood = to_inference_data(found, groups=["log_likelihood"])["log_likelihood"]["y"].to_numpy()
    mean = found.samples["mean"][0, 3]
    expected = torch.distributions.Normal(mean, 1.0).log_prob(data["y"]).sum(-1)
    torch.testing.assert_close(torch.from_numpy(log_likelihood[0, 3]), expected)


def test_samplers_start_from_one_refit_only() -> None:
    user = vae()
    method = SVI(num_steps=5, num_refits=2, num_draws=2)
    several = quiet(user.model, user.data, method, guide=user.guide, seed=0)
    with pytest.raises(ModelError, match="2 refits, each with parameters of its own"):
        fit(user.model, user.data, HMC(num_chains=4), start=several, seed=0, progress=False)


def test_held_out_rows_that_get_worse_are_said_aloud() -> None:
    user = vae()
    method = SVI(num_steps=2_000, lr=0.02, validation_fraction=0.4, num_draws=1)
    found = quiet(user.model, user.data, method, guide=user.guide, seed=0)
    assert any("held out rose by" in warning and "Give patience" in warning for warning in found.warnings)
    stopped = replace(method, patience=5)
    kept = quiet(user.model, user.data, stopped, guide=user.guide, seed=0)
    assert not any("held out rose" in warning for warning in kept.warnings)
