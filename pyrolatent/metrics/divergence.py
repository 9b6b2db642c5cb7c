"""What latents say of their rows: the divergence of a trained guide from the prior, taken apart.

Of several refits the first.
"""

import math
import warnings
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyrolatent.capture.bounds import PairRun, log_model, run_pair
from pyrolatent.capture.messages import Message, log_prob_sum
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.latents import Data, guide_means, latent_names, rows_to_encode, side_by_side
from pyrolatent.objectives import check_positive
from pyrolatent.result import Fit
from pyrolatent.seeds import seeded
from pyrolatent.total_correlation import by_component, check_independent, mixtures

DENSITIES = 2**22  # at once, of single latents
KL_DRAWS = 100  # of the guide, where torch has no formula


class Decomposition(NamedTuple):
    """The three parts of the mean divergence of guide and prior, in nats a row.

    Attributes:
        mutual_information: I(z; n), of latents and rows; log N at most.
        total_correlation: KL(q(z) || prod_j q(z_j)), the dependence of the latents.
        dimension_wise: sum_j KL(q(z_j) || p(z_j)).
    """

    mutual_information: float
    total_correlation: float
    dimension_wise: float

    @property
    def divergence(self) -> float:
        """Their sum, 1/N sum_n KL(q(z | x_n) || p(z))."""
        return sum(self)


def total_correlation(
    fit: Fit, data: Data | None = None, num_draws: int = 1, seed: int | None = None
) -> Decomposition:
    """Return how the divergence of a trained guide from the prior is made up (Chen et al., 2018, eq. 2).

    q(z) = 1/N sum_n q(z | x_n) is summed over all rows, where `tc_elbo` has to guess it from a batch.  So
    the means over draws of all rows' latents are unbiased, and err as means of N times `num_draws` numbers
    do.  A draw takes N^2 L densities, in bounded memory.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows, each latent
            independent of the others given its row.
        data: N rows as the fit takes them, a table or a dictionary; by default its own.
        num_draws: Draws of the latents of each row.
        seed: By default the seed of the fit.

    Raises:
        ArgumentError: `num_draws` is not positive.
        ModelError: No guide makes latents of rows from the rows, it draws something else as well, or the
            latents of a row depend on each other under it.
    """
    check_positive("num_draws", num_draws)
    given = rows_to_encode(fit, data)
    with given.context(), seeded(fit.seed, "independent latents"):
        check_independent(given.pair, given.data)
    with given.context(), seeded(fit.seed if seed is None else seed, "total correlation"):
        drawn = [log_densities(run_pair(given.pair, given.data), given) for _ in range(num_draws)]
    log_q, log_aggregate, log_components, log_prior = torch.stack(drawn).mean(0).tolist()
    return Decomposition(log_q - log_aggregate, log_aggregate - log_components, log_components - log_prior)


def log_densities(run: PairRun, fit: Fit) -> Tensor:
    """Return the means over rows of log q(z | x), log q(z), sum_j log q(z_j) and log p(z) `(4,)` in nats.

    Raises:
        ModelError: The guide draws more than latents of rows.
    """
    if others := [name for name in run.guide if name not in fit.sites.row_latents]:
        raise ModelError(
            "the guide draws more than the latents of rows, so their density given a row is not known",
            where=f"sites {others}",
        )
    num_rows = len(next(iter(run.guide.values()))["value"])
    log_q = torch.stack([log_prob_sum(message) for message in run.guide.values()]).sum()
    log_prior = torch.as_tensor(log_model(run)[0])
    return torch.stack([log_q, *log_mixtures(list(run.guide.values()), num_rows), log_prior]) / num_rows


def log_mixtures(messages: list[Message], num_rows: int) -> tuple[Tensor, Tensor]:
    """Return log q(z) and sum_j log q(z_j), `()` each, summed over the draws of all rows."""
    num_latents = sum(message["value"][0].numel() for message in messages)
    size = max(1, DENSITIES // (num_rows * num_latents))
    log_aggregate, log_components = torch.zeros(()), torch.zeros(())
    for start in range(0, num_rows, size):
        rows = slice(start, start + size)
        parts = [by_component({**message, "value": message["value"][rows]}) for message in messages]
        log_weights = parts[0].new_full((1, num_rows), -math.log(num_rows))
        joint, single = mixtures(torch.cat(parts, -1), log_weights)
        log_aggregate, log_components = log_aggregate + joint.sum(), log_components + single.sum()
    return log_aggregate, log_components


def active_units(fit: Fit, data: Data | None = None, threshold: float = 0.01) -> pd.DataFrame:
    """Return which latents say something of their rows (Burda, Grosse and Salakhutdinov, 2016, active units).

    A latent is active where its posterior mean varies from row to row.  A `FitWarning` says where none is:
    the decoder has learnt to do without latents.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows.
        data: N rows as the fit takes them, a table or a dictionary; by default its own.
        threshold: Variance above which a latent is active, for priors of variance 1.

    Returns:
        A line for each latent, `z[0]`, `z[1]`, ..., with columns `variance`, over rows, of its posterior
        mean; `kl`, the mean of KL(q(z_j | x_n) || p(z_j)) in nats, NaN where the latents of a site depend
        on each other, and given one draw of other sites where it depends on these; and `active`.

    Raises:
        ModelError: The model has no latents of rows, or no guide that makes them from rows.
        DataError: The rows do not fit the model.
    """
    given = rows_to_encode(fit, data)
    means = guide_means(given)
    variance = side_by_side(means).double().var(0).cpu().numpy()
    found = {"variance": variance, "kl": divergences(given), "active": variance > threshold}
    units = pd.DataFrame(found, latent_names(means))
    if not units["active"].any():
        warnings.warn(
            f"None of the {len(units)} latents is active: the variance of their posterior means over rows is "
            f"{variance.max():.2g} at most, so the decoder does without them. Lower beta, raise it slowly by "
            "elbo(pyl.linear(0, 1, num_steps)), train by iwae(), or make the decoder smaller.",
            FitWarning,
            stacklevel=2,
        )
    return units


def divergences(fit: Fit) -> list[float]:
    """Return the mean divergence of each latent of rows from its prior, in nats."""
    with fit.context(), seeded(fit.seed, "divergences"):
        run = run_pair(fit.pair, fit.data)
        found = [mean_divergence(run.guide[name], run.model[name]) for name in fit.sites.row_latents]
    return torch.cat(found).tolist()


def mean_divergence(guide: Message, model: Message) -> Tensor:
    """Return the mean over rows of the divergence of each component of a site `(L,)`, NaN where not known."""
    of_guide, of_model = components(guide["fn"]), components(model["fn"])
    shape = guide["value"].shape
    if of_guide is None or of_model is None or len(of_model.batch_shape) > len(shape):
        return torch.full((shape[1:].numel(),), torch.nan)
    try:
        found = kl_divergence(of_guide, of_model)
    except NotImplementedError:
        drawn = of_guide.sample(torch.Size([KL_DRAWS]))
        found = (of_guide.log_prob(drawn) - of_model.log_prob(drawn)).mean(0)
    return found.expand(shape).reshape(len(guide["value"]), -1).mean(0)


def components(fn: Distribution) -> Distribution | None:
    """Return the distributions of single numbers that a site's is made of; None where they depend."""
    if isinstance(fn, Independent) and fn.reinterpreted_batch_ndims == len(fn.event_shape):
        fn = fn.base_dist
    return None if fn.event_shape else fn
