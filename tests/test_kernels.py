"""Hamiltonian dynamics keeps its laws; adaptation finds what is known."""

import math

import pytest
import torch
from torch import Tensor

from pyrolatent.kernels.adaptation import (
    dual_averaging,
    hessians,
    laplace,
    path_length,
    pooled_covariance,
)
from pyrolatent.kernels.ascent import lbfgs_ascent, whitened_ascent
from pyrolatent.kernels.hmc import Metric, metric, start, transition
from pyrolatent.kernels.leapfrog import leapfrog_step, trajectory

DIM = 3
COVARIANCE = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    """log N(0, COVARIANCE) up to a constant, and its gradient."""
    gradient = -position @ PRECISION
    return 0.5 * (position * gradient).sum(-1), gradient


def quartic(position: Tensor) -> tuple[Tensor, Tensor]:
    return -0.25 * (position**4).sum(-1), -(position**3)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("covariance", [COVARIANCE, COVARIANCE.diagonal()], ids=["dense", "diagonal"])
def test_a_trajectory_runs_back_to_where_it_began(covariance: Tensor) -> None:
    position, momentum = normals(4, DIM), normals(4, DIM, seed=1)
    step, size = leapfrog_step(quartic), torch.tensor(0.1, dtype=torch.float64)
    there, turned, _, gradient = trajectory(
        step, position, quartic(position)[1], momentum, size, covariance, 20
    )
    back, final, _, _ = trajectory(step, there, gradient, -turned, size, covariance, 20)
    torch.testing.assert_close(back, position, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(-final, momentum, rtol=1e-10, atol=1e-10)


def test_energy_error_falls_with_the_square_of_the_step() -> None:
    mass = metric(COVARIANCE)
    position, momentum = normals(8, DIM), mass.momentum(normals(8, DIM, seed=1))

    def error(step_size: float) -> float:
        size = torch.tensor(step_size, dtype=torch.float64)
        end = trajectory(leapfrog_step(quartic), position, quartic(position)[1], momentum, size, COVARIANCE,
                         round(1 / step_size))  # fmt: skip
        before = mass.kinetic_energy(momentum) - quartic(position)[0]
        after = mass.kinetic_energy(end[1]) - end[2]
        return float((after - before).abs().max())

    ratio = error(0.02) / error(0.01)
    assert ratio == pytest.approx(4, rel=0.05)


def test_trajectories_are_differentiable() -> None:
    covariance = COVARIANCE

    def end(position: Tensor, momentum: Tensor, step_size: Tensor) -> Tensor:
        density = torch.func.vmap(torch.func.grad_and_value(lambda x: -0.25 * (x**4).sum()))

        def value_and_gradient(x: Tensor) -> tuple[Tensor, Tensor]:
            gradient, value = density(x)
            return value, gradient

        gradient = value_and_gradient(position)[1]
        return trajectory(
            leapfrog_step(value_and_gradient), position, gradient, momentum, step_size, covariance, 3
        )[0]

    inputs = (normals(2, DIM), normals(2, DIM, seed=1), torch.tensor(0.1, dtype=torch.float64))
    assert torch.autograd.gradcheck(end, tuple(x.requires_grad_() for x in inputs))


def test_momenta_have_the_inverse_covariance() -> None:
    noise = normals(200_000, DIM)
    for mass in (metric(COVARIANCE), metric(COVARIANCE.diagonal())):
        momentum = mass.momentum(noise)
        dense = mass.covariance if mass.covariance.ndim == 2 else torch.diag(mass.covariance)
        # An entry of the sample covariance has standard error about 2 * |largest entry| / sqrt(200,000).
        error = momentum.T @ momentum / len(noise) - torch.linalg.inv(dense)
        assert error.abs().max() < 5 * 2 * torch.linalg.inv(dense).max() / math.sqrt(len(noise))
        # Half a chi-square with 3 degrees of freedom: mean 1.5, sd sqrt(1.5).
        assert float(mass.kinetic_energy(momentum).mean()) == pytest.approx(
            1.5, abs=5 * math.sqrt(1.5 / len(noise))
        )


def run(
    density: object, position: Tensor, mass: Metric, step_size: float, num_steps: int, count: int
) -> Tensor:
    random = torch.Generator().manual_seed(3)
    state, draws = start(density, position), []  # type: ignore[arg-type]
    for _ in range(count):
        noise = torch.randn(position.shape, generator=random, dtype=torch.float64)
        uniform = torch.rand(len(position), generator=random, dtype=torch.float64)
        size = torch.tensor(step_size, dtype=torch.float64)
        state, _ = transition(leapfrog_step(density), state, mass, size, num_steps, noise, uniform)  # type: ignore[arg-type]
        draws.append(state.position)
    return torch.stack(draws)


def test_transitions_leave_the_target_alone() -> None:
    """Chains started from the target stay in it: any bias of the accept step would show."""
    chains, count = 40_000, 30
    begin = normals(chains, DIM) @ torch.linalg.cholesky(COVARIANCE).T
    end = run(gaussian, begin, metric(torch.eye(DIM, dtype=torch.float64)), 0.6, 3, count)[-1]
    error = end.T @ end / chains - COVARIANCE
    # sd of a sample second moment of independent chains: at most sqrt(2) * 2.0 / sqrt(chains); five of them.
    assert error.abs().max() < 5 * math.sqrt(2) * 2.0 / math.sqrt(chains)


def test_without_the_accept_step_the_same_test_fails() -> None:
    chains = 40_000
    begin = normals(chains, DIM) @ torch.linalg.cholesky(COVARIANCE).T
    position, size = begin, torch.tensor(0.6, dtype=torch.float64)
    for seed in range(30):
        momentum = normals(chains, DIM, seed=seed + 10)
        position = trajectory(
            leapfrog_step(gaussian),
            position,
            gaussian(position)[1],
            momentum,
            size,
            torch.ones(DIM).double(),
            3,
        )[0]
    error = position.T @ position / chains - COVARIANCE
    assert error.abs().max() > 5 * math.sqrt(2) * 2.0 / math.sqrt(chains)


def test_one_chain_that_fails_fails_alone() -> None:
    def broken(position: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = gaussian(position)
        bad = position[:, 0] > 50
        return torch.where(bad, torch.nan, value), torch.where(bad[:, None], torch.nan, gradient)

    begin = torch.zeros(64, DIM, dtype=torch.float64)
    begin[17, 0] = 49.9
    state = start(broken, begin)
    mass = metric(torch.eye(DIM, dtype=torch.float64))
    noise = torch.zeros_like(begin)
    noise[:, 0] = 10.0  # pushes chain 17 over the edge, and no other
    size = torch.tensor(0.1, dtype=torch.float64)
    uniform = torch.full((64,), 1e-6, dtype=torch.float64)
    new, info = transition(leapfrog_step(broken), state, mass, size, 2, noise, uniform)
    assert info.diverging.nonzero().flatten().tolist() == [17]
    assert torch.equal(new.position[17], begin[17])
    assert new.position.isfinite().all()
    others = torch.arange(64) != 17
    assert (new.position[others, 0] > 0).all()


def test_dual_averaging_finds_the_step_with_the_wanted_acceptance() -> None:
    adaptation = dual_averaging(torch.tensor([1.0, 0.01], dtype=torch.float64))
    for _ in range(2_000):
        adaptation = adaptation.update(torch.exp(-adaptation.step_size), target=0.8)
    wanted = torch.full((2,), -math.log(0.8), dtype=torch.float64)
    torch.testing.assert_close(adaptation.average_step_size, wanted, rtol=0.02, atol=0)


def test_pooled_covariance_and_path() -> None:
    draws = normals(100_000, DIM) @ torch.linalg.cholesky(COVARIANCE).T
    covariance = pooled_covariance(draws, torch.eye(DIM, dtype=torch.float64))
    assert (covariance - COVARIANCE).abs().max() < 5 * math.sqrt(2) * 2 / math.sqrt(len(draws))
    assert path_length(draws, metric(covariance)) == pytest.approx(1.5, rel=0.01)
    scales = COVARIANCE.diagonal().sqrt()
    widest = torch.linalg.eigvalsh(COVARIANCE / torch.outer(scales, scales))[-1]
    assert path_length(draws, metric(covariance.diagonal())) == pytest.approx(
        1.5 * math.sqrt(widest), rel=0.01
    )


def test_covariance_of_few_draws_keeps_what_was_known() -> None:
    """No draw moves in a line: without the previous correlations the estimate would be singular."""
    identity = torch.eye(50, dtype=torch.float64)
    torch.linalg.cholesky(pooled_covariance(normals(4, 50), identity))
    torch.linalg.cholesky(pooled_covariance(torch.zeros(4, 50, dtype=torch.float64), identity))
    draws = normals(40, DIM) @ torch.linalg.cholesky(COVARIANCE).T
    off = [pooled_covariance(draws, previous)[0, 1] for previous in (COVARIANCE, torch.eye(DIM).double())]
    truth = float(COVARIANCE[0, 1] / COVARIANCE[0, 0].sqrt() / COVARIANCE[1, 1].sqrt())
    sample = float(torch.cov(draws.T)[0, 1])
    assert float(off[1]) == pytest.approx(sample * 40 / 48 * 39 / 40, rel=0.01)
    assert float(off[0] - off[1]) == pytest.approx(
        8 / 48 * truth * float(torch.cov(draws.T).diagonal()[:2].prod().sqrt()), rel=0.15
    )


def test_laplace_of_a_gaussian_is_exact() -> None:
    points = normals(5, DIM)
    hessian = hessians(gaussian, points, batch=4)
    torch.testing.assert_close(hessian, -PRECISION.expand(5, DIM, DIM), rtol=1e-6, atol=1e-6)
    mode = torch.zeros(1, DIM, dtype=torch.float64)
    evidence, covariance = laplace(gaussian(mode)[0], hessians(gaussian, mode, batch=1))
    torch.testing.assert_close(covariance[0], COVARIANCE, rtol=1e-6, atol=1e-6)
    # The integral of exp(-x' P x / 2) is sqrt(det(2 pi C)); the constant sqrt(2 pi)^D is left out.
    torch.testing.assert_close(evidence[0], 0.5 * torch.logdet(COVARIANCE), rtol=1e-6, atol=1e-6)


def test_laplace_takes_flat_and_rising_directions_as_of_scale_one() -> None:
    hessian = torch.diag(torch.tensor([1.0, -4.0, 0.0], dtype=torch.float64))[None]
    evidence, covariance = laplace(torch.zeros(1, dtype=torch.float64), hessian)
    expected = torch.diag(torch.tensor([1.0, 0.25, 1.0], dtype=torch.float64))
    torch.testing.assert_close(covariance[0], expected)
    assert float(evidence) == pytest.approx(-0.5 * math.log(4))


def test_ascent_in_units_of_the_covariance() -> None:
    """Scales from a thousandth to a thousand, 8 standard deviations away: the widest promises little."""
    scales = torch.logspace(-3, 3, DIM, dtype=torch.float64)

    def hill(position: Tensor) -> tuple[Tensor, Tensor]:
        white = position / scales
        return -0.5 * (white**2).sum(-1), -white / scales

    begin, covariance = torch.stack([8 * scales, torch.zeros_like(scales)]), torch.diag(scales**2)
    top = whitened_ascent(hill, begin, covariance, 20, patience=5)
    assert float(hill(top)[0].min()) > -0.01
    # Where the covariance is none, steps have no scale.
    none = -torch.ones(DIM, DIM, dtype=torch.float64)
    torch.testing.assert_close(whitened_ascent(hill, begin, none, 20, 5), lbfgs_ascent(hill, begin, 20, 5))


def test_ascent_reaches_the_top_of_an_ill_conditioned_hill() -> None:
    """Rosenbrock's valley, one chain at the top already and one where the density is not finite."""

    def rosenbrock(position: Tensor) -> tuple[Tensor, Tensor]:
        x, y = position.unbind(-1)
        slope = torch.stack([2 * (1 - x) + 400 * x * (y - x**2), -200 * (y - x**2)], -1)
        value = -((1 - x) ** 2) - 100 * (y - x**2) ** 2
        return torch.where(x > 100, torch.nan, value), slope

    begin = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [101.0, 0.0]], dtype=torch.float64)
    end = lbfgs_ascent(rosenbrock, begin, 80)
    torch.testing.assert_close(end[:2], torch.ones(2, 2, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert torch.equal(end[2], begin[2])
