"""Recipes are what they are named after, and run."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import pyrolatent as pyl
from pyrolatent import recipes
from pyrolatent.objectives import ELBO, IWAE, LinearSchedule
from pyrolatent.total_correlation import TCELBO
from tests.test_images import bars

FRAME = pyl.datasets.job_satisfaction(300, seed=0)
OBJECTIVES = {
    recipes.vae: ELBO(),
    recipes.masked_vae: IWAE(20),
    recipes.beta_vae: ELBO(4.0),
    recipes.beta_tcvae: TCELBO(LinearSchedule(1.0, 6.0, 4)),
}

pytestmark = pytest.mark.filterwarnings("ignore::pyrolatent.FitWarning")


@pytest.mark.parametrize("recipe", OBJECTIVES, ids=lambda recipe: recipe.__name__)
def test_tables_and_images(recipe: Callable) -> None:
    for rows in (FRAME, pyl.infer_schema(FRAME)):
        pair, method = recipe(rows, num_steps=20)
        assert method.objective == OBJECTIVES[recipe]
        fit = pyl.fit(pair, FRAME, method, seed=0, compile=False, progress=False)
        assert pyl.encode(fit).shape == (300, 10)
    pair, method = recipe(pyl.Images((1, 8, 8), "binary"), latent_dim=2, num_steps=20)
    fit = pyl.fit(pair, {"x": bars(50)}, method, seed=0, compile=False, progress=False)
    assert pyl.encode(fit).shape == (50, 2)


def test_two_stages() -> None:
    pair, method = recipes.beta_tcvae(FRAME, latent_dim=3, num_steps=20)
    first = pyl.fit(pair, FRAME, method, seed=0, compile=False, progress=False)
    pair, method = recipes.msvae(first, num_steps=20)
    weighted = replace(method, objective=pyl.iwae(5))
    pyl.fit(pair, FRAME, weighted, seed=0, compile=False, progress=False)  # runs for many particles
    second = pyl.fit(pair, FRAME, method, seed=0, compile=False, progress=False)
    assert list(pyl.encode(second)) == ["c[0]", "c[1]", "c[2]", "z[0]", "z[1]", "z[2]"]


def test_the_normal() -> None:
    pair, method = recipes.mvn(FRAME)
    assert pair == pyl.models.BayesianMVN(pyl.infer_schema(FRAME))
    assert method == pyl.HMC()
