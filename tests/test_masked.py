"""Models of users: what a site masks is drawn from its own distribution, at each posterior draw."""

import functools
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
from torch import Tensor

from pyrolatent import HMC, Fit, FitWarning, ModelError, Pair, Schema, fit, impute, infer_schema
from pyrolatent.cells import cell_table
from pyrolatent.distributions import IncompleteMVN
from pyrolatent.draws import posterior_draws
from pyrolatent.imputations import Imputations
from pyrolatent.impute import has_one_network
from pyrolatent.pair import as_pair
from tests.small_fits import function_fit

SHORT = HMC(num_chains=4, num_warmup=20, num_draws=10)
REPEATS = 16  # of each of these draws
DRAWS = 4 * 10 * REPEATS
ROWS = 30


def quick(model: Any, data: Any) -> Fit:
    """A fit too short to trust, whose draws are there several times: what is tested holds at each of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = fit(model, data, SHORT, seed=1, compile=False)
    return replace(result, samples={n: torch.cat([v] * REPEATS, dim=1) for n, v in result.samples.items()})


# Fits to tensors, with masks of every kind

X = torch.linspace(-1, 1, ROWS, dtype=torch.float64)
SEEN = torch.arange(ROWS) % 3 != 0
CELLS = torch.stack([SEEN, ~SEEN | (X > 0)], -1)


def line(centre: Tensor) -> Tensor:
    """The locations of one column `(..., 30)`."""
    return centre + X


def lines(centre: Tensor) -> Tensor:
    """The locations of two columns `(..., 30, 2)`."""
    return torch.stack([centre + X, centre - X], -1)


def level(centre: Tensor) -> Tensor:
    """Two columns whose rows have one location `(..., 30, 2)`."""
    return torch.stack([centre + 0 * X, centre + 0 * X], -1)


def own_mask(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    pyro.sample("y", dist.Normal(line(centre), spread).mask(SEEN), obs=value)


def mask_of_a_handler(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    with pyro.poutine.mask(mask=SEEN):
        pyro.sample("y", dist.Normal(line(centre), spread), obs=value)


def two_masks(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    with pyro.poutine.mask(mask=SEEN | (X < 0)):
        pyro.sample("y", dist.Normal(line(centre), spread).mask(SEEN | (X >= 0)), obs=value)


def masked_cells(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    pyro.sample("y", dist.Normal(lines(centre), spread).mask(CELLS).to_event(1), obs=value)


def masked_cells_and_rows(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    cells = dist.Normal(lines(centre), spread).mask(CELLS | ~SEEN[:, None]).to_event(1)
    pyro.sample("y", cells.mask(CELLS[:, 0]), obs=value)


def masked_rows(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    pyro.sample("y", dist.Normal(lines(centre), spread).to_event(1).mask(SEEN), obs=value)


def masked_normal_rows(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    covariance = spread**2 * torch.eye(2)
    with pyro.poutine.mask(mask=SEEN):
        pyro.sample("y", dist.MultivariateNormal(lines(centre), covariance), obs=value)


def rows_with_holes(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    pyro.sample("y", IncompleteMVN(centre.expand(2), spread * torch.eye(2), CELLS), obs=value)


def rows_with_holes_behind_a_mask(centre: Tensor, spread: Tensor, value: Tensor) -> None:
    """A row whose density does not count is known where it was observed all the same."""
    rows = IncompleteMVN(centre.expand(2), spread * torch.eye(2), CELLS)
    pyro.sample("y", rows.mask(X < 0.5), obs=value)


MASKS = [
    (own_mask, SEEN, line),
    (mask_of_a_handler, SEEN, line),
    (two_masks, SEEN, line),
    (masked_cells, CELLS, lines),
    (masked_cells_and_rows, SEEN[:, None] & CELLS, lines),
    (masked_rows, torch.stack([SEEN, SEEN], -1), lines),
    (masked_normal_rows, torch.stack([SEEN, SEEN], -1), lines),
    (rows_with_holes, CELLS, level),
    (rows_with_holes_behind_a_mask, CELLS, level),
]


def observing(observe: Callable[..., None]) -> Callable[[Tensor], None]:
    def model(value: Tensor) -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 5.0))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("data", len(value)):
            observe(centre, spread, value)

    return model


@functools.cache
def located() -> Fit:
    """A fit whose draws of centre and spread serve all these models."""
    # Off the line: on it the density would grow without end as spread shrinks, and have no posterior.
    value = 2.0 + X + 0.1 * torch.sin(40 * X)
    return quick(observing(own_mask), {"value": torch.where(SEEN, value, 0.0)})


def as_if(model: Any, **data: Any) -> Fit:
    """Return that fit as if it were one of this model to these data."""
    return replace(located(), problem=replace(located().problem, pair=as_pair(model), data=data))


@pytest.mark.parametrize(
    ("observe", "seen", "location"), MASKS, ids=lambda case: getattr(case, "__name__", "")
)
def test_missing_entries_come_from_the_masked_distribution(
    observe: Callable[..., None], seen: Tensor, location: Callable[[Tensor], Tensor]
) -> None:
    """Given its draw, each missing entry is normal: mean, variance and fourth moment to 5 standard errors."""
    value = torch.where(seen, 2.0 + location(torch.zeros(()).double()), 0.0)
    result = as_if(observing(observe), value=value)
    before = torch.random.get_rng_state()
    completed = impute(result, num_draws=DRAWS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(completed) == ["y"]
    assert completed["y"].shape == (DRAWS, *value.shape)
    assert torch.equal(completed["y"][:, seen], value[seen].expand(DRAWS, -1))
    draws = result.flat_samples()
    centre, spread = (draws[name].reshape(-1, 1) for name in ("centre", "spread"))
    z = ((completed["y"] - location(centre)).flatten(1) / spread)[:, ~seen.flatten()]
    count = z.numel()
    assert len(z.unique()) > 0.999 * count  # no batch of draws repeats another
    assert abs(z.mean()) < 5 / count**0.5
    assert abs(z.square().mean() - 1) < 5 * (2 / count) ** 0.5
    assert abs(z.pow(4).mean() - 3) < 5 * (96 / count) ** 0.5
    correlation = torch.corrcoef(z.T).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / DRAWS**0.5


def test_one_seed_one_completion() -> None:
    first, again, other = (impute(located(), seed=seed)["y"] for seed in (None, located().seed, 7))
    assert torch.equal(first, again)
    assert (first != other).sum() == 20 * (~SEEN).sum()


def test_new_tensors_are_completed_with_the_fit_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(x: Tensor, y: Tensor, seen: Tensor) -> None:
        slope = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(slope * x, 0.1).mask(seen), obs=y)

    result = as_if(model, x=X, y=3 * X, seen=SEEN)
    monkeypatch.setattr(HMC, "run", None)
    new = {"x": torch.tensor([2.0, -2.0]), "y": torch.zeros(2), "seen": torch.tensor([False, True])}
    completed = impute(result, new, num_draws=DRAWS)["y"]
    residual = completed[:, 0] - 2 * result.flat_samples()["centre"]
    assert residual.std() == pytest.approx(0.1, rel=5 * (2 * DRAWS) ** -0.5)
    assert (completed[:, 1] == 0).all()


def test_several_sites_are_completed_together() -> None:
    """Counts and yes or no: shares of the draws equal their mean probabilities to 5 standard errors."""

    def model(count: Tensor, yes: Tensor, plain: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("data", ROWS):
            pyro.sample("count", dist.Poisson(rate).mask(SEEN), obs=count)
            pyro.sample("yes", dist.Bernoulli(p).mask(~SEEN), obs=yes)
            pyro.sample("plain", dist.Normal(rate, 1.0), obs=plain)

    count, yes = torch.arange(ROWS) % 5, torch.arange(ROWS) % 2
    result = quick(model, {"count": count, "yes": yes.double(), "plain": X})
    completed, draws = impute(result, num_draws=DRAWS), result.flat_samples()
    assert list(completed) == ["count", "yes"]
    zero = (completed["count"][:, ~SEEN] == 0).double().mean()
    chance = draws["rate"].neg().exp()
    error = (chance * (1 - chance)).mean().div(DRAWS * (~SEEN).sum()).sqrt()
    assert abs(zero - chance.mean()) < 5 * error
    ones = completed["yes"][:, SEEN].mean()
    error = (draws["p"] * (1 - draws["p"])).mean().div(DRAWS * SEEN.sum()).sqrt()
    assert abs(ones - draws["p"].mean()) < 5 * error
    assert torch.equal(completed["count"][:, SEEN], count[SEEN].expand(DRAWS, -1))


def test_a_model_that_masks_nothing_cannot_complete() -> None:
    message = (
        r"observed sites without a mask: \['y'\]: the model does not say which cells are missing\. "
        r"observe through distribution\.mask\(mask\), poutine\.mask or a RowDistribution"
    )
    with pytest.raises(ModelError, match=message):
        impute(function_fit())


def test_new_rows_have_no_latents_of_their_own() -> None:
    def model(y: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0).mask(seen), obs=y)

    data = {"y": X, "seen": SEEN}
    result = quick(model, data)
    completed, z = impute(result, num_draws=DRAWS)["y"], result.flat_samples()["z"]
    residual = (completed - z)[:, ~SEEN]
    assert residual.std() == pytest.approx(1, rel=5 * (2 * residual.numel()) ** -0.5)
    with pytest.raises(ModelError, match=r"sites \['z'\]: the model has latents of each row, and new rows"):
        impute(result, data)


# Draws, refit by refit


def test_draws_go_with_the_parameters_of_their_refit() -> None:
    result = located()
    refits = {"parameters": torch.zeros(4, 2)}
    learnt = replace(result, samples={n: v.reshape(4, -1) for n, v in result.samples.items()}, state=refits)
    for number in (1, 3, 10, DRAWS, 2 * DRAWS):
        one = list(posterior_draws(learnt, number, seed=0))
        assert [(draws.refit, draws.count) for draws in one] == [(0, min(number, DRAWS))]
        parts = list(posterior_draws(replace(learnt, parameters=object()), number, seed=0))
        assert [draws.refit for draws in parts] == [0, 1, 2, 3]
        assert [draws.count for draws in parts] == [len(draws.values["centre"]) for draws in parts]
        for name, values in one[0].values.items():
            assert torch.equal(torch.cat([draws.values[name] for draws in parts]), values)
        for draws in parts:
            assert torch.isin(draws.values["centre"], learnt.samples["centre"][draws.refit]).all()


def test_latents_without_draws_are_not_drawn_from_the_prior() -> None:
    result = located()
    lacking = replace(result, samples={"spread": result.samples["spread"]})
    with pytest.raises(ModelError, match=r"sites \['centre'\]: the fit holds no draws of some latents"):
        impute(lacking)


def test_one_network_is_one_point_estimate_of_the_model() -> None:
    result = located()
    learnt = replace(result, sites=replace(result.sites, parameters=("decoder$$$weight",)))
    one, five = ({"parameters": torch.zeros(number, 3)} for number in (1, 5))
    assert not has_one_network(result)
    assert has_one_network(replace(learnt, state=one))
    assert not has_one_network(replace(learnt, state=five))
    assert not has_one_network(replace(result, state=one))


# Tables with columns of all kinds


def labelled_table() -> pd.DataFrame:
    """A number, two kinds of labels, levels and a count, with holes in all of them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "weight": rng.normal(70, 10, 80),
            "smokes": pd.array(rng.random(80) < 0.3, dtype="boolean"),
            "site": pd.Categorical(rng.choice(["Oslo", "Bergen", "Moss"], 80), ["Oslo", "Bergen", "Moss"]),
            "answer": rng.integers(1, 5, 80).astype(float),
            "visits": pd.array(rng.poisson(15, 80), dtype="Int64"),
            "note": [f"note {i}" for i in range(80)],
        },
        index=pd.Index(np.arange(80) // 2, name="house"),
    )
    holes = rng.random(frame.shape) < 0.2
    holes[:, -1] = False
    return frame.mask(holes)


@dataclass(frozen=True)
class TablePair(Pair):
    """A user's model of the columns of a table, one site for each."""

    columns: Schema

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
        weight, smokes, site, answer, visits = range(5)
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        probs = pyro.sample("probs", dist.Dirichlet(torch.ones(3)))
        numbers = [weight, answer, visits]
        with pyro.plate("data", len(x)):
            pyro.sample("smokes", dist.Bernoulli(p).mask(mask[:, smokes]), obs=x[:, smokes])
            cells = dist.Normal(mu, 1.0).expand([len(x), 3]).mask(mask[:, numbers]).to_event(1)
            pyro.sample("numbers", cells, obs=x[:, numbers])
            pyro.sample("site", dist.Categorical(probs).mask(mask[:, site]), obs=x[:, site])


@pytest.fixture(scope="module")
def labelled() -> tuple[pd.DataFrame, Fit, Imputations]:
    frame = labelled_table()
    schema = infer_schema(frame)
    kinds = ["real", "binary", "categorical", "ordinal", "count", "identifier"]
    assert [column.kind for column in schema.columns] == kinds
    result = quick(TablePair(schema), frame)
    with pytest.warns(FitWarning, match=r"Imputations of \['answer', 'visits'\] are numbers rounded"):
        return frame, result, impute(result, num_draws=DRAWS)


def test_columns_are_found_by_their_values(labelled: tuple[pd.DataFrame, Fit, Imputations]) -> None:
    frame, result, imputations = labelled
    names = ["weight", "smokes", "site", "answer", "visits"]
    completed = list(imputations.frames)
    for table in completed[:5]:
        assert not table.isna().any(axis=None)
        assert table.dtypes.to_dict() == frame.dtypes.to_dict()
        for name in names:
            seen = frame[name].notna()
            pd.testing.assert_series_equal(table[name][seen], frame[name][seen])
    column = imputations.schema.modelled[0]
    mu = result.flat_samples()["mu"][:, 0].numpy()
    drawn = np.stack([table["weight"][frame["weight"].isna()] for table in completed])
    z = (drawn - column.location) / column.scale - mu[:, None]
    assert abs(z.mean()) < 5 * z.size**-0.5
    assert abs(z.std() - 1) < 5 * (2 * z.size) ** -0.5


def test_probabilities_are_shares_of_the_draws(labelled: tuple[pd.DataFrame, Fit, Imputations]) -> None:
    """Those of the model are known at each draw: every cell to 5 standard errors of its share."""
    frame, result, imputations = labelled
    draws = result.flat_samples()
    p = draws["p"].mean()
    expected = {"smokes": torch.stack([1 - p, p]), "site": draws["probs"].mean(0)}
    for name, labels in (("smokes", [False, True]), ("site", ["Oslo", "Bergen", "Moss"])):
        shares = imputations.probabilities(name)
        pd.testing.assert_index_equal(shares.index, frame.index[frame[name].isna()])
        assert shares.columns.tolist() == labels
        assert shares.columns.name == name
        np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
        error = (expected[name] * (1 - expected[name]) / DRAWS).sqrt()
        assert (np.abs(shares - expected[name].numpy()) < 5 * error.numpy()).all(axis=None)
        tables = [table[name][frame[name].isna()] for table in imputations.frames]
        for label in labels:
            found = np.mean([(table == label).to_numpy(bool) for table in tables], axis=0)
            np.testing.assert_allclose(shares[label], found, rtol=1e-12)
    answers = imputations.probabilities("answer")
    assert answers.columns.tolist() == [1, 2, 3, 4]
    means = answers.to_numpy() @ np.arange(1, 5)
    np.testing.assert_allclose(means, imputations.mean["answer"][frame["answer"].isna()], rtol=1e-12)


@pytest.mark.parametrize("column", ["weight", "visits", "note", "height"])
def test_numbers_have_no_probabilities(labelled: tuple[pd.DataFrame, Fit, Imputations], column: str) -> None:
    message = rf"column '{column}': no probabilities .* are \['smokes', 'site', 'answer'\]"
    with pytest.raises(Exception, match=message):
        labelled[2].probabilities(column)


def test_summaries_leave_labels_out(labelled: tuple[pd.DataFrame, Fit, Imputations]) -> None:
    frame, _, imputations = labelled
    summaries = (imputations.mean, imputations.sd, *imputations.interval(0.5))
    for summary in summaries:
        assert summary.columns.tolist() == ["weight", "answer", "visits"]
        pd.testing.assert_index_equal(summary.index, frame.index)
        assert not summary.isna().any(axis=None)


def test_cells_of_labels_are_listed_with_the_likeliest(
    labelled: tuple[pd.DataFrame, Fit, Imputations],
) -> None:
    frame, _, imputations = labelled
    cells = cell_table(imputations, truth=labelled_table().ffill().bfill())
    assert len(cells) == frame.drop(columns="note").isna().to_numpy().sum()
    is_label = cells["column"].isin(["smokes", "site"])
    for name in ("smokes", "site"):
        shares = imputations.probabilities(name)
        some = cells[cells["column"] == name]
        assert some["row"].tolist() == shares.index.tolist()
        assert some["label"].tolist() == shares.idxmax(axis=1).tolist()
        np.testing.assert_array_equal(some["share"], shares.max(axis=1))
    numbers = ["mean", "sd", "lower", "upper", "truth"]
    assert cells.loc[is_label, numbers].isna().all(axis=None)
    assert not cells.loc[~is_label, numbers].isna().any(axis=None)
    assert cells.loc[~is_label, ["label", "share"]].isna().all(axis=None)


def test_a_pooled_share_of_labels(labelled: tuple[pd.DataFrame, Fit, Imputations]) -> None:
    _, _, imputations = labelled

    def shares(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        share = frame["site"].value_counts(normalize=True, sort=False)
        return share, share * (1 - share) / len(frame)

    pooled = imputations.pool(shares, df_complete=79)
    assert pooled.index.tolist() == ["Oslo", "Bergen", "Moss"]
    assert pooled["estimate"].sum() == pytest.approx(1)
    assert ((pooled["fmi"] > 0.05) & (pooled["fmi"] < 0.6)).all()


def test_columns_that_the_model_does_not_observe_stay_incomplete(
    labelled: tuple[pd.DataFrame, Fit, Imputations],
) -> None:
    frame, result, _ = labelled

    @dataclass(frozen=True)
    class Part(TablePair):
        def program(self, x: Tensor, mask: Tensor) -> None:
            mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("weight", dist.Normal(mu[0], 1.0).mask(mask[:, 0]), obs=x[:, 0])

    complete = frame.assign(visits=frame["visits"].fillna(3))
    part = replace(result, problem=replace(result.problem, pair=Part(result.schema)))
    with pytest.warns(FitWarning, match=r"\['smokes', 'site', 'answer'\] stay incomplete: .* behind a mask"):
        imputations = impute(part, complete)
    assert imputations.schema.names == ("weight", "visits")
    table = next(imputations.frames)
    assert not table["weight"].isna().any()
    pd.testing.assert_frame_equal(table.drop(columns="weight"), complete.drop(columns="weight"))
    assert imputations.mean.columns.tolist() == ["weight", "visits"]


# Tables whose columns the model takes by name, in their units


def named_columns() -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Incomes, small counts and labels with holes, and the entries of the data that hold them."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "income": np.exp(rng.normal(3.0, 0.5, 60)),
            "visits": pd.array(rng.poisson(30, 60) % 25 + 5, dtype="Int64"),
            "group": rng.choice(["a", "b", "c"], 60),
        }
    )
    frame = frame.mask(rng.random(frame.shape) < 0.3)
    codes = frame["group"].map({"a": 0.0, "b": 1.0, "c": 2.0})
    columns = {"income": frame["income"], "visits": frame["visits"], "group": codes}
    values = {
        name: torch.tensor(column.astype(float).fillna(0.0).to_numpy()) for name, column in columns.items()
    }
    masks = {f"{name}_mask": torch.tensor(frame[name].notna().to_numpy()) for name in columns}
    return frame, values | masks


def by_name(
    income: Tensor,
    income_mask: Tensor,
    visits: Tensor,
    visits_mask: Tensor,
    group: Tensor,
    group_mask: Tensor,
) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(income)):
        pyro.sample("income", dist.LogNormal(3 + 0 * centre, 0.5).mask(income_mask), obs=income)
        pyro.sample("visits", dist.Poisson(90 + 0 * centre).mask(visits_mask), obs=visits)
        pyro.sample("group", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])).mask(group_mask), obs=group)


def test_columns_in_their_units_come_back_as_they_are_drawn() -> None:
    """Incomes are no logs, and counts of a discrete distribution exceed the observed ones, without a word."""
    frame, data = named_columns()

    @dataclass(frozen=True)
    class Named(TablePair):
        @property
        def model(self) -> Callable[..., None]:
            return by_name

    schema = replace(infer_schema(frame), named=("income", "visits", "group"))
    assert [column.kind for column in schema.columns] == ["positive", "count", "categorical"]
    tensors = as_if(by_name, **data)
    table = replace(tensors, problem=replace(tensors.problem, pair=Named(schema), frame=frame))
    imputations = impute(table, num_draws=DRAWS)
    completed, drawn = list(imputations.frames), impute(tensors, num_draws=DRAWS)
    for name, missing in ((name, frame[name].isna().to_numpy()) for name in ("income", "visits")):
        expected = drawn[name][:, torch.tensor(missing)]
        found = np.stack([table[name][missing].astype(float) for table in completed])
        np.testing.assert_array_equal(found, expected.numpy())
        np.testing.assert_allclose(imputations.mean[name][missing], expected.mean(0), rtol=1e-12)
    assert drawn["visits"][:, torch.tensor(frame["visits"].isna())].min() > frame["visits"].max()
    shares = imputations.probabilities("group")
    probabilities = np.array([0.2, 0.3, 0.5])
    error = np.sqrt(probabilities * (1 - probabilities) / DRAWS)
    assert (np.abs(shares - probabilities) < 5 * error).all(axis=None)


def test_columns_with_equal_values_are_both_completed() -> None:
    @dataclass(frozen=True)
    class Cells(TablePair):
        def program(self, x: Tensor, mask: Tensor) -> None:
            centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(centre, 1.0).expand(x.shape).mask(mask).to_event(1), obs=x)

    number = pd.Series(np.random.default_rng(0).normal(size=20)).mask(np.arange(20) % 4 == 0)
    frame = pd.DataFrame({"one": number, "same": number})
    pair = Cells(infer_schema(frame))
    tensors = as_if(pair, **pair.schema.encode(frame))
    table = next(impute(replace(tensors, problem=replace(tensors.problem, frame=frame))).frames)
    assert not table.isna().any(axis=None)
    assert (table["one"] != table["same"]).sum() == number.isna().sum()
