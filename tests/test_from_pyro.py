import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import HMC, MCMC, NUTS, Predictive, RandomWalkKernel
from pyro.infer.mcmc import StreamingMCMC
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.export import GROUPS
from pyrolatent.from_pyro import from_pyro
from tests.arviz_objects import IS_TREE, assert_same, from_file, groups, is_export

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(y: Tensor, sigma: Tensor, centre: float = 0.0) -> None:
    mu = pyro.sample("mu", dist.Normal(centre, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def normal(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def run(kernel: Any, *args: Any, draws: int = 20, chains: int = 1, **kwargs: Any) -> MCMC:
    """A run that is short: what is made of it is tested, not its draws."""
    pyro.set_rng_seed(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "num_chains=.* is more than available_cpu")
        mcmc = MCMC(kernel, draws, warmup_steps=20, num_chains=chains, disable_progbar=True)
    mcmc.run(*args, **kwargs)
    return mcmc


@pytest.fixture(scope="module")
def of_schools() -> MCMC:
    return run(NUTS(schools), Y, sigma=SIGMA, draws=100, chains=2)


@pytest.fixture(scope="module")
def found(of_schools: MCMC) -> Any:
    return from_pyro(of_schools)


# Values


def test_all_groups_are_there(found: Any):
    assert is_export(found)
    assert groups(found) == set(GROUPS)
    dims = {name: values.dims for name, values in found.posterior.data_vars.items()}
    drawn = ("chain", "draw")
    assert dims == {"mu": drawn, "tau": drawn, "z": (*drawn, "data"), "theta": (*drawn, "data")}
    assert set(found.sample_stats.data_vars) == {"lp", "diverging", "acceptance_rate"}
    assert set(found.constant_data.data_vars) == {"sigma"}  # y is observed
    np.testing.assert_array_equal(found.constant_data["sigma"], SIGMA)
    np.testing.assert_array_equal(found.observed_data["y"], Y)


def test_latents_are_the_draws_and_deterministics_follow(found: Any, of_schools: MCMC):
    samples = of_schools.get_samples(group_by_chain=True)
    for name, values in samples.items():
        np.testing.assert_array_equal(found.posterior[name], values)
    replayed = Predictive(schools, of_schools.get_samples(), return_sites=["theta"])(Y, sigma=SIGMA)["theta"]
    np.testing.assert_allclose(found.posterior["theta"], replayed.reshape(2, 100, 8), rtol=1e-6)


def test_log_likelihood_is_that_of_each_observation(found: Any, of_schools: MCMC):
    samples = of_schools.get_samples(group_by_chain=True)
    theta = samples["mu"][..., None] + samples["tau"][..., None] * samples["z"]
    # Single precision.
    np.testing.assert_allclose(
        found.log_likelihood["y"], dist.Normal(theta, SIGMA).log_prob(Y), rtol=1e-5, atol=1e-5
    )


def test_lp_is_minus_the_potential_energy_that_pyro_moved_in(of_schools: MCMC, found: Any):
    kernel = NUTS(schools)
    kernel.setup(0, Y, sigma=SIGMA)
    samples = of_schools.get_samples(group_by_chain=True)
    for chain, draw in [(0, 0), (0, 99), (1, 50)]:
        at = {name: values[chain, draw] for name, values in samples.items()}
        free = {n: kernel.transforms[n](v) if n in kernel.transforms else v for n, v in at.items()}
        energy = float(kernel.potential_fn(free))
        np.testing.assert_allclose(found.sample_stats["lp"][chain, draw], -energy, rtol=1e-5)


def test_predictions_scatter_around_each_draw(found: Any):
    drawn, at = found.posterior_predictive["y"], found.posterior["theta"]
    standardised = ((drawn - at) / SIGMA.numpy()).values
    # 1,600 standard normals: 5 standard errors are 0.125 for the mean and 0.09 for the sd.
    assert abs(standardised.mean()) < 0.125
    assert abs(standardised.std() - 1) < 0.09


@pytest.mark.skipif(IS_TREE, reason="ArviZ 1 has no from_pyro to compare with")
def test_equal_to_what_arviz_makes_of_the_same_run(found: Any, of_schools: MCMC):
    theirs = az.from_pyro(of_schools)
    # ArviZ also takes the deterministic theta for an observation.
    for group, names in {
        "posterior": ["mu", "tau", "z"],
        "log_likelihood": "y",
        "observed_data": "y",
    }.items():
        for name in names:
            np.testing.assert_allclose(found[group][name], theirs[group][name], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.sample_stats["diverging"], theirs.sample_stats["diverging"])
    ours, others = loo(found), loo(theirs, var_name="y")
    np.testing.assert_allclose([ours.elpd_loo, ours.p_loo], [others.elpd_loo, others.p_loo], rtol=1e-4)


def loo(found: Any, var_name: str | None = None) -> Any:
    with warnings.catch_warnings():
        # 200 draws of 8 schools: leave-one-out may say that it is unsure.
        warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
        return az.loo(found, var_name=var_name)


def test_arviz_works_on_it(found: Any, tmp_path: Path):
    assert loo(found).n_data_points == 8
    assert set(az.summary(found, var_names=["mu", "theta"]).index) == {
        "mu",
        *(f"theta[{i}]" for i in range(8)),
    }
    assert_same(from_file(found, tmp_path), found)


# Chains


def test_more_than_ten_chains_stay_in_order():
    mcmc = run(NUTS(normal), Y, draws=12, chains=12)
    for chain in range(12):
        mcmc._diagnostics[chain] = {"divergences": [chain], "acceptance rate": chain / 12}
    found = from_pyro(mcmc, ["posterior", "sample_stats"])
    np.testing.assert_array_equal(found.posterior["mean"], mcmc._samples["mean"])
    np.testing.assert_array_equal(found.sample_stats["diverging"], np.eye(12, dtype=bool))
    rates = np.arange(12)[:, None].repeat(12, 1) / 12
    np.testing.assert_allclose(found.sample_stats["acceptance_rate"], rates, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_chains_that_ran_in_parallel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 8)
    mcmc = run(NUTS(normal), Y, draws=10, chains=2)
    assert type(mcmc.sampler).__name__ == "_MultiSampler"
    found = from_pyro(mcmc)
    np.testing.assert_array_equal(found.posterior["mean"], mcmc.get_samples(group_by_chain=True)["mean"])
    expected = dist.Normal(torch.tensor(found.posterior["mean"].values)[..., None], 1.0).log_prob(Y)
    np.testing.assert_allclose(found.log_likelihood["y"], expected, rtol=1e-5)


def test_a_single_chain_knows_its_step_size():
    kernel = NUTS(normal, step_size=0.25, adapt_step_size=False)
    stats = from_pyro(run(kernel, Y), ["sample_stats"]).sample_stats
    np.testing.assert_array_equal(stats["step_size"], np.full((1, 20), 0.25))


# Kernels and models


@pytest.mark.parametrize("kernel", [HMC, RandomWalkKernel])
def test_other_kernels(kernel: Callable[..., Any]):
    found = from_pyro(run(kernel(normal), Y))
    assert groups(found) == set(GROUPS) - {"constant_data"}
    assert ("diverging" in found.sample_stats.data_vars) == (kernel is HMC)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_plates_events_masks_and_precision(double: None):
    seen = torch.tensor([True, False, True])

    def model(x: Tensor, *, y: Tensor, **named: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
        cholesky = pyro.sample("cholesky", dist.LKJCholesky(2, 1.0))
        with pyro.plate("groups", 3):
            mean = pyro.sample("mean", dist.MultivariateNormal(torch.zeros(2), scale_tril=cholesky))
            with pyro.poutine.mask(mask=seen):
                pyro.sample("y", dist.Normal(mean + x[:, None], scale).to_event(1), obs=y + named["shift"])

    x, y, shift = torch.arange(3.0), torch.ones(3, 2), torch.tensor(0.5)
    found = from_pyro(run(NUTS(model), x, y=y, shift=shift))
    assert found.log_likelihood["y"].dims == ("chain", "draw", "groups")
    at = {name: torch.tensor(values.values) for name, values in found.posterior.data_vars.items()}
    density = dist.Normal(at["mean"] + x[:, None], at["scale"][..., None, :]).to_event(1).log_prob(y + shift)
    np.testing.assert_allclose(found.log_likelihood["y"], density * seen, rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(found.observed_data["y"]).all("y_dim_1"), ~seen.numpy())


def test_a_module_that_closes_over_its_data():
    class Line(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.slope = PyroSample(dist.Normal(0.0, 1.0))

        def forward(self, x: Tensor) -> None:
            mean = self.slope * x
            with pyro.plate("data", 8):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=Y)

    x = torch.linspace(-1, 1, 8)
    found = from_pyro(run(NUTS(Line()), x))
    slope = torch.tensor(found.posterior["slope"].values)  # (chain, draw)
    expected = dist.Normal(slope[..., None] * x, 1.0).log_prob(Y)
    np.testing.assert_allclose(found.log_likelihood["y"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found.constant_data["x"], x)


def test_parameters_have_the_values_of_the_store():
    def model() -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 8):
            pyro.sample("y", dist.Normal(mean, scale), obs=Y)

    with pyro.get_param_store().scope():
        pyro.param("scale", torch.tensor(7.0), constraint=constraints.positive)
        found = from_pyro(run(NUTS(model)))
        assert pyro.param("scale").item() == pytest.approx(7.0)
    expected = dist.Normal(torch.tensor(found.posterior["mean"].values)[..., None], 7.0).log_prob(Y)
    np.testing.assert_allclose(found.log_likelihood["y"], expected, rtol=1e-5)


def test_a_model_that_reads_latent_values_is_replayed_draw_by_draw():
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        pyro.deterministic("sign", torch.tensor(1.0 if mean.item() > 5 else -1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    kernel = NUTS(model, step_size=0.5, adapt_step_size=False)
    found = from_pyro(run(kernel, Y - 4.0, draws=50))
    assert found.attrs["rung"] == "eager"
    mean = found.posterior["mean"].values
    np.testing.assert_array_equal(found.posterior["sign"], np.where(mean > 5, 1.0, -1.0))
    assert mean.min() < 5 < mean.max()


def test_discrete_sites_that_pyro_summed_out_are_drawn():
    def mixture(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(y)):
            arm = pyro.sample("arm", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(mean + 20 * arm, 1.0), obs=y)

    y = torch.tensor([0.5, 21.0, -0.5, 19.5])
    found = from_pyro(run(NUTS(mixture, max_plate_nesting=1), y))
    assert found.posterior["arm"].dims == ("chain", "draw", "data")
    np.testing.assert_array_equal(found.posterior["arm"], np.broadcast_to([0, 1, 0, 1], (1, 20, 4)))
    mean = torch.tensor(found.posterior["mean"].values)[..., None]  # (chain, draw, 1)
    arms = [dist.Normal(mean + 20 * arm, 1.0).log_prob(y) + math.log(0.5) for arm in (0, 1)]
    np.testing.assert_allclose(found.log_likelihood["y"], torch.logaddexp(*arms), rtol=1e-4)
    lp = dist.Normal(0.0, 10.0).log_prob(mean[..., 0]) + torch.logaddexp(*arms).sum(-1)
    np.testing.assert_allclose(found.sample_stats["lp"], lp, rtol=1e-4)


def test_an_improper_prior_leaves_its_groups_out():
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(constraints.real, (), ()))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def start(site: Any) -> Tensor:
        return torch.zeros(())

    found = from_pyro(run(NUTS(model, init_strategy=start, max_plate_nesting=1), Y))
    assert groups(found) == set(GROUPS) - {"prior", "prior_predictive", "constant_data"}
    assert "ImproperUniform does not support sampling" in found.attrs["prior_left_out"]


# Surroundings


def test_the_same_seed_gives_the_same_and_leaves_the_random_state(of_schools: MCMC, found: Any):
    before = torch.get_rng_state()
    again = from_pyro(of_schools)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(again, found)
    other = from_pyro(of_schools, ["posterior_predictive"], seed=1)
    assert not np.array_equal(other.posterior_predictive["y"], found.posterior_predictive["y"])


def test_attributes_tell_what_ran(found: Any):
    attrs = found.attrs
    assert attrs["inference_library"] == "pyro-ppl"
    assert attrs["inference_library_version"] == pyro.__version__
    assert attrs["method"] == "PyroMCMC(kernel='NUTS', num_chains=2, num_warmup=20, num_draws=100)"
    assert "wall_time" not in attrs


def test_fewer_draws_and_groups(of_schools: MCMC):
    found = from_pyro(of_schools, ["posterior"], max_draws=10)
    assert groups(found) == {"posterior"}
    assert found.posterior["draw"].values.tolist() == [0, 25, 50, 74, 99]  # 49.5 and 74.25, rounded to even


def potential(values: dict[str, Tensor]) -> Tensor:
    return values["x"] ** 2 / 2


def test_what_cannot_be_converted(of_schools: MCMC):
    with pytest.raises(ArgumentError, match=r"this MCMC has not run\. call mcmc\.run"):
        from_pyro(MCMC(NUTS(normal), 10))
    with pytest.raises(ArgumentError, match="takes a run of Pyro's MCMC: got dict"):
        from_pyro(of_schools.get_samples())  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="got StreamingMCMC"):
        from_pyro(StreamingMCMC(NUTS(normal), 10))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"unknown groups \['likelihood'\]"):
        from_pyro(of_schools, ["likelihood"])


def test_a_potential_function_has_no_sites():
    start = {"x": torch.zeros(1)}
    mcmc = MCMC(NUTS(potential_fn=potential), 5, 5, initial_params=start, disable_progbar=True)
    mcmc.run()
    with pytest.raises(ModelError, match="NUTS: the kernel has no model: it was given a potential function"):
        from_pyro(mcmc)


def test_a_run_that_kept_only_some_sites():
    mcmc = MCMC(NUTS(schools), 5, 5, disable_progbar=True, save_params=["mu", "tau"])
    mcmc.run(Y, SIGMA)
    with pytest.raises(ModelError, match=r"sites \[.z.\]: the run kept only some"):
        from_pyro(mcmc)
