"""Completed and predicted tables: untouched where observed, exact draws where not, in the table's units."""

import warnings
from collections.abc import Callable, Iterator
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
WHOLE = ("visits", "answer", "change")

Array = NDArray[np.float64]
TableFit = tuple[pd.DataFrame, Fit]


def quick(pair: Pair, frame: Any, seed: int = 1) -> Fit:
    """A fit too short to trust, for what does not depend on that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(pair, frame, SHORT, seed=seed, compile=False)


def mixed_table(num_rows: int = 60) -> pd.DataFrame:
    """One column of each kind and of several dtypes, holes in all of them, labels that repeat."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=num_rows)
    noise = rng.normal(size=(num_rows, 6))
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
    return frame.mask(holes).set_axis(pd.Index(rng.integers(0, num_rows, num_rows), name="house"), axis=0)


@pytest.fixture(scope="module")
def mixed() -> TableFit:
    frame = mixed_table()
    schema = infer_schema(frame)
    assert {column.name: column.kind for column in schema.columns} == KINDS
    assert frame[list(schema.names)].iloc[4].isna().all()
    return frame, quick(BayesianMVN(schema), frame)


@pytest.fixture(scope="module")
def large() -> tuple[pd.DataFrame, pd.DataFrame, Fit]:
    """A table of 500 rows of 4 normal columns, the same with a fifth of its cells hidden, a fit to that."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 1)) + rng.normal(size=(500, 4)) * [0.5, 1.0, 1.5, 0.7]
    full = pd.DataFrame([100.0, 0.0, -3.0, 5.0] + rows * [10.0, 1.0, 0.1, 2.0], columns=["a", "b", "c", "d"])
    frame = full.mask(rng.random(full.shape) < 0.2)
    assert (frame.iloc[:, 0] < 0).sum() == 0
    schema = infer_schema(frame)
    kinds = replace_kinds(schema)
    return full, frame, fit(BayesianMVN(kinds), frame, seed=2, compile=False)


def replace_kinds(schema: Schema) -> Schema:
    return schema
