"""Completed and predicted tables: untouched where observed, exact draws where not, in the table's units."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from pyrolatent import (
    HMC,
    ArgumentError,
    DataError,
    Fit,
    FitWarning,
    Imputations,
    ModelError,
    Pair,
    Schema,
    fit,
    impute,
    infer_schema,
    predict,
)
from pyrolatent.distributions import IncompleteMVN
from pyrolatent.models import BayesianMVN
from tests.small_fits import function_fit

SHORT = HMC(num_chains=16, num_warmup=20, num_draws=10)
ALL_DRAWS = 16 * 10
KINDS = {
    "score": "real",
    "person": "identifier",
    "income": "positive",
    "when": "datetime",
    "visits": "count",
    "answer": "ordinal",
    "change": "real",
    "ratio": "real",
}
WHOLE = ["visits", "answer", "change"]  # the dtype of "change" is an integer one

Array = NDArray[np.float64]
TableFit = tuple[pd.DataFrame, Fit]


def quick(pair: Pair, data: Any, method: HMC = SHORT) -> Fit:
    """A fit too short to trust, for what does not depend on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(pair, data, method, seed=1, compile=False)


def rounded(fit: Fit, frame: pd.DataFrame | None = None, **settings: int) -> Imputations:
    """Complete a table with whole numbers, of which one warning tells."""
    with pytest.warns(FitWarning, match="rounded into the observed range"):
        return impute(fit, frame, **settings)


def mixed_table(num_rows: int = 60) -> pd.DataFrame:
    """A column of each kind, several dtypes, holes in all of them, index labels that repeat."""
    rng = np.random.default_rng(0)
    common, noise = rng.normal(size=num_rows), rng.normal(size=(num_rows, 5))
    score = common + noise[:, 0]
    score[5] = -0.0
    frame = pd.DataFrame(
        {
            "score": score,
            "person": [f"person {number}" for number in range(num_rows)],
            "income": np.exp(8 + 2 * common + noise[:, 1]),
            "when": pd.date_range("2024-01-01", periods=num_rows),
            "visits": pd.array(rng.poisson(np.exp(2 + 0.3 * common)), dtype="Int64"),
            "answer": np.clip(np.rint(3 + common + noise[:, 2]), 1, 5),
            "change": pd.array(np.rint(20 * common + 5 * noise[:, 3]), dtype="Int16"),
            "ratio": pd.Series(common - noise[:, 4], dtype="float32"),
        }
    )
    holes = rng.random(frame.shape) < 0.15
    holes[4], holes[5] = [name not in ("person", "when") for name in frame], False
    return frame.mask(holes).set_axis(pd.Index(100 + np.arange(num_rows) % 40, name="house"), axis=0)


@pytest.fixture(scope="module")
def mixed() -> TableFit:
    """A table of all kinds, in which a row is all missing, and a fit to it."""
    frame = mixed_table()
    schema = infer_schema(frame)
    assert {column.name: column.kind for column in schema.columns} == KINDS
    assert frame[list(schema.names)].iloc[4].isna().all()
    return frame, quick(BayesianMVN(schema), frame)


@pytest.fixture(scope="module")
def large() -> tuple[pd.DataFrame, pd.DataFrame, Fit]:
    """500 normal rows of 4 columns, the same with a fifth of the cells hidden, and a fit to the latter."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 1)) + rng.normal(size=(500, 4)) * [0.5, 1.0, 1.5, 0.7]
    full = pd.DataFrame([3.0, 0.0, -0.3, 1.0] + rows * [10.0, 1.0, 0.1, 2.0], columns=["a", "b", "c", "d"])
    frame = full.mask(rng.random(full.shape) < 0.2)
    return full, frame, fit(BayesianMVN(infer_schema(frame)), frame, seed=2, compile=False)


@pytest.fixture(scope="module")
def small() -> TableFit:
    """12 rows of 2 columns, which leave much unknown about their distribution, and a fit to them."""
    rows = np.random.default_rng(3).normal(size=(12, 2)) @ np.array([[2.0, 1.0], [0.0, 1.5]])
    frame = pd.DataFrame(rows, columns=["a", "b"])
    frame.loc[0, "a"] = frame.loc[1, "b"] = np.nan
    return frame, quick(BayesianMVN(infer_schema(frame)), frame, HMC(16, 60, 80))


# What exact draws look like


def normal_sites(fit: Fit, num_draws: int) -> tuple[Array, Array]:
    """Return the draws of mean (S, D) and covariance (S, D, D) behind so many tables."""
    draws = fit.flat_samples(num_draws)
    return draws["mean"].numpy(), draws["covariance"].numpy()


def conditional(mean: Array, covariance: Array, row: Array) -> tuple[Array, Array]:
    """Return mean (S, m) and covariance (S, m, m) of the missing cells of `row (D,)`, for each draw."""
    seen, missing = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
    across = covariance[:, seen][:, :, missing]
    gain = np.linalg.solve(covariance[:, seen][:, :, seen], across).swapaxes(1, 2)
    shift = (gain @ (row[seen] - mean[:, seen])[..., None])[..., 0]
    return mean[:, missing] + shift, covariance[:, missing][:, :, missing] - gain @ across


def check_moments(drawn: Array, mean: Array, covariance: Array) -> None:
    """Check that `drawn (S, R, m)` are R rows from each of S normal distributions.

    With d the difference of a mean from their average, the product of two cells' differences from that
    average has mean C_ij + d_i d_j and variance C_ii C_jj + C_ij^2 + d_i^2 C_jj + d_j^2 C_ii +
    2 d_i d_j C_ij (Isserlis).  Five standard errors each.
    """
    assert drawn.shape[::2] == mean.shape
    count = len(mean) ** 2 * drawn.shape[1]
    d = mean - mean.mean(0)
    y = drawn - mean.mean(0)
    variance = np.einsum("sii->si", covariance)
    assert (np.abs(y.mean((0, 1))) < 5 * np.sqrt(variance.sum(0) / count)).all()
    products = d[:, :, None] * d[:, None, :]
    mixed = variance[:, :, None] * d[:, None, :] ** 2
    spread = variance[:, :, None] * variance[:, None, :] + covariance**2 + 2 * products * covariance
    error = np.sqrt((spread + mixed + mixed.swapaxes(1, 2)).sum(0) / count)
    found = np.einsum("sri,srj->ij", y, y) / (drawn.shape[0] * drawn.shape[1])
    assert (np.abs(found - (covariance + products).mean(0)) < 5 * error).all()


# Completed tables


def bits(series: pd.Series) -> list[Any]:
    """Return the cells so that equal ones are equal to the last bit, -0.0 and 0.0 being different."""
    if series.dtype.kind == "f":
        return series.to_numpy().view(f"int{8 * series.dtype.itemsize}").tolist()
    return series.astype(object).where(series.notna(), None).tolist()


def test_only_missing_cells_of_modelled_columns_change(mixed: TableFit) -> None:
    frame, result = mixed
    before = frame.copy(deep=True)
    frames = list(rounded(result, num_draws=7).frames)
    pd.testing.assert_frame_equal(frame, before, check_exact=True)
    assert len(frames) == 7
    for completed in frames:
        pd.testing.assert_index_equal(completed.index, frame.index, exact=True)
        pd.testing.assert_index_equal(completed.columns, frame.columns, exact=True)
        assert completed.dtypes.to_dict() == frame.dtypes.to_dict()
        for name in frame:
            seen = frame[name].notna().to_numpy()
            assert bits(completed[name][seen]) == bits(frame[name][seen])
            assert completed[name].isna().sum() == (0 if name in result.schema.names else (~seen).sum())
    for first, second in itertools.pairwise(frames):
        assert (first["score"] != second["score"]).sum() == frame["score"].isna().sum()


def test_whole_numbers_stay_whole_within_the_observed_range(mixed: TableFit) -> None:
    frame, result = mixed
    with pytest.warns(FitWarning) as warned:
        imputations = impute(result, num_draws=ALL_DRAWS)
    message = (
        r"Imputations of ['visits', 'answer', 'change'] are numbers rounded into the observed range. "
        "Read their tails with care."
    )
    assert [str(warning.message) for warning in warned] == [message]
    assert warned[0].filename == __file__
    for name in WHOLE:
        drawn = {float(x) for completed in imputations.frames for x in completed[name][frame[name].isna()]}
        assert all(x.is_integer() for x in drawn)
        assert frame[name].min() <= min(drawn) < max(drawn) <= frame[name].max()


def test_positive_columns_stay_positive(mixed: TableFit) -> None:
    _, result = mixed
    imputations = rounded(result, num_draws=20)
    assert all((completed["income"] > 0).all() for completed in imputations.frames)
    assert (imputations.mean["income"] > 0).all()
    lower, upper = imputations.interval(0.999)
    assert (lower["income"] > 0).all()
    assert (lower["income"] <= upper["income"]).all()


def test_one_seed_one_set_of_tables(mixed: TableFit) -> None:
    frame, result = mixed

    def tables(seed: int | None) -> pd.DataFrame:
        imputations = rounded(result, num_draws=3, **({} if seed is None else {"seed": seed}))
        pd.testing.assert_frame_equal(next(imputations.frames), next(imputations.frames))
        return pd.concat(imputations.frames)

    pd.testing.assert_frame_equal(tables(9), tables(9), check_exact=True)
    pd.testing.assert_frame_equal(tables(None), tables(result.seed), check_exact=True)
    changed = tables(9)["income"] != tables(10)["income"]
    assert changed.sum() == 3 * frame["income"].isna().sum()


def test_summaries_are_those_of_all_draws(mixed: TableFit) -> None:
    frame, result = mixed
    imputations = rounded(result, num_draws=ALL_DRAWS)
    names = list(result.schema.names)
    every = np.stack([completed[names].to_numpy(float) for completed in imputations.frames])
    holes = frame[names].isna().to_numpy()
    lower, upper = imputations.interval(0.8)
    expected = {
        "mean": (imputations.mean, every.mean(0)),
        "sd": (imputations.sd, np.where(holes, every.std(0, ddof=1), 0.0)),
        "lower": (lower, np.quantile(every, 0.1, axis=0)),
        "upper": (upper, np.quantile(every, 0.9, axis=0)),
    }
    for found, values in expected.values():
        assert found.columns.tolist() == names
        pd.testing.assert_index_equal(found.index, frame.index)
        np.testing.assert_allclose(found.to_numpy(), values, rtol=1e-12, atol=1e-12)
    few = rounded(result, num_draws=2)
    pd.testing.assert_frame_equal(few.mean, imputations.mean, check_exact=True)


def test_of_many_rows_the_cells_have_the_moments_of_the_normal_distribution(
    large: tuple[pd.DataFrame, pd.DataFrame, Fit],
) -> None:
    """500 rows settle the distribution: its mean and covariance alone say how a missing cell varies.

    Of 1,000 draws the mean errs by sd / sqrt(1,000), the sd by sd / sqrt(2,000), and the 5 % quantile by
    sd sqrt(.05 .95 / 1,000) / .103 = .067 sd.  Five of these for each of 400 cells; four of them for the
    averages over the cells, whose errors are 20 times smaller, and what is not known about the distribution,
    at most 4/500 of a variance.
    """
    _, frame, result = large
    mean, covariance = (site.mean(0, keepdims=True) for site in normal_sites(result, 9_600))
    centres, sds = np.zeros(frame.shape), np.ones(frame.shape)
    holes = frame.isna().to_numpy()
    for number, row in enumerate(frame.to_numpy()):
        centre, spread = conditional(mean, covariance, row)
        centres[number, holes[number]] = centre[0]
        sds[number, holes[number]] = np.sqrt(np.diagonal(spread[0]))
    imputations = impute(result)
    lower, upper = imputations.interval(0.9)

    def standardised(found: pd.DataFrame) -> Array:
        return ((found.to_numpy() - centres) / sds)[holes]

    # What the draw of rank 1 + 999 * .05 is on average.
    outermost = stats.norm.ppf(1 - (1 + 999 * 0.05) / 1_001)
    for found, expected, error in (
        (standardised(imputations.mean), 0.0, 1_000**-0.5),
        ((imputations.sd.to_numpy() / sds)[holes], 1.0, 2_000**-0.5),
        (standardised(lower), -outermost, 0.067),
        (standardised(upper), outermost, 0.067),
    ):
        assert np.abs(found - expected).max() < 5 * error + 0.01
        assert abs(found.mean() - expected) < 4 * error / 20 + 0.004 * abs(expected)
    away_from_the_mean = np.sign(centres - mean[0])[holes]
    assert abs((standardised(imputations.mean) * away_from_the_mean).mean()) < 0.01
    assert 350 < holes.sum() < 450


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_intervals_cover_hidden_cells(
    large: tuple[pd.DataFrame, pd.DataFrame, Fit], probability: float
) -> None:
    full, frame, result = large
    lower, upper = impute(result).interval(probability)
    hidden = frame.isna()
    covered = ((lower <= full) & (full <= upper))[hidden].sum().sum()
    error = (probability * (1 - probability) / hidden.sum().sum()) ** 0.5
    assert covered / hidden.sum().sum() == pytest.approx(probability, abs=4 * error)


def test_with_nothing_missing_the_tables_are_the_input(mixed: TableFit) -> None:
    frame, result = mixed
    complete = frame.dropna()
    imputations = impute(result, complete, num_draws=3)
    for completed in imputations.frames:
        pd.testing.assert_frame_equal(completed, complete, check_exact=True)
    numeric = complete[list(result.schema.names)].astype("float64")
    pd.testing.assert_frame_equal(imputations.mean, numeric, check_exact=True)
    for end in imputations.interval():
        pd.testing.assert_frame_equal(end, numeric, check_exact=True)
    assert (imputations.sd == 0).all(axis=None)


# New rows


@pytest.fixture
def no_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: HMC, problem: object) -> None:
        raise AssertionError("something is being fitted")

    monkeypatch.setattr(HMC, "run", run)


@pytest.mark.usefixtures("no_fitting")
@pytest.mark.parametrize("row", [(3.0, np.nan), (np.nan, -1.0), (np.nan, np.nan)])
def test_new_rows_are_drawn_from_what_was_learnt(small: TableFit, row: tuple[float, float]) -> None:
    """40 equal rows in each of 1,200 tables: the tables differ by what 12 rows leave unknown."""
    _, result = small
    new = pd.DataFrame([row] * 40, columns=["a", "b"])
    imputations = impute(result, new, num_draws=1_200)
    tables = np.stack([completed.to_numpy() for completed in imputations.frames])
    drawn = tables[:, :, np.isnan(row)]
    mean, covariance = conditional(*normal_sites(result, 1_200), np.array(row))
    check_moments(drawn, mean, covariance)
    check_moments(drawn.mean(1, keepdims=True), mean, covariance / 40)


@pytest.mark.usefixtures("no_fitting")
def test_new_rows_are_not_standardised_anew(large: tuple[pd.DataFrame, pd.DataFrame, Fit]) -> None:
    _, frame, result = large
    again = impute(result).mean.iloc[:7]
    new = impute(result, frame.iloc[:7], seed=11).mean
    sd = impute(result).sd.iloc[:7]
    holes = frame.iloc[:7].isna()
    assert holes.sum().sum() > 3
    # Two averages of 1,000 draws each, five standard errors of their difference.
    assert ((new - again).abs()[holes] <= 5 * sd * (2 / 1_000) ** 0.5).to_numpy()[holes].all()
    pd.testing.assert_frame_equal(new.where(~holes), again.where(~holes), check_exact=True)


def test_order_of_columns_and_further_columns_do_not_matter(mixed: TableFit) -> None:
    frame, result = mixed
    new = frame.iloc[:9]
    other = new.assign(extra=pd.Categorical([*"abcabcabc"])).iloc[:, ::-1]
    for one, two in zip(rounded(result, new).frames, rounded(result, other).frames, strict=True):
        assert two.columns.tolist() == other.columns.tolist()
        pd.testing.assert_series_equal(two["extra"], other["extra"])
        pd.testing.assert_frame_equal(two[one.columns], one, check_exact=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="ratio"), r"lacks column\(s\) \['ratio'\]"),
        (
            lambda frame: frame.rename(columns={"score": "Score"}),
            r"lacks column\(s\) \['score'\]: it has \['Sco",
        ),
        (lambda frame: frame[[]], "the table has no columns"),
        (
            lambda frame: frame.assign(score="high"),
            r"column 'score', row 100: text in a column of numbers: 'high'",
        ),
        (
            lambda frame: frame.assign(income=-1.0),
            r"column 'income', row 100: value that is not positive: -1.0",
        ),
        (lambda frame: frame.assign(ratio=np.inf), r"column 'ratio', row 100: infinite value: inf"),
    ],
)
def test_new_rows_that_do_not_fit_are_refused(
    mixed: TableFit, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    frame, result = mixed
    new = change(frame)
    before = new.copy(deep=True)
    for verb in (impute, predict):
        with pytest.raises(DataError, match=message):
            verb(result, new)
    pd.testing.assert_frame_equal(new, before, check_exact=True)


def test_what_happens_to_the_new_rows_later_does_not_matter(
    large: tuple[pd.DataFrame, pd.DataFrame, Fit],
) -> None:
    _, frame, result = large
    new = frame.iloc[:7].copy()
    imputations = impute(result, new)
    expected = next(imputations.frames)
    new.loc[:, :] = 0.0
    pd.testing.assert_frame_equal(next(imputations.frames), expected, check_exact=True)


def test_what_happens_to_the_table_after_the_fit_does_not_matter() -> None:
    frame = mixed_table()[["score", "ratio"]]
    result = quick(BayesianMVN(infer_schema(frame)), frame)
    expected = next(impute(result).frames)
    frame.loc[:, :] = 0.0
    pd.testing.assert_frame_equal(next(impute(result).frames), expected, check_exact=True)


# Pairs of users


@dataclass(frozen=True)
class UsersPair(Pair):
    """The same model as `BayesianMVN`, under other names, and what goes wrong with it."""

    columns: Schema
    observe: Callable[[Tensor, Tensor, Tensor, Tensor], None]

    @property
    def schema(self) -> Schema:
        return self.columns

    @property
    def guide(self) -> None:
        return None

    @property
    def model(self) -> Callable[..., None]:
        return self.program

    def program(self, x: Tensor, mask: Tensor) -> None:
        dim = x.shape[1]
        mu = pyro.sample("mu", dist.Normal(torch.zeros(dim), 1.0).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(torch.ones(dim)).to_event(1))
        factor = pyro.sample("factor", dist.LKJCholesky(dim, 1.0))
        with pyro.plate("data", len(x)):
            self.observe(mu, sigma[:, None] * factor, x, mask)


def through_row_distribution(mu: Tensor, factor: Tensor, x: Tensor, mask: Tensor) -> None:
    pyro.sample("cells", IncompleteMVN(mu, factor, mask), obs=x)


def as_if_complete(mu: Tensor, factor: Tensor, x: Tensor, mask: Tensor) -> None:
    pyro.sample("cells", dist.MultivariateNormal(mu, scale_tril=factor), obs=x)


def cell_by_cell(mu: Tensor, factor: Tensor, x: Tensor, mask: Tensor) -> None:
    pyro.sample("cells", dist.Normal(mu, factor.square().sum(1).sqrt()).mask(mask).to_event(1), obs=x)


def with_the_mask_observed(mu: Tensor, factor: Tensor, x: Tensor, mask: Tensor) -> None:
    through_row_distribution(mu, factor, x, mask)
    pyro.sample("seen", dist.Bernoulli(torch.sigmoid(mu)).to_event(1), obs=mask.to(x.dtype))


def test_a_users_pair_is_treated_like_ours() -> None:
    frame = mixed_table()[["when", "score", "income", "ratio"]]
    schema = infer_schema(frame)
    ours = quick(BayesianMVN(schema), frame)
    theirs = quick(UsersPair(schema, through_row_distribution), frame)
    assert torch.equal(theirs.samples["mu"], ours.samples["location"])
    for one, two in zip(impute(theirs).frames, impute(ours).frames, strict=True):
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    pd.testing.assert_frame_equal(predict(theirs, num_draws=3), predict(ours, num_draws=3), check_exact=True)
    new = frame.iloc[:7]
    pd.testing.assert_frame_equal(impute(theirs, new).mean, impute(ours, new).mean, check_exact=True)


def test_a_model_that_takes_missing_cells_for_observed_ones_cannot_complete() -> None:
    frame = mixed_table()[["score", "ratio"]]
    result = quick(UsersPair(infer_schema(frame), as_if_complete), frame)
    message = (
        r"columns \['score', 'ratio'\] have missing cells: the model does not say which cells are missing"
    )
    with pytest.raises(ModelError, match=message):
        impute(result)
    assert len(predict(result, num_draws=2)) == 2 * len(frame)
    complete = frame.dropna()
    pd.testing.assert_frame_equal(next(impute(result, complete).frames), complete, check_exact=True)


def test_a_model_that_masks_a_part_of_the_missing_cells_cannot_complete() -> None:
    frame = mixed_table()[["score", "ratio"]]
    result = quick(UsersPair(infer_schema(frame), cell_by_cell), frame)
    mask = result.data["mask"].clone()
    mask[torch.tensor(frame["ratio"].isna().to_numpy()).nonzero()[0], 1] = True
    wrong = replace(result, problem=replace(result.problem, data={**result.data, "mask": mask}))
    with pytest.raises(ModelError, match="column 'ratio', site 'cells': missing cells are observed: the mod"):
        impute(wrong)


def test_predictions_of_several_sites_are_no_table() -> None:
    frame = mixed_table()[["score", "ratio"]]
    result = quick(UsersPair(infer_schema(frame), with_the_mask_observed), frame)
    with pytest.raises(ModelError, match=r"observed sites \['cells', 'seen'\]: .* do not make one table"):
        predict(result)
    assert not next(impute(result).frames).isna().any(axis=None)


# Arguments


def test_a_fit_to_tensors_takes_tensors_and_returns_them(mixed: TableFit) -> None:
    frame, result = mixed
    entries = result.schema.encode(frame)
    to_tensors = quick(result.pair, entries)
    completed = impute(to_tensors, num_draws=3)
    assert list(completed) == ["x"]
    assert completed["x"].shape == (3, *entries["x"].shape)
    assert torch.equal(completed["x"][:, entries["mask"]], entries["x"][entries["mask"]].expand(3, -1))
    for no_table in (to_tensors, function_fit()):
        for verb in (impute, predict):
            with pytest.raises(DataError, match=r"the fit takes a dictionary .*: got DataFrame"):
                verb(no_table, frame)


@pytest.mark.parametrize("wrong", [{"x": torch.zeros(2, 6)}, np.zeros((2, 6)), torch.zeros(2, 6)])
def test_a_fit_to_a_table_takes_tables(mixed: TableFit, wrong: Any) -> None:
    for verb in (impute, predict):
        with pytest.raises(
            DataError, match=f"the fit takes a table: got {type(wrong).__name__}. pass a table"
        ):
            verb(mixed[1], wrong)


@pytest.mark.parametrize("num_draws", [0, -1])
def test_numbers_of_draws_must_be_positive(mixed: TableFit, num_draws: int) -> None:
    for verb in (impute, predict):
        with pytest.raises(ArgumentError, match=f"num_draws is too small: got {num_draws}. give at least 1"):
            verb(mixed[1], num_draws=num_draws)


@pytest.mark.parametrize("probability", [0.0, 1.0, 90, -0.5, float("nan")])
def test_probabilities_lie_between_0_and_1(mixed: TableFit, probability: float) -> None:
    with pytest.raises(ArgumentError, match=f"probability must lie between 0 and 1: got {probability}"):
        rounded(mixed[1]).interval(probability)


# Predicted tables


def test_predictions_are_a_table_for_each_draw(mixed: TableFit) -> None:
    frame, result = mixed
    names = list(result.schema.names)
    tables = predict(result, num_draws=3)
    expected = pd.MultiIndex.from_arrays(
        [np.repeat([0, 1, 2], len(frame)), np.tile(frame.index, 3)], names=["draw", "house"]
    )
    pd.testing.assert_index_equal(tables.index, expected)
    assert tables.dtypes.to_dict() == frame[names].dtypes.to_dict()
    assert not tables.isna().any(axis=None)
    assert (tables["income"] > 0).all()
    assert (tables[WHOLE] >= frame[WHOLE].min()).all(axis=None)
    assert (tables[WHOLE] <= frame[WHOLE].max()).all(axis=None)
    assert (tables["score"].to_numpy() != np.tile(frame["score"], 3)).all()
    pd.testing.assert_frame_equal(tables, predict(result, num_draws=3), check_exact=True)


def test_predictions_have_the_moments_of_the_normal_distribution(
    large: tuple[pd.DataFrame, pd.DataFrame, Fit],
) -> None:
    _, frame, result = large
    tables = predict(result, num_draws=100)
    drawn = tables.to_numpy().reshape(100, *frame.shape)
    check_moments(drawn, *normal_sites(result, 100))


def test_predictions_take_new_rows(mixed: TableFit) -> None:
    frame, result = mixed
    new = frame.iloc[:2].set_axis(["x", "y"])
    tables = predict(result, new, num_draws=4)
    assert tables.index.tolist() == [(draw, row) for draw in range(4) for row in "xy"]
