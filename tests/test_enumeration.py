"""Sums over discrete sites equal sums over every assignment, and draws follow the exact conditionals."""

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.ops.indexing import Vindex
from pyro.poutine.util import site_is_subsample
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.conditioned import log_likelihood
from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.elimination import Factor, Variable, draw_back, eliminate, inverse_cdf, log_product
from pyrolatent.capture.enumeration import AllValues, enumerating, log_sum_product
from pyrolatent.capture.ladder import Batched
from pyrolatent.capture.messages import is_enumerable
from pyrolatent.errors import DataError, ModelError
from pyrolatent.seeds import generator

POINTS = 3
DOUBLE = torch.float64
TIGHT = {"rtol": 1e-11, "atol": 1e-11}

Model = Callable[..., None]
Lists = dict[str, tuple[int, ...] | tuple[int]]


def normal(loc: Any, scale: float) -> torch.distributions.Normal:
    return torch.distributions.Normal(torch.as_tensor(loc, dtype=DOUBLE), torch.tensor(scale, dtype=DOUBLE))


def points(dim: int, seed: int = 0) -> Tensor:
    return torch.randn(POINTS, dim, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def assignments(shape: tuple[int, ...], num_values: int) -> Iterable[Tensor]:
    """Every value of a discrete site."""
    cells = math.prod(shape)
    return (torch.tensor(v).reshape(shape) for v in itertools.product(range(num_values), repeat=cells))


def log_joint(model: Model, data: dict[str, Any], values: dict[str, Tensor]) -> Tensor:
    """Pyro's own log density of the model, all latents given."""
    trace = poutine.trace(poutine.condition(model, values)).get_trace(**data)
    sampled = [site for site in trace.nodes.values() if site["type"] == "sample"]
    assert all(site["is_observed"] or site_is_subsample(site) for site in sampled)
    return trace.log_prob_sum()


def brute_force(
    model: Model, data: dict[str, Any], continuous: dict[str, Tensor], discrete: dict[str, list[Tensor]]
) -> Tensor:
    """The log of the sum of the joint density over every assignment of the discrete sites."""
    terms = [
        log_joint(model, data, continuous | dict(zip(discrete, values, strict=True)))
        for values in itertools.product(*discrete.values())
    ]
    return torch.stack(terms).logsumexp(0)


def check_against_brute_force(
    model: Model, data: dict[str, Any], discrete: dict[str, list[Tensor]], seed: int = 0
) -> LogDensity:
    """Compare value and gradient on each rung; all continuous latents must be unbounded."""
    density = capture_density(model, data, seed=0)
    assert density.rung == "vmap", density.batched.reason
    assert set(density.sites.discrete) == set(discrete)
    u = points(density.dim, seed)
    with density.context():
        free = u.clone().requires_grad_()
        unpack = density.sites.layout.unpack
        expected = torch.stack([brute_force(model, data, unpack(row), discrete) for row in free])
        (gradient,) = torch.autograd.grad(expected.sum(), free)
        for rung in ("vmap", "eager"):
            value, slope = Batched(density.batched.point, rung)(u)
            torch.testing.assert_close(value, expected.detach(), **TIGHT)
            torch.testing.assert_close(slope, gradient, **TIGHT)
    return density


ROWS = torch.tensor([-1.2, 0.3, 2.5, 2.9, -0.4, 1.1], dtype=DOUBLE)


def mixture(y: Tensor) -> None:
    logits = pyro.sample("logits", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(logits=logits))
        pyro.deterministic("twice", 2 * loc[z])
        pyro.sample("y", dist.Normal(loc[z], 0.7), obs=y)


def test_mixture() -> None:
    check_against_brute_force(mixture, {"y": ROWS[:5]}, {"z": list(assignments((5,), 3))})


def test_gradient_is_the_finite_difference() -> None:
    density = capture_density(mixture, {"y": ROWS}, seed=0)
    u = points(density.dim)[:1]
    _, gradient = density(u)
    # central differences of step h = 1e-5: rounding 1e-16 |f| / h ~ 1e-10, truncation h^2 ~ 1e-10
    steps = 1e-5 * torch.eye(density.dim, dtype=DOUBLE)
    slopes = (density(u + steps)[0] - density(u - steps)[0]) / 2e-5
    torch.testing.assert_close(slopes, gradient[0], rtol=1e-7, atol=1e-7)


def pyro_evidence(
    model: Model, data: dict[str, Any], values: dict[str, Tensor], max_plate_nesting: int
) -> float:
    """The same by Pyro's enumeration: the ELBO of an empty guide."""
    conditioned = config_enumerate(poutine.condition(model, values))
    return -TraceEnum_ELBO(max_plate_nesting=max_plate_nesting).loss(conditioned, lambda **_: None, **data)


def states(y: Tensor) -> None:
    """Three states, five steps."""
    table = pyro.sample("table", dist.Normal(torch.zeros(3, 3), 1.0).to_event(2))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    z = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(logits=Vindex(table)[..., z, :]))
        pyro.sample(f"y_{t}", dist.Normal(Vindex(loc)[..., z], 1.0), obs=y[t])


def forward_algorithm(table: Tensor, loc: Tensor, y: Tensor) -> Tensor:
    transition = table.log_softmax(-1)
    alpha = transition[0] + normal(loc, 1.0).log_prob(y[0])
    for value in y[1:]:
        emission = normal(loc, 1.0).log_prob(value)
        alpha = (alpha[:, None] + transition).logsumexp(0) + emission
    prior = normal(0.0, 1.0).log_prob(table).sum()
    return prior + normal(0.0, 2.0).log_prob(loc).sum() + alpha.logsumexp(0)


def test_markov_chain() -> None:
    y = ROWS[:5]
    one_step = list(assignments((), 3))
    density = check_against_brute_force(states, {"y": y}, {f"z_{t}": one_step for t in range(5)})
    u = points(density.dim, seed=1)
    sites = density.sites.layout.unpack(u)
    rows = zip(sites["table"], sites["loc"], strict=True)
    expected = torch.stack([forward_algorithm(table, loc, y) for table, loc in rows])
    torch.testing.assert_close(density(u)[0], expected, **TIGHT)
    with density.context():
        evidence = pyro_evidence(states, {"y": y}, density.sites.layout.unpack(u[0]), 0)
    assert float(expected[0]) == pytest.approx(evidence, rel=1e-12)


def test_a_long_chain_uses_few_dimensions() -> None:
    y = ROWS.repeat(12)  # 72 steps, and a tensor has at most 64 dimensions
    values = {"table": points(9)[0].reshape(3, 3), "loc": points(3)[0]}
    with model_context(DOUBLE, y.device), poutine.trace() as recorded, enumerating(0):
        poutine.condition(states, values)(y)
    found = log_sum_product({n: m for n, m in recorded.trace.nodes.items() if m["type"] == "sample"})
    expected = forward_algorithm(values["table"], values["loc"], y)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_second_order_chain() -> None:
    def model(y: Tensor) -> None:
        table = pyro.sample("table", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
        before, last = torch.tensor(0), torch.tensor(1)
        for t in pyro.markov(range(len(y)), history=2):
            z = pyro.sample(f"z_{t}", dist.Bernoulli(logits=Vindex(table)[..., before.long(), last.long()]))
            pyro.sample(f"y_{t}", dist.Normal(z, 1.0), obs=y[t])
            before, last = last, z

    lists = {f"z_{t}": [v.to(DOUBLE) for v in assignments((), 2)] for t in range(4)}
    check_against_brute_force(model, {"y": ROWS[:4]}, lists)


def test_partly_observed_labels() -> None:
    labels, known = torch.tensor([0, 2, 1, 1, 0, 2]), torch.tensor([True, False, False, True, False, True])

    def model(y: Tensor, labels: Tensor, known: Tensor) -> None:
        logits = pyro.sample("logits", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Categorical(logits=logits), obs=labels, obs_mask=known)
            pyro.sample("y", dist.Normal(loc[z], 0.7), obs=y)

    def by_hand(logits: Tensor, loc: Tensor) -> Tensor:
        joint = logits.log_softmax(-1) + normal(loc, 0.7).log_prob(ROWS[:, None])
        of_label = joint.gather(1, labels[:, None])[:, 0]
        prior = normal(0.0, 1.0).log_prob(logits).sum()
        prior = prior + normal(0.0, 2.0).log_prob(loc).sum()
        return prior + torch.where(known, of_label, joint.logsumexp(1)).sum()

    density = capture_density(model, {"y": ROWS, "labels": labels, "known": known}, seed=0)
    u = points(density.dim)
    expected = torch.stack([by_hand(row[:3], row[3:]) for row in u])
    torch.testing.assert_close(density(u)[0], expected, **TIGHT)
    drawn = density.discrete(u, generator(0, "discrete"))
    sites = density.constrain(u, drawn)
    assert torch.equal(sites["z"][:, known], labels[known].expand(POINTS, 3))
    assert torch.equal(sites["z"][:, ~known], drawn["z_unobserved"][:, ~known])


def test_sites_shared_by_all_rows_and_sites_of_rows() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2, 2), 2.0).to_event(2))
        regime = pyro.sample("regime", dist.Bernoulli(0.3))
        flips = pyro.sample("flips", dist.Binomial(2, 0.4))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.stack([0.2 + 0.5 * regime, 0.8 - 0.5 * regime], -1)))
            x = pyro.sample("x", dist.Normal(z + flips, 1.0))  # continuous, and depends on both
            pyro.sample("y", dist.Normal(Vindex(loc)[..., regime.long(), z] + x, 0.5), obs=y)

    lists = {
        "regime": [v.to(DOUBLE) for v in assignments((), 2)],
        "flips": [v.to(DOUBLE) for v in assignments((), 3)],
        "z": list(assignments((4,), 2)),
    }
    check_against_brute_force(model, {"y": ROWS[:4]}, lists)


def nested(y: Tensor, mask: Tensor) -> None:
    """A label of each group, and one of each cell, of which some are masked."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2, 2), 2.0).to_event(2))
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
    groups, cells = pyro.plate("groups", y.shape[1], dim=-1), pyro.plate("cells", y.shape[0], dim=-2)
    with groups:
        a = pyro.sample("a", dist.Bernoulli(logits=weight))
        with cells, poutine.mask(mask=mask):
            b = pyro.sample("b", dist.Bernoulli(logits=weight * (a - 0.5)))
            pyro.sample("y", dist.Normal(Vindex(loc)[..., a.long(), b.long()], 0.5), obs=y)


def test_nested_plates_and_a_mask() -> None:
    y, mask = ROWS.reshape(2, 3), torch.tensor([[True, True, False], [True, False, True]])
    density = capture_density(nested, {"y": y, "mask": mask}, seed=0)
    u = points(density.dim)

    def by_hand(loc: Tensor, weight: Tensor) -> Tensor:
        total = normal(0.0, 2.0).log_prob(loc).sum()
        total = total + normal(0.0, 1.0).log_prob(weight)
        for g in range(3):
            of_group = []
            for a in range(2):
                term = torch.distributions.Bernoulli(logits=weight).log_prob(
                    torch.tensor(float(a), dtype=DOUBLE)
                )
                for c in range(2):
                    label = torch.distributions.Bernoulli(logits=weight * (a - 0.5))
                    prior = label.log_prob(torch.tensor([0.0, 1.0], dtype=DOUBLE))
                    seen = normal(loc[a], 0.5).log_prob(y[c, g])
                    term = term + (prior + (seen if mask[c, g] else 0.0)).logsumexp(0)
                of_group.append(term)
            total = total + torch.stack(of_group).logsumexp(0)
        return total

    sites = density.sites.layout.unpack(u)
    expected = torch.stack([by_hand(loc, w) for loc, w in zip(sites["loc"], sites["weight"], strict=True)])
    torch.testing.assert_close(density(u)[0], expected, **TIGHT)
    with density.context():
        first = density.sites.layout.unpack(u[0])
        evidence = pyro_evidence(nested, {"y": y, "mask": mask}, first, 2)
    assert float(expected[0]) == pytest.approx(evidence, rel=1e-12)


def test_a_scale_weighs_rows_after_the_sum() -> None:
    def model(y: Tensor, weight: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        regime = pyro.sample("regime", dist.Bernoulli(0.3))
        with pyro.plate("data", len(y)), poutine.scale(scale=weight):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample("y", dist.Normal(loc[z] + regime, 0.5), obs=y)

    weight = torch.tensor([2.0, 1.0, 0.5, 0.25, 3.0, 1.5], dtype=DOUBLE)
    for scale in (weight, torch.tensor(2.5, dtype=DOUBLE)):
        density = capture_density(model, {"y": ROWS, "weight": scale}, seed=0)
        u = points(density.dim)
        by_regime = []
        for regime, prior in ((0.0, 0.7), (1.0, 0.3)):
            seen = normal(u[:, None] + regime, 0.5).log_prob(ROWS[:, None])
            rows = (seen + torch.tensor([0.4, 0.6], dtype=DOUBLE).log()).logsumexp(-1)
            by_regime.append(math.log(prior) + (scale * rows).sum(-1))
        of_loc = normal(0.0, 2.0).log_prob(u).sum(-1)
        value, gradient = density(u)
        torch.testing.assert_close(value, of_loc + torch.stack(by_regime).logsumexp(0), **TIGHT)
        assert gradient.isfinite().all()


def test_events_and_cells_without_a_plate() -> None:
    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("y", dist.Normal((z * loc).sum(-1), 0.5), obs=ROWS[:2])
        best = pyro.sample(
            "best", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel", "expand": True}
        )
        pyro.sample("x", dist.Normal(loc[best], 1.0), obs=ROWS)  # six cells of one site

    one_hot = [torch.eye(3, dtype=DOUBLE)[v] for v in assignments((2,), 3)]
    density = check_against_brute_force(model, {}, {"z": one_hot, "best": list(assignments((), 3))})
    drawn = density.discrete(points(3), generator(0, "discrete"))
    assert drawn["z"].dtype is torch.int64
    assert drawn["z"].shape == (POINTS, 2, 3)
    assert (drawn["z"].sum(-1) == 1).all()


def test_a_loop_over_a_plate() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        for i in pyro.plate("rows", len(y)):
            z = pyro.sample(f"z_{i}", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample(f"y_{i}", dist.Normal(loc[z], 0.5), obs=y[i])

    check_against_brute_force(model, {"y": ROWS[:3]}, {f"z_{i}": list(assignments((), 2)) for i in range(3)})


def left_to_right(y: Tensor) -> None:
    """From state 0 there is no way to state 2 in one step, no way back, and state 2 is not the last."""
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    stay, move = loc[0], loc[1]
    never = torch.full((), -torch.inf)
    rows = [[stay, move, never], [never, stay, move], [never, never, stay]]
    table = torch.stack([torch.stack(row) for row in rows])
    table = table - table.logsumexp(-1, keepdim=True)
    z = torch.tensor(0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(logits=Vindex(table)[..., z, :]))
        pyro.sample(f"y_{t}", dist.Normal(Vindex(loc)[..., z], 1.0), obs=y[t])
        if t == len(y) - 1:
            pyro.factor("end", torch.where(z == 2, -torch.inf, 0.0))


def test_impossible_values_leave_the_gradient_finite() -> None:
    density = check_against_brute_force(
        left_to_right, {"y": ROWS[:4]}, {f"z_{t}": list(assignments((), 3)) for t in range(4)}
    )
    drawn = density.discrete(points(3).repeat(200, 1), generator(0, "discrete"))
    path = torch.stack([drawn[f"z_{t}"] for t in range(4)], -1)
    assert (path < 2).all()
    assert ((path.diff(dim=-1) == 0) | (path.diff(dim=-1) == 1)).all()


def test_an_impossible_sum_has_density_zero() -> None:
    def model(y: Tensor) -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.25))
            near = (y - centre - 2 * z).abs() < 1
            pyro.factor("box", torch.where(near, 0.0, -torch.inf))

    density = capture_density(model, {"y": torch.tensor([0.25, 1.5], dtype=DOUBLE)}, seed=0)
    value, gradient = density(torch.tensor([[0.0], [2.0]], dtype=DOUBLE))
    # around 0 each row fits one label, around 2 the first fits none
    expected = math.log(0.75) + math.log(0.25) - 0.5 * math.log(2 * math.pi)
    assert float(value[0]) == pytest.approx(expected, rel=1e-12)
    assert value[1] == -torch.inf
    assert gradient.isfinite().all()


def test_a_support_that_depends_on_a_discrete_site() -> None:
    """Counts of animals in a place, each seen with probability p, of which at most five are there."""

    def model(seen: Tensor) -> None:
        logit = pyro.sample("logit", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(seen)):
            number = pyro.sample("number", dist.Categorical(torch.ones(6)))
            pyro.sample("seen", dist.Binomial(number, logits=logit), obs=seen)

    seen = torch.tensor([0.0, 3.0, 5.0], dtype=DOUBLE)
    u = points(1)
    total = normal(0.0, 1.0).log_prob(u[:, 0])
    for k in seen:
        terms = [torch.distributions.Binomial(n, logits=u[:, 0]).log_prob(k) for n in range(int(k), 6)]
        total = total + torch.stack(terms).logsumexp(0) - math.log(6)
    value, gradient = capture_density(model, {"seen": seen}, seed=0)(u)
    torch.testing.assert_close(value, total, **TIGHT)
    assert gradient.isfinite().all()
    with pytest.raises(
        DataError, match=r"site 'seen', index \[1\]: .* outside the support.*: 6.0 under Binomial"
    ):
        capture_density(model, {"seen": torch.tensor([0.0, 6.0])}, seed=0)


def test_single_precision() -> None:
    exact = capture_density(mixture, {"y": ROWS}, seed=0)
    density = capture_density(mixture, {"y": ROWS.float()}, seed=0, dtype=torch.float32)
    u = points(density.dim)
    value, gradient = density(u.float())
    assert (value.dtype, gradient.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(value.double(), exact(u)[0], rtol=1e-5, atol=1e-4)


# elimination alone: random factors over variables that claim the same dimensions


def random_factors(seed: int) -> tuple[list[Factor], dict[int, Variable]]:
    """A loop 0 - 1 - 2 - 3 - 0 with a chord; variables 0 and 2 claim dimension -3, and 1 and 3 claim -2."""
    random = torch.Generator().manual_seed(seed)
    dims, sizes = {0: -3, 1: -2, 2: -3, 3: -2}, {0: 2, 1: 3, 2: 4, 3: 2}
    factors = []
    for pair in ((0, 1), (1, 2), (2, 3), (0, 3)):
        shape = [1, 1, 5]
        for variable in pair:
            shape[dims[variable]] = sizes[variable]
        log_prob = torch.randn(shape, generator=random, dtype=DOUBLE)
        factors.append(Factor(log_prob, {variable: dims[variable] for variable in pair}, {"plate": -1}, 1.0))
    chord = torch.randn(2, 1, 4, 5, generator=random, dtype=DOUBLE)  # 1 apart from 3: another dimension
    factors.append(Factor(chord, {0: -4, 2: -2}, {"plate": -1}, 1.0))
    return factors, {variable: Variable({"plate": -1}, 1.0) for variable in dims}


def table_of(factors: list[Factor]) -> Tensor:
    """The product of `random_factors` over (0, 1, 2, 3, plate), every value of every variable."""
    ab, bc, cd, ad, ac = (factor.log_prob for factor in factors)
    terms = [
        ab[:, :, None, None],
        bc.transpose(0, 1)[None, :, :, None],
        cd[None, None],
        ad[:, None, None],
        ac[:, 0][:, None, :, None],
    ]
    return sum(terms[1:], start=terms[0])


def test_variables_that_claim_one_dimension() -> None:
    factors, variables = random_factors(0)
    joint = table_of(factors)
    assert joint.shape == (2, 3, 4, 2, 5)
    left, steps = eliminate(factors, variables)
    torch.testing.assert_close(log_product(left, "plate"), joint.flatten(0, 3).logsumexp(0), **TIGHT)
    torch.testing.assert_close(log_product(left), joint.flatten(0, 3).logsumexp(0).sum(), **TIGHT)
    assert sorted(step.variable for step in steps) == [0, 1, 2, 3]


def test_draws_from_a_loop_follow_the_joint_distribution() -> None:
    factors, variables = random_factors(1)
    _, steps = eliminate(factors, variables)
    draws = 20_000
    random = torch.Generator().manual_seed(2)
    uniforms = {variable: torch.rand(draws, 5, generator=random, dtype=DOUBLE) for variable in variables}
    drawn = torch.func.vmap(lambda noise: draw_back(steps, noise))(uniforms)
    position = torch.stack([drawn[v].reshape(draws, 5) for v in range(4)])
    index = ((position[0] * 3 + position[1]) * 4 + position[2]) * 2 + position[3]
    exact = table_of(factors).flatten(0, 3).softmax(0)
    for row in range(5):
        found = torch.bincount(index[:, row], minlength=48) / draws
        error = (exact[:, row] * (1 - exact[:, row]) / draws).sqrt()
        # 240 frequencies, each within 5 standard errors, and 1 / draws for the very rare ones
        assert ((found - exact[:, row]).abs() < 5 * error + 1 / draws).all()


def test_values_without_probability_are_never_drawn() -> None:
    log_weights = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf], dtype=DOUBLE)[:, None]
    uniform = torch.linspace(0, 1, 1001, dtype=DOUBLE)[:-1]
    uniform[-1] = 1 - 2.0**-53
    drawn = inverse_cdf(log_weights.expand(5, 1000), 0, uniform)[0]
    assert set(drawn.tolist()) == {1, 3}
    assert float((drawn == 1).double().mean()) == pytest.approx(1 / (1 + math.e), abs=1e-3)


def test_plates_that_cannot_be_untied_are_refused() -> None:
    def model() -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        rows, columns = pyro.plate("rows", 2, dim=-1), pyro.plate("columns", 3, dim=-2)
        with rows:
            a = pyro.sample("a", dist.Bernoulli(0.5))
        with columns:
            b = pyro.sample("b", dist.Bernoulli(0.5))
        with rows, columns:
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=torch.zeros(3, 2))

    refused(model, r"plates \['columns', 'rows'\]: discrete sites of different plates depend on each other")


# draws of the discrete sites


def exact_conditional(model: Model, data: dict[str, Any], values: dict[str, Tensor], lists: Any) -> Tensor:
    """Probability of every assignment, in the order of `itertools.product`."""
    terms = [
        log_joint(model, data, values | dict(zip(lists, combination, strict=True)))
        for combination in itertools.product(*lists.values())
    ]
    return torch.stack(terms).softmax(0)


def test_draws_follow_the_exact_conditional() -> None:
    y, draws = ROWS[:3], 20_000
    density = capture_density(states, {"y": y}, seed=0)
    u = points(density.dim)[:1]
    drawn = density.discrete(u.expand(draws, -1), generator(3, "discrete"))
    index = (drawn["z_0"] * 3 + drawn["z_1"]) * 3 + drawn["z_2"]
    lists = {f"z_{t}": list(assignments((), 3)) for t in range(3)}
    with density.context():
        exact = exact_conditional(states, {"y": y}, density.sites.layout.unpack(u[0]), lists)
    found = torch.bincount(index, minlength=27) / draws
    # 27 frequencies, each within 5 standard errors, and 1 / draws for the very rare ones
    assert ((found - exact).abs() < 5 * (exact * (1 - exact) / draws).sqrt() + 1 / draws).all()


def test_draws_are_those_of_their_own_position() -> None:
    density = capture_density(mixture, {"y": ROWS}, seed=0)
    # one component at each row, far from the others: the label is certain
    loc = torch.tensor([[-50.0, 0.5, 50.0], [0.5, -50.0, 50.0], [50.0, -50.0, 0.5]], dtype=DOUBLE)
    u = torch.cat([torch.zeros(3, 3, dtype=DOUBLE), loc], 1)
    drawn = density.discrete(u, generator(0, "discrete"))
    assert torch.equal(drawn["z"], torch.tensor([1, 0, 2])[:, None].expand(3, 6))
    sites = density.constrain(u, drawn)
    assert torch.equal(sites["z"], drawn["z"])
    torch.testing.assert_close(sites["twice"], torch.ones(3, 6, dtype=DOUBLE))
    assert "twice" not in density.constrain(u)


def test_every_rung_draws_the_same() -> None:
    def twisted(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        float(loc.detach().sum())  # reads a latent value: nothing can be captured
        mixture_of(loc, y)

    def plain(y: Tensor) -> None:
        mixture_of(pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1)), y)

    def mixture_of(loc: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Categorical(torch.ones(3)))
            pyro.sample("y", dist.Normal(loc[z], 1.0), obs=y)

    drawn, values = [], []
    for model, rung in ((plain, "vmap"), (twisted, "eager")):
        density = capture_density(model, {"y": ROWS}, seed=0)
        assert density.rung == rung
        drawn.append(density.discrete(points(3), generator(0, "discrete"))["z"])
        values.append(density(points(3))[0])
    assert torch.equal(*drawn)
    torch.testing.assert_close(*values, **TIGHT)


# what cannot be summed out


def refused(model: Model, match: str, **data: Any) -> None:
    with pytest.raises(ModelError, match=match):
        capture_density(model, data, seed=0)


def with_location(fn: Callable[[], Any]) -> Model:
    def model() -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("count", fn())

    return model


@pytest.mark.parametrize(
    ("fn", "match"),
    [
        (lambda: dist.Poisson(3.0), r"site 'count': .*without a finite list.*Poisson.*Categorical over 0"),
        (lambda: dist.Geometric(0.5), r"site 'count': .*without a finite list.*Geometric"),
        (
            lambda: dist.Bernoulli(torch.ones(3) / 2).to_event(1),
            r"site 'count': .*pyro.plate instead of to_event",
        ),
        (lambda: dist.Bernoulli(torch.ones(3) / 2), r"site 'count': .*several cells without a plate.*\(3,\)"),
        (lambda: dist.Multinomial(3, torch.ones(2)), r"site 'count': .*without a finite list.*Multinomial"),
    ],
)
def test_what_has_no_list_of_values_is_refused(fn: Callable[[], Any], match: str) -> None:
    refused(with_location(fn), match)


def test_unequal_totals_are_refused() -> None:
    def model() -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 2):
            pyro.sample("count", dist.Binomial(torch.tensor([2, 3]), 0.5))

    refused(model, r"site 'count': .*without a finite list of values to sum over: Inhomogeneous")


def test_a_model_of_discrete_sites_alone_is_refused() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    refused(model, r"sites \['z'\]: the model has only discrete latent sites", y=ROWS)


def test_values_one_after_the_other_are_refused() -> None:
    def model() -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})

    refused(model, "site 'z': a discrete site asks for its values one after the other")


def test_python_branches_on_a_discrete_site_are_refused() -> None:
    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        if pyro.sample("z", dist.Bernoulli(0.5)):
            loc = loc + 1
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.tensor(0.3))

    refused(model, r"sites \['z'\]: the model fails when its discrete sites take all their values at once")


def test_code_that_runs_and_is_wrong_is_refused() -> None:
    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(loc + z.sum(), 1.0), obs=ROWS[:2])  # sums over the values too

    refused(model, "site 'y': the code of the model does not broadcast over the values")


def test_a_site_outside_of_the_plate_is_refused() -> None:
    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(loc + z, 1.0), obs=ROWS[:3])

    refused(model, "site 'y', discrete site 'z': a site outside of a plate depends on a discrete site within")


def test_a_site_after_the_chain_is_refused() -> None:
    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        z = torch.tensor(0.0)
        for t in pyro.markov(range(3)):
            z = pyro.sample(f"z_{t}", dist.Bernoulli(0.3 + 0.4 * z))
        pyro.sample("y", dist.Normal(loc + z, 1.0), obs=ROWS[0])

    refused(model, "site 'y': a site depends on a discrete site that is out of its reach")


def test_a_support_that_depends_on_a_discrete_site_is_refused() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Uniform(0.0, 1.0 + z))

    refused(model, "site 'x': the support of a continuous latent site depends on a discrete one")


# the interface that bounds build on


def test_log_sum_product_by_row() -> None:
    loc = torch.tensor([0.5, -1.0], dtype=DOUBLE)
    messages: dict[str, Any] = {}

    def model() -> None:
        with pyro.plate("data", len(ROWS)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7], dtype=DOUBLE)))
            pyro.sample("x", dist.Normal(ROWS, 1.0), obs=ROWS)
            with pyro.plate("twice", 2):
                pyro.sample("y", dist.Normal(loc[z], 1.0), obs=torch.stack([ROWS, -ROWS]))

    with poutine.trace() as recorded, enumerating(2):
        model()
    messages = {n: m for n, m in recorded.trace.nodes.items() if n in "xyz"}
    assert [name for name, message in messages.items() if is_enumerable(message)] == ["z"]
    of_value = normal(loc, 1.0)
    seen = of_value.log_prob(ROWS[:, None]) + of_value.log_prob(-ROWS[:, None])
    rows = (seen + torch.tensor([0.3, 0.7], dtype=DOUBLE).log()).logsumexp(-1) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(log_sum_product(messages, "data"), rows, **TIGHT)
    torch.testing.assert_close(log_sum_product(messages), rows.sum(), **TIGHT)


def test_models_without_discrete_sites_meet_no_handler_of_them() -> None:
    seen = []

    def model() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))
        seen.append(any(isinstance(handler, AllValues) for handler in pyro.poutine.runtime._PYRO_STACK))

    capture_density(model, {}, seed=0)(torch.zeros(1, 1, dtype=DOUBLE))
    assert seen
    assert not any(seen)


def test_discrete_hmm_is_captured_and_equals_the_loop() -> None:
    def observed(y: Tensor) -> None:
        table = pyro.sample("table", dist.Normal(torch.zeros(3, 3), 1.0).to_event(2))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        start = torch.tensor([0.0, -torch.inf, -torch.inf])  # the state before the first step
        pyro.sample("y", dist.DiscreteHMM(start, table, dist.Normal(loc, 1.0)), obs=y)

    density = capture_density(observed, {"y": ROWS[:5]}, seed=0)
    assert density.rung == "vmap"
    u = points(density.dim)
    value, gradient = density(u)
    expected, slope = capture_density(states, {"y": ROWS[:5]}, seed=0)(u)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-10)


# log-likelihoods


def test_log_likelihood_of_rows_sums_the_labels_out() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        with pyro.plate("data", len(y)), poutine.scale(scale=3.0):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
            pyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
            pyro.sample("y", dist.Normal(-loc[z], 0.5), obs=y)

    data = {"x": ROWS, "y": ROWS.flip(0)}
    draws = {"loc": points(2), "z": torch.zeros(POINTS, 6, dtype=torch.int64)}
    weights = torch.tensor([0.4, 0.6], dtype=DOUBLE).log()
    first = weights + normal(draws["loc"][:, None], 1.0).log_prob(data["x"][:, None])
    both = first + normal(-draws["loc"][:, None], 0.5).log_prob(data["y"][:, None])
    density = capture_density(model, data, seed=0)
    for rung in ("vmap", "eager"):
        with density.context():
            found = log_likelihood(model, data, draws, rung)
        torch.testing.assert_close(found["x"], first.logsumexp(-1), **TIGHT)
        torch.testing.assert_close(found["x"] + found["y"], both.logsumexp(-1), **TIGHT)


def test_log_likelihood_is_conditional_on_a_label_of_all_rows() -> None:
    def model(y: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        z = pyro.sample("z", dist.Bernoulli(0.4))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc[z.long()], 1.0), obs=y)

    draws = {"loc": points(2), "z": torch.tensor([0, 1, 0])}
    density = capture_density(model, {"y": ROWS}, seed=0)
    with density.context():
        found = log_likelihood(model, {"y": ROWS}, draws, "vmap")
        with pytest.raises(
            ModelError, match=r"sites \['z'\]: the discrete sites cannot be summed out row by row"
        ):
            log_likelihood(model, {"y": ROWS}, {"loc": draws["loc"]}, "vmap")
    expected = normal(draws["loc"].gather(1, draws["z"][:, None]), 1.0).log_prob(ROWS)
    torch.testing.assert_close(found["y"], expected, **TIGHT)


# a fit from end to end


def two_components(y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    low = pyro.sample("low", dist.Normal(0.0, 5.0))
    gap = pyro.sample("gap", dist.LogNormal(1.0, 0.5))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Bernoulli(weight))
        centre = pyro.deterministic("centre", low + gap * z)
        pyro.sample("y", dist.Normal(centre, 1.0), obs=y)


@pytest.fixture(scope="module")
def truth() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    label = (torch.rand(60, generator=random) < 0.4).long()
    return label, -2 + 7.0 * label + torch.randn(60, generator=random, dtype=DOUBLE)


@pytest.fixture(scope="module")
def fitted(truth: tuple[Tensor, Tensor]) -> pyl.Fit:
    method = pyl.HMC(num_chains=16, num_warmup=60, num_draws=60)
    return pyl.fit(two_components, {"y": truth[1]}, method, seed=1, progress=False, compile=False)


def test_fit_draws_labels_and_what_depends_on_them(fitted: pyl.Fit, truth: tuple[Tensor, Tensor]) -> None:
    z, label = fitted.samples["z"], truth[0]
    assert (z.dtype, tuple(z.shape)) == (torch.int64, (16, 60, 60))
    s = {name: draws.flatten(0, 1) for name, draws in fitted.samples.items()}
    torch.testing.assert_close(s["centre"], s["low"][:, None] + s["gap"][:, None] * s["z"])
    # P(z = 1 | y) of each row, exact at each draw of the others; the mean over draws of a label drawn
    # with that probability has a standard error of at most 0.5 / sqrt(960) = 0.016
    centres = torch.stack([s["low"], s["low"] + s["gap"]], -1)[:, None]
    weights = torch.stack([1 - s["weight"], s["weight"]], -1).log()[:, None]
    joint = weights + normal(centres, 1.0).log_prob(truth[1][:, None])
    probability = joint.softmax(-1)[..., 1].mean(0)
    assert ((s["z"].double().mean(0) - probability).abs() < 5 * 0.016).all()
    certain = (probability - 0.5).abs() > 0.45
    assert certain.sum() > 50
    assert torch.equal((probability > 0.5)[certain].long(), label[certain])
    assert fitted.diagnostics["z"]["rhat"].shape == (60,)


def test_fit_is_exported_and_read_back(fitted: pyl.Fit, tmp_path: Path) -> None:
    data = pyl.to_inference_data(fitted)
    assert data["posterior"]["z"].dims == ("chain", "draw", "data")
    assert data["posterior"]["z"].dtype == "int64"
    assert data["prior"]["z"].dtype == "int64"
    row = data["log_likelihood"]["y"].to_numpy()
    s = fitted.samples
    centres = torch.stack([s["low"], s["low"] + s["gap"]], -1)[:, :, None]
    weights = torch.stack([1 - s["weight"], s["weight"]], -1).log()[:, :, None]
    joint = weights + normal(centres, 1.0).log_prob(fitted.data["y"][:, None])
    torch.testing.assert_close(torch.from_numpy(row), joint.logsumexp(-1), **TIGHT)
    pyl.save(fitted, tmp_path / "fit")
    again = pyl.load(tmp_path / "fit", model=two_components)
    assert again.sites.discrete == fitted.sites.discrete
    assert again.sites.max_plate_nesting == 1
    assert torch.equal(again.samples["z"], fitted.samples["z"])
    assert (pyl.to_inference_data(again)["log_likelihood"]["y"].to_numpy() == row).all()
    assert any("z[" in name for name in pyl.summary(fitted).index)


def test_predictions_of_old_rows_use_their_labels_and_new_rows_draw_theirs(fitted: pyl.Fit) -> None:
    old = pyl.predict(fitted, num_draws=400)["y"]
    centre = fitted.flat_samples(400)["centre"]
    # y - centre is standard normal noise: the mean of 24,000 has a standard error of 0.0065
    assert abs(float((old - centre).mean())) < 5 * 0.0065
    new = pyl.predict(fitted, {"y": torch.zeros(3, dtype=DOUBLE)}, num_draws=400)
    assert new["y"].shape == (400, 3)
    s = fitted.flat_samples(400)
    # each new row is high with probability `weight`; half way up tells the two apart up to 0.6 % of either
    high = new["y"] > (s["low"] + s["gap"] / 2)[:, None]
    error = math.sqrt(0.25 / 1200)
    assert abs(float(high.double().mean() - s["weight"].mean())) < 5 * error + 0.006
