"""Convergence diagnostics of draws: split and nested R-hat, effective sample sizes, standard errors.

Every function takes `draws` of shape `(chain, draw, *site)` and returns one float64 number per
element of the site, shape `(*site)`, computed on the device of the draws.  R-hat compares chains
with each other; an effective sample size (ESS) says how many independent draws would estimate
something as well: the centre (bulk), the 5 % and 95 % quantiles (tail), the standard deviation (sd).

Values equal ArviZ's, with three exceptions.  An ESS is never larger than the number of draws, where
ArviZ allows n log10(n).  Draws that are not finite, or constant up to rounding, give NaN everywhere:
a constant cannot be told from chains that never moved.  Too few draws to see one autocorrelation
(fewer than 10 a chain) give NaN too.  For many short chains use `nested_rhat`: split R-hat is above 1
there even when all is well.

An element whose draws are another's to the bit, as the two halves of a symmetric matrix, is computed
once.

References:
    Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
    localization: an improved R-hat. Bayesian Analysis 16(2).
    Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari, Gelman (2024), Nested R-hat: assessing the
    convergence of Markov chain Monte Carlo when running many short chains. Bayesian Analysis.
    Geyer (1992), Practical Markov chain Monte Carlo. Statistical Science 7(4).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from pyrolatent.errors import ArgumentError

MAX_RHAT = 1.01  # above, chains disagree
MIN_ESS = 400  # below, intervals are rough

_CHUNK = 1 << 17  # numbers worked on at a time: 1 MiB for each temporary array, which caches hold
_ROUNDING = 1e-14  # a range this small, relative to the values, is rounding error
_MIN_DRAWS_RHAT = 4
_MIN_DRAWS_ESS = 10  # below, a half chain holds no pair of autocorrelations after the first


def split_rhat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat, the larger of bulk and folded (Vehtari et al. 2021, section 4).

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        R-hat, shape `(*site)`; NaN below 2 chains or 4 draws a chain.

    Raises:
        ArgumentError: `draws` has no chain and draw dimension.
    """
    return _per_site(_rank_rhat, draws, min_chains=2, min_draws=_MIN_DRAWS_RHAT)


def nested_rhat(draws: Tensor, superchain_size: int) -> Tensor:
    """Nested R-hat of the draws as they are (Margossian et al. 2024, equations 4 to 8).

    With K superchains of M chains of N draws, B = 1/(K-1) sum_k (mean_k - mean)^2 between
    superchains, W = 1/K sum_k (B_k + W_k) within them, where B_k is the variance of the chain means
    in superchain k (0 if M = 1) and W_k the mean of its chains' variances (0 if N = 1):
    R-hat = sqrt(1 + B / W).

    Args:
        draws: Draws, shape `(chain, draw, *site)`; chains 0 to M - 1 started from one point and are
            the first superchain, the next M chains the second, and so on.
        superchain_size: Chains per superchain, M.

    Returns:
        Nested R-hat, shape `(*site)`; NaN below 2 superchains.

    Raises:
        ArgumentError: `superchain_size` does not divide the number of chains.
    """
    _check_shape(draws)
    if superchain_size < 1 or draws.shape[0] % superchain_size:
        raise ArgumentError(
            "superchains must hold equal numbers of chains",
            where="nested_rhat",
            why=f"{draws.shape[0]} chains, superchain_size={superchain_size}",
            remedy="choose a superchain_size that divides the number of chains",
        )

    def statistic(x: Tensor) -> Tensor:
        nested = x.reshape(len(x), -1, superchain_size, x.shape[2])  # (S, K, M, N)
        chain_mean = nested.mean(3)
        between = _variance(chain_mean.mean(2), 1)
        within = (_variance(chain_mean, 2) + _variance(nested, 3).mean(2)).mean(1)
        return (1 + between / within).sqrt()

    return _per_site(statistic, draws, min_chains=2 * superchain_size, min_draws=1)


def ess_bulk(draws: Tensor) -> Tensor:
    """ESS of the rank-normalised draws: how well the centre is known.

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        ESS, shape `(*site)`, at most the number of draws; NaN below 10 draws a chain.
    """
    return _per_site_ess(lambda x: [_scores(x, *_sort(x))], draws)


def ess_tail(draws: Tensor) -> Tensor:
    """ESS of the 5 % and the 95 % quantile, the smaller of the two.

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        ESS, shape `(*site)`, at most the number of draws; NaN below 10 draws a chain.
    """
    return _per_site_ess(lambda x: _tails(x, _sort(x)[0]), draws)


def ess_sd(draws: Tensor) -> Tensor:
    """ESS of the squared distance from the mean: how well the standard deviation is known.

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        ESS, shape `(*site)`, at most the number of draws; NaN below 10 draws a chain.
    """
    return _per_site_ess(lambda x: [_squares(x)], draws)


def ess_mean(draws: Tensor) -> Tensor:
    """ESS of the draws as they are: how well the mean is known.

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        ESS, shape `(*site)`, at most the number of draws; NaN below 10 draws a chain.
    """
    return _per_site_ess(lambda x: [_split(x)], draws)


def min_ess(draws: Tensor) -> Tensor:
    """The smallest of bulk, tail and sd ESS.

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        ESS, shape `(*site)`, at most the number of draws; NaN below 10 draws a chain.
    """

    def series(x: Tensor) -> list[Tensor]:
        ordered, order = _sort(x)
        return [_scores(x, ordered, order), *_tails(x, ordered), _squares(x)]

    return _per_site_ess(series, draws)


def mcse_mean(draws: Tensor) -> Tensor:
    """Monte Carlo standard error of the mean: sd / sqrt(ESS of the mean).

    Args:
        draws: Draws, shape `(chain, draw, *site)`.

    Returns:
        Standard errors in the units of the draws, shape `(*site)`; NaN below 10 draws a chain.
    """

    def statistic(x: Tensor) -> Tensor:
        return _variance(x.flatten(1), 1).sqrt() / _ess(_split(x), x[0].numel()).sqrt()

    return _per_site(statistic, draws, min_chains=1, min_draws=_MIN_DRAWS_ESS)


def _check_shape(draws: Tensor) -> None:
    if draws.ndim < 2:
        raise ArgumentError(
            "draws need a chain and a draw dimension",
            where="diagnostics",
            why=f"got shape {tuple(draws.shape)}, expected (chain, draw, *site)",
            remedy="for one chain pass draws[None]",
        )


def _per_site(
    statistic: Callable[[Tensor], Tensor], draws: Tensor, *, min_chains: int, min_draws: int
) -> Tensor:
    """Apply `statistic`, (S, chain, draw) -> (S,), to chunks of the sites' distinct elements."""
    _check_shape(draws)
    num_chains, num_draws, *site = draws.shape
    if num_chains < min_chains or num_draws < min_draws or draws.numel() == 0:
        return draws.new_full(site, torch.nan, dtype=torch.float64)
    elements = draws.reshape(num_chains * num_draws, -1).mT
    width = max(1, _CHUNK // (num_chains * num_draws))
    distinct, copied_from = _distinct(elements, width)
    parts = []
    for chosen in distinct.split(width):
        x = elements[chosen].to(torch.float64, memory_format=torch.contiguous_format)
        x = x.view(-1, num_chains, num_draws)
        defined = x.isfinite().all(2).all(1) & ~_constant(x)
        parts.append(torch.where(defined, statistic(x), torch.nan))
    return torch.cat(parts)[copied_from].reshape(site)


def _distinct(elements: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return which of `elements (S, n)` are not copies `(U,)`, and where each finds itself there `(S,)`.

    Only elements that begin alike are compared, with the first of them, `width` at a time.
    """
    number = torch.arange(len(elements), device=elements.device)
    _, alike = elements[:, 0].unique(return_inverse=True)
    first = number.scatter_reduce(0, alike, number, "amin", include_self=False)[alike]
    for chosen in (first < number).nonzero()[:, 0].split(width):
        equal = (elements[chosen] == elements[first[chosen]]).all(1)
        first[chosen] = torch.where(equal, first[chosen], chosen)
    distinct, place = first.unique(return_inverse=True)
    return distinct, place


def _per_site_ess(series: Callable[[Tensor], list[Tensor]], draws: Tensor) -> Tensor:
    """Return the smallest ESS among the half-chain `series` made of each site's draws."""

    def statistic(x: Tensor) -> Tensor:
        return torch.stack([_ess(half, x[0].numel()) for half in series(x)]).amin(0)

    return _per_site(statistic, draws, min_chains=1, min_draws=_MIN_DRAWS_ESS)


def _rank_rhat(x: Tensor) -> Tensor:
    """R-hat, the larger of that of normal scores and of folded ones: (S, chain, draw) -> (S,)."""
    pooled = _split(x).flatten(1)  # of even length: torch's median is the lower of the two middle values
    median = (pooled.median(1).values - (-pooled).median(1).values) / 2
    folded = (x - median[:, None, None]).abs()
    # Two-valued draws fold to a constant, whose R-hat is NaN: fmax then keeps the other.
    return torch.fmax(_rhat(_scores(x, *_sort(x))), _rhat(_scores(folded, *_sort(folded))))


def _rhat(x: Tensor) -> Tensor:
    """Vehtari et al. (2021), equations 1 to 4: (S, chain, draw) -> (S,)."""
    num_draws = x.shape[2]
    between = num_draws * _variance(x.mean(2), 1)
    within = _variance(x, 2).mean(1)
    return (((num_draws - 1) / num_draws * within + between / num_draws) / within).sqrt()


def _ess(x: Tensor, cap: int) -> Tensor:
    """ESS by Geyer's initial monotone sequence (Vehtari et al. 2021, section 3.2; Geyer 1992).

    With rho_t = 1 - (W - mean over chains of the autocovariance at lag t) / var+, the sums of pairs
    P_k = rho_2k + rho_2k+1 are kept up to the first that is not positive, each lowered to the
    smallest before it; tau = -1 + 2 sum_k P_k + (the next even rho, if it or its pair is positive).

    Args:
        x: Half chains, shape `(S, chain, draw)`.
        cap: Largest ESS to return.

    Returns:
        Numbers of chains x draws / tau, shape `(S,)`; chains x draws where the series is constant.
    """
    num_chains, n = x.shape[1:]
    mean = x.mean(2, keepdim=True)
    covariance = _mean_autocovariance(x - mean)
    within = covariance[:, :1] * n / (n - 1)
    var_plus = covariance[:, :1] + _variance(mean, 1)
    rho = 1 - (within - covariance) / var_plus
    rho[:, 0] = 1

    num_pairs = (n - 1) // 2  # lag n - 1 is left out, as in Stan and ArviZ
    even = rho[:, 0 : 2 * num_pairs : 2]
    pair = even + rho[:, 1 : 2 * num_pairs : 2]
    kept = (pair[:, :-1] > 0).cumprod(1)
    last = kept.sum(1, keepdim=True)
    next_even = even.gather(1, last)
    next_even = torch.where((next_even > 0) | (pair.gather(1, last) >= 0), next_even, 0.0)
    tau = -1 + 2 * (pair[:, :-1].cummin(1).values * kept).sum(1) + next_even[:, 0]

    size = num_chains * n
    ess: Tensor = size / tau.clamp(min=size / cap)
    return torch.where(_constant(x), float(size), ess)


def _mean_autocovariance(x: Tensor) -> Tensor:
    """Autocovariance at every lag of centred chains, averaged over them: (S, chain, draw) -> (S, draw)."""
    n = x.shape[2]
    # Zeros to at least 2n - 1 keep lags from wrapping; m 2^k is a length the FFT is fast for.
    padded = min(m << ((2 * n - 2) // m).bit_length() for m in (1, 3, 5))
    spectrum = torch.fft.rfft(x, n=padded)
    power = torch.view_as_real(spectrum).square().mean(1).sum(2)
    covariance: Tensor = torch.fft.irfft(power, n=padded)
    return covariance[:, :n] / n


def _sort(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sort all draws of each element: (S, chain, draw) -> values and places (S, chain x draw)."""
    pooled = x.flatten(1)
    if pooled.device.type != "cpu":
        return torch.sort(pooled, dim=1)
    order = torch.from_numpy(np.argsort(pooled.detach().numpy(), axis=1))  # five times torch's speed
    return pooled.gather(1, order), order


def _scores(x: Tensor, ordered: Tensor, order: Tensor) -> Tensor:
    """Half chains of normal scores: (S, chain, draw) -> (S, 2 chain, draw // 2)."""
    num_draws = x.shape[2]
    if num_draws % 2:  # a middle draw has no rank
        ranked = order % num_draws != num_draws // 2
        ordered, order = (v[ranked].view(len(x), -1) for v in (ordered, order))
    return _split(torch.zeros_like(x).flatten(1).scatter_(1, order, _normal_scores(ordered)).view_as(x))


def _squares(x: Tensor) -> Tensor:
    """Half chains of squared distances from the mean."""
    return _split((x - x.mean((1, 2), keepdim=True)).square())


def _tails(x: Tensor, ordered: Tensor) -> list[Tensor]:
    """Half chains of `draw <= quantile` for the 5 % and 95 % quantiles (R's type 7)."""
    last = ordered.shape[1] - 1
    position = last / 20  # exact where whole; ArviZ's rounding may miss the draw there
    low = int(position)
    series = []
    for outer, inner in ((low, low + 1), (last - low, last - low - 1)):
        quantile = torch.lerp(ordered[:, outer], ordered[:, inner], position - low)
        series.append(_split((x <= quantile[:, None, None]).to(x.dtype)))
    return series


def _split(x: Tensor) -> Tensor:
    """First and second halves of all chains, a middle draw left out: (S, C, N) -> (S, 2C, N // 2)."""
    half = x.shape[2] // 2
    return torch.cat([x[:, :, :half], x[:, :, -half:]], dim=1)


def _normal_scores(ordered: Tensor) -> Tensor:
    """Scores of sorted values `(S, n)`, Vehtari et al. (2021), equation 14; ties share a rank."""
    size = ordered.shape[1]
    rank = torch.arange(1, size + 1, dtype=ordered.dtype, device=ordered.device)
    tied = ordered[:, 1:] == ordered[:, :-1]
    first = rank.masked_fill(pad(tied, (1, 0)), 0).cummax(1).values
    last = rank.masked_fill(pad(tied, (0, 1)), size).flip(1).cummin(1).values.flip(1)
    return torch.special.ndtri(((first + last) / 2 - 3 / 8) / (size + 1 / 4))


def _variance(x: Tensor, dim: int) -> Tensor:
    """Sample variance over `dim`, 0 where there is one value; in two passes, which `var` is slower than."""
    return (x - x.mean(dim, keepdim=True)).square().sum(dim) / max(1, x.shape[dim] - 1)


def _constant(x: Tensor) -> Tensor:
    """Whether each element's draws vary by no more than rounding: (S, chain, draw) -> (S,)."""
    low, high = x.flatten(1).amin(1), x.flatten(1).amax(1)  # faster than `aminmax`
    return high - low <= _ROUNDING * torch.maximum(low.abs(), high.abs())
