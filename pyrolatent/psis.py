"""Pareto-smoothed importance sampling: how far weighted draws can be trusted.

Draws z of a proposal q stand for a density p by their weights w = p(z) / q(z).  Where q misses
part of p, a few weights are huge, and sums over the draws are ruled by them.  The largest weights
look like draws of a generalised Pareto distribution: its shape k says how many moments w has, and
its quantiles in place of the raw weights steady the sums.  Below about 0.7 the smoothed weights
can be trusted, and the number of draws needed grows fast with k; above it more draws do not help.

Values equal ArviZ's, with one exception: where the largest weights are all equal, as they are for
a proposal that is the posterior, k is -inf (no tail at all), and ArviZ says inf.

Reference:
    Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling. Journal of
    Machine Learning Research 25(72).
"""

import math

import torch
from torch import Tensor

from pyrolatent.errors import ArgumentError

MIN_TAIL = 5  # weights, below which no distribution is fitted to a tail
PRIOR_DRAWS = 10  # of shape 1/2, by which the estimate of k is steadied
ROUNDING = 1e-14  # a range this small, relative to the values, is that of a constant


def psis(log_weights: Tensor) -> tuple[Tensor, float]:
    """Return smoothed log weights `(S,)`, normalised, and the Pareto shape k (Vehtari et al., algorithm 1).

    Args:
        log_weights: Log importance ratios `(S,)` in nats, up to a constant; -inf is a weight of 0.

    Returns:
        Smoothed log weights `(S,)` in float64, whose exponentials add up to 1, none larger than the
        largest raw one before that; and k, inf where fewer than 5 weights make up the tail.

    Raises:
        ArgumentError: A weight is NaN or infinite, or all are 0.
    """
    check_weights(log_weights)
    rounding = math.sqrt(torch.finfo(log_weights.dtype).eps)
    log_ratio = log_weights.double() - log_weights.double().max()
    ordered, order = log_ratio.sort()
    cutoff = max(float(ordered[-tail_length(len(ordered)) - 1]), math.log(torch.finfo(torch.float64).tiny))
    if cutoff >= -rounding:
        return log_ratio - log_ratio.logsumexp(0), -math.inf
    tail = ordered[ordered > cutoff]
    if len(tail) < MIN_TAIL:
        return log_ratio - log_ratio.logsumexp(0), math.inf
    shape, scale = pareto_fit(tail.exp() - math.exp(cutoff))
    if math.isnan(shape):
        return log_ratio - log_ratio.logsumexp(0), math.inf
    middle = (torch.arange(len(tail), dtype=torch.float64, device=tail.device) + 0.5) / len(tail)
    smooth = (pareto_quantiles(middle, shape, scale) + math.exp(cutoff)).log()
    log_ratio = log_ratio.scatter(0, order[-len(tail) :], smooth).clamp(max=0.0)
    return log_ratio - log_ratio.logsumexp(0), shape


def check_weights(log_weights: Tensor) -> None:
    """Refuse weights that say nothing."""
    if log_weights.ndim != 1 or len(log_weights) < 2:
        raise ArgumentError("weights are one vector of two or more", why=f"shape {tuple(log_weights.shape)}")
    if not float(log_weights.max()) < math.inf or not bool((log_weights > -math.inf).any()):
        raise ArgumentError(
            "the importance weights are not finite",
            why=f"{int(log_weights.isnan().sum())} NaN, {int(log_weights.isposinf().sum())} infinite, "
            f"{int(log_weights.isneginf().sum())} zero of {len(log_weights)}",
            remedy="propose where the density is positive and finite",
        )


def tail_length(num_draws: int) -> int:
    """Return how many of the largest weights make up the tail: min(S / 5, 3 sqrt(S)), rounded up."""
    return math.ceil(min(num_draws / 5, 3 * math.sqrt(num_draws)))


def pareto_fit(excess: Tensor) -> tuple[float, float]:
    """Return shape and scale of the generalised Pareto distribution of `excess (M,)`, in rising order.

    Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto
    distribution, Technometrics 51(3): the posterior mean over a grid of b = -shape / scale.  The
    shape is then pulled towards 1/2 as by 10 draws (Vehtari et al. 2024, appendix G).
    """
    num_draws = len(excess)
    grid_size = 30 + math.isqrt(num_draws)
    grid = torch.arange(1, grid_size + 1, dtype=excess.dtype, device=excess.device)
    quartile = excess[int(num_draws / 4 + 0.5) - 1]
    b = (1 - (grid_size / (grid - 0.5)).sqrt()) / (3 * quartile) + 1 / excess[-1]
    shapes = torch.log1p(-b[:, None] * excess).mean(1)
    profile = num_draws * ((-b / shapes).log() - shapes - 1)
    weights = profile.softmax(0)
    weights = torch.where(weights >= 10 * torch.finfo(weights.dtype).eps, weights, 0.0)
    b_mean = (b * weights).sum() / weights.sum()
    shape = torch.log1p(-b_mean * excess).mean()
    scale = -shape / b_mean
    steadied = (num_draws * shape + 0.5 * PRIOR_DRAWS) / (num_draws + PRIOR_DRAWS)
    return float(steadied), float(scale)


def pareto_quantiles(probability: Tensor, shape: float, scale: float) -> Tensor:
    """Return scale ((1 - p)^-shape - 1) / shape for each `probability (M,)`; NaN for no positive scale."""
    if not scale > 0:
        return torch.full_like(probability, torch.nan)
    survival = torch.log1p(-probability)
    if abs(shape) < torch.finfo(probability.dtype).eps:
        return -scale * survival
    return scale * torch.expm1(-shape * survival) / shape


def reliable_k(num_draws: int) -> float:
    """Return the largest k at which S draws can be trusted: min(1 - 1 / log10(S), 0.7) (section 3.2.4)."""
    return min(1 - 1 / math.log10(max(num_draws, 2)), 0.7)


def weights_ess(log_weights: Tensor) -> float:
    """Return the effective number of draws, 1 / sum w^2, of normalised `log_weights (S,)`."""
    return float((-(2 * log_weights).logsumexp(0)).exp())


def quantity_ess(log_weights: Tensor, values: Tensor) -> Tensor:
    """Return the effective number of draws for the mean of each quantity.

    Variance of the quantity over that of its weighted mean, sum w (f - m)^2 / sum w^2 (f - m)^2 with
    m = sum w f (Owen 2013, Monte Carlo theory, methods and examples, equation 9.13).

    Args:
        log_weights: `(S,)`, normalised.
        values: The quantity at each draw `(S, *site)`; draws of weight 0 do not count.

    Returns:
        `(*site)`, at most S; NaN for a constant.
    """
    counts = log_weights > -math.inf
    weights = log_weights[counts].exp()
    flat = values[counts].to(weights).reshape(len(weights), -1)
    squares = (flat - weights @ flat).square()
    ess = ((weights @ squares) / (weights.square() @ squares)).clamp(max=len(log_weights))
    low, high = flat.aminmax(dim=0)
    constant = high - low <= ROUNDING * torch.maximum(low.abs(), high.abs())
    return torch.where(constant, torch.nan, ess).reshape(values.shape[1:])
