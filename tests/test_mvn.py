"""`BayesianMVN`: the essay's density, holes integrated out, sites in the table's units, known posteriors."""

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, LKJCholesky, MultivariateNormal, Normal
from torch.distributions.transforms import CorrCholeskyTransform

from pyrolatent import HMC, ArgumentError, DataError, Fit, FitWarning, Pair, fit, infer_schema
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.diagnostics import mcse_mean
from pyrolatent.models import BayesianMVN
from pyrolatent.tables import read_frame
from pyrolatent.transforms import LogCorrCholesky
from tests.pyro_reference import pyro_potential
from tests.user_models import mvn

# name of a latent site in the user's model -> in ours
SITES = {"mean": "location", "scale": "spread", "correlation": "correlation_cholesky"}
SHORT = HMC(num_chains=16, num_warmup=20, num_draws=10)
MEAN, SCALE = np.array([1.0, -2.0, 0.5]), np.array([0.5, 1.0, 2.0])
CORRELATION = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]])


def table(num_rows: int = 80, seed: int = 0) -> pd.DataFrame:
    """Rows of the normal distribution above, all observed."""
    covariance = np.outer(SCALE, SCALE) * CORRELATION
    rows = np.random.default_rng(seed).multivariate_normal(MEAN, covariance, num_rows)
    return pd.DataFrame(rows, columns=["a", "b", "c"])


def with_every_pattern() -> pd.DataFrame:
    """32 rows of 4 columns in which each pattern of holes occurs twice, also the one of nothing else."""
    rows = np.random.default_rng(1).normal(size=(32, 4)) @ np.triu(np.ones((4, 4)))
    return pd.DataFrame(rows, columns=["a", "b", "c", "d"]).where(
        np.array(list(itertools.product([True, False], repeat=4)) * 2)
    )


def density_of(frame: pd.DataFrame, **settings: float) -> LogDensity:
    return capture(BayesianMVN(infer_schema(frame), **settings), frame)


def capture(pair: Pair, frame: pd.DataFrame) -> LogDensity:
    assert pair.schema is not None
    return capture_density(pair.model, pair.schema.encode(frame), seed=0)


@functools.cache
def density_with_holes() -> LogDensity:
    return density_of(with_every_pattern())


def points(density: LogDensity, count: int = 5) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return torch.randn(count, density.dim, generator=noise, dtype=torch.float64)


def quick(pair: Pair, frame: pd.DataFrame) -> Fit:
    """A fit too short to trust, for what does not depend on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(pair, frame, SHORT, seed=1, compile=False)


# The density


@pytest.mark.parametrize("standardise", [True, False])
def test_without_holes_it_is_the_model_that_a_user_writes(standardise: bool) -> None:
    frame = table(20)
    pair = BayesianMVN(infer_schema(frame), standardise=standardise)
    x = pair.schema.encode(frame)["x"]
    raw = torch.tensor(frame.to_numpy())
    expected_x = (raw - raw.mean(0)) / raw.std(0, correction=0) if standardise else raw
    # a mean and a sd of 20 numbers below 10 err by some 1e-15
    torch.testing.assert_close(x, expected_x, rtol=0, atol=1e-13 if standardise else 0)

    density, users = capture(pair, frame), pyro_potential(mvn, {"x": x})
    u = points(density)
    values, gradients = density(u)
    for point, value, gradient in zip(u, values, gradients, strict=True):
        free = density.sites.layout.unpack(point)
        expected, slopes = users.log_density({theirs: free[ours] for theirs, ours in SITES.items()})
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
        expected_gradient = density.sites.layout.pack({SITES[name]: slopes[name] for name in SITES})
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-9)


def brute_force(free: dict[str, Tensor], data: dict[str, Tensor], eta: float) -> Tensor:
    """Each row's density by the block of the covariance that it observes, priors, and Jacobians."""
    location, spread, to_cholesky = free["location"], free["spread"].exp(), CorrCholeskyTransform()
    cholesky = to_cholesky(free["correlation_cholesky"])
    factor = spread[:, None] * cholesky
    covariance = factor @ factor.mT
    rows = [
        MultivariateNormal(location[seen], covariance[seen][:, seen]).log_prob(row[seen])
        for row, seen in zip(data["x"], data["mask"], strict=True)
        if seen.any()
    ]
    prior = Normal(0.0, 1.0).log_prob(location).sum() + HalfNormal(1.0).log_prob(spread).sum()
    prior = prior + LKJCholesky(len(location), torch.tensor(eta, dtype=torch.float64)).log_prob(cholesky)
    jacobian = to_cholesky.log_abs_det_jacobian(free["correlation_cholesky"], cholesky)
    return torch.stack(rows).sum() + prior + free["spread"].sum() + jacobian


@pytest.mark.parametrize(("eta", "standardise"), [(0.5, True), (1.0, False), (4.0, True)])
def test_with_holes_it_is_the_sum_of_marginal_densities(eta: float, standardise: bool) -> None:
    frame = with_every_pattern()
    pair = BayesianMVN(infer_schema(frame), eta, standardise)
    density, data = capture(pair, frame), pair.schema.encode(frame)
    u = points(density)
    values, gradients = density(u)
    free = u.clone().requires_grad_()
    expected = torch.stack([brute_force(density.sites.layout.unpack(point), data, eta) for point in free])
    (slopes,) = torch.autograd.grad(expected.sum(), free)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, slopes, rtol=1e-9, atol=1e-9)
    assert density.rung == "vmap"


def test_a_row_without_an_observed_cell_changes_nothing() -> None:
    frame = with_every_pattern()
    empty = frame.isna().all(axis=1)
    assert empty.sum() == 2
    u = points(density_with_holes())
    found, expected = density_with_holes()(u), density_of(frame[~empty])(u)
    # the same terms of some 1e3 in another order
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_order_of_rows_does_not_matter() -> None:
    other = density_of(with_every_pattern().sample(frac=1.0, random_state=0))
    u = points(other)
    torch.testing.assert_close(density_with_holes()(u), other(u), rtol=1e-10, atol=1e-10)


def correlation_of(free: Tensor) -> Tensor:
    """The entries below the diagonal of the correlation matrix at unconstrained `free`."""
    cholesky = CorrCholeskyTransform()(free)
    rows, columns = torch.tril_indices(len(cholesky), len(cholesky), -1)
    return (cholesky @ cholesky.mT)[rows, columns]


def log_volume(free: Tensor) -> Tensor:
    """log |d correlations / d free|: what turns a density of the one into a density of the other."""
    return torch.linalg.slogdet(torch.func.jacrev(correlation_of)(free)).logabsdet


def test_order_of_columns_does_not_matter() -> None:
    order = [2, 0, 3, 1]
    density, other = density_with_holes(), density_of(with_every_pattern().iloc[:, order])
    for point in points(density):
        free = density.sites.layout.unpack(point)
        cholesky = CorrCholeskyTransform()(free["correlation_cholesky"])
        permuted = torch.linalg.cholesky((cholesky @ cholesky.mT)[order][:, order])
        moved = {
            "location": free["location"][order],
            "spread": free["spread"][order],
            "correlation_cholesky": LogCorrCholesky().inv(permuted),
        }
        value, other_value = density(point[None])[0], other(other.sites.layout.pack(moved)[None])[0]
        found = other_value - log_volume(moved["correlation_cholesky"])
        expected = value - log_volume(free["correlation_cholesky"])
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# Sites and units


def test_sites_are_what_they_are_called() -> None:
    frame = table()
    density = density_of(frame)
    assert list(density.sites.latents) == ["location", "spread", "correlation_cholesky"]
    assert set(density.sites.deterministics) == {"mean", "scale", "correlation", "covariance"}
    assert list(density.sites.observed) == ["x"]
    sites = density.constrain(points(density))
    assert {name: tuple(site.shape[1:]) for name, site in sites.items()} == {
        "location": (3,),
        "spread": (3,),
        "correlation_cholesky": (3, 3),
        "mean": (3,),
        "scale": (3,),
        "correlation": (3, 3),
        "covariance": (3, 3),
    }
    centre, unit = torch.tensor(frame.mean().to_numpy()), torch.tensor(frame.std(ddof=0).to_numpy())
    cholesky = sites["correlation_cholesky"]
    torch.testing.assert_close(sites["mean"], centre + unit * sites["location"])
    torch.testing.assert_close(sites["scale"], unit * sites["spread"])
    torch.testing.assert_close(sites["correlation"], cholesky @ cholesky.mT)
    outer = sites["scale"][:, :, None] * sites["scale"][:, None, :]
    torch.testing.assert_close(sites["covariance"], sites["correlation"] * outer)


def test_not_standardised_the_table_has_the_units_of_the_prior() -> None:
    density = density_of(table(), standardise=False)
    sites = density.constrain(points(density))
    assert torch.equal(sites["mean"], sites["location"])
    assert torch.equal(sites["scale"], sites["spread"])


def test_units_of_a_column_do_not_reach_the_model() -> None:
    frame, factor, offset = with_every_pattern(), 0.3, -0.1
    changed = frame.assign(b=factor * frame["b"] + offset)
    assert {column.kind for column in infer_schema(changed).columns} == {"real"}
    density, other = density_with_holes(), density_of(changed)
    u = points(density)
    torch.testing.assert_close(density(u), other(u), rtol=1e-10, atol=1e-10)

    sites, others = density.constrain(u), other.constrain(u)
    factors, offsets = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    factors[1], offsets[1] = factor, offset
    assert torch.equal(others["correlation"], sites["correlation"])
    torch.testing.assert_close(others["mean"], factors * sites["mean"] + offsets)
    covariance = factors[:, None] * sites["covariance"] * factors
    torch.testing.assert_close(others["covariance"], covariance)


def test_units_of_a_column_do_not_reach_the_draws() -> None:
    """Means of 64 multiples of 1/1024, and their products with 4, are exact: not one bit may differ."""
    frame = table(64).round(0) + table(64, seed=1).mul(1024).round() / 1024
    frame = frame.assign(b=frame["b"].where(frame["a"] < 2))
    changed = frame.assign(a=4 * frame["a"] - 3)
    first, second = (quick(BayesianMVN(infer_schema(f)), f).samples for f in (frame, changed))
    assert torch.equal(first["correlation"], second["correlation"])
    factors = torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64)
    offsets = torch.tensor([-3.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(second["mean"], factors * first["mean"] + offsets, rtol=1e-14, atol=1e-14)
    assert torch.equal(second["covariance"], factors[:, None] * first["covariance"] * factors)


def test_positive_columns_enter_as_logs() -> None:
    logs = table(40)
    frame = logs.assign(a=np.exp(3 * logs["a"]))
    schema = infer_schema(frame)
    assert [column.kind for column in schema.columns] == ["positive", "real", "real"]
    density, other = capture(BayesianMVN(schema), frame), density_of(logs.assign(a=3 * logs["a"]))
    u = points(density)
    torch.testing.assert_close(density(u), other(u), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(density.constrain(u)["mean"], other.constrain(u)["mean"])


# What it refuses


def test_labels_are_refused_by_name() -> None:
    labels = {"smoker": ["no", "yes", "no", "no"], "town": ["x", "y", "z", "x"]}
    schema = infer_schema(pd.DataFrame({"age": [30.5, 41.2, -1.0, 55.0], **labels}))
    message = r"columns \['smoker', 'town'\]: .* binary or categorical .*drop them"
    with pytest.raises(DataError, match=message):
        BayesianMVN(schema)


@pytest.mark.parametrize("eta", [0.0, -1.0, math.nan, math.inf])
def test_eta_must_be_positive(eta: float) -> None:
    with pytest.raises(ArgumentError, match=f"eta must be positive and finite: got {eta}"):
        BayesianMVN(infer_schema(table()), eta)


BAD_TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no rows": (lambda frame: frame.iloc[:0], "the table has no rows"),
    "no columns": (lambda frame: frame[[]], "the table has no columns"),
    "all missing": (lambda frame: frame.assign(b=np.nan), r"column 'b': every cell is missing"),
    "constant": (lambda frame: frame.assign(b=2.5), r"column 'b': constant column: its only value is 2\.5"),
    "infinite": (
        lambda frame: frame.replace({"b": {frame["b"].iloc[3]: -np.inf}}),
        r"column 'b', row 3: infinite value: -inf",
    ),
    "text": (
        lambda frame: frame.astype({"b": object}).replace({"b": {frame["b"].iloc[7]: "high"}}),
        r"column 'b', row 7: text in a column of numbers: 'high'",
    ),
    "duplicate": (
        lambda frame: frame.set_axis(["a", "b", "b"], axis=1),
        r"duplicate column name\(s\) \['b'\]",
    ),
}


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: HMC, problem: object) -> None:
        raise AssertionError("sampling has begun")

    monkeypatch.setattr(HMC, "run", run)


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_refused_before_sampling_and_left_alone(case: str) -> None:
    spoil, message = BAD_TABLES[case]
    frame = spoil(table(20))
    before = frame.copy(deep=True)
    with pytest.raises(DataError, match=message):
        fit(BayesianMVN(infer_schema(frame)), frame)
    pd.testing.assert_frame_equal(frame, before, check_exact=True)


@pytest.mark.usefixtures("no_sampling")
@pytest.mark.parametrize("case", ["no rows", "no columns", "infinite", "text", "duplicate"])
def test_a_schema_from_elsewhere_does_not_let_bad_tables_in(case: str) -> None:
    spoil, message = BAD_TABLES[case]
    frame = spoil(table(20))
    before = frame.copy(deep=True)
    with pytest.raises(DataError, match=message):
        fit(BayesianMVN(infer_schema(table())), frame)
    pd.testing.assert_frame_equal(frame, before, check_exact=True)


# Posteriors


@pytest.fixture(scope="module")
def column_fit() -> tuple[pd.DataFrame, Fit]:
    """8 numbers and 4 holes in a table of one column, on the raw scale."""
    numbers = np.random.default_rng(3).normal(0.8, 1.5, size=12)
    frame = pd.DataFrame({"a": np.where(np.arange(12) % 3 == 1, np.nan, numbers)})
    return frame, fit(BayesianMVN(infer_schema(frame), standardise=False), frame, seed=5, compile=False)


def test_a_single_column_has_no_correlation_to_learn(column_fit: tuple[pd.DataFrame, Fit]) -> None:
    _, result = column_fit
    assert list(result.sites.latents) == ["location", "spread"]
    assert result.samples["mean"].shape == (64, 150, 1)
    assert (result.samples["correlation"] == 1).all()
    torch.testing.assert_close(result.samples["covariance"][..., 0], result.samples["scale"] ** 2)


def test_a_single_column_has_the_posterior_of_quadrature(column_fit: tuple[pd.DataFrame, Fit]) -> None:
    frame, result = column_fit
    data = torch.tensor(frame["a"].dropna().to_numpy())
    # A smooth density that has fallen below 1e-20 at the ends: the trapezoid rule errs by less still.
    location = torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]
    log_spread = torch.linspace(-3, 4, 701, dtype=torch.float64)
    spread = log_spread.exp()
    log_density = Normal(0.0, 1.0).log_prob(location) + HalfNormal(1.0).log_prob(spread) + log_spread
    log_density = log_density + Normal(location[..., None], spread[..., None]).log_prob(data).sum(-1)
    weight = (log_density - log_density.max()).exp()
    assert max(float(edge.max()) for edge in (weight[0], weight[-1], weight[:, 0], weight[:, -1])) < 1e-20
    weight = weight / weight.sum()
    for name, values in {"mean": location, "scale": spread}.items():
        mean = float((weight * values).sum())
        sd = float((weight * (values - mean) ** 2).sum()) ** 0.5
        draws = result.samples[name][..., 0]
        assert float(draws.mean()) == pytest.approx(mean, abs=4 * float(mcse_mean(draws)))
        squares = (draws - mean) ** 2
        assert float(squares.mean()) == pytest.approx(sd**2, abs=4 * float(mcse_mean(squares)))


@pytest.fixture(scope="module")
def known_fit() -> tuple[pd.DataFrame, Fit]:
    """400 rows of the known normal distribution, a tenth of their cells hidden."""
    full = table(400, seed=2)
    frame = full.mask(np.random.default_rng(4).random(full.shape) < 0.1)
    return frame, fit(BayesianMVN(infer_schema(frame)), frame, seed=6, compile=False)


def test_the_truth_lies_in_the_posterior(known_fit: tuple[pd.DataFrame, Fit]) -> None:
    _, result = known_fit
    below = np.tril_indices(3, -1)
    truth = {"mean": MEAN, "scale": SCALE, "covariance": np.outer(SCALE, SCALE) * CORRELATION}
    found = {name: result.flat_samples()[name].numpy() for name in truth}
    for name, value in truth.items():
        # 15 numbers, each beyond 4 sd once in 16,000
        assert (np.abs(found[name].mean(0) - value) < 4 * found[name].std(0)).all(), name
    correlations = result.flat_samples()["correlation"].numpy()[:, below[0], below[1]]
    assert (np.abs(correlations.mean(0) - CORRELATION[below]) < 4 * correlations.std(0)).all()


def test_the_posterior_is_as_wide_as_the_data_allow(known_fit: tuple[pd.DataFrame, Fit]) -> None:
    """Between what 400 full rows would give and what the observed cells of a column give by themselves."""
    frame, result = known_fit
    draws = result.flat_samples()
    scale = draws["scale"].mean(0)
    observed = torch.tensor(frame.notna().sum().to_numpy())
    # sd / sqrt(n) of a mean and sd / sqrt(2 n) of a sd, up to a relative 1/n; with ESS > 2,000 the sd of
    # draws errs by 1.6 %, and 6 % are four such errors.
    for name, least, most in (
        ("mean", scale / 400**0.5, scale / observed.sqrt()),
        ("scale", scale / 800**0.5, scale / (2 * observed).sqrt()),
    ):
        assert float(result.diagnostics[name]["ess"].min()) > 2_000
        sd = draws[name].std(0)
        assert (least * 0.94 < sd).all(), name
        assert (sd < most * 1.06).all(), name


def test_the_users_plain_model_has_the_same_posterior() -> None:
    frame = table(80)
    theirs = fit(mvn, {"x": frame.to_numpy()}, seed=7, compile=False)
    ours = fit(BayesianMVN(infer_schema(frame), standardise=False), frame, seed=8, compile=False)
    assert theirs.warnings == ours.warnings == ()
    cholesky = theirs.samples["correlation"]
    rows, columns = torch.tril_indices(3, 3, -1)
    user = {**theirs.samples, "correlation": (cholesky @ cholesky.mT)[..., rows, columns]}
    own = {**ours.samples, "correlation": ours.samples["correlation"][..., rows, columns]}
    for name in ("mean", "scale", "correlation"):
        for power in (1, 2):  # first and second moments; 18 differences, each beyond 4 once in 16,000
            a, b = user[name] ** power, own[name] ** power
            error = torch.hypot(mcse_mean(a), mcse_mean(b))
            assert ((a.mean((0, 1)) - b.mean((0, 1))).abs() < 4 * error).all(), (name, power)


def test_settings_are_part_of_what_a_pair_is() -> None:
    schema = infer_schema(table())
    pair = BayesianMVN(schema)
    assert pair == BayesianMVN(infer_schema(table()), 1.0, True)
    assert pair != replace(pair, eta=2.0)
    assert pair.guide is None
    assert pair.schema == schema
    assert replace(pair, standardise=False).schema == schema.unscaled()


@pytest.mark.filterwarnings("ignore::pyrolatent.errors.FitWarning")
def test_the_diagonal_of_correlations_is_one() -> None:
    """Exactly: plots of a quantity that varies by a rounding error fail."""
    result = fit(BayesianMVN(infer_schema(table(20))), table(20), HMC(16, 20, 10), seed=0)
    diagonal = result.samples["correlation"].diagonal(dim1=-2, dim2=-1)
    assert torch.equal(diagonal, torch.ones_like(diagonal))


def test_a_thousand_columns_are_refused_with_the_reason() -> None:
    schema = infer_schema(read_frame(Path(__file__).parent / "data" / "wide.csv"))
    message = "too many columns .*: 1,000 columns have 499,500 correlations. keep at most 100 columns"
    with pytest.raises(DataError, match=message):
        BayesianMVN(schema)
