"""A table for a user's function: arguments by name, in the user's units, the same way for new rows."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.column import Column
from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.errors import DataError, FitWarning, ModelError
from pyrolatent.fit import fit
from pyrolatent.frames import arguments_from_frame, learn_columns, with_columns
from pyrolatent.impute import impute
from pyrolatent.infer.hmc import HMC
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.pair import FunctionPair, as_pair
from pyrolatent.predict import predict
from pyrolatent.result import Fit
from pyrolatent.schema import Schema, infer_schema
from pyrolatent.store import load, save

NAN = float("nan")


def survey() -> pd.DataFrame:
    """Every dtype that a user may hand over, with holes, and row labels that repeat."""
    frame = pd.DataFrame(
        {
            "year": [2001, 2002, 2003, 2004, 2005, 2006],  # an identifier, were it not asked for
            "income": [1.5, 20.0, NAN, 3.25, 0.5, 300.0],
            "share": pd.array([0.5, None, 0.25, 0.75, 0.125, 0.5], dtype="Float64"),
            "visits": pd.array([3, None, 0, 12, 3, 40], dtype="Int64"),
            "dose": [10, 20, 10, 10, 20, 20],
            "smoker": pd.array([True, None, False, True, True, False], dtype="boolean"),
            "treated": [True, False, True, True, False, True],
            "late": pd.Series([True, None, False, True, True, False], dtype="object"),
            "site": ["b", "a", None, "b", "c", "a"],
            "town": pd.Series(["b", "a", None, "b", "c", "a"], dtype="object"),
            "grade": pd.Categorical([*"xyxx", None, "y"], categories=["w", "x", "y"], ordered=True),
            "school": ["A", "B", "C", "D", "E", "F"],  # labels that all differ
            "constant": [7, 7, 7, 7, 7, 7],
            "when": pd.date_range("2024-01-01", periods=6),
        }
    )
    return frame.set_index(pd.Index([5, 5, 6, 7, 7, 8], name="household"))


def arguments(model: Any, frame: pd.DataFrame, new: pd.DataFrame | None = None) -> dict[str, Tensor]:
    """What a function fitted to `frame` gets of `new` rows, by default of those of the fit."""
    return arguments_from_frame(model, frame if new is None else new, learn_columns(model, frame))


def test_numbers_come_in_the_users_units_and_labels_as_codes() -> None:
    def model(year, income, income_mask, share, share_mask, visits, visits_mask, dose, constant): ...

    found = arguments(model, survey())
    assert {name: value.dtype for name, value in found.items()} == {
        name: torch.bool if name.endswith("_mask") else torch.float64 for name in found
    }
    assert found["year"].tolist() == [2001, 2002, 2003, 2004, 2005, 2006]
    assert found["income"].tolist() == [1.5, 20.0, 0.0, 3.25, 0.5, 300.0]
    assert found["income_mask"].tolist() == [True, True, False, True, True, True]
    assert found["share"].tolist() == [0.5, 0, 0.25, 0.75, 0.125, 0.5]
    assert found["visits"].tolist() == [3, 0, 0, 12, 3, 40]
    assert found["visits_mask"].tolist() == [True, False, True, True, True, True]
    assert found["dose"].tolist() == [10, 20, 10, 10, 20, 20]
    assert found["constant"].tolist() == [7] * 6


def test_truth_values_are_numbers() -> None:
    def model(smoker, smoker_mask, treated, late, late_mask): ...

    found = arguments(model, survey())
    assert found["smoker"].tolist() == found["late"].tolist() == [1, 0, 0, 1, 1, 0]
    assert found["treated"].tolist() == [1, 0, 1, 1, 0, 1]
    assert found["treated"].dtype == found["smoker"].dtype == found["late"].dtype == torch.float64


def test_labels_are_codes_that_can_be_an_index() -> None:
    def model(site, site_mask, town, town_mask, grade, grade_mask, school): ...

    found = arguments(model, survey())
    codes = [1, 0, 0, 1, 2, 0]
    assert found["site"].tolist() == found["town"].tolist() == codes
    assert found["grade"].tolist() == [1, 2, 1, 1, 0, 2]  # "w" is declared and has code 0
    assert found["school"].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.arange(3.0)[found["site"]].tolist() == codes
    assert found["site_mask"].tolist() == [True, True, False, True, True, True]


def test_the_matrix_holds_the_other_columns_encoded() -> None:
    def model(x, mask, visits, visits_mask): ...

    frame = survey()[["income", "visits", "site", "when"]]
    found = arguments(model, frame)
    rest = infer_schema(frame[["income", "site", "when"]])
    expected = rest.encode(frame)
    assert torch.equal(found["x"], expected["x"]) and torch.equal(found["mask"], expected["mask"])
    assert found["visits"].tolist() == [3, 0, 0, 12, 3, 40]
    schema = learn_columns(model, frame)
    assert (schema.names, schema.named) == (("income", "site"), ("visits", "visits_mask")[:1])


def test_only_columns_that_are_used_need_to_be_numbers() -> None:
    frame = survey().drop(columns="constant").assign(junk=[[1], "x", 2, None, {}, 3j], empty=None)
    assert arguments(lambda dose: None, frame)["dose"].tolist() == [10, 20, 10, 10, 20, 20]
    with pytest.raises(DataError, match=r"column 'junk': .*; refused as well: \['empty'\]"):
        arguments(lambda x, mask: None, frame)
    with pytest.raises(DataError, match=r"column 'empty': every cell is missing"):
        arguments(lambda empty, empty_mask: None, frame)


def test_defaults_stay_where_they_are_no_columns() -> None:
    def model(dose, prior_scale=2.0, income=None, income_mask=None, *, constant=0): ...

    assert list(arguments(model, survey())) == ["dose", "income", "income_mask", "constant"]


def test_any_argument_means_the_matrix() -> None:
    frame = survey()[["income", "visits"]]
    expected = infer_schema(frame).encode(frame)
    for model in (lambda **data: None, lambda x, mask: None, lambda *, mask, x: None):
        found = arguments(model, frame)
        assert found.keys() == {"x", "mask"} and torch.equal(found["x"], expected["x"])


def test_modules_and_partial_functions_are_functions() -> None:
    class Module(torch.nn.Module):
        def forward(self, dose, smoker, smoker_mask): ...

    assert list(arguments(Module(), survey())) == ["dose", "smoker", "smoker_mask"]


# New rows


def test_new_rows_are_encoded_as_those_of_the_fit() -> None:
    def model(x, mask, site, site_mask): ...

    frame = survey()[["income", "visits", "site"]]
    new = pd.DataFrame({"site": ["c", None], "visits": [0.0, 3.5], "extra": "?", "income": [20.0, None]})
    found = arguments(model, frame, new)
    assert found["site"].tolist() == [2, 0]
    logs = np.log(frame["income"].dropna())
    assert found["x"][0, 0] == pytest.approx((np.log(20) - logs.mean()) / logs.std(ddof=0), rel=1e-13)
    assert found["mask"].tolist() == [[True, True], [False, True]]


def test_an_unknown_category_is_refused_with_column_row_and_value() -> None:
    new = pd.DataFrame({"site": ["a", "oslo"]}, index=["u", "v"])
    with pytest.raises(
        DataError, match=r"column 'site', row 'v': unknown category: 'oslo': .* 'a', 'b', 'c'"
    ):
        arguments(lambda site, site_mask: None, survey(), new)


def test_text_among_numbers_is_refused_with_column_row_and_value() -> None:
    new = pd.DataFrame({"dose": [10, "much"]}, index=["u", "v"])
    with pytest.raises(DataError, match=r"column 'dose', row 'v': text in a column of numbers: 'much'"):
        arguments(lambda dose: None, survey(), new)


def test_two_numbers_are_no_categories() -> None:
    assert arguments(lambda dose: None, survey(), pd.DataFrame({"dose": [15]}))["dose"].tolist() == [15]


def test_new_rows_may_lack_what_has_a_default() -> None:
    def model(dose, treated=None): ...

    assert list(arguments(model, survey())) == ["dose", "treated"]
    assert list(arguments(model, survey(), survey()[["dose"]])) == ["dose"]
    with pytest.raises(DataError, match=r"the table lacks column\(s\) \['dose'\]: it has \['treated'\]"):
        arguments(model, survey(), survey()[["treated"]])


# What a function cannot be given


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            lambda income: None,
            DataError,
            r"column 'income': missing cells that the function knows nothing of: 1 of 6 cells are missing. "
            r"Take the argument income_mask, which is True where",
        ),
        (lambda site, smoker: None, DataError, r"'site': .*1 of 6 cells are missing, and 1 more columns"),
        (
            lambda x, dose: None,
            DataError,
            r"column 'income': .* 1 of 6 cells are missing, and 6 more columns. Take the argument mask",
        ),
        (
            lambda when: None,
            DataError,
            r"column 'when': a column of times cannot be an argument. Make numbers",
        ),
        (
            lambda dose, price: None,
            ModelError,
            r"arguments \['price'\]: arguments that are no columns: the columns are \['year', .*'when'\]\. "
            r"rename .* needs a default, or pass a dictionary of all arguments instead of a table",
        ),
        (lambda price_mask: None, ModelError, r"arguments \['price_mask'\]: the function takes none of"),
        (
            lambda scale=1.0: None,
            ModelError,
            r"arguments \['scale'\]: the function takes none of the columns",
        ),
    ],
)
def test_functions_that_the_table_does_not_fit(model: Any, error: type[Exception], message: str) -> None:
    frame = survey().drop(columns=["constant", "school", "late"])
    with pytest.raises(error, match=message):
        arguments(model, frame)


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (
            lambda x, y: None,
            "x",
            r"argument 'x': .* two meanings: it is the matrix of the other columns, and",
        ),
        (
            lambda x, mask: None,
            "mask",
            r"argument 'mask': .*: it is the mask of x, and the table has a column",
        ),
        (
            lambda y, y_mask: None,
            "y_mask",
            r"argument 'y_mask': .*: it is the mask of 'y', .*Rename the column",
        ),
    ],
)
def test_names_with_two_meanings_are_refused(model: Any, name: str, message: str) -> None:
    frame = pd.DataFrame({"y": [0.5, 1.5], name: [2.5, 3.5]})
    with pytest.raises(DataError, match=message):
        arguments(model, frame)


def test_a_column_called_like_the_mask_of_no_column_is_a_column() -> None:
    frame = pd.DataFrame({"y": [0.5, 1.5], "face_mask": [1, 0]})
    assert arguments(lambda y, face_mask: None, frame)["face_mask"].tolist() == [1, 0]


def test_nothing_left_for_the_matrix() -> None:
    with pytest.raises(DataError, match=r"no column is left for x: the function takes all by name. Leave x"):
        arguments(lambda x, y: None, pd.DataFrame({"y": [0.5, 1.5]}))


# Pairs and fits


def test_pairs_with_a_schema_of_their_own_stay_as_they_are() -> None:
    frame = survey()[["income", "visits"]]
    pair = BayesianMVN(infer_schema(frame), standardise=False)
    assert with_columns(pair, frame) is pair
    found, expected = arguments_from_frame(pair.model, frame, pair.schema), pair.schema.encode(frame)
    assert torch.equal(found["x"], expected["x"]) and torch.equal(found["mask"], expected["mask"])


def test_a_declared_schema_is_kept() -> None:
    def model(x, mask, visits, visits_mask): ...

    frame = survey()[["income", "share", "visits", "dose"]]
    declared = infer_schema(frame, kinds={"visits": "categorical", "dose": "skip", "income": "real"})
    pair = with_columns(as_pair(model, schema=declared), frame)
    assert isinstance(pair, FunctionPair)
    kinds = {column.name: column.kind for column in pair.schema.columns}
    assert kinds == {"visits": "categorical", "income": "real", "share": "real", "dose": "skip"}
    assert pair.schema.names == ("income", "share")
    found = arguments_from_frame(model, frame, pair.schema)
    assert (found["visits"].tolist(), found["visits"].dtype) == ([1, 0, 0, 2, 1, 3], torch.int64)
    assert with_columns(pair, frame) == pair


def test_arguments_as_columns_decode_to_the_table() -> None:
    """What a completed cell becomes: the table's dtype and units, whatever the schema encodes for x."""

    def model(income, income_mask, visits, visits_mask, dose, smoker, smoker_mask, grade, grade_mask): ...

    frame = survey()
    found = arguments(model, frame)
    for column in learn_columns(model, frame).arguments:
        assert isinstance(column, Column)
        name = str(column.name)
        decoded = column.decode(found[name].double().numpy(), frame.index)
        seen = frame[name].notna()
        assert decoded.dtype == frame[name].dtype
        assert decoded[seen].tolist() == frame[name][seen].tolist()


def test_schemas_keep_what_is_named_in_json() -> None:
    schema = learn_columns(lambda x, mask, dose: None, survey().drop(columns="constant"))
    assert schema.named == ("dose",)
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.unscaled().named == ("dose",)


ROWS = 60
SHORT = HMC(num_chains=16, num_warmup=60, num_draws=100)


def trial() -> pd.DataFrame:
    """Two arms and an outcome of which a third is missing."""
    rng = np.random.default_rng(0)
    arm = rng.choice(["new", "old"], ROWS)
    outcome = np.where(arm == "new", 30.0, 20.0) + rng.normal(size=ROWS)
    outcome[rng.random(ROWS) < 0.3] = NAN
    return pd.DataFrame({"arm": arm, "outcome": outcome}, index=rng.integers(0, 9, ROWS))


def arms(arm: Tensor, outcome: Tensor | None = None, outcome_mask: Tensor | bool = True) -> None:
    with pyro.plate("arms", 2):
        effect = pyro.sample("effect", dist.Normal(25.0, 10.0))
    with pyro.plate("data", len(arm)):
        pyro.sample("outcome", dist.Normal(effect[arm], 1.0).mask(outcome_mask), obs=outcome)


def test_a_function_is_fitted_to_a_table_and_predicts_new_rows() -> None:
    """Conjugate: each effect has precision 1/100 + n, n being the observed outcomes of its arm."""
    frame = trial()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = fit(arms, frame, SHORT, seed=0, compile=False)
    observed = frame.dropna().groupby("arm")["outcome"]
    precision = (0.01 + observed.count()).to_numpy()
    mean = (0.25 + observed.sum().to_numpy()) / precision
    draws = result.samples["effect"].flatten(0, 1)
    error = 1 / np.sqrt(precision) / np.sqrt(result.diagnostics["effect"]["ess"].numpy())
    assert (np.abs(draws.mean(0).numpy() - mean) < 4 * error).all()  # Monte Carlo standard errors
    new = pd.DataFrame({"arm": ["old", "new", "old"]})
    predicted = predict(result, new)
    assert isinstance(predicted, dict) and predicted["outcome"].shape[1:] == (3,)
    assert np.abs(predicted["outcome"].mean(0).numpy() - mean[[1, 0, 1]]).max() < 0.3
    with pytest.raises(DataError, match=r"column 'arm', row 0: unknown category: 'placebo'"):
        predict(result, pd.DataFrame({"arm": ["placebo"]}))


def quick(model: Any, frame: pd.DataFrame) -> Fit:
    """A fit too short to trust: what is tested holds at each of its draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(model, frame, HMC(num_chains=4, num_warmup=20, num_draws=10), seed=0, compile=False)


def test_a_table_is_completed_by_a_function_that_masks() -> None:
    frame = trial()
    result = quick(arms, frame)
    tables = list(impute(result, num_draws=40).frames)
    holes = frame["outcome"].isna().to_numpy()
    drawn = np.stack([table["outcome"][holes] for table in tables])
    arm = (frame["arm"][holes] == "old").to_numpy().astype(int)
    effect = result.samples["effect"].flatten(0, 1).numpy()
    z = (drawn - effect[:, arm]).ravel()  # standard normal given the draw of the effects
    assert abs(z.mean()) < 5 / z.size**0.5 and abs((z**2).mean() - 1) < 5 * (2 / z.size) ** 0.5
    for table in tables:
        pd.testing.assert_frame_equal(table[~holes], frame[~holes])
        pd.testing.assert_index_equal(table.index, frame.index)
    new = pd.DataFrame({"arm": ["old", "new"], "outcome": [NAN, 3.0]})
    assert next(impute(result, new, num_draws=1).frames)["outcome"].iloc[1] == 3.0


def test_a_saved_fit_of_a_function_knows_its_columns(tmp_path: Path) -> None:
    result = quick(arms, trial())
    save(result, tmp_path / "run")
    loaded = load(tmp_path / "run", model=arms)
    assert loaded.schema == result.schema
    new = pd.DataFrame({"arm": ["old", "new"], "outcome": [NAN, 3.0]})
    first, second = (next(impute(fit, new, num_draws=1).frames) for fit in (result, loaded))
    pd.testing.assert_frame_equal(first, second)


def mixed(x: Tensor, mask: Tensor) -> None:
    """Standardised heights, 0/1 smokers and sites, all independent; counts that no noise completes."""
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    columns = {
        "height": dist.Normal(centre, 1.0),
        "smoker": dist.Bernoulli(0.25),
        "site": dist.Categorical(torch.tensor([0.2, 0.3, 0.5])),
        "visits": dist.Poisson(40.0),
    }
    with pyro.plate("data", len(x)):
        pyro.sample("x", ColumnwiseDistribution(columns, mask), obs=x)


def mixed_table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "height": rng.normal(170, 9, 80),
            "smoker": pd.array(rng.random(80) < 0.25, dtype="boolean"),
            "site": rng.choice([*"abc"], 80),
            "visits": pd.array(rng.poisson(40, 80), dtype="Int64"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.3)


def test_a_table_of_mixed_columns_is_completed_by_their_distributions() -> None:
    frame = mixed_table()
    schema = infer_schema(frame, standardise=False)
    result = quick(as_pair(mixed, schema=schema), frame)
    imputations = impute(result, num_draws=40)
    tables = list(imputations.frames)
    assert all(table.dtypes.to_dict() == frame.dtypes.to_dict() for table in tables)
    for name, mean, variance in (("visits", 40.0, 40.0), ("smoker", 0.25, 0.25 * 0.75)):
        drawn = np.concatenate([table[name][frame[name].isna()].astype(float) for table in tables])
        assert abs(drawn.mean() - mean) < 5 * np.sqrt(variance / len(drawn))
    shares = imputations.probabilities("site").mean()
    count = 40 * int(frame["site"].isna().sum())
    expected = np.array([0.2, 0.3, 0.5])
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / count)).all()
