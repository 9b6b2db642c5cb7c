"""Draws of all that is unknown, for verbs that run the model again.

Most sites come from the samples of the fit.  Latents of rows that a guide makes from the rows are
drawn on demand, for the rows of the fit or for new ones, by sampling importance resampling (Rubin
1987): each draw of a row is one of a pool of draws of the guide, picked with probability proportional
to p(x, z) / q(z | x).  A pool has 50 for each draw wanted, up to 1,000, then 5.  Discrete sites of new
rows are drawn from their exact distribution given these.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.bounds import guide_of, recorded, run_pair, terms
from pyrolatent.capture.noise import capture_noisy
from pyrolatent.capture.particles import check_rows, log_weights
from pyrolatent.capture.vector import stacked
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.infer.guide_draws import discrete_draws
from pyrolatent.infer.rows import split_rows
from pyrolatent.pair import FunctionPair, Pair
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.seeds import generator, seeded

PARTICLES = 50  # draws of the guide that are made at once
POOL = 1_000  # draws of the guide, beyond which there are
PER_DRAW = 5  # for each draw wanted
POOL_NUMBERS = 2**25  # in one pool
RUN_NUMBERS = 2**24  # of observed cells of all particles, in one run
DOMINANT = 0.5  # share of a row's weight that one particle carries only where the guide is poor
POOR_SHARE = 0.05  # of the rows, from which that is worth a word


@final
@dataclass(frozen=True)
class Draws:
    """Posterior draws that go with the learnt parameters of one refit.

    Attributes:
        refit: Which; 0 where nothing was learnt.
        count: Their number S.
        values: Site -> `(S, *site)`, on the device of the fit.
    """

    refit: int
    count: int
    values: Mapping[str, Tensor]

    def batch(self, start: int, size: int) -> "Draws":
        """Return at most `size` of the draws, from `start`."""
        values = {name: value[start : start + size] for name, value in self.values.items()}
        return Draws(self.refit, min(size, self.count - start), values)


def posterior_draws(fit: Fit, num_draws: int, seed: int, *, given_rows: bool = False) -> Iterator[Draws]:
    """Yield evenly spaced draws of every latent and deterministic site, refit by refit.

    Args:
        fit: A fit, with its own rows or new ones.
        num_draws: Draws of all refits together.
        seed: Of what is drawn on demand.
        given_rows: Whether to draw the discrete sites of new rows given what is observed in these.
            Otherwise there are none, and a run of the model draws them from their prior.

    Raises:
        ModelError: The fit has no draws of some latents, and no guide that makes them.
    """
    keep = evenly_spaced(fit.num_draws, num_draws)
    refits, poor = fit.num_refits, 0.0
    for refit in range(refits):
        of_refit = keep[keep // (fit.num_draws // refits) == refit]
        values = {n: v.flatten(0, 1)[of_refit].to(fit.problem.device) for n, v in fit.samples.items()}
        if len(of_refit) and on_demand(fit):
            with torch.no_grad(), seeded(seed, "latents of rows", refit):
                drawn, share = row_draws(fit, refit, len(of_refit), seed)
            values, poor = values | drawn, max(poor, share)
        if given_rows and len(of_refit) and any(name not in values for name in fit.sites.discrete):
            with fit.context(refit), seeded(seed, "discrete sites of rows", refit):
                values |= new_labels(fit, values, len(of_refit))
        yield Draws(refit, len(of_refit), values)
    warn_of_poor_rows(poor)


def on_demand(fit: Fit) -> list[str]:
    """Return the latents of rows of which the fit keeps no draws.

    Raises:
        ModelError: They are to be drawn by a guide that the fit does not have, or are not all it draws.
    """
    lacking = [name for name in fit.sites.latents if name not in fit.samples]
    local = [name for name in fit.sites.row_latents if name in lacking]
    if lacking and local != list(fit.sites.latents):
        raise ModelError(
            "the fit holds no draws of some latents",
            where=f"sites {lacking}",
            why="only a guide whose sites all belong to rows draws them on demand",
        )
    if lacking and fit.pair.guide is None:
        raise ModelError(
            "the latents of rows are drawn by the guide, and the fit was loaded without it",
            where=f"sites {lacking}",
            remedy="load it with load(path, model=as_pair(model, guide))",
        )
    return local


Weighing = Callable[[], list[Tensor]]  # log-weights `(PARTICLES, N)` of draws of the guide, and the draws


def row_draws(fit: Fit, refit: int, number: int, seed: int) -> tuple[dict[str, Tensor], float]:
    """Return `number` draws of the latents of rows `(number, *site)`, and the share of poor rows."""
    if fit.parameters is None or fit.pair.guide is None:
        return {}, 0.0
    names = on_demand(fit)
    weigh = weighing(fit, refit, names)
    random = generator(seed, "resampling", refit, device=fit.problem.device)
    rounds = max(min(number, POOL // PARTICLES), -(-number * PER_DRAW // PARTICLES))
    kept, poor, parts, start = [], torch.zeros((), device=fit.problem.device), [], 0
    for end in range(1, rounds + 1):
        parts.append(weigh())
        poor = poor + (parts[-1][0].softmax(0).amax(0) > DOMINANT).double().mean()
        numbers = sum(value.numel() for value in parts[-1][1:])
        if end == rounds or (len(parts) + 1) * numbers > POOL_NUMBERS:
            log_weight, *values = (torch.cat(part) for part in zip(*parts, strict=True))
            wanted = number * end // rounds - number * start // rounds
            kept.append(resampled(log_weight, *values, number=wanted, random=random))
            parts, start = [], end
    drawn = [torch.cat(pools) for pools in zip(*kept, strict=True)]
    return dict(zip(names, drawn, strict=True)), float(poor) / rounds


def log_evidence(fit: Fit, number: int, refit: int = 0) -> Tensor:
    """Return log 1/K sum_k p(x_i, z_ik) / q(z_ik | x_i) of each row `(N,)` in nats; K is `number` or more."""
    weigh, rounds = weighing(fit, refit, []), -(-number // PARTICLES)
    log_weights = torch.stack([weigh()[0].logsumexp(0) for _ in range(rounds)])
    return log_weights.logsumexp(0) - math.log(rounds * PARTICLES)


def weighing(fit: Fit, refit: int, names: Sequence[str]) -> Weighing:
    """Return what draws the latents of rows from the guide, each time anew, and weighs them.

    Many rows, or rows of many cells, are run in parts.
    """
    number = num_rows(fit, refit)
    cells = sum(value[0].numel() for value in split_rows(fit.data, number).rows.values())
    size = max(1, RUN_NUMBERS // (PARTICLES * cells))
    parts = [
        weighing_of_rows(with_rows(fit, number, index) if number > size else fit, refit, names)
        for index in torch.arange(number).split(size)
    ]
    return lambda: [torch.cat(pieces, 1) for pieces in zip(*(part() for part in parts), strict=True)]


def num_rows(fit: Fit, refit: int) -> int:
    """Return the number of rows at hand, as the guide sees them."""
    assert fit.pair.guide is not None
    with fit.context(refit), seeded(fit.seed, "rows"):
        sites = terms(recorded(guide_of(fit.pair), fit.data))
    return len(sites[fit.sites.row_latents[0]]["value"])


def with_rows(fit: Fit, number: int, index: Tensor) -> Fit:
    """Return the fit with those of its `number` rows that are at `index` in the place of all."""
    data = split_rows(fit.data, number)
    rows = {name: value[index.to(value.device)] for name, value in data.rows.items()}
    return replace(fit, problem=replace(fit.problem, data={**data.constants, **rows}))


def weighing_of_rows(fit: Fit, refit: int, names: Sequence[str]) -> Weighing:
    """Return the same for rows that are run together."""
    assert fit.parameters is not None
    assert fit.pair.guide is not None
    flat = fit.state["parameters"][refit]
    pair = FunctionPair(
        fit.parameters.bound(fit.pair.model, flat), fit.parameters.bound(fit.pair.guide, flat)
    )

    def particle(unused: Tensor) -> list[Tensor]:
        log_weight, values = weighted(pair, fit.data)
        return [log_weight, *(values[name] for name in names)]

    zero = torch.zeros((), device=fit.problem.device)  # a captured function takes an input
    with fit.context(refit):
        noisy = capture_noisy(particle, zero)
        many = noisy.mapped((True,), zero, *noisy.draw_many(PARTICLES))
    return lambda: many(zero, *noisy.draw_many(PARTICLES))


def new_labels(fit: Fit, values: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Return draws of the discrete sites of new rows `(number, *site)`, given what is observed there."""
    runs = [{name: value[index] for name, value in values.items()} for index in range(number)]
    return stacked([discrete_draws(fit.pair, fit.data, fit.sites, run) for run in runs])


def warn_of_poor_rows(share: float) -> None:
    """Say aloud that the guide is too far from the posterior of many rows."""
    if share > POOR_SHARE:
        warnings.warn(
            f"For {share:.0%} of the rows one of {PARTICLES} draws of the guide carries most of the weight: "
            "their latents are drawn from too few. Train the guide longer, make it richer, or sample them by "
            "HMC() with start= this fit.",
            FitWarning,
            stacklevel=2,
        )


def weighted(pair: Pair, data: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return log p(x_i, z_i) - log q(z_i | x_i) of one draw of the guide `(N,)` in nats, and the draw."""
    run = run_pair(pair, data)
    check_rows(run)
    values = {name: message["value"] for name, message in run.guide.items()}
    return log_weights(run, 1.0)[0], values


def resampled(log_weight: Tensor, *values: Tensor, number: int, random: torch.Generator) -> list[Tensor]:
    """Return `number` of K particles of each row, `(number, N, ...)` each, picked by weight `(K, N)`."""
    picks = torch.multinomial(log_weight.mT.softmax(1), max(number, 1), replacement=True, generator=random)
    rows = torch.arange(log_weight.shape[1], device=log_weight.device)
    return [value[picks.mT[:number], rows] for value in values]
