import numpy as np
import pandas as pd
import pytest

from pyrolatent.ampute import ampute
from pyrolatent.errors import ArgumentError, DataError


def table(num_rows: int = 2000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "row": np.arange(num_rows),
            "when": pd.date_range("2024-01-01", periods=num_rows),
            "real": rng.normal(size=num_rows),
            "count": rng.integers(0, 50, num_rows),
            "small": rng.integers(0, 50, num_rows, dtype="uint8"),
            "flag": rng.random(num_rows) < 0.5,
            "text": rng.choice(["x", "y", "z"], num_rows),
        }
    )


def test_cells_are_hidden_independently_at_the_given_rate() -> None:
    hidden = ampute(table(), fraction=0.3, seed=1).isna()[["real", "count", "small", "flag", "text"]]
    # 4 standard errors of a share of 2,000 cells; of a correlation: 4 / sqrt(2000)
    assert (abs(hidden.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 2000)).all()
    assert (abs(hidden.astype(float).corr().to_numpy() - np.eye(5)) < 4 / np.sqrt(2000)).all()


def test_nothing_else_changes() -> None:
    frame = table()
    before = frame.copy(deep=True)
    holes = ampute(frame, fraction=0.3, seed=1)
    pd.testing.assert_frame_equal(frame, before)
    assert holes.columns.tolist() == frame.columns.tolist()
    for name in frame:
        observed = holes[name].notna()
        assert holes[name][observed].tolist() == frame[name][observed].tolist()
    assert holes[["row", "when"]].notna().all(axis=None)
    assert [str(d) for d in holes.dtypes[2:]] == ["float64", "Int64", "UInt8", "boolean", "str"]


def test_the_seed_decides() -> None:
    frame = table()
    pd.testing.assert_frame_equal(ampute(frame, seed=3), ampute(frame, seed=3))
    assert not ampute(frame, seed=3).isna().equals(ampute(frame, seed=4).isna())


def test_holes_stay_holes() -> None:
    frame = table()
    frame.loc[:99, "real"] = np.nan
    assert ampute(frame, fraction=0.1, seed=1)["real"][:100].isna().all()


def test_only_the_chosen_columns() -> None:
    frame = table()
    holes = ampute(frame, columns=["count"], seed=1)
    assert holes.columns[holes.isna().any()].tolist() == ["count"]
    pd.testing.assert_frame_equal(holes.drop(columns="count"), frame.drop(columns="count"))


def test_too_few_observed_cells_are_refused() -> None:
    frame = pd.DataFrame({"a": [0.5, 1.5, -2.5, 3.5]})
    with pytest.raises(DataError, match=r"'a': fewer than two .* of 4 cells are hidden. Use a smaller"):
        ampute(frame, fraction=0.99, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_outside_the_unit_interval_is_refused(fraction: float) -> None:
    with pytest.raises(ArgumentError, match="fraction must lie between 0 and 1, both excluded: got"):
        ampute(table(), fraction=fraction)


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"unknown mechanism 'mnar'\. Use one of 'mcar'"):
        ampute(table(), mechanism="mnar")


def test_columns_that_are_unknown_or_not_modelled_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"columns \['row', 'age'\] cannot be amputed: .*'real', 'count'"):
        ampute(table(), columns=["row", "age", "real"])
