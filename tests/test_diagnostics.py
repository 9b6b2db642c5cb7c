"""Diagnostics against ArviZ, a loop written from the paper, and processes with known answers."""

import warnings
from collections.abc import Callable

import arviz as az
import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from scipy.signal import lfilter
from torch import Tensor

from pyrolatent import diagnostics
from pyrolatent.diagnostics import (
    ess_bulk,
    ess_mean,
    ess_sd,
    ess_tail,
    mcse_mean,
    min_ess,
    nested_rhat,
    split_rhat,
)
from pyrolatent.errors import ArgumentError
from tests.fake_device import DEVICE, OnDevice, fake_device

ESS = {"bulk": ess_bulk, "tail": ess_tail, "sd": ess_sd, "mean": ess_mean}
EVERY = [split_rhat, lambda draws: nested_rhat(draws, 1), min_ess, mcse_mean, *ESS.values()]


def autoregressive(
    num_chains: int, num_draws: int, phi: float, *, sites: int = 6, seed: int = 1
) -> np.ndarray:
    """Stationary AR(1) draws with unit variance, shape `(num_chains, num_draws, sites)`."""
    noise = np.random.default_rng(seed).standard_normal((num_chains, num_draws, sites))
    noise[:, 1:] *= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise, axis=1)


def spread_scales(x: np.ndarray) -> np.ndarray:
    """Give every chain another scale: equal centres, which only the folded R-hat tells apart."""
    return x * np.geomspace(1, 8, len(x))[:, None, None]


def dataset(x: np.ndarray) -> xr.Dataset:
    return xr.Dataset({"x": (("chain", "draw", "site"), x)})


def arviz_ess(x: np.ndarray, method: str) -> np.ndarray:
    return az.ess(dataset(x), method=method)["x"].to_numpy()


def capped(x: np.ndarray, method: str) -> np.ndarray:
    """ArviZ's ESS under our cap: its own, n log10(n), is above n, so it never binds alone."""
    return np.minimum(arviz_ess(x, method), x.shape[0] * x.shape[1])


# one chain, the usual, an odd length, the shortest, many short chains
SHAPES = [(1, 1000), (4, 500), (3, 107), (2, 10), (64, 50), (128, 21)]
SHAPE_NAMES = [f"{chains}x{draws}" for chains, draws in SHAPES]


@pytest.mark.parametrize("shape", SHAPES, ids=SHAPE_NAMES)
@pytest.mark.parametrize("phi", [-0.9, -0.3, 0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("form", [np.array, np.round, np.exp, spread_scales], ids=lambda f: f.__name__)
def test_equal_to_arviz(shape: tuple[int, int], phi: float, form: Callable[[np.ndarray], np.ndarray]) -> None:
    # np.round makes ties; times 3 even the shortest, slowest chains take several values.
    x = form(autoregressive(*shape, phi) * (3.0 if form is np.round else 1.0))
    draws = torch.from_numpy(x)
    if shape[0] > 1:
        rhat = az.rhat(dataset(x))["x"].to_numpy()
        np.testing.assert_allclose(split_rhat(draws), rhat, rtol=1e-8)
    for method, ess in ESS.items():
        np.testing.assert_allclose(ess(draws), capped(x, method), rtol=1e-8, err_msg=method)


def test_slow_chains_compare_below_the_cap() -> None:
    x = autoregressive(4, 500, 0.9)
    for method in ESS:
        assert (arviz_ess(x, method) < 1500).all()


def test_mcse_equal_to_arviz() -> None:
    x = autoregressive(4, 500, 0.8)
    expected = az.mcse(dataset(x), method="mean")["x"].to_numpy()
    np.testing.assert_allclose(mcse_mean(torch.from_numpy(x)), expected, rtol=1e-8)


def test_tied_at_the_upper_quantile_leaves_the_lower() -> None:
    # 10 % of the draws share the largest value: `x <= q95` is constant, with nothing to estimate.
    x = np.minimum(autoregressive(4, 500, 0.5), scipy.stats.norm.isf(0.1))
    np.testing.assert_allclose(ess_tail(torch.from_numpy(x)), capped(x, "tail"), rtol=1e-8)


def test_two_modes_give_large_rhat() -> None:
    # Half the chains in each of two separate modes: normal scores are half normal within a chain,
    # with means -m and m, m^2 = 2/pi, and variance 1 - m^2.  Eight half chains: var(means) = 8/7 m^2.
    # A chain's mean has sd sqrt((1 - m^2) / 500) = .03, 4 % of m; 5 sd averaged over 8 is 7 %.
    x = autoregressive(4, 1000, 0.0) + np.array([-10, -10, 10, 10])[:, None, None]
    square = 2 / np.pi
    expected = np.sqrt(1 + 8 / 7 * square / (1 - square))
    np.testing.assert_allclose(split_rhat(torch.from_numpy(x)), expected, rtol=0.07)


def test_stuck_chains_have_infinite_rhat() -> None:
    draws = torch.tensor([0.1, 0.3, 0.7, 0.9]).double()[:, None].expand(4, 100)
    assert split_rhat(draws) > 1e6
    assert nested_rhat(draws, 1) > 1e6


def loop_nested_rhat(x: np.ndarray, size: int) -> float:
    """Margossian et al. (2024), equations 4 to 8, for one quantity, `(chain, draw)`."""
    means, within = [], []
    for start in range(0, len(x), size):
        chains = [list(chain) for chain in x[start : start + size]]
        chain_means = [sum(chain) / len(chain) for chain in chains]
        mean = sum(chain_means) / size
        b = sum((m - mean) ** 2 for m in chain_means) / (size - 1) if size > 1 else 0.0
        w = [
            sum((v - m) ** 2 for v in chain) / (len(chain) - 1) if len(chain) > 1 else 0.0
            for chain, m in zip(chains, chain_means, strict=True)
        ]
        means.append(mean)
        within.append(b + sum(w) / size)
    overall = sum(means) / len(means)
    between = sum((m - overall) ** 2 for m in means) / (len(means) - 1)
    return float(np.sqrt(1 + between / (sum(within) / len(within))))


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize("num_draws", [2, 7, 40])
def test_nested_rhat_equal_to_loop(size: int, num_draws: int) -> None:
    x = autoregressive(12, num_draws, 0.7)
    expected = [loop_nested_rhat(x[:, :, i], size) for i in range(x.shape[2])]
    # sums of at most 480 terms of order 1 in another order: below 480 x 2e-16
    np.testing.assert_allclose(nested_rhat(torch.from_numpy(x), size), expected, rtol=1e-12)


def test_nested_rhat_of_single_draws() -> None:
    x = autoregressive(12, 1, 0.0)
    expected = [loop_nested_rhat(x[:, :, i], 3) for i in range(x.shape[2])]
    np.testing.assert_allclose(nested_rhat(torch.from_numpy(x), 3), expected, rtol=1e-12)


def test_nested_rhat_of_superchains_stuck_apart() -> None:
    # B = var(0, 10, 20, 30) and W = 1 + 1/N, up to sd sqrt(2 / 3200) of W (2.5 %) and
    # 1/sqrt(800) of each superchain's mean; R-hat moves by half of W's error: 5 sd are 6 %.
    offset = np.repeat([0.0, 10.0, 20.0, 30.0], 8)[:, None, None]
    x = autoregressive(32, 100, 0.0) + offset
    expected = np.sqrt(1 + np.var([0, 10, 20, 30], ddof=1) / 1.01)
    np.testing.assert_allclose(nested_rhat(torch.from_numpy(x), 8), expected, rtol=0.06)


def test_nested_rhat_ignores_differences_within_superchains() -> None:
    # The same offsets inside every superchain raise W, not B: R-hat^2 - 1 is below B of iid draws.
    offset = np.tile([0.0, 10.0, 20.0, 30.0], 8)[:, None, None]
    x = autoregressive(32, 100, 0.0)
    plain, spread = (nested_rhat(torch.from_numpy(v), 4) for v in (x, x + offset))
    assert (spread < plain).all()
    assert (split_rhat(torch.from_numpy(x + offset)) > 2).all()


@pytest.mark.parametrize("size", [1, 4, 16])
def test_nested_rhat_of_well_mixed_chains(size: int) -> None:
    # Of iid N(0, 1), (R^2 - 1) W is the variance of K means of M N draws, chi2(K-1) / ((K-1) M N),
    # and W = 1 + 1/N (M > 1) within sd sqrt(2 / 3200) of the 3,200 draws, 13 % at 5 sd.
    sites, num_superchains = 400, 64 // size
    x = autoregressive(64, 50, 0.0, sites=sites)
    excess = (nested_rhat(torch.from_numpy(x), size).square() - 1) * size * 50
    degrees = num_superchains - 1
    bound = scipy.stats.chi2.isf(1e-6, degrees) / degrees / 0.87
    assert excess.max() < bound
    expected = 1 / (1 + (size > 1) / 50)
    # 4 sd of the mean over 400 sites, and E[1/W] = 1 + 2/3200
    assert abs(excess.mean() - expected) < 4 * np.sqrt(2 / degrees / sites) + 0.001


def test_ess_of_independent_draws() -> None:
    # tau - 1 is twice the sum of the few first pairs of autocorrelations that happen to be positive,
    # each of size sqrt(2 / n) = .014: two pairs more or less move the ESS by 2 x 2 x .014 = 6 %.
    draws = torch.from_numpy(autoregressive(10, 1000, 0.0, sites=64))
    for ess in ESS.values():
        ratio = ess(draws) / 10_000
        assert 0.94 < ratio.mean() <= 1
        assert ratio.max() <= 1


@pytest.mark.parametrize("phi", [0.3, 0.5, 0.9])
def test_ess_of_autoregressive_draws(phi: float) -> None:
    # ESS/n = (1 - phi) / (1 + phi); squares of a Gaussian AR(1) have autocorrelation phi^2t.
    # With window T the relative variance of tau is 2 (2T + 1) / n (Sokal): T = 6 / -log(phi) = 57 lags
    # give sd 11 % a site at phi = .9, 1.4 % for the mean over 64; 4 sd, and a bias as large as one sd
    # of stopping at the first negative pair, give 7 %.
    draws = torch.from_numpy(autoregressive(4, 5000, phi, sites=64))
    for ess, rho in ((ess_mean, phi), (ess_bulk, phi), (ess_sd, phi**2)):
        expected = 20_000 * (1 - rho) / (1 + rho)
        assert abs(ess(draws).mean() / expected - 1) < 0.07


def test_mcse_of_independent_draws() -> None:
    # sd has relative error 1/sqrt(2 n) = 1 %, the square root of the ESS half of its 6 %.
    mcse = mcse_mean(torch.from_numpy(5 * autoregressive(4, 1000, 0.0, sites=64)))
    assert abs(mcse.mean() * np.sqrt(4000) / 5 - 1) < 0.05


def test_ess_is_capped_at_the_number_of_draws() -> None:
    x = autoregressive(4, 1000, -0.9)
    draws = torch.from_numpy(x)
    assert (arviz_ess(x, "mean") > 4000).all()
    for ess in (ess_mean, ess_bulk):
        assert (ess(draws) == 4000).all()
    assert (min_ess(draws) < 4000).all()  # squares are slow where draws alternate


def test_min_ess_is_the_smallest() -> None:
    draws = torch.from_numpy(autoregressive(4, 250, 0.0, sites=50))
    parts = torch.stack([ess_bulk(draws), ess_tail(draws), ess_sd(draws)])
    assert torch.equal(min_ess(draws), parts.amin(0))
    assert set(parts.argmin(0).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("function", EVERY)
def test_undefined_sites_are_nan_and_leave_others_alone(function: Callable[[Tensor], Tensor]) -> None:
    draws = torch.from_numpy(autoregressive(4, 100, 0.5))
    expected = function(draws)[4:]
    draws[:, :, 0] = 0.1
    draws[2, 7, 1] = torch.nan
    draws[2, 7, 2] = torch.inf
    draws[:, :, 3] = 1 + 2.0**-52 * (draws[:, :, 3] > 0).double()  # constant, but rounded
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(draws)
    assert result[:4].isnan().all()
    assert torch.equal(result[4:], expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 0, 3), (0, 10, 3), (4, 50, 0), (4, 50, 3, 0)])
def test_too_little_to_compare_is_nan(function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(torch.ones(shape))
    assert result.shape == shape[2:]
    assert result.isnan().all()


def test_least_numbers_of_chains_and_draws() -> None:
    draws = torch.from_numpy(autoregressive(4, 10, 0.0))
    assert split_rhat(draws[:1]).isnan().all()
    assert split_rhat(draws[:, :3]).isnan().all()
    assert split_rhat(draws[:2, :4]).isfinite().all()
    assert nested_rhat(draws, 4).isnan().all()
    assert min_ess(draws[:, :9]).isnan().all()
    assert min_ess(draws[:1]).isfinite().all()


@pytest.mark.parametrize("function", EVERY)
def test_scale_does_not_matter(function: Callable[[Tensor], Tensor]) -> None:
    draws = torch.from_numpy(autoregressive(4, 100, 0.5))
    factor = 2.0**-40 if function is mcse_mean else 1.0
    # powers of two scale exactly
    assert torch.equal(function(draws * 2.0**-40), factor * function(draws))


@pytest.mark.parametrize("function", EVERY)
def test_site_shapes_chunks_and_dtypes(
    function: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.from_numpy(autoregressive(4, 50, 0.5)).float()
    whole = function(draws)
    assert whole.shape == (6,)
    assert whole.dtype == torch.float64
    monkeypatch.setattr(diagnostics, "_CHUNK", 4 * 50 * 4)  # chunks of 4 and 2 elements
    for other in (
        function(draws.unflatten(2, (2, 3))).flatten(),
        torch.stack([function(draws[:, :, i]) for i in range(6)]),
        function(draws.movedim(2, 0).contiguous().movedim(0, 2)),
    ):
        torch.testing.assert_close(other, whole, rtol=1e-12, atol=0)  # sums of 200 in another order


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize("num_draws", [50, 51])
def test_stays_on_the_device(function: Callable[[Tensor], Tensor], num_draws: int) -> None:
    draws = torch.from_numpy(np.round(autoregressive(4, num_draws, 0.5), 1))[:, :, [0, 1, 1, 2]]
    with fake_device():
        result = function(draws.to(DEVICE))
        assert isinstance(result, OnDevice)
        # two ways to sort, the same operations otherwise
        assert torch.equal(result.cpu(), function(draws))


@pytest.mark.parametrize("function", EVERY)
def test_copies_have_the_numbers_of_their_original(
    function: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.from_numpy(autoregressive(4, 50, 0.5, sites=5))
    alone = torch.stack([function(draws[:, :, i]) for i in range(5)])
    order = [4, 0, 0, 1, 4, 3, 2, 2, 2, 0, 4]
    for chunk in (1 << 17, 4 * 50 * 2):  # all at once, and two elements at a time
        monkeypatch.setattr(diagnostics, "_CHUNK", chunk)
        torch.testing.assert_close(function(draws[:, :, order]), alone[order], rtol=1e-12, atol=0)


def test_elements_that_only_begin_alike_are_no_copies() -> None:
    draws = torch.from_numpy(autoregressive(4, 50, 0.5, sites=1)).repeat(1, 1, 4)
    draws[3, 49, 1] += 5.0
    draws[1:, :, 2] = -draws[1:, :, 2]
    for function in EVERY:
        result = function(draws)
        assert result[0] == result[3]
        assert result[1] != result[0]
        assert torch.equal(result, torch.stack([function(draws[:, :, i]) for i in range(4)]))


def test_copies_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = torch.from_numpy(autoregressive(4, 50, 0.0, sites=16)).unflatten(2, (4, 4)).tril()
    symmetric = factor + factor.tril(-1).mT
    sizes: list[int] = []
    sort = diagnostics._sort

    def counted(x: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(x))
        return sort(x)

    monkeypatch.setattr(diagnostics, "_sort", counted)
    min_ess(symmetric)
    min_ess(factor)  # the zeros above the diagonal are one more
    assert sizes == [10, 11]


@pytest.mark.parametrize("function", EVERY)
def test_draws_without_chains_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ArgumentError, match=r"got shape \(100,\), expected \(chain, draw, \*site\)"):
        function(torch.zeros(100))


@pytest.mark.parametrize("size", [0, -1, 3])
def test_uneven_superchains_are_refused(size: int) -> None:
    with pytest.raises(ArgumentError, match=f"64 chains, superchain_size={size}"):
        nested_rhat(torch.zeros(64, 10), size)
