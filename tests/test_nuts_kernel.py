"""The No-U-Turn kernel against a plain recursive one, against Pyro's, and against what is known exactly."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pytest
import torch
from pyro.infer import NUTS
from pyro.poutine.messenger import Messenger
from scipy.stats import chi2_contingency
from torch import Tensor

from pyrolatent.capture.compile import capture
from pyrolatent.kernels.hmc import Metric, metric, start
from pyrolatent.kernels.nuts import NUTSInfo, leaf_inputs, leaf_step, merge, merge_inputs, transition
from tests.plain_nuts import Sampler

DIM = 4
SCALES = torch.tensor([0.3, 1.0, 2.0, 0.7], dtype=torch.float64)
COVARIANCE = torch.outer(SCALES, SCALES) * (0.6 * torch.ones(DIM, DIM) + 0.4 * torch.eye(DIM)).double()
PRECISION = torch.linalg.inv(COVARIANCE)
FACTOR = torch.linalg.cholesky(COVARIANCE)
IDENTITY = metric(torch.ones(DIM, dtype=torch.float64))

Density = Callable[[Tensor], tuple[Tensor, Tensor]]


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    """log N(0, COVARIANCE) up to a constant, and its gradient."""
    gradient = -position @ PRECISION
    return 0.5 * (position * gradient).sum(-1), gradient


def quartic(position: Tensor) -> tuple[Tensor, Tensor]:
    return -0.25 * (position**4).sum(-1), -(position**3)


def funnel(position: Tensor) -> tuple[Tensor, Tensor]:
    """Neal's: x_0 ~ N(0, 3^2), the others N(0, exp(x_0))."""
    log_variance, rest = position[:, 0], position[:, 1:]
    precision = torch.exp(-log_variance)
    half = 0.5 * precision * (rest**2).sum(-1)
    value = -(log_variance**2) / 18 - half - 0.5 * (DIM - 1) * log_variance
    slope = -log_variance / 9 + half - 0.5 * (DIM - 1)
    return value, torch.cat([slope[:, None], -precision[:, None] * rest], dim=-1)


def half_space(position: Tensor) -> tuple[Tensor, Tensor]:
    """A Gaussian that is not a number where the first coordinate is above 1."""
    value, gradient = gaussian(position)
    bad = position[:, 0] > 1
    return torch.where(bad, torch.nan, value), torch.where(bad[:, None], torch.nan, gradient)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Recorded:
    """Uniform numbers from a seed, kept."""

    def __init__(self, chains: int, seed: int = 0) -> None:
        self.random, self.chains = torch.Generator().manual_seed(seed), chains
        self.drawn: list[Tensor] = []

    def __call__(self) -> Tensor:
        self.drawn.append(torch.rand(self.chains, generator=self.random, dtype=torch.float64))
        return self.drawn[-1]


def run(
    density: Density,
    position: Tensor,
    mass: Metric = IDENTITY,
    step_size: float | Tensor = 0.3,
    max_tree_depth: int = 10,
    seed: int = 0,
    count: int = 1,
    **steps: Any,
) -> tuple[Tensor, NUTSInfo]:
    """Return positions after `count` transitions, and the last one's info."""
    state, leaf = start(density, position), steps.pop("leaf", leaf_step(density))
    uniform, size = Recorded(len(position), seed), torch.as_tensor(step_size, dtype=torch.float64)
    for index in range(count):
        noise = normals(*position.shape, seed=1_000 * seed + index)
        state, info = transition(leaf, state, mass, size, max_tree_depth, noise, uniform, **steps)
    return state.position, info


@pytest.mark.parametrize("density", [gaussian, quartic, funnel, half_space])
@pytest.mark.parametrize("mass", [IDENTITY, metric(COVARIANCE)], ids=["diagonal", "dense"])
def test_chains_are_the_plain_recursive_sampler(density: Density, mass: Metric) -> None:
    """Given the same numbers every chain does what the recursion does, and stays on course for it."""
    chains, max_depth = 12, 6
    step_size = 0.02 * 2 ** torch.arange(chains, dtype=torch.float64)[:, None].mul(0.6)  # to 2: many diverge
    covariance = mass.covariance if mass.covariance.ndim == 2 else torch.diag(mass.covariance)
    state, seen = start(density, 0.3 * normals(chains, DIM)), Counter[int]()
    for seed in range(6):
        noise, uniform = normals(chains, DIM, seed=seed), Recorded(chains, seed)
        old, momentum = state, mass.momentum(noise)
        state, info = transition(leaf_step(density), state, mass, step_size, max_depth, noise, uniform)
        for chain in range(chains):
            plain = Sampler(density, covariance, float(step_size[chain]))
            numbers = [float(drawn[chain]) for drawn in uniform.drawn]
            expected = plain.transition(old.position[chain], momentum[chain], max_depth, numbers)
            torch.testing.assert_close(state.position[chain], expected.position, rtol=1e-9, atol=1e-9)
            found = [part[chain].item() for part in (info.depth, info.num_steps, info.diverging)]
            assert found == [expected.depth, expected.num_steps, expected.diverging]
            assert float(info.acceptance_rate[chain]) == pytest.approx(expected.acceptance_rate)
            assert float(info.energy[chain]) == pytest.approx(expected.energy)
            seen[expected.depth] += 1
        torch.testing.assert_close(state.log_density, density(state.position)[0])
        torch.testing.assert_close(state.gradient, density(state.position)[1])
    assert len(seen) >= 5  # from the shallowest trees to the deepest


class CountingNUTS(NUTS):
    """Pyro's NUTS, which counts merged doublings and leaves of the last transition."""

    nested = merged = leaves = 0

    def _build_basetree(self, *args: Any) -> Any:
        self.leaves += 1
        return super()._build_basetree(*args)

    def _build_tree(self, *args: Any) -> Any:
        self.nested += 1
        tree = super()._build_tree(*args)
        self.nested -= 1
        self.merged += self.nested == 0 and not (tree.turning or tree.diverging)
        return tree


class Drawn(Messenger):
    """Records what is drawn; a trace would refuse two draws of one name."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Tensor] = {}

    def _pyro_post_sample(self, message: Any) -> None:
        self.values[message["name"]] = message["value"]


class Pyro(NamedTuple):
    """Pyro's transitions: momenta `(N, D)`, directions by depth `(N, 10)`, merges and leaves `(N,)`."""

    momentum: Tensor
    forward: Tensor
    depth: Tensor
    num_steps: Tensor


PYRO_STEP = 0.25


@pytest.fixture(scope="module")
def pyro_trees() -> Pyro:
    """Pyro's transitions from `begin()`, each on its own."""
    kernel = CountingNUTS(
        potential_fn=lambda sites: 0.5 * sites["x"] @ PRECISION @ sites["x"],
        step_size=PYRO_STEP,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    kernel.initial_params, rows = {"x": begin()[0]}, []
    with torch.random.fork_rng():
        pyro.set_rng_seed(1)
        kernel.setup(warmup_steps=0)
        for position in begin():
            kernel.merged = kernel.leaves = 0
            kernel.clear_cache()
            with Drawn() as seen:
                kernel.sample({"x": position})
            drawn = seen.values
            momentum = next(value for name, value in drawn.items() if name.startswith("r_t"))
            turns = [bool(value) for name, value in drawn.items() if name.startswith("direction")]
            forward = torch.tensor(turns + [False] * (10 - len(turns)))
            rows.append((momentum, forward, torch.tensor(kernel.merged), torch.tensor(kernel.leaves)))
    return Pyro(*map(torch.stack, zip(*rows, strict=True)))


def begin() -> Tensor:
    return normals(400, DIM, seed=5) @ FACTOR.T


def test_each_tree_is_that_of_pyro(pyro_trees: Pyro) -> None:
    """Given momentum and directions, what a tree becomes does not depend on chance any more."""
    calls = [
        call
        for depth in range(10)
        for call in (pyro_trees.forward[:, depth].double(), *[torch.ones(400)] * (2**depth + 1))
    ]
    uniform = iter(calls)
    _, info = transition(
        leaf_step(gaussian), start(gaussian, begin()), IDENTITY, torch.tensor(PYRO_STEP).double(), 10,
        pyro_trees.momentum, lambda: 0.75 - 0.5 * next(uniform),
    )  # fmt: skip
    assert torch.equal(info.depth, pyro_trees.depth)
    assert torch.equal(info.num_steps, pyro_trees.num_steps)


def test_trees_are_as_deep_as_those_of_pyro(pyro_trees: Pyro) -> None:
    """Both start at draws of the target of their own, so that the counts are independent."""
    _, info = run(gaussian, normals(20_000, DIM, seed=6) @ FACTOR.T, step_size=PYRO_STEP)
    counts = [
        Counter(zip(trees.depth.tolist(), trees.num_steps.tolist(), strict=True))
        for trees in (pyro_trees, info)
    ]
    common = [tree for tree in counts[1] if counts[1][tree] >= 400]  # 8 or more expected of Pyro's
    table = [[count[tree] for tree in common] for count in counts]
    table = [[*row, sum(count.values()) - sum(row)] for row, count in zip(table, counts, strict=True)]
    assert len(common) >= 5
    assert chi2_contingency(table).pvalue > 0.01


@pytest.mark.parametrize(
    "mass", [metric(COVARIANCE.diagonal()), metric(COVARIANCE)], ids=["diagonal", "dense"]
)
def test_transitions_leave_the_target_alone(mass: Metric) -> None:
    """Chains started from the target stay in it, at step sizes that differ from chain to chain."""
    chains = 10_000
    step_size = 0.2 + 1.0 * torch.rand(
        chains, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    end, _ = run(gaussian, normals(chains, DIM) @ FACTOR.T, mass, step_size, 6, count=6)
    error = end.T @ end / chains - COVARIANCE
    # sd of a sample second moment of independent chains: at most sqrt(2) * var / sqrt(chains); five of them.
    assert (error / torch.outer(SCALES, SCALES)).abs().max() < 5 * math.sqrt(2 / chains)
    assert (end.mean(0) / SCALES).abs().max() < 5 / math.sqrt(chains)


def test_one_chain_that_fails_fails_alone() -> None:
    begin = torch.zeros(64, DIM, dtype=torch.float64)
    begin[17, 0] = 0.99

    def walled(position: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = half_space(position)
        far = torch.arange(64) != 17  # the wall stands for this chain only
        free = gaussian(position)
        return torch.where(far, free[0], value), torch.where(far[:, None], free[1], gradient)

    noise, steps = normals(64, DIM, seed=4), torch.tensor(0.3, dtype=torch.float64)
    noise[17] = torch.tensor([5.0, 0.0, 0.0, 0.0])
    uniform = Recorded(64, seed=1)
    after, info = transition(leaf_step(walled), start(walled, begin), IDENTITY, steps, 10, noise, uniform)
    healthy, undisturbed = transition(
        leaf_step(gaussian), start(gaussian, begin), IDENTITY, steps, 10, noise, Recorded(64, seed=1)
    )
    assert info.diverging.nonzero().flatten().tolist() == [17]
    assert after.position.isfinite().all() and after.gradient.isfinite().all()
    assert after.position[17, 0] <= 1
    assert info.acceptance_rate.isfinite().all() and info.energy.isfinite().all()
    others = torch.arange(64) != 17
    assert torch.equal(after.position[others], healthy.position[others])
    assert torch.equal(info.num_steps[others], undisturbed.num_steps[others])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_density_that_is_not_finite_is_a_divergence(value: float) -> None:
    def broken(position: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(position[:, 0], value), torch.zeros_like(position)

    begin = start(gaussian, normals(3, DIM))
    noise, size = normals(3, DIM, seed=1), torch.tensor(0.1, dtype=torch.float64)
    after, info = transition(leaf_step(broken), begin, IDENTITY, size, 5, noise, Recorded(3))
    assert info.diverging.all()
    assert torch.equal(after.position, begin.position) and torch.equal(after.log_density, begin.log_density)
    assert info.num_steps.tolist() == [1, 1, 1] and info.depth.tolist() == [0, 0, 0]
    assert info.acceptance_rate.tolist() == [0, 0, 0]


def test_divergences_are_flagged() -> None:
    _, info = run(gaussian, normals(8, DIM) @ FACTOR.T, step_size=100.0)
    assert info.diverging.all()
    # In the funnel's neck, where the others have sd exp(-4), a step of 0.5 is 27 of them.
    neck = torch.cat([torch.full((8, 1), -8.0), 0.02 * normals(8, DIM - 1)], dim=1).double()
    _, info = run(funnel, neck, step_size=0.5)
    assert info.diverging.all()
    _, info = run(gaussian, normals(8, DIM) @ FACTOR.T, step_size=0.1)
    assert not info.diverging.any()


@pytest.mark.parametrize("max_tree_depth", [1, 2, 3, 5])
def test_tree_depth_has_its_limit(max_tree_depth: int) -> None:
    """A step too small to turn: every chain makes all doublings, of 1, 2, 4, ... leaves."""
    _, info = run(gaussian, normals(16, DIM) @ FACTOR.T, step_size=1e-4, max_tree_depth=max_tree_depth)
    assert set(info.depth.tolist()) == {max_tree_depth}
    assert set(info.num_steps.tolist()) == {2**max_tree_depth - 1}
    torch.testing.assert_close(info.acceptance_rate, torch.ones(16).double(), rtol=0, atol=1e-4)


def test_steps_are_what_the_depth_says() -> None:
    _, info = run(gaussian, normals(500, DIM) @ FACTOR.T, step_size=0.2)
    whole = 2**info.depth - 1
    # A last subtree that turned is not merged: its leaves, one to all of them, were visited all the same.
    assert ((info.num_steps >= whole) & (info.num_steps <= 2 * whole + 1)).all()
    assert (info.num_steps == whole).any() and (info.num_steps > whole).any()


@pytest.mark.parametrize("mass", [IDENTITY, metric(COVARIANCE)], ids=["diagonal", "dense"])
def test_captured_steps_are_the_plain_ones(mass: Metric) -> None:
    begin = normals(6, DIM) @ FACTOR.T
    leaf = capture(leaf_step(gaussian), *leaf_inputs(begin, mass.covariance))
    merging = capture(merge, *merge_inputs(begin))
    assert type(leaf(*leaf_inputs(begin, mass.covariance))) is tuple  # inductor takes no named one
    position, info = run(gaussian, begin, mass, 0.2, count=5, leaf=leaf, merge=merging)
    expected, plain = run(gaussian, begin, mass, 0.2, count=5)
    torch.testing.assert_close(position, expected, rtol=0, atol=0)
    for part, whole in zip(info, plain, strict=True):
        torch.testing.assert_close(part, whole, rtol=0, atol=0)
    assert info.depth.max() >= 3


def test_transitions_are_differentiable() -> None:
    """Given the course that the random numbers took, the kept point is smooth in start and step size."""
    noise = normals(3, DIM)

    def end(position: Tensor, step_size: Tensor) -> Tensor:
        state = start(quartic, position)
        return transition(leaf_step(quartic), state, IDENTITY, step_size, 3, noise, Recorded(3, seed=2))[
            0
        ].position

    begin, size = normals(3, DIM, seed=1), torch.tensor(0.3, dtype=torch.float64)
    assert not torch.equal(end(begin, size), begin)
    assert torch.autograd.gradcheck(end, (begin.requires_grad_(), size.requires_grad_()))
