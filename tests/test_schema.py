import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, stats

from pyrolatent import links
from pyrolatent.column import Column
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.schema import Schema, infer_schema

LABELS = ["low", "mid", "high", "top"]
SHARES = np.array([0.03, 0.11, 0.2, 0.35, 0.48, 0.5, 0.61, 0.7, 0.82, 0.9, 0.97])
ENDS = np.array([0.0, 0.0, 1.0, *SHARES])


def table(num_rows: int = 40, seed: int = 0) -> pd.DataFrame:
    """A table with holes in every modelled column, one per dtype and kind, and an odd index."""
    rng = np.random.default_rng(seed)
    n = num_rows
    real, whole = rng.normal(size=n), rng.integers(0, 90, n)
    real[1] = -0.0
    likert, flags = rng.integers(1, 6, n), rng.random(n) < 0.5
    texts = pd.Series(rng.choice(LABELS, n))
    frame = pd.DataFrame(
        {
            "float64": real,
            "float32": pd.Series(real, dtype="float32"),
            "Float64": pd.Series(real, dtype="Float64"),
            "share": np.where(flags & (likert == 1), 1.0, 1 / (1 + np.exp(-3 * real))),
            "positive32": pd.Series(np.exp(2 * real), dtype="float32"),
            "whole floats": whole.astype(float),
            "Int64": pd.Series(whole, dtype="Int64"),
            "Int32": pd.Series(likert, dtype="Int32"),
            "Int8": pd.Series(whole - 45, dtype="Int8"),
            "object ints": pd.Series(whole, dtype="object"),
            "boolean": pd.Series(flags, dtype="boolean"),
            "object bools": pd.Series(flags, dtype="object"),
            "two floats": np.where(flags, 3.5, 7.0),
            "category": texts.astype("category"),
            "ordered": texts.astype(pd.CategoricalDtype(LABELS, ordered=True)),
            "codes": pd.Series(likert).astype("category"),
            "str": texts.astype("str"),
            "string": texts.astype("string"),
            "object text": texts.astype("object"),
        }
    )
    holes = rng.random(frame.shape) < 0.2
    holes[0], holes[1], holes[2] = True, False, False  # a row with nothing observed
    frame = frame.mask(holes)
    frame["int64"], frame["bool"] = whole, flags  # no nullable dtype, so no holes
    frame.insert(3, "when", pd.date_range("2024-01-01", periods=n).where(pd.Series(real) < 1))
    frame.insert(0, "row", np.arange(n))
    frame.index = pd.Index(rng.integers(0, n, n), name="household")  # labels may repeat
    return frame


def single(values: Any, dtype: Any = None, **other: Any) -> Column:
    return infer_schema(pd.DataFrame({"a": pd.Series(values, dtype=dtype), **other})).columns[0]


@pytest.mark.parametrize(
    ("values", "dtype", "kind"),
    [
        ([0.5, -1.2, 3.3, 0.1], None, "real"),
        ([0.1, 1.5, 20.5, 300.5], None, "positive"),
        ([0.0, 1.5, 20.5, 300.5], None, "real"),
        ([10.5, 19.5, 20.5, 21.25], None, "real"),
        ([3, 0, 250, 3], None, "count"),
        ([3.0, np.nan, 250.0, 0.0], None, "count"),
        ([3, None, 250, 0], "Int64", "count"),
        ([3, None, 250, 0], "object", "count"),
        ([3, -1, 250, 3], None, "real"),
        ([1, 5, 3, 3], None, "ordinal"),
        ([-2, 0, 1, 8], None, "ordinal"),
        ([5, 2, 17, 5], None, "count"),
        ([1, 2, 3, 4], None, "identifier"),
        ([101, 102, 104, 105], None, "identifier"),
        ([1, 2, None, 4], "Int64", "ordinal"),
        ([10, 200, 3000, 40000], None, "count"),
        ([2**60, 2**60 + 1, 5, 2**62], None, "identifier"),
        ([1e30, 2e30, 5e31, 5.5e31], None, "real"),
        ([True, False, True, True], None, "binary"),
        ([True, None, False, True], "object", "binary"),
        ([1.5, 7.0, None, 7.0], None, "binary"),
        (SHARES, None, "unit"),
        (SHARES, "float32", "unit"),
        (ENDS, None, "unit"),
        ([None, *SHARES], "Float64", "unit"),
        (np.linspace(0.15, 0.95, 30), None, "real"),  # stays clear of 0
        (np.linspace(0.05, 0.85, 30), None, "real"),  # stays clear of 1
        (np.linspace(0, 1, 30), None, "real"),  # rescaled
        ([*SHARES, 1.02], None, "real"),
        ([-0.01, *SHARES], None, "real"),
        (SHARES[1:], None, "real"),  # 10 distinct ones
        (["no", "yes", None, "no"], None, "binary"),
        (["x", "y", "z", "x"], None, "categorical"),
        (["x", "y", "z", "x"], "category", "categorical"),
        (["Ann", "Bob", "Cid", "Dee"], None, "identifier"),
        (pd.Categorical([*"xyzx"], ordered=True), None, "ordinal"),
        (pd.Categorical([*"xyyx"], ordered=True), None, "binary"),
        (pd.date_range("2024-01-01", periods=4), None, "datetime"),
        (pd.period_range("2024-01", periods=4, freq="M"), None, "datetime"),
        (pd.to_timedelta([1, 2, 3, 4], unit="h"), None, "datetime"),
        (["2024-01-01", "2024-01-01", None, "2024-02-01"], None, "datetime"),
        ([None, None, None, None], "datetime64[ns]", "datetime"),
    ],
)
def test_kinds(values: object, dtype: object, kind: str) -> None:
    column = single(values, dtype, other=np.arange(len(pd.Series(values))) ** 2 - 0.5)
    assert column.kind == kind


def test_a_declared_category_counts_even_if_unobserved() -> None:
    values = pd.Categorical(["no", "yes", "no"], categories=["no", "yes", "refused"])
    column = single(values)
    assert (column.kind, column.categories) == ("categorical", ("no", "yes", "refused"))


@pytest.mark.parametrize("seed", range(20))
def test_positive_is_decided_by_scipys_skewness(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = 0.5 + rng.gamma(rng.uniform(0.5, 40.0), size=50) ** rng.uniform(0.2, 1.5)
    closer = abs(stats.skew(np.log(values))) < abs(stats.skew(values))
    assert single(values).kind == ("positive" if closer else "real")


def test_both_outcomes_occur_in_the_skewness_test() -> None:
    rng = np.random.default_rng(0)
    assert single(np.exp(rng.normal(size=50))).kind == "positive"
    assert single(5 - np.exp(rng.normal(size=50).clip(-1, 1))).kind == "real"


def test_location_scale_and_range_come_from_observed_cells() -> None:
    values = [1.0, np.nan, 10.0, 1000.5, np.nan, 0.01]
    schema = infer_schema(pd.DataFrame({"p": values, "r": [-v for v in values]}))
    observed = np.array([1.0, 10.0, 1000.5, 0.01])
    positive, real = schema.columns
    assert (positive.kind, real.kind) == ("positive", "real")
    assert (positive.location, positive.scale) == (np.log(observed).mean(), np.log(observed).std())
    assert (real.location, real.scale) == ((-observed).mean(), observed.std())
    assert (positive.lower, positive.upper, real.lower, real.upper) == (0.01, 1000.5, -1000.5, -0.01)


def test_labels_in_order_are_standardised_codes() -> None:
    dtype = pd.CategoricalDtype(["none", *LABELS], ordered=True)
    cells = pd.Series(["low", "top", None, "high", "top"], dtype=dtype, index=[*"uuvwx"])
    frame = pd.DataFrame({"mood": cells})
    schema = infer_schema(frame)
    column = schema.columns[0]
    codes = np.array([1, 4, 3, 4])
    assert (column.kind, column.categories) == ("ordinal", ("none", *LABELS))
    assert (column.location, column.scale) == (codes.mean(), codes.std())
    assert (column.lower, column.upper) == (0, 4)
    decoded = schema.decode(torch.tensor([[-99.0], [0.0], [99.0]]), pd.RangeIndex(3))["mood"]
    assert (decoded.tolist(), decoded.dtype) == (["none", "high", "top"], dtype)


def test_labels_are_codes_and_not_standardised() -> None:
    column = single(["b", "a", "c", "b"])
    assert (column.categories, column.location, column.scale) == (("a", "b", "c"), 0.0, 1.0)
    encoded = Schema((column,)).encode(pd.DataFrame({"a": ["c", None, "a"]}))
    assert encoded["x"].flatten().tolist() == [2.0, 0.0, 0.0]
    assert encoded["mask"].flatten().tolist() == [True, False, True]


@pytest.mark.parametrize("standardise", [True, False])
def test_standardise_and_unscaled(standardise: bool) -> None:
    frame = table()
    schema = infer_schema(frame, standardise=standardise)
    numeric = [c for c in schema.modelled if not c.categories]
    assert {c.kind for c in numeric} == {"real", "positive", "unit", "count", "ordinal"}
    assert any((c.location, c.scale) != (0, 1) for c in numeric) == standardise
    assert schema.unscaled() == infer_schema(frame, standardise=False)


def test_encoded_columns_have_mean_0_and_sd_1_and_zeros_in_holes() -> None:
    frame = table()
    schema = infer_schema(frame)
    data = schema.encode(frame)
    x, mask = data["x"], data["mask"]
    assert x.shape == mask.shape == (len(frame), len(schema.names))
    assert (x.dtype, mask.dtype) == (torch.float64, torch.bool)
    assert mask.numpy().tolist() == frame[list(schema.names)].notna().to_numpy().tolist()
    assert (x[~mask] == 0).all()
    for d, column in enumerate(schema.modelled):
        if not column.categories:
            cells = x[mask[:, d], d]
            # sums of 40 numbers of size 1 err by at most 40 * 40 * 2e-16 < 1e-12
            assert abs(cells.mean()) < 1e-12
            assert abs(cells.std(correction=0) - 1) < 1e-12


def test_vectors_follow_the_modelled_columns() -> None:
    schema = infer_schema(table())
    assert schema.names == tuple(c.name for c in schema.columns if c.name not in ("row", "when"))
    assert schema.scale_vector.tolist() == [c.scale for c in schema.modelled]
    assert schema.location_vector.tolist() == [c.location for c in schema.modelled]
    assert schema.scale_vector.dtype == schema.location_vector.dtype == torch.float64


@pytest.mark.parametrize("seed", range(5))
def test_complete_fills_the_holes_and_nothing_else(seed: int) -> None:
    frame = table(seed=seed)
    schema = infer_schema(frame)
    before = frame.copy(deep=True)
    x = 3 * torch.randn(
        frame.shape[0], len(schema.names), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    completed = schema.complete(frame, x)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_index_equal(completed.index, frame.index)
    assert completed.dtypes.to_dict() == frame.dtypes.to_dict()
    assert completed.columns.tolist() == frame.columns.tolist()
    assert completed[list(schema.names)].notna().all(axis=None)
    for name in frame:
        observed = frame[name].notna().to_numpy()
        old, new = frame[name][observed], completed[name][observed]
        assert old.tolist() == new.tolist()
        assert [type(cell) for cell in old] == [type(cell) for cell in new]
    assert np.signbit(completed["float64"].iloc[1])
    pd.testing.assert_series_equal(completed["when"], frame["when"])


def test_completed_cells_are_possible_values() -> None:
    frame = table()
    schema = infer_schema(frame)
    completed = schema.complete(frame, torch.full((len(frame), len(schema.names)), 50.0))
    first = completed.iloc[0]  # the row with nothing observed; 50 sd up is the upper end of a range
    assert first["Int64"] == frame["Int64"].max()
    assert first["Int32"] == 5
    assert first["Int8"] == frame["Int8"].max()
    assert first["whole floats"] == frame["whole floats"].max()
    assert (first["object ints"], type(first["object ints"])) == (frame["object ints"].max(), int)
    assert first["boolean"] and first["object bools"] is True
    assert (first["two floats"], first["ordered"], first["codes"]) == (7.0, "top", 5)
    assert first["float64"] > frame["float64"].max()


def test_rounding_is_to_the_nearest_whole_number() -> None:
    schema = infer_schema(pd.DataFrame({"count": [0, 40, 12, 9]}), standardise=False)
    decoded = schema.decode(torch.tensor([[3.4], [3.6], [-2.0], [99.0]]), pd.Index(list("wxyz")))
    assert decoded["count"].to_dict() == {"w": 3, "x": 4, "y": 0, "z": 40}
    assert decoded["count"].dtype == "int64"


def test_decode_inverts_encode() -> None:
    frame = table()
    schema = infer_schema(frame)
    data = schema.encode(frame)
    decoded = schema.decode(data["x"], frame.index)
    for column in schema.modelled:
        observed = frame[column.name].notna().to_numpy()
        old, new = frame[column.name][observed], decoded[column.name][observed]
        assert str(decoded[column.name].dtype) == column.dtype
        if column.kind in ("real", "positive", "unit"):
            # a few roundings of numbers below 30, exp included; float32 results round once more
            relative = 1e-6 if "32" in column.dtype else 1e-13
            np.testing.assert_allclose(new.to_numpy(float), old.to_numpy(float), relative, 1e-14)
        else:
            assert old.tolist() == new.tolist()


def test_new_rows_use_what_was_learnt() -> None:
    schema = infer_schema(pd.DataFrame({"a": [0.0, 2.5, -2.5, 0.0], "b": ["x", "y", "z", "x"]}))
    new = pd.DataFrame({"extra": ["?"], "b": ["z"], "a": [2.5]})
    assert schema.encode(new)["x"].tolist() == [[2.5 / np.sqrt(3.125), 2.0]]


def test_log_jacobian_is_the_log_derivative_of_encode() -> None:
    values = np.array([0.1, 1.5, 20.5, 300.5])
    frame = pd.DataFrame({"p": values, "r": -values, "n": [3, 0, 250, 3], "c": ["x", "y", "z", "x"]})
    schema = infer_schema(frame)
    numeric, step = ["p", "r"], 1e-4 * values[:, None]
    up, down = frame.copy(), frame.copy()
    up[numeric] += step
    down[numeric] -= step
    slope = (schema.encode(up)["x"] - schema.encode(down)["x"])[:, :2] / torch.from_numpy(2 * step)
    jacobian = schema.log_jacobian(schema.encode(frame)["x"])
    assert jacobian.shape == (4, 4)
    # central differences: h^2 / (3 v^2) = 3e-9 from the log's curvature, and rounding: encoded values
    # below 2 err by 2e-16 and differ by 2 h / scale > 1e-7, which makes 4e-9
    torch.testing.assert_close(jacobian[:, :2], slope.abs().log(), rtol=0, atol=1e-8)
    assert jacobian[:, 2].tolist() == [-np.log(schema.columns[2].scale)] * 4
    assert jacobian[:, 3].tolist() == [0.0] * 4


def test_the_unit_interval_is_seen_as_log_odds() -> None:
    schema = infer_schema(pd.DataFrame({"p": SHARES}))
    odds = np.log(SHARES / (1 - SHARES))
    column = schema.columns[0]
    assert (column.kind, column.margin, column.lower, column.upper) == ("unit", 0, 0.03, 0.97)
    expected = torch.from_numpy((odds - odds.mean()) / odds.std())
    torch.testing.assert_close(schema.encode(pd.DataFrame({"p": SHARES}))["x"][:, 0], expected)


def test_ends_of_the_unit_interval_are_squeezed_as_by_smithson_and_verkuilen() -> None:
    frame = pd.DataFrame({"p": [*ENDS, np.nan]})
    schema = infer_schema(frame, standardise=False)
    count = len(ENDS)
    squeezed = (ENDS * (count - 1) + 0.5) / count
    expected = torch.from_numpy(np.log(squeezed / (1 - squeezed)))
    data = schema.encode(frame)
    torch.testing.assert_close(data["x"][:-1, 0], expected, rtol=1e-12, atol=1e-12)
    decoded = schema.decode(data["x"], frame.index)["p"].to_numpy()
    assert decoded[:3].tolist() == [0.0, 0.0, 1.0]
    np.testing.assert_allclose(decoded[3:-1], SHARES, rtol=1e-13)
    new = pd.DataFrame({"p": [0.0, 1.0, 0.5]})
    assert schema.decode(schema.encode(new)["x"], new.index)["p"].tolist() == [0.0, 1.0, 0.5]


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("values", "ends"), [(SHARES, False), (ENDS, True)])
def test_completed_shares_lie_in_the_unit_interval(
    values: NDArray[np.float64], ends: bool, standardise: bool
) -> None:
    schema = infer_schema(pd.DataFrame({"p": values}), standardise)
    x = torch.linspace(-12, 12, 81, dtype=torch.float64)[:, None]
    decoded = schema.decode(x, pd.RangeIndex(81))["p"]
    assert decoded.is_monotonic_increasing and decoded.between(0, 1).all()
    assert [decoded.iloc[0] == 0, decoded.iloc[-1] == 1] == [ends, ends]
    assert schema.in_units(x)[:, 0].tolist() == decoded.tolist()


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (SHARES, 0.0, 1.0),
        (ENDS, -1 / 26, 27 / 26),  # widened by 1 / (2 (14 - 1))
        (np.exp(np.random.default_rng(0).normal(size=40)), 0.0, np.inf),
        (np.random.default_rng(0).normal(size=40), -np.inf, np.inf),
    ],
    ids=["unit", "unit with ends", "positive", "real"],
)
def test_a_density_in_units_integrates_to_one(
    values: NDArray[np.float64], low: float, high: float, standardise: bool
) -> None:
    """A standard normal density of encoded cells, brought to the table's units."""
    schema = infer_schema(pd.DataFrame({"a": values}), standardise)
    column = schema.columns[0]

    def density(value: float) -> float:
        line = links.to_line(column.kind, np.array([value]), column.margin)
        x = torch.from_numpy((line - column.location) / column.scale)[:, None]
        return float((schema.log_jacobian(x) + torch.distributions.Normal(0.0, 1.0).log_prob(x)).exp())

    middle = float(column.in_units(torch.zeros(())))
    parts = [integrate.quad(density, low, middle), integrate.quad(density, middle, high)]
    assert abs(sum(part for part, _ in parts) - 1) < 1e-6
    assert max(error for _, error in parts) < 1e-6


@pytest.mark.parametrize("values", [SHARES, ENDS], ids=["inside", "ends"])
def test_log_jacobian_of_the_unit_interval_is_the_log_derivative(values: NDArray[np.float64]) -> None:
    schema = infer_schema(pd.DataFrame({"p": values}))
    points, step = np.linspace(0.05, 0.95, 19), 1e-6
    up, down = (schema.encode(pd.DataFrame({"p": points + h}))["x"] for h in (step, -step))
    slope = (up - down) / (2 * step)
    # central differences: h^2 / (3 p^2) = 1e-10 where p is smallest, and rounding 1e-15 / (2 h) = 1e-9
    jacobian = schema.log_jacobian(schema.encode(pd.DataFrame({"p": points}))["x"])
    torch.testing.assert_close(jacobian, slope.log(), rtol=0, atol=1e-8)


def test_in_units_inverts_encode_without_rounding() -> None:
    frame = table()
    schema = infer_schema(frame)
    data = schema.encode(frame)
    values = schema.in_units(torch.stack([data["x"], data["x"] + 0.25]))
    for d, column in enumerate(schema.modelled):
        seen = data["mask"][:, d]
        expected = torch.from_numpy(column.values(frame[column.name]))[seen]
        # a few roundings of numbers below 100, exp included
        torch.testing.assert_close(values[0, seen, d], expected, rtol=1e-12, atol=1e-12)
        moved = values[1, seen, d]
        assert ((moved > expected) | ((moved == 1) & (expected == 1))).all()


@pytest.mark.parametrize("standardise", [True, False])
def test_json_keeps_the_schema_exactly(standardise: bool) -> None:
    schema = infer_schema(table().rename(columns={"float64": 7}), standardise=standardise)
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict(), allow_nan=False))) == schema


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": []}), r"the table has no rows"),
        (pd.DataFrame({"a": [1.5]}), r"single row: at least two"),
        (pd.DataFrame(index=range(3)), r"the table has no columns"),
        (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), r"duplicate column name\(s\) \['a'\]"),
        (pd.DataFrame({"a": [np.nan, np.nan]}), r"column 'a': every cell is missing. Drop"),
        (pd.DataFrame({"a": [None, None]}, dtype="str"), r"column 'a': every cell is missing. Drop"),
        (pd.DataFrame({"a": [4, None, 4]}, dtype="Int64"), r"'a': constant column: its only value is 4\."),
        (pd.DataFrame({"a": ["x", "x"]}), r"column 'a': constant column: its only value is 'x'"),
        (pd.DataFrame({"a": [1, np.inf, 2]}, index=[*"uvw"]), r"'a', row 'v': infinite value: inf"),
        (
            pd.DataFrame({"a": ["1", "2.5", "n.a.", None, "x", "7"]}, index=range(10, 16)),
            r"column 'a', row 12: text in a column of numbers: 'n.a.' \(and in 1 more rows\)",
        ),
        (
            pd.DataFrame({"a": [1, 2, "three"]}),
            r"row 2: text in a column of numbers: 'three': 2 of its 3 observed cells are numbers",
        ),
        (pd.DataFrame({"a": ["1", "2", "3"]}), r"'a', row 0: numbers stored as text: '1'"),
        (pd.DataFrame({"a": [[1], [2]]}), r"'a': cells that are neither numbers, labels nor times"),
        (pd.DataFrame({"a": [1j, 2j]}), r"column 'a': cells that are neither numbers"),
        (pd.DataFrame({"a": pd.cut([1, 2, 3, 1, 2, 3], 3)}), r"'a': categories that are not text"),
        (pd.DataFrame({("a", "b"): [1.5, 2.5, -1.5]}), r"label that is neither text nor an integer"),
        (pd.DataFrame({"a": [1e200, -1e200, 0.5]}), r"'a': values that cannot be standardised"),
        (pd.DataFrame({"a": [5e-324, 1e-323, 1.5e-323]}), r"'a': values that cannot be standardised"),
        (pd.DataFrame({"a": [1, 2, 3]}), r"no column that can be modelled: 'a' is taken for identifier"),
        (pd.DataFrame({"a": [1, 1], "b": [1, 2], "c": [None, None]}), r"refused as well: \['c'\]"),
    ],
)
def test_tables_that_cannot_be_used(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        infer_schema(frame)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            {"p": [1.0], "c": ["x"]},
            r"lacks column\(s\) \['n'\]: it has \['p', 'c'\]; .* on \['n', 'p', 'c'\]",
        ),
        ({"n": [1.0, -np.inf], "p": [1.0, 1.0], "c": ["x", "y"]}, r"'n', row 1: infinite value: -inf"),
        ({"n": ["much"], "p": [1.0], "c": ["x"]}, r"'n', row 0: text in a column of numbers: 'much'"),
        (
            {"n": [1.0], "p": [0.0], "c": ["x"]},
            r"'p', row 0: value that is not positive: 0.0: the training values were 0.1",
        ),
        ({"n": [1.0], "p": [1.0], "c": ["w"]}, r"'c', row 0: unknown category: 'w': .* 'x', 'y', 'z'"),
    ],
)
def test_new_rows_that_cannot_be_used(new: dict[str, list[object]], message: str) -> None:
    training = {"n": [1.5, -2.5, 0.5, 0.1], "p": [0.1, 1.5, 20.5, 300.5], "c": ["x", "y", "z", "x"]}
    schema = infer_schema(pd.DataFrame(training))
    with pytest.raises(DataError, match=message):
        schema.encode(pd.DataFrame(new))


@pytest.mark.parametrize(
    ("values", "new", "message"),
    [
        (SHARES, 0.0, r"'p', row 0: value that is not between 0 and 1, both excluded: 0.0: .* 0.03 to 0.97"),
        (SHARES, 1.0, r"value that is not between 0 and 1, both excluded: 1.0"),
        (ENDS, -0.2, r"row 0: value that is not between 0 and 1: -0.2: the training values were 0 to 1"),
        (ENDS, 1.5, r"value that is not between 0 and 1: 1.5"),
    ],
)
def test_new_shares_that_cannot_be_used(values: NDArray[np.float64], new: float, message: str) -> None:
    schema = infer_schema(pd.DataFrame({"p": values}))
    with pytest.raises(DataError, match=message):
        schema.encode(pd.DataFrame({"p": [new, 0.5]}))


def test_new_rows_with_repeated_columns_are_refused() -> None:
    schema = infer_schema(pd.DataFrame({"a": [0.5, 1.5, -2.5]}))
    with pytest.raises(DataError, match=r"duplicate column name\(s\) \['a'\]"):
        schema.encode(pd.DataFrame([[1.5, 2.5]], columns=["a", "a"]))


def test_encoded_cells_of_the_wrong_shape_or_not_finite_are_refused() -> None:
    frame = pd.DataFrame({"a": [0.5, np.nan, -2.5]})
    schema = infer_schema(frame.iloc[[0, 2, 1]].fillna(9.5))
    with pytest.raises(ArgumentError, match=r"wrong shape: got \(3, 2\), expected \(3, 1\)"):
        schema.complete(frame, torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match=r"row number 1, column 'a': x is not finite"):
        schema.decode(torch.tensor([[0.0], [torch.nan], [0.0]]), frame.index)


@pytest.mark.parametrize(
    ("training", "new", "value", "completed"),
    [
        ([0.5, 2.5, -2.5], pd.Series([1, None], dtype="Int64"), 2.25, [1.0, 2.25]),
        (["x", "y", "z", "x"], pd.Series([None, None], dtype="float64"), 2.0, ["z", "z"]),
        (["x", "y", "z", "x"], pd.Series([None, None], dtype="datetime64[ns]"), 1.0, ["y", "y"]),
        ([0.5, 2.5, -2.5], pd.Series([None, None], dtype="datetime64[ns]"), 2.25, [2.25, 2.25]),
        (pd.Categorical([*"xyzx"]), pd.Series(["x", None], dtype="category"), 2.0, ["x", "z"]),
        ([3, 0, 250, 3], pd.Series([1.0, None], dtype="float32"), 7.0, None),
    ],
)
def test_new_rows_take_the_training_dtype_only_where_theirs_cannot_hold_the_value(
    training: object, new: pd.Series, value: float, completed: list[object] | None
) -> None:
    frame = pd.DataFrame({"a": training})
    schema = infer_schema(frame, standardise=False)
    rows = pd.DataFrame({"a": new})
    assert schema.encode(rows)["mask"].flatten().tolist() == new.notna().tolist()
    filled = schema.complete(rows, torch.full((2, 1), value))["a"]
    assert str(filled.dtype) == str(new.dtype if completed is None else frame["a"].dtype)
    assert filled.tolist() == (completed or [1.0, 7.0])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"column 'a': unknown kind 'number'. Use one of real, "):
        Column("a", "number", "float64")


def test_schema_is_frozen() -> None:
    schema = infer_schema(pd.DataFrame({"a": [0.5, 1.5, -2.5]}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        schema.columns = ()  # type: ignore[misc]


def test_decimal_commas_are_refused() -> None:
    frame = pd.DataFrame({"price": ["12,5", "3,25", None, ",75"], "size": [1.0, 2.5, 3.0, 4.5]})
    with pytest.raises(DataError, match=r"column 'price': numbers with a decimal comma: such as '12,5'"):
        infer_schema(frame)
