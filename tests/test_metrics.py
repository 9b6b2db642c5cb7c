"""Metrics where the answer is known: latents that are factors, mixtures of them, or noise."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pyrolatent import ArgumentError, DataError
from pyrolatent.metrics import (
    correlation_residuals,
    factor_vae_score,
    ks_complement,
    mig,
    mutual_information,
)

ROWS = 4_000


def factors() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.integers(4, size=ROWS), "b": rng.integers(3, size=ROWS)})


def noise(columns: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, columns))


def test_latents_that_are_the_factors_have_the_whole_gap() -> None:
    known = factors()
    latents = pd.DataFrame({"z0": known["b"] * 1.0, "z1": -2.0 * known["a"], "z2": noise(1)[:, 0]})
    table = mutual_information(latents, known)
    entropies = [stats.entropy(known[name].value_counts()) for name in known]
    assert table.loc["z1", "a"] == pytest.approx(entropies[0])
    assert table.loc["z0", "b"] == pytest.approx(entropies[1])
    bias = (20 - 1) * (4 - 1) / (2 * ROWS)  # of the plug-in estimate of nothing
    assert table.loc["z2", "a"] < 3 * bias
    assert (mig(latents, known) > 1 - 0.02).all()
    assert factor_vae_score(latents, known, 500, 500) == (1.0, 1.0)


def test_a_factor_in_two_latents_has_no_gap() -> None:
    known = factors()
    latents = pd.DataFrame({"z0": known["a"] + known["b"], "z1": known["a"] - known["b"], "z2": known["a"]})
    twice = latents[["z2", "z2"]].set_axis(["first", "second"], axis=1)
    assert mig(twice, known[["a"]])["a"] == pytest.approx(0)
    assert (mig(latents[["z0", "z1"]], known) < 0.1).all()


def test_noise_scores_what_chance_does() -> None:
    latents = pd.DataFrame(noise(5))
    score = factor_vae_score(latents, factors(), 2_000, 2_000)
    # two factors: a half; majorities of 5 latents are learnt from votes and help those a little
    assert abs(score.evaluation - 0.5) < 4 * 0.5 / 2_000**0.5
    assert score.train >= 0.5
    assert (mig(latents, factors()) < 0.02).all()


def test_latents_that_hardly_vary_do_not_vote() -> None:
    known = factors()
    latents = pd.DataFrame({"z0": known["a"] * 1.0, "z1": known["b"] * 1.0, "still": 1e-3 * noise(1)[:, 0]})
    assert factor_vae_score(latents, known, 300, 300) == (1.0, 1.0)
    with pytest.raises(DataError, match="no latent varies"):
        factor_vae_score(latents[["still"]], known)


def test_normal_columns_a_shift_apart() -> None:
    """The distance of N(0, 1) and N(d, 1) is 2 Phi(d / 2) - 1; of samples it errs by 1.36 / sqrt(n / 2)."""
    first = pd.DataFrame({"x": noise(1)[:, 0], "label": "a"})
    second = pd.DataFrame({"x": noise(1, seed=2)[:, 0] + 1.0, "label": "b"})
    found = ks_complement(first, second)
    assert list(found.index) == ["x"]
    assert abs(found["x"] - (2 - 2 * stats.norm.cdf(0.5))) < 1.36 / (ROWS / 2) ** 0.5
    assert ks_complement(first, first)["x"] == 1


def test_columns_that_agree_but_for_two_rows_do_so_without_a_warning() -> None:
    """SciPy's exact p-value, which nobody asks for, overflows there."""
    first = pd.DataFrame({"x": np.arange(2_000.0)})
    second = first.replace(0.0, -1.0).replace(1.0, -1.0)
    assert ks_complement(first, second)["x"] == pytest.approx(1 - 2 / 2_000, rel=1e-12)


def test_residuals_of_correlations_and_their_errors() -> None:
    """Of independent columns a correlation errs by 1 / sqrt(n) in each table."""
    first, second = (pd.DataFrame(noise(3, seed)) for seed in (1, 2))
    found = correlation_residuals(first, second)
    off = found.sd.to_numpy()[np.triu_indices(3, 1)]
    np.testing.assert_allclose(off, (2 / ROWS) ** 0.5, rtol=4 / (2 * 200) ** 0.5)
    pd.testing.assert_frame_equal(found.difference, first.corr() - second.corr())
    assert (np.abs(found.difference.to_numpy()[np.triu_indices(3, 1)]) < 4 * off).all()


def test_what_cannot_be_measured() -> None:
    latents = pd.DataFrame(noise(2))
    with pytest.raises(DataError, match="different rows: 4000 and 10 of them"):
        mutual_information(latents, factors().head(10))
    with pytest.raises(ArgumentError, match="a gap needs two latents: got 1"):
        mig(latents[[0]], factors())
    with pytest.raises(DataError, match=r"\['c'\]: a factor is constant"):
        mig(latents, factors().assign(c=1))
    with pytest.raises(DataError, match="too few numeric columns in common"):
        ks_complement(pd.DataFrame({"a": ["x"]}), latents)
