"""Sums of products over discrete variables, exact, one variable after the other.

A factor is a tensor of log-probabilities with one dimension for the values of each variable that it
depends on, left of the dimensions of its plates.  Variables go from the innermost plates outwards,
and among those the cheapest first: the factors that mention a variable are multiplied, and its values
summed out (Obermeyer et al. 2019, "Tensor variable elimination for plated factor graphs").  On a
chain this is the forward algorithm.  What is left over at each step is the conditional distribution
of one variable given those summed out later, so draws of all of them come by walking back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import final

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrolatent.errors import ModelError

Dims = Mapping[int, int]  # variable -> the dimension of its values, counted from the right
Plates = Mapping[str, int]  # plate -> its dimension, counted from the right
Scale = float | Tensor  # the power to which a probability is raised

IMPOSSIBLE = 2.0**-40  # share of the lowest number below which a log-probability is that of zero


@final
@dataclass(frozen=True)
class Variable:
    """A discrete variable: one for each cell of its plates."""

    plates: Plates
    scale: Scale


@final
@dataclass(frozen=True)
class Factor:
    """A log-probability in nats, as a function of some variables, for each cell of its plates."""

    log_prob: Tensor
    dims: Dims
    plates: Plates
    scale: Scale


@final
@dataclass(frozen=True)
class Step:
    """One variable summed out: its log-weights given the variables summed out later."""

    variable: int
    log_weights: Tensor
    dims: Dims


def eliminate(
    factors: Iterable[Factor], variables: Mapping[int, Variable]
) -> tuple[list[Factor], list[Step]]:
    """Sum all `variables` out of the product of `factors`; return what is left, and the way there.

    Raises:
        ModelError: Variables of different plates depend on each other in a way that no order of sums
            can untie.
    """
    left, steps = list(factors), []
    costs = {variable: cost(variable, left, variables) for variable in reversed([*variables])}
    while costs:
        variable = min(costs, key=costs.__getitem__)
        del costs[variable]
        touching = [factor for factor in left if variable in factor.dims]
        step, message = sum_out(variable, touching, variables)
        left = [factor for factor in left if variable not in factor.dims]
        left.append(message)
        steps.append(step)
        costs |= {other: cost(other, left, variables) for other in message.dims}
    return left, steps


def cost(variable: int, factors: Sequence[Factor], variables: Mapping[int, Variable]) -> tuple[int, int]:
    """Return what decides when `variable` goes: innermost plates first, then the smallest product."""
    sizes = {
        other: factor.log_prob.shape[dim]
        for factor in factors
        if variable in factor.dims
        for other, dim in factor.dims.items()
    }
    return -len(variables[variable].plates), prod(sizes.values())


def sum_out(
    variable: int, factors: Sequence[Factor], variables: Mapping[int, Variable]
) -> tuple[Step, Factor]:
    """Multiply `factors` and sum over the values of `variable`.

    Sums over weights that are all zero stay finite on the way: the gradient of -inf would be NaN.
    """
    own = variables[variable]
    dims, log_weights = multiply([within(factor, own.plates, variables) for factor in factors], own.scale)
    floor = torch.finfo(log_weights.dtype).min
    log_sum = torch.logsumexp(log_weights.clamp(min=floor), dims[variable], keepdim=True)
    others = {other: dim for other, dim in dims.items() if other != variable}
    return Step(variable, log_weights, dims), Factor(log_sum, others, own.plates, own.scale)


def within(factor: Factor, plates: Plates, variables: Mapping[int, Variable]) -> Factor:
    """Multiply a factor over its cells in all but the given `plates`."""
    outer = {plate: dim for plate, dim in factor.plates.items() if plate not in plates}
    if not outer:
        return factor
    if any(plate in variables[variable].plates for variable in factor.dims for plate in outer):
        raise ModelError(
            "discrete sites of different plates depend on each other",
            where=f"plates {sorted(factor.plates)}",
            why="a site in both depends on a discrete site of each, so their sums cannot be untied",
            remedy="nest one plate in the other, or write one of them as a loop over pyro.plate",
        )
    dims = tuple(outer.values())
    if varies(factor.scale, dims):
        return Factor((factor.log_prob * factor.scale).sum(dims, keepdim=True), factor.dims, plates, 1.0)
    return Factor(factor.log_prob.sum(dims, keepdim=True), factor.dims, plates, factor.scale)


def varies(scale: Scale, dims: Iterable[int]) -> bool:
    """True for weights that differ along one of `dims`."""
    return isinstance(scale, Tensor) and any(-dim <= scale.ndim and scale.shape[dim] > 1 for dim in dims)


def multiply(factors: Sequence[Factor], scale: Scale) -> tuple[Dims, Tensor]:
    """Return the dimensions and the product of factors of the same plates, to the power 1 / `scale`.

    `pyro.markov` uses dimensions again: of two variables that claim one, the second gets another.
    """
    dims: dict[int, int] = {}
    lowest = min(dim for factor in factors for dim in factor.dims.values())
    for variable, dim in (claim for factor in factors for claim in factor.dims.items()):
        if variable not in dims and dim in dims.values():
            lowest -= 1
            dims[variable] = lowest
        dims.setdefault(variable, dim)
    terms = [scale_and_mask(moved(factor, dims), factor.scale / scale) for factor in factors]
    first, *rest = sorted(terms, key=Tensor.numel)
    return dims, sum(rest, start=first)


def moved(factor: Factor, dims: Dims) -> Tensor:
    """Return the factor's tensor with its variables in `dims`."""
    sources = {dims[variable]: dim for variable, dim in factor.dims.items()}
    if all(new == old for new, old in sources.items()):
        return factor.log_prob
    sources |= {dim: dim for dim in factor.plates.values()}
    ndim = max(factor.log_prob.ndim, -min(sources))
    spare = (dim for dim in range(-ndim, 0) if dim not in sources.values())
    order = [sources[dim] if dim in sources else next(spare) for dim in range(-ndim, 0)]
    return right_aligned(factor.log_prob, ndim).permute(order)


def log_product(factors: Sequence[Factor], plate: str | None = None) -> Tensor:
    """Return the log of the product `()` of factors without variables, or for each row of a plate `(N,)`."""
    terms = []
    for factor in factors:
        log_prob = scale_and_mask(factor.log_prob, factor.scale)
        dims = [dim for dim in range(-log_prob.ndim, 0) if plate is None or dim != factor.plates[plate]]
        terms.append(log_prob.sum(dims) if dims else log_prob)
    total = sum(terms[1:], start=terms[0])
    return torch.where(total < torch.finfo(total.dtype).min * IMPOSSIBLE, -torch.inf, total)


def draw_back(steps: Sequence[Step], uniforms: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return the position of each variable's value, drawn from their joint distribution.

    Args:
        steps: What `eliminate` returned.
        uniforms: Variable -> uniform random numbers, one for each cell of its plates.
    """
    drawn: dict[int, Tensor] = {}
    for step in reversed(steps):
        known = {dim: drawn[other] for other, dim in step.dims.items() if other != step.variable}
        log_weights = pick(step.log_weights, known)
        drawn[step.variable] = inverse_cdf(log_weights, step.dims[step.variable], uniforms[step.variable])
    return drawn


def pick(tensor: Tensor, positions: Mapping[int, Tensor]) -> Tensor:
    """Return the entries of `tensor` at a position in each of some dimensions, which get size 1."""
    for dim, position in positions.items():
        tensor = torch.take_along_dim(tensor, right_aligned(position, tensor.ndim), dim)
    return tensor


def inverse_cdf(log_weights: Tensor, dim: int, uniform: Tensor) -> Tensor:
    """Return a position along `dim`, drawn with probability proportional to its weight."""
    cumulative = log_weights.softmax(dim).cumsum(dim)
    total = cumulative.narrow(dim, -1, 1)
    position = (cumulative <= uniform * total).sum(dim, keepdim=True)
    return position.clamp(max=log_weights.shape[dim] - 1)


def right_aligned(tensor: Tensor, ndim: int) -> Tensor:
    """Return `tensor` with `ndim` dimensions; those that come or go on the left have size 1."""
    kept = tensor.shape[max(0, tensor.ndim - ndim) :]
    return tensor.reshape((1,) * (ndim - tensor.ndim) + kept)
