"""Holes filled by means."""

import numpy as np
import pandas as pd

import pyrolatent as pyl
from tests.test_nn import table
from tests.test_vae import holes


def test_each_kind_is_filled_by_what_is_typical_of_it() -> None:
    frame = holes(table(), 0.2)
    filled = pyl.fill_means(frame)
    assert not filled.isna().any().any()
    seen = frame.notna()
    pd.testing.assert_frame_equal(filled.where(seen, frame), frame)

    def filling(name: str) -> object:
        found = filled.loc[~seen[name], name].unique()
        assert len(found) == 1
        return found[0]

    for name in ("real", "positive", "unit"):
        np.testing.assert_allclose(filling(name), frame[name].mean(), rtol=1e-6)
    for name in ("count", "stars"):
        assert filling(name) == round(frame[name].mean())
    for name in ("binary", "colour", "size"):
        assert filling(name) == frame[name].mode().iloc[0]


def test_new_rows_are_filled_by_the_means_of_others() -> None:
    train, test = holes(table(), 0.2), holes(table(50), 0.2)
    filled = pyl.fill_means(test, like=train)
    np.testing.assert_allclose(filled.loc[test["real"].isna(), "real"], train["real"].mean())


def test_correlations_shrink_by_the_share_of_holes() -> None:
    frame = pyl.datasets.job_satisfaction(20_000, seed=0)
    filled = pyl.fill_means(pyl.ampute(frame, mechanism="mcar", fraction=0.2, seed=0))
    ratio = filled.corr().to_numpy() / frame.corr().to_numpy()
    strong = frame.corr().abs().to_numpy() > 0.3
    np.testing.assert_allclose(ratio[strong & (ratio != 1)], 0.8, atol=0.08)
