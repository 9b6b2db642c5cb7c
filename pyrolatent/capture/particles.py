"""Particles: several draws of each row's latents side by side, and what they add up to per row.

Particles live in one more plate, to the left of all plates of model and guide, as in Pyro.  A bound
per row needs each log-probability per particle and row, so every site must belong to a row.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor

from pyrolatent.capture.bounds import (
    Data,
    Messages,
    PairRun,
    RecordedSites,
    Values,
    log_prob,
    run_pair,
    terms,
)
from pyrolatent.capture.ladder import AGREEMENT
from pyrolatent.capture.matching import is_open
from pyrolatent.capture.modes import ReadsLatentError
from pyrolatent.capture.sites import DATA_PLATE, Message
from pyrolatent.errors import ModelError
from pyrolatent.pair import FunctionPair, Model, Pair

PARTICLES = "particles of the bound"  # a plate beside those of the user


def with_particles(pair: Pair, number: int, max_plate_nesting: int) -> Pair:
    """Return the pair with `number` particles side by side in one plate to the left of all others."""

    def of(program: Model) -> Callable[..., None]:
        def run(**data: Any) -> None:
            with RecordedSites() as passed, pyro.plate(PARTICLES, number, dim=-1 - max_plate_nesting):
                try:
                    program(**data)
                except (RuntimeError, ValueError, IndexError) as error:
                    if isinstance(error, ModelError | ReadsLatentError):
                        raise
                    raise not_broadcasting(
                        f"after sites {list(terms(passed.messages))}", str(error)
                    ) from error

        return run

    assert pair.guide is not None
    return FunctionPair(of(pair.model), of(pair.guide))


def not_broadcasting(where: str, why: str) -> ModelError:
    """Return the error for code that takes a dimension for another when particles are added."""
    return ModelError(
        "the code does not run for several particles at once",
        where=where,
        why=f"particles are one more dimension on the left of every site, but {why}",
        remedy="count dimensions from the right: z[..., 0], x.sum(-1), torch.stack(parts, -1), mT",
    )


def by_row(message: Message, values: Tensor) -> Tensor:
    """Return the sum of `values (*batch)` of a site for each particle and row, `(K, N)`."""
    dims = {frame.name: frame.dim for frame in message["cond_indep_stack"] if frame.vectorized}
    sizes = [1] * -min(dims.values())
    for frame in message["cond_indep_stack"]:
        if frame.vectorized:
            sizes[frame.dim] = frame.size
    full = values.broadcast_to(broadcast_shape(values.shape, sizes))
    others = [dim for dim in range(-full.ndim, 0) if dim not in (dims.get(PARTICLES), dims[DATA_PLATE])]
    rows = full.sum(others) if others else full
    return rows if PARTICLES in dims else rows.unsqueeze(0)


def row_scale(message: Message) -> Any:
    """Return how often each row of a site counts: a number, or `(N,)`."""
    scale = message["scale"]
    if not isinstance(scale, Tensor) or not scale.ndim:
        return scale
    return by_row(message, scale)[0] / by_row(message, torch.ones_like(scale))[0]


def check_rows(run: PairRun) -> None:
    """Refuse sites that belong to no row.

    Raises:
        ModelError: A site of model or guide stands outside of plate "data".
    """
    for program, messages in (("model", run.model), ("guide", run.guide)):
        for name, message in messages.items():
            plates = [frame.name for frame in message["cond_indep_stack"] if frame.vectorized]
            if DATA_PLATE not in plates:
                raise ModelError(
                    "a bound per row needs every site inside pyro.plate('data', N)",
                    where=f"site {name!r} of the {program}",
                    why=f"its plates are {plates}, so it is shared by rows or belongs to none",
                    remedy="move it into the plate, make it a parameter, let the guide draw each row by "
                    "itself, or use elbo()",
                )


def check_particles(pair: Pair, data: Data, plan: PairRun) -> None:
    """Refuse code that takes particles for something else without failing.

    Two particles side by side must have the log-probabilities that each has alone.

    Raises:
        ModelError: They differ, or the code does not run for several particles.
    """
    both = run_pair(with_particles(pair, 2, plan.max_plate_nesting), data, given={})
    found = dict(site_rows(both))
    for index in range(2):
        values = particle(both.guide, plan.guide, index)
        alone, again = (dict(site_rows(run_pair(pair, data, values))) for _ in range(2))
        for name, expected in alone.items():
            # What is random beyond the sites, as dropout is, cannot be compared.
            if close(again[name], expected) and not close(found[name][index : index + 1], expected):
                raise not_broadcasting(
                    f"site {name!r}", "with two of them its log-probabilities are not those of each alone"
                )


def site_rows(run: PairRun) -> Iterator[tuple[str, Tensor]]:
    """Yield the log-probability of each site, of model and guide, for each particle and row `(K, N)`."""
    for program, messages in (("model", run.model), ("guide", run.guide)):
        for name, message in messages.items():
            yield f"{name} of the {program}", by_row(message, log_prob(message, 1.0)).detach()


def particle(side_by_side: Messages, alone: Messages, index: int) -> Values:
    """Return the values of one of several particles, in the shapes that one alone has."""
    free = {name: message for name, message in side_by_side.items() if is_open(message)}
    return {n: m["value"][index].reshape(alone[n]["value"].shape) for n, m in free.items()}


def close(found: Tensor, expected: Tensor) -> bool:
    """True where two tensors are equal up to rounding."""
    tolerance = AGREEMENT[expected.dtype]
    return torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
