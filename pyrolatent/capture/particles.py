"""Particles: several draws of each row's latents side by side, and what they add up to per row.

Particles live in one more plate, to the left of all plates of model and guide, as in Pyro.  A bound
per row needs each log-probability per particle and row, so every site must belong to a row.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrolatent.capture.bounds import (
    Data,
    Messages,
    PairRun,
    RecordedSites,
    Values,
    log_guide,
    run_plain,
    terms,
)
from pyrolatent.capture.elimination import Plates, eliminate
from pyrolatent.capture.enumeration import factor_graph, plates_of
from pyrolatent.capture.ladder import close
from pyrolatent.capture.matching import is_open
from pyrolatent.capture.messages import DATA_PLATE, Message, log_prob
from pyrolatent.capture.modes import ReadsLatentError
from pyrolatent.errors import ModelError
from pyrolatent.pair import FunctionPair, Model, Pair

PARTICLES = "particles of the bound"  # a plate beside those of the user


def with_particles(pair: Pair, number: int, batch_dims: int) -> Pair:
    """Return the pair with `number` particles side by side in one plate to the left of all others."""

    def of(program: Model) -> Callable[..., None]:
        def run(**data: Any) -> None:
            with RecordedSites() as passed, pyro.plate(PARTICLES, number, dim=-1 - batch_dims):
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


def log_weights(run: PairRun, unit: Any) -> Tensor:
    """Return log p(x_i, z_ik) - log q(z_ik | x_i) of particle k and row i, `(K, N)` in nats.

    Discrete sites of the model are summed out.  `unit` is how often a row counts, which is left out.
    """
    counted_once = {name: {**m, "scale": m["scale"] / unit} for name, m in run.model.items()}
    factors, variables = factor_graph(counted_once)
    left, _ = eliminate(factors.values(), variables)
    log_p = [add_up(scale_and_mask(factor.log_prob, factor.scale), factor.plates) for factor in left]
    log_q = [by_row(m, log_guide(m, m["scale"] / unit)) for m in run.guide.values()]
    return torch.as_tensor(sum(log_p) - sum(log_q))


def by_row(message: Message, values: Tensor) -> Tensor:
    """Return the sum of `values (*batch)` of a site for each particle and row, `(K, N)`."""
    return add_up(values, plates_of(message))


def add_up(values: Tensor, plates: Plates) -> Tensor:
    """Return the sum over all dimensions but those of particles and rows, `(K, N)`."""
    kept = {plates.get(PARTICLES), plates[DATA_PLATE]}
    others = [dim for dim in range(-values.ndim, 0) if dim not in kept]
    rows = values.sum(others) if others else values
    return rows if PARTICLES in plates else rows.unsqueeze(0)


def row_scale(message: Message) -> Any:
    """Return how often each row of a site counts: a number, or `(N,)`."""
    scale = message["scale"]
    if not isinstance(scale, Tensor) or not scale.ndim:
        return scale
    cells = scale.expand(message["fn"].batch_shape)
    return (by_row(message, cells) / by_row(message, torch.ones_like(cells)))[0]


def check_rows(run: PairRun) -> None:
    """Refuse sites that belong to no row.

    Raises:
        ModelError: A site of model or guide stands outside of plate "data".
    """
    for program, messages in (("model", run.model), ("guide", run.guide)):
        for name, message in messages.items():
            if DATA_PLATE not in plates_of(message):
                raise ModelError(
                    "a bound per row needs every site inside pyro.plate('data', N)",
                    where=f"site {name!r} of the {program}",
                    why=f"its plates are {list(plates_of(message))}, so rows share it",
                    remedy="move it into the plate, make it a parameter, let the guide draw each row by "
                    "itself, or use elbo()",
                )


def check_particles(pair: Pair, data: Data, plan: PairRun) -> None:
    """Refuse code that takes particles for something else without failing.

    Two particles side by side must have the log-probabilities that each has alone.

    Raises:
        ModelError: They differ, or the code does not run for several particles.
    """
    both = run_plain(with_particles(pair, 2, plan.batch_dims), data, given={})
    found = dict(site_rows(both))
    for index in range(2):
        values = particle(both.guide, plan.guide, index)
        alone, again = (dict(site_rows(run_plain(pair, data, values))) for _ in range(2))
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
