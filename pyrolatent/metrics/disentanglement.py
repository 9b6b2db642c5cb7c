"""Do latents stand for known factors of variation, one for one?

`factors` is a table of discrete columns, one line for each row.  The mutual information gap asks whether
one latent alone knows each factor; the FactorVAE score whether a latent keeps still while a factor does.

Figures depend on details that papers leave out.  Here: latents are what the caller gives, means or samples
(say which); they are cut into bins of equal width between their extremes; entropies of factors are those of
the rows, not of a uniform distribution; information is the plug-in estimate, in nats, which is too high by
about (bins - 1) (levels - 1) / (2 rows).
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.seeds import numpy_generator

NUM_BINS = 20
UNUSED = 0.05  # standard deviation of a latent that says next to nothing

Matrix = NDArray[np.float64]


class Votes(NamedTuple):
    """The share of right votes: of those the majorities were learnt from, and of others."""

    train: float
    evaluation: float


def mutual_information(
    latents: pd.DataFrame, factors: pd.DataFrame, num_bins: int = NUM_BINS
) -> pd.DataFrame:
    """Return the mutual information of each latent and each factor, `(L, K)` in nats.

    Args:
        latents: `(N, L)`, means or samples.
        factors: `(N, K)`, discrete.
        num_bins: Bins of equal width that each latent is cut into.

    Raises:
        DataError: The two do not have the same number of rows.
    """
    check_rows(latents, factors)
    codes = [factors[name].to_numpy() for name in factors]
    bins = [binned(latents[name].to_numpy(), num_bins) for name in latents]
    found = [[information(z, factor) for factor in codes] for z in bins]
    return pd.DataFrame(found, latents.columns, factors.columns)


def mig(latents: pd.DataFrame, factors: pd.DataFrame, num_bins: int = NUM_BINS) -> pd.Series:
    """Return the mutual information gap of each factor `(K,)`, from 0 to 1; its mean is the MIG.

    (I(z_best; v) - I(z_second; v)) / H(v), Chen et al. (2018), eq. 6.

    Args:
        latents: `(N, L)`, means or samples; two at least.
        factors: `(N, K)`, discrete.
        num_bins: Bins of equal width that each latent is cut into.

    Raises:
        ArgumentError: There is one latent.
        DataError: The two do not have the same number of rows, or a factor is constant.
    """
    if latents.shape[1] < 2:
        raise ArgumentError("a gap needs two latents", why=f"got {latents.shape[1]}")
    second, best = np.sort(mutual_information(latents, factors, num_bins).to_numpy(), 0)[-2:]
    entropies = np.array(
        [information(factors[name].to_numpy(), factors[name].to_numpy()) for name in factors]
    )
    if not entropies.all():
        raise DataError("a factor is constant", where=f"{list(factors.columns[entropies == 0])}")
    return pd.Series((best - second) / entropies, factors.columns, name="mig")


def information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the plug-in mutual information of two discrete variables `(N,)`, in nats."""
    from scipy.stats import entropy  # slow to import
    from scipy.stats.contingency import crosstab

    joint = crosstab(first, second).count
    return float(entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint.ravel()))


def binned(values: Matrix, num_bins: int) -> NDArray[np.int64]:
    """Return the numbers of bins of equal width between the extremes."""
    return np.digitize(values, np.linspace(values.min(), values.max(), num_bins + 1)[1:-1])


def factor_vae_score(
    latents: pd.DataFrame,
    factors: pd.DataFrame,
    num_votes: int = 10_000,
    num_evaluation: int = 5_000,
    batch_size: int = 64,
    seed: int = 0,
) -> Votes:
    """Return the FactorVAE score (Kim and Mnih, 2018, section 4); about 1 / K by chance.

    A vote: of rows that agree in one factor, which latent varies least, in units of its variance over all
    rows?  Majorities of votes say which factor a latent stands for, and are scored on further votes.
    Latents that hardly vary at all are left out.

    Args:
        latents: `(N, L)`, means or samples.
        factors: `(N, K)`, discrete.
        num_votes: Votes to learn from.
        num_evaluation: Votes to score.
        batch_size: Rows of a vote, picked with replacement.
        seed: Of the votes.

    Raises:
        DataError: The two do not have the same number of rows, or no latent varies.
    """
    check_rows(latents, factors)
    values, scale = latents.to_numpy(), latents.to_numpy().std(0)
    if not (scale >= UNUSED).any():
        raise DataError("no latent varies", why=f"their standard deviations are below {UNUSED}")
    used = (values / np.where(scale > 0, scale, 1))[:, scale >= UNUSED]
    random = numpy_generator(seed, "FactorVAE score")
    groups = [members(factors[name].to_numpy()) for name in factors]

    def votes(number: int) -> NDArray[np.int64]:
        table = np.zeros((used.shape[1], len(groups)), dtype=np.int64)
        for k in random.integers(len(groups), size=number):
            group, rows = groups[k]
            agreeing = rows[group[random.integers(len(group))]]
            batch = used[random.choice(agreeing, batch_size)]
            table[batch.var(0, ddof=1).argmin(), k] += 1
        return table

    return right_votes(votes(num_votes), votes(num_evaluation))


def right_votes(learnt: NDArray[np.int64], others: NDArray[np.int64]) -> Votes:
    """Return how often the majority is right, of counts of votes by latent and factor `(L, K)`."""
    majority = learnt.argmax(1)
    shares = (float(t[np.arange(len(t)), majority].sum() / t.sum()) for t in (learnt, others))
    return Votes(*shares)


def members(factor: NDArray[Any]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Return the level of each row `(N,)`, and the rows of each level."""
    _, level, counts = np.unique(factor, return_inverse=True, return_counts=True)
    return level, np.split(np.argsort(level, kind="stable"), counts.cumsum()[:-1])


def check_rows(latents: pd.DataFrame, factors: pd.DataFrame) -> None:
    """Refuse tables of different lengths.

    Raises:
        DataError: With both lengths.
    """
    if len(latents) != len(factors):
        raise DataError(
            "latents and factors have different rows", why=f"{len(latents)} and {len(factors)} of them"
        )
