import numpy as np
import pandas as pd
import pytest

from pyrolatent.datasets import job_satisfaction, job_satisfaction_correlation
from pyrolatent.errors import ArgumentError
from pyrolatent.schema import infer_schema

NAMES = ["JW1", "JW2", "JW3", "UF1", "UF2", "FOR", "DA1", "DA2", "DA3", "EBA", "ST", "MI"]
SD = [0.939, 1.017, 0.937, 0.562, 0.76, 0.524, 0.585, 0.609, 0.731, 0.711, 1.124, 1.001]


def test_the_correlation_is_the_published_one() -> None:
    correlation = job_satisfaction_correlation()
    values = correlation.to_numpy()
    assert correlation.index.tolist() == correlation.columns.tolist() == NAMES
    assert (values == values.T).all() and (np.diag(values) == 1).all()
    assert correlation.loc["JW1", "JW2"] == 0.668
    assert correlation.loc["MI", "EBA"] == 0.563
    assert round(np.linalg.eigvalsh(values).min(), 3) == 0.227


def test_draws_have_these_moments() -> None:
    n = 100_000
    frame = job_satisfaction(n, seed=1)
    assert frame.columns.tolist() == NAMES
    # 5 standard errors: sd / sqrt(n) of a mean, sd / sqrt(2 n) of a sd, at most 1 / sqrt(n) of a correlation
    assert (abs(frame.mean()) < 5 * np.array(SD) / np.sqrt(n)).all()
    assert (abs(frame.std() / SD - 1) < 5 / np.sqrt(2 * n)).all()
    assert (abs(frame.corr() - job_satisfaction_correlation()) < 5 / np.sqrt(n)).all(axis=None)


def test_draws_are_a_table_of_real_columns_that_the_seed_decides() -> None:
    frame = job_satisfaction(263)
    assert frame.shape == (263, 12)
    assert {column.kind for column in infer_schema(frame).columns} == {"real"}
    pd.testing.assert_frame_equal(frame, job_satisfaction(263, seed=0))
    assert not frame.equals(job_satisfaction(263, seed=1))


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(ArgumentError, match="n must be at least 1: got 0"):
        job_satisfaction(0)
