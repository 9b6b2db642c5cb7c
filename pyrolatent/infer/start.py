"""Where chains begin: at draws of an earlier fit, or at a point of finite density, then an ascent."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.parameters import Parameters
from pyrolatent.capture.sites import random_start
from pyrolatent.capture.unconstrain import unconstrain
from pyrolatent.errors import ModelError
from pyrolatent.kernels.adaptation import MAX_DENSE, hessians, laplace, pooled_covariance
from pyrolatent.kernels.ascent import ENOUGH, lbfgs_ascent, whitened_ascent
from pyrolatent.kernels.hmc import Metric, metric
from pyrolatent.kernels.leapfrog import Density
from pyrolatent.pair import Model
from pyrolatent.ranks import ALONE, Ranks
from pyrolatent.result import Fit, Problem, spread

ATTEMPTS = 100
ADAM_STEPS = 30
ADAM_RATE = 0.1
MAX_ASCENT = 1_000  # evaluations of the density
HASTY = 5  # evaluations without a gain, after which curvature is looked at
POLISHES = 3  # times at most, of
POLISH = 50  # evaluations each
MAKES_UP = 10.0  # nats a dimension: a standard deviation 20,000 times as wide
SAME = 1.0  # standard deviations, and nats, within which points are in one place


class Learnt(NamedTuple):
    """The density of a model at what was learnt before, and that as fields of a fit."""

    density: LogDensity
    parameters: Parameters | None
    params: dict[str, Tensor]
    state: dict[str, Tensor]


def starting_points(
    density: LogDensity,
    evaluate: Density,
    num_chains: int,
    superchain_size: int,
    random: torch.Generator,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Return points of finite density `(B, D)`, one for each superchain, for the chains of this process.

    Raises:
        ModelError: No finite density in 100 attempts; lists each site's log-probability.
    """
    shape = (num_chains // superchain_size, density.dim)
    position = random_start(shape, random, density.dtype)
    for _ in range(ATTEMPTS):
        own = ranks.share(position).repeat_interleave(superchain_size, 0)
        value, gradient = evaluate(own)
        finite = ranks.gather((value.isfinite() & gradient.isfinite().all(-1))[::superchain_size])
        if finite.all():
            return own
        failed = position[~finite][0]
        position = torch.where(finite[:, None], position, random_start(shape, random, density.dtype))
    raise ModelError(
        "the density of the model is not finite at the start",
        where=f"{ATTEMPTS} random starts",
        why=f"log-probabilities at the last: {listed(density, failed)}{missing_values(density)}",
        remedy="look at the sites that are not finite: their data, their scale, their support",
    )


def listed(density: LogDensity, position: Tensor) -> str:
    """Return each site's log-probability in words."""
    return ", ".join(f"{name} {value:.4g}" for name, value in density.log_prob_of_sites(position).items())


def missing_values(density: LogDensity) -> str:
    """Return how many NaN each entry of the data holds, in words."""
    counts = {
        name: int(value.isnan().sum())
        for name, value in density.data.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.isnan().any()
    }
    return f"; the data hold NaN: {counts}" if counts else ""


def ascend(evaluate: Density, position: Tensor, superchain_size: int, ranks: Ranks) -> tuple[Tensor, Metric]:
    """Return where chains begin, from random points `(B, D)`, and a first metric, that of the best start.

    A mode is the right place for most models, and a spike of the density with next to no mass the
    wrong one (the neck of a centred hierarchy).  So each superchain climbs a little and then all
    the way, and begins where the Laplace approximation sees more of the posterior.  It is not asked about
    points so far below that no width would make up for it.
    """

    def each(starts: Tensor) -> tuple[Tensor, Tensor]:  # the graph has the shape of all chains
        value, gradient = evaluate(starts.repeat_interleave(superchain_size, 0))
        return value[::superchain_size], gradient[::superchain_size]

    near = adam_ascent(each, position[::superchain_size])
    if near.shape[1] > MAX_DENSE:
        return near.repeat_interleave(superchain_size, 0), metric(torch.ones_like(near[0]))
    top, evidence_top, around_top = summits(evaluate, each, near, len(position))
    value, needed = each(near)[0], evidence_top.max() - MAKES_UP * near.shape[1]
    able = value >= torch.minimum(needed, value.max())
    evidence_able, around_able = neighbourhoods(evaluate, near[able], value[able], len(position))
    evidence_near = torch.full_like(value, -torch.inf).masked_scatter(able, evidence_able)
    evidence, covariance = torch.cat([evidence_able, evidence_top]), torch.cat([around_able, around_top])
    own, best = evidence.max(0)
    winner = ranks.gather(own[None]).argmax()
    of_winner = ranks.gather(covariance[best][None])[winner]
    higher = torch.where((evidence_top >= evidence_near)[:, None], top, near)
    return higher.repeat_interleave(superchain_size, 0), metric(of_winner)


def summits(evaluate: Density, each: Density, near: Tensor, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return where ascents from `near (P, D)` end, and Laplace's evidence `(P,)` and covariance there.

    L-BFGS is slow where scales differ much and cannot tell; the true curvature, at the highest point, tells
    what is left to gain, and steps in its units go there.
    """
    top = lbfgs_ascent(each, near, MAX_ASCENT, HASTY)
    for _ in range(POLISHES):
        value, gradient = each(top)
        best = value.argmax()[None]
        _, (covariance,) = laplace(value[best], hessians(evaluate, top[best], batch))
        promised = 0.5 * (gradient * (gradient @ covariance)).sum(-1)
        if not (promised > ENOUGH).any():
            break
        top = whitened_ascent(each, top, covariance, POLISH, HASTY)
    return top, *neighbourhoods(evaluate, top, each(top)[0], batch)


def neighbourhoods(evaluate: Density, points: Tensor, values: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Return the log evidence `(P,)` and the covariance `(P, D, D)` of Laplace's approximation around points.

    Points within a standard deviation of a higher one share its covariance: a Hessian costs two gradients
    for each dimension.

    Args:
        evaluate: The density, of `batch` points at a time.
        points: `(P, D)`.
        values: Log densities there, `(P,)`.
        batch: Points.
    """
    evidence, covariance = torch.empty_like(values), points.new_empty(*points.shape, points.shape[1])
    left = torch.ones_like(values, dtype=torch.bool)
    while left.any():
        best = torch.where(left, values, -torch.inf).argmax()
        highest, (around,) = laplace(values[best, None], hessians(evaluate, points[best, None], batch))
        offset = points - points[best]
        distance = (offset * torch.linalg.solve(around, offset.mT).mT).sum(-1).sqrt()
        same = left & (distance < SAME) & (values[best] - values < SAME)
        same[best] = True
        evidence[same], covariance[same] = highest + values[same] - values[best], around
        left &= ~same
    return evidence, covariance


def adam_ascent(evaluate: Density, position: Tensor) -> Tensor:
    """Return the best points of a short Adam ascent from `position (B, D)`."""
    free = position.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=ADAM_RATE, maximize=True)
    best, best_value = position, torch.full_like(position[:, 0], -torch.inf)
    for _ in range(ADAM_STEPS):
        value, gradient = evaluate(free.detach())
        better = value > best_value
        best = torch.where(better[:, None], free.detach(), best)
        best_value = torch.where(better, value, best_value)
        free.grad = torch.nan_to_num(gradient)
        optimizer.step()
    return best


def starting_draws(density: LogDensity, start: Fit) -> Tensor:
    """Return the draws of an earlier fit as positions `(S, D)` of this density.

    Raises:
        ModelError: The fit is of another model, or a draw lies outside the support of its site.
    """
    check_same_model(density, start)
    return unconstrain(density, start.flat_samples())


def learnt(problem: Problem) -> Learnt:
    """Return the density, with parameters fixed at what the earlier fit has learnt, if it has any."""
    start, model = problem.start, problem.pair.model
    if start is None or start.parameters is None:
        return Learnt(captured(problem, model), None, {}, {})
    if (refits := len(start.state["parameters"])) > 1:
        raise ModelError(
            "the fit to start from has learnt several times over",
            why=f"{refits} refits, each with parameters of its own",
            remedy="start from a fit with num_refits=1",
        )
    flat = start.state["parameters"][0].to(device=problem.device, dtype=problem.dtype)
    params = {name: value.cpu() for name, value in start.parameters.constrained(flat).items()}
    density = captured(problem, start.parameters.bound(model, flat))
    return Learnt(density, start.parameters, params, {"parameters": flat[None]})


def captured(problem: Problem, model: Model) -> LogDensity:
    """Capture the log density of `model` as the problem is to be run."""
    seed, dtype, device = problem.seed, problem.dtype, problem.device
    return capture_density(model, problem.data, seed=seed, dtype=dtype, device=device)


def check_same_model(density: LogDensity, start: Fit) -> None:
    """Refuse a fit whose latent sites are not those of this density."""
    latents, samples = start.sites.latents, start.samples
    given = {name: tuple(draws.shape[2:]) for name, draws in samples.items() if name in latents}
    expected = {name: tuple(site.shape) for name, site in density.sites.latents.items()}
    if given != expected:
        raise ModelError(
            "the fit to start from has other latent sites",
            why=f"draws of {given}, where this model has {expected}",
            remedy="start from a fit of the same model to as many rows",
        )


def spaced(draws: Tensor, number: int) -> Tensor:
    """Return `number` evenly spaced ones of `draws (S, D)`, some of them twice where there are fewer."""
    return draws[spread(len(draws), number).to(draws.device)]


def begin_at(
    evaluate: Density, draws: Tensor, num_chains: int, superchain_size: int, flat: Tensor, ranks: Ranks
) -> tuple[Tensor, Metric]:
    """Return where chains begin, each superchain at one of `draws (S, D)`, and their metric.

    `flat` is a covariance of scale 1, dense or diagonal as the metric is to be.

    Raises:
        ModelError: The density is not finite at a draw.
    """
    starts = ranks.share(spaced(draws, num_chains // superchain_size))
    position = starts.repeat_interleave(superchain_size, 0)
    value, gradient = evaluate(position)
    possible = ranks.gather(value.isfinite() & gradient.isfinite().all(-1))
    if not possible.all():
        raise ModelError(
            "the density of the model is not finite at draws of the fit to start from",
            why=f"{int((~possible).sum())} of {num_chains} chains",
            remedy="leave start out, or start from a fit to the same data",
        )
    return position, metric(pooled_covariance(draws, flat))
