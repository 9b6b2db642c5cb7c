"""The captured density is the model's own, on every rung, and leaves nothing behind."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.compile import calls, capture, clean_up, mutates
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.ladder import Batched, climb, value_and_gradient
from pyrolatent.capture.modes import ReadValues
from pyrolatent.errors import DataError, ModelError
from tests.user_pairs import regression

POINTS = 5


def points(dim: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(
        POINTS, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def normal_model(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


def hand_written_normal(u: Tensor, y: Tensor) -> Tensor:
    """The density of `normal_model` at `u = (mean, log scale)`; the Jacobian of exp is its log."""
    normal = torch.distributions.Normal
    prior = normal(0.0, 2.0).log_prob(u[0]) + normal(0.0, 0.5).log_prob(u[1])
    return prior + normal(u[0], u[1].exp()).log_prob(y).sum()


def test_density_equals_the_hand_written_one() -> None:
    y = torch.linspace(-1, 2, 7, dtype=torch.float64)
    density = capture_density(normal_model, {"y": y}, seed=0)
    u = points(2)
    value, gradient = density(u)
    expected = torch.stack([hand_written_normal(row, y) for row in u])
    free = u.clone().requires_grad_()
    torch.stack([hand_written_normal(row, y) for row in free]).sum().backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, free.grad, rtol=1e-12, atol=1e-12)
    assert density.rung == "vmap"


def test_every_rung_gives_the_same_numbers() -> None:
    y = torch.linspace(-1, 2, 7, dtype=torch.float64)
    density = capture_density(normal_model, {"y": y}, seed=0)
    u = points(2)
    value, gradient = density(u)
    for rung in ("points", "eager"):
        with density.context():
            other_value, other_gradient = Batched(density.batched.point, rung)(u)
        torch.testing.assert_close(other_value, value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-12, atol=1e-12)


def test_compiled_graph_gives_the_same_numbers() -> None:
    density = capture_density(normal_model, {"y": torch.ones(3, dtype=torch.float64)}, seed=0)
    u = points(2)
    with density.context():
        graph = density.batched.graph(u)
        compiled, plain = graph.compile()(u), graph(u)
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)


def dependent_model(y: Tensor) -> None:
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    b = pyro.sample("b", dist.Uniform(0.0, 1.0 - a))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(a + 2 * b, 0.3), obs=y)


def test_dependent_support_is_read_at_each_point() -> None:
    y = torch.tensor([0.4, 0.9], dtype=torch.float64)
    density = capture_density(dependent_model, {"y": y}, seed=0)
    u = points(2, scale=2.0)
    a = torch.sigmoid(u[:, 0])
    b = (1 - a) * torch.sigmoid(u[:, 1])
    log_jacobian = torch.log(a * (1 - a)) + torch.log(b * (1 - a - b) / (1 - a))
    likelihood = torch.distributions.Normal((a + 2 * b)[:, None], 0.3).log_prob(y).sum(-1)
    torch.testing.assert_close(
        density(u)[0], -torch.log(1 - a) + likelihood + log_jacobian, rtol=1e-10, atol=1e-10
    )
    sites = density.constrain(u)
    torch.testing.assert_close(sites["b"], b, rtol=1e-12, atol=1e-12)


def test_a_failing_cholesky_fails_one_point_alone() -> None:
    def model() -> None:
        rho = pyro.sample("rho", dist.Normal(0.0, 1.0))
        covariance = torch.stack([torch.stack([torch.ones(()), rho]), torch.stack([rho, torch.ones(())])])
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), covariance), obs=torch.ones(2))

    density = capture_density(model, {}, seed=0)
    u = torch.tensor([[0.3], [1.7], [-0.2]], dtype=torch.float64)
    value, _ = density(u)
    covariance = torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    mvn = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(u[0, 0])
    torch.testing.assert_close(value[0], mvn.log_prob(torch.ones(2, dtype=torch.float64)) + prior)
    assert value[1] == -torch.inf
    assert value[2].isfinite()
    torch.testing.assert_close(density.constrain(u)["rho"], u[:, 0])


def test_improper_prior_needs_no_prior_draw() -> None:
    def model(y: Tensor) -> None:
        beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), (2,)))
        pyro.sample("y", dist.Normal(beta.sum(), 1.0), obs=y)

    y = torch.tensor(0.5, dtype=torch.float64)
    density = capture_density(model, {"y": y}, seed=0)
    u = points(2)
    torch.testing.assert_close(density(u)[0], torch.distributions.Normal(u.sum(-1), 1.0).log_prob(y))


def test_bare_numbers_follow_the_dtype_of_the_fit() -> None:
    def model() -> None:
        pyro.sample("x", dist.HalfNormal(0.1))

    value, _ = capture_density(model, {}, seed=0)(torch.zeros(1, 1, dtype=torch.float64))
    # Normal(0, 0.1) at 1, twice (half normal), times the Jacobian 1; 0.1 in float32 would miss by 1e-6.
    assert float(value) == pytest.approx(math.log(2 / 0.1 / math.sqrt(2 * math.pi)) - 50, rel=1e-12)


def test_in_place_writes_run_at_all_points_at_once() -> None:
    def model(y: Tensor) -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        doubled = torch.zeros(3)
        for i in range(3):
            doubled[i] = 2 * x[i]
        pyro.sample("y", dist.Normal(doubled, 1.0).to_event(1), obs=y)

    density = capture_density(model, {"y": torch.ones(3, dtype=torch.float64)}, seed=0)
    assert density.rung == "shim"
    assert density.batched.vectorised
    assert "inplace" in density.batched.reason
    u = points(3)
    normal = torch.distributions.Normal
    expected = normal(0.0, 1.0).log_prob(u).sum(-1) + normal(2 * u, 1.0).log_prob(torch.ones(3)).sum(-1)
    torch.testing.assert_close(density(u)[0], expected, rtol=1e-12, atol=1e-12)
    assert density.constrain(u)["x"].shape == (POINTS, 3)


def reads_item(x: Tensor) -> Tensor:
    return x * math.exp(-x.detach()[0].item())


def branches(x: Tensor) -> Tensor:
    return x if x[0] > 0 else -2 * x


def reads_list(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[0] = x[0]  # vmap refuses this harmless line first, then the reading must still be seen
    return out * x.tolist()[0]


def reads_mask(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def reads_numpy(x: Tensor) -> Tensor:
    return x * float(x.detach().numpy()[0])


def formats(x: Tensor) -> Tensor:
    return x * float(f"{x[0]:.3f}")


@pytest.mark.parametrize("reads", [reads_item, branches, reads_list, reads_mask, reads_numpy, formats])
def test_code_that_reads_latent_values_stays_eager(reads: object) -> None:
    def point(u: Tensor) -> Tensor:
        with ReadValues():
            return reads(u).sum()  # type: ignore[operator]

    batched = climb(point, point, points(3))
    assert batched.rung == "eager"
    u = points(3, seed=1)
    expected = torch.stack([reads(row).sum() for row in u])  # type: ignore[operator]
    torch.testing.assert_close(batched(u)[0], expected)


def test_reading_data_values_is_no_obstacle() -> None:
    def model(group: Tensor) -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros(int(group.max()) + 1), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x[group][group > 0], 1.0).to_event(1), obs=torch.ones(3))

    group, u = torch.tensor([0, 1, 1, 2]), points(3)
    density = capture_density(model, {"group": group}, seed=0)
    assert (density.rung, density.dim) == ("vmap", 3)
    normal = torch.distributions.Normal
    expected = normal(0.0, 1.0).log_prob(u).sum(-1) + normal(u[:, group][:, group > 0], 1.0).log_prob(
        torch.ones(3)
    ).sum(-1)
    torch.testing.assert_close(density(u)[0], expected)


def test_numpy_on_data_is_no_obstacle() -> None:
    def model(x: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        quartiles = torch.as_tensor(np.quantile(x.numpy(), [0.25, 0.75]))
        label = f"{x[0]:.1f}"
        pyro.sample("y", dist.Normal(slope * quartiles, float(label)).to_event(1), obs=torch.zeros(2))

    density = capture_density(model, {"x": torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64)}, seed=0)
    assert density.rung == "vmap"


def test_an_observation_made_of_latents_is_not_summarised() -> None:
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("residual", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), obs=x - mean)

    density = capture_density(model, {"x": x}, seed=0)
    assert not density.sites.summaries
    u, zero = points(2), torch.zeros((), dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = normal(zero, zero + 10).log_prob(u).sum(-1) + normal(u[:, None], zero + 1).log_prob(x).sum(
        (-1, -2)
    )
    torch.testing.assert_close(density(u)[0], expected)


def test_point_masses_are_no_latents() -> None:
    def model(x: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        line = pyro.sample("line", dist.Delta(slope * x).to_event(1))
        pyro.sample("y", dist.Normal(line, 1.0).to_event(1), obs=torch.zeros(3))

    density = capture_density(model, {"x": torch.ones(3, dtype=torch.float64)}, seed=0)
    assert density.dim == 1
    assert list(density.sites.deterministics) == ["line"]
    assert density.constrain(points(1))["line"].shape == (POINTS, 3)


def test_a_reparameterised_site_is_read_back() -> None:
    @pyro.poutine.reparam(config={"effect": LocScaleReparam(0.0)})
    def model() -> None:
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("data", 4):
            effect = pyro.sample("effect", dist.Normal(0.0, scale))
            pyro.sample("y", dist.Normal(effect, 1.0), obs=torch.zeros(4))

    density = capture_density(model, {}, seed=0)
    assert list(density.sites.observed) == ["y"]
    sites = density.constrain(points(5))
    torch.testing.assert_close(sites["effect"], sites["scale"][:, None] * sites["effect_decentered"])


def test_plates_of_deterministics_are_found() -> None:
    def model(x: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.deterministic("lines", slope * x, event_dim=1)
            pyro.deterministic("line", slope * x[:, 0])

    sites = capture_density(model, {"x": torch.ones(2, 2)}, seed=0).sites.deterministics
    assert {name: dict(site.plates) for name, site in sites.items()} == {
        "lines": {"data": 0},
        "line": {"data": 0},
    }


def test_a_sequential_plate_and_numbers_as_data() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        for i in pyro.plate("data", len(y)):
            pyro.sample(f"y_{i}", dist.Normal(mean, 1.0), obs=y[i])
        pyro.sample("z", dist.Normal(mean, 1.0), obs=1.5)

    u = points(1)
    value, _ = capture_density(model, {"y": torch.zeros(2, dtype=torch.float64)}, seed=0)(u)
    terms = torch.stack([u, u, u, u - 1.5], -1) ** 2 / 2
    torch.testing.assert_close(value, -terms.sum((-1, -2)) - 2 * math.log(2 * math.pi))


def test_clean_up_changes_no_bit_and_shrinks() -> None:
    y = torch.linspace(-1, 2, 7, dtype=torch.float64)
    density = capture_density(normal_model, {"y": y}, seed=0)
    u = points(2)
    with density.context():
        raw = make_fx(lambda x: torch.func.vmap(value_and_gradient(density.batched.point))(x))(u)
        before = raw(u)
        ops = len(raw.graph.nodes)
        clean_up(raw)
        after = raw(u)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(raw.graph.nodes) < ops


def test_state_of_the_process_is_left_alone() -> None:
    pyro.clear_param_store()
    pyro.param("mine", torch.ones(2))
    before = torch.get_rng_state()
    density = capture_density(normal_model, {"y": torch.ones(3, dtype=torch.float64)}, seed=0)
    density(points(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() is torch.float32
    assert torch.distributions.Distribution._validate_args
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


def refused(model: object, error: type[Exception], match: str, **data: object) -> None:
    with pytest.raises(error, match=match):
        capture_density(model, data, seed=0)  # type: ignore[arg-type]


def test_discrete_latents_without_end_are_refused() -> None:
    def model() -> None:
        pyro.sample("count", dist.Poisson(3.0))

    refused(model, ModelError, "site 'count': a latent site is discrete, without a finite list of values")


def test_learnable_parameters_are_refused() -> None:
    def model() -> None:
        scale = pyro.param("scale", torch.ones(()), constraint=constraints.positive)
        pyro.sample("x", dist.Normal(0.0, scale))

    refused(model, ModelError, r"parameters \['scale'\]: the model has learnable parameters")


def test_subsampling_plates_are_refused() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=2) as rows:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    refused(model, ModelError, "plate 'data': a plate draws its own subsample: 2 of 5 rows", y=torch.ones(5))


def test_a_model_without_latents_is_refused() -> None:
    def model() -> None:
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    refused(model, ModelError, r"no latent site to infer: its sites: observed \['y'\]")


def test_values_outside_the_support_are_refused() -> None:
    def model(y: Tensor, mask: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pyro.plate("data", len(y)), pyro.poutine.mask(mask=mask):
            pyro.sample("y", dist.Poisson(rate), obs=y)

    y, mask = torch.tensor([1.0, 2.5, 3.0, -1.0]), torch.tensor([True, True, True, False])
    refused(
        model,
        DataError,
        r"site 'y', index \[1\]: .* outside the support.*: 2.5 under Poisson, 1 of 4",
        y=y,
        mask=mask,
    )
    mask[1] = False
    assert capture_density(model, {"y": y, "mask": mask}, seed=0).rung == "vmap"


def test_random_densities_are_refused() -> None:
    def model() -> None:
        pyro.sample("x", dist.Normal(torch.randn(()), 1.0))

    refused(model, ModelError, "the density of the model differs from call to call")


def test_sites_that_come_and_go_are_refused() -> None:
    def model() -> None:
        if float(pyro.sample("x", dist.Normal(0.0, 1.0))) > 0:
            pyro.sample("more", dist.Normal(0.0, 1.0))

    with pytest.raises(ModelError, match=r"sites \['more'\]: the sites of the model differ from run to run"):
        for seed in range(10):  # each seed reads two runs; one of them meets both branches
            capture_density(model, {}, seed=seed)


def test_a_latent_mixture_is_refused() -> None:
    def model() -> None:
        parts = dist.Normal(torch.zeros(2), 1.0)
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts))

    refused(
        model, ModelError, "site 'x': a latent site has no support to map free numbers to: MixtureSameFamily"
    )


def test_one_name_for_two_sites_is_refused() -> None:
    def model() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0))

    refused(model, ModelError, "site 'x': two sites share one name")


def test_unequal_row_counts_are_named() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    refused(
        model, DataError, r"unequal row counts: rows: \{'x': 3, 'y': 4\}", x=torch.ones(3), y=torch.ones(4)
    )


def test_unequal_row_counts_are_named_where_only_an_observation_is_short() -> None:
    """The plate has the rows of the other entry, so the density is the first to fail."""
    refused(regression, DataError, r"rows: \{'x': 3, 'y': 4\}", x=torch.ones(3, 2), y=torch.ones(4))


def test_writes_into_constants_are_taken_out() -> None:
    """A Bernoulli's density writes into 1 - y, which no input enters."""
    y = torch.tensor([0.0, 1.0, 1.0, 0.0])

    def log_prob(logits: Tensor) -> Tensor:
        return dist.Bernoulli(logits=logits, validate_args=False).log_prob(y)

    logits = torch.tensor([0.3, -2.0, 5.0, 0.0])
    graph = capture(log_prob, logits)
    assert not any(mutates(node) for node in calls(graph.module))
    assert torch.equal(graph(logits), log_prob(logits))


def test_log_prob_of_sites_adds_up() -> None:
    density: LogDensity = capture_density(normal_model, {"y": torch.ones(3, dtype=torch.float64)}, seed=0)
    u = points(2)[0]
    assert sum(density.log_prob_of_sites(u).values()) == pytest.approx(float(density(u[None])[0]))
