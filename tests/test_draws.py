"""Latents of rows drawn on demand follow their exact posterior, for rows of the fit and for new ones."""

import math
import warnings
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent.draws import posterior_draws, resampled
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.fit import fit
from pyrolatent.impute import impute
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.svi import SVI
from pyrolatent.pair import as_pair
from pyrolatent.predict import predict
from pyrolatent.result import Fit
from pyrolatent.store import load, save
from tests.user_pairs import vae

NOISE = 0.5  # of the likelihood: z_i | y_i is normal with mean y_i / (1 + NOISE^2)
SHRINKAGE, SPREAD = 1 / (1 + NOISE**2), NOISE / math.sqrt(1 + NOISE**2)


def model(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z, NOISE), obs=y)


def wide_guide(y: Tensor) -> None:
    """Too wide by a half, whatever it learns: only the weights make its draws right."""
    slope = pyro.param("slope", torch.tensor(0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(slope * y, 1.5 * SPREAD))


def far_guide(y: Tensor) -> None:
    shift = pyro.param("shift", torch.tensor(3.0), constraint=constraints.interval(2.0, 4.0))
    with pyro.plate("data", len(y)):
        pyro.sample("z", dist.Normal(shift, 0.3))


def trained(guide: Any) -> Fit:
    y = torch.linspace(-2.0, 2.0, 5)
    method = SVI(num_steps=400, lr=0.02, num_draws=800)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(model, {"y": y}, method, guide=guide, seed=0, dtype=torch.float64, progress=False)


def test_resampling_corrects_the_guide() -> None:
    found = trained(wide_guide)
    (draws,) = posterior_draws(found, 800, seed=1)
    z, y = draws.values["z"], found.data["y"]
    error = SPREAD * (1 / 800 + 1 / 3_000) ** 0.5  # 800 of 4,000 draws of the guide, which are worth 3,000
    torch.testing.assert_close(z.mean(0), SHRINKAGE * y, rtol=0, atol=4 * error)
    # the sd of 800 draws is known to 2.5 %; a pool of a guide 1.5 times too wide leaves no bias
    torch.testing.assert_close(z.std(0), torch.full_like(y, SPREAD), rtol=0.12, atol=0)


def test_new_rows_have_latents_of_their_own() -> None:
    found = trained(wide_guide)
    new = torch.tensor([10.0, 0.0], dtype=torch.float64)
    predicted = predict(found, {"y": new}, num_draws=400)
    assert isinstance(predicted, dict)
    assert predicted["y"].shape == (400, 2)
    sd = math.sqrt(SPREAD**2 + NOISE**2)
    expected = SHRINKAGE * new
    # the guide's slope is learnt from rows of -2 to 2 and holds for a row of 10 only roughly
    torch.testing.assert_close(predicted["y"].mean(0), expected, rtol=0.05, atol=4 * sd / 400**0.5)


def test_a_guide_far_from_the_posterior_is_said_aloud() -> None:
    with pytest.warns(FitWarning, match=r"For \d+% of the rows one of 50 draws of the guide"):
        list(posterior_draws(trained(far_guide), 20, seed=1))


def test_particles_are_kept_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    log_weight = weights.log()[:, None].expand(3, 20_000)
    values = torch.arange(3)[:, None].expand(3, 20_000)
    (kept,) = resampled(log_weight, values, number=2, random=random)
    assert kept.shape == (2, 20_000)
    shares = torch.bincount(kept[1], minlength=3) / 20_000
    # 4 standard errors of a share of 20,000
    torch.testing.assert_close(shares.double(), weights, rtol=0, atol=4 * 0.5 / 20_000**0.5)


def test_hmc_given_learnt_weights_agrees_with_resampling() -> None:
    user = vae()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        pair = as_pair(user.model, user.guide)
        first = fit(pair, user.data, SVI(num_steps=3_000, lr=0.02, num_draws=600), seed=1, progress=False)
        chains = HMC(num_chains=16, num_warmup=60, num_draws=100)
        sampled = fit(pair, user.data, chains, start=first, seed=1, progress=False)
        (draws,) = posterior_draws(first, 600, seed=0)
    z, exact = draws.values["z"].double(), sampled.flat_samples()["z"]
    sd, ess = exact.std(0), sampled.diagnostics["z"]["ess"]
    error = sd * (1 / 600 + 1 / 2_000 + 1 / ess).sqrt()  # 600 of 3,000 draws of the guide
    # 96 means at once: 4.5 standard errors, and a fiftieth of an sd for resampling a pool
    assert ((z.mean(0) - exact.mean(0)).abs() < 4.5 * error + 0.02 * sd).all()
    assert sampled.problem.dtype == torch.float64


def test_rows_of_bernoulli_observations_are_drawn(tmp_path: Path) -> None:
    """Its density writes into tensors made from the data alone."""

    def likes(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Bernoulli(logits=3.0 * z), obs=y)

    def guide(y: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(slope * (2 * y - 1), 1.0))

    y = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(50)
    found = fit(likes, {"y": y}, SVI(num_steps=5), guide=guide, seed=0, progress=False)
    (draws,) = posterior_draws(found, 200, seed=0)
    z, grid = draws.values["z"], torch.linspace(-8, 8, 4_001, dtype=torch.float64)
    density = (-(grid**2) / 2).exp() * torch.sigmoid(3 * grid)
    mean = (grid * density).sum() / density.sum()
    # 20,000 draws of sd below 1: 4 standard errors, and a hundredth for resampling pools
    torch.testing.assert_close(((2 * y - 1) * z).mean(), mean, rtol=0, atol=4 / 20_000**0.5 + 0.01)

    save(found, tmp_path / "fit")
    with pytest.raises(ModelError, match=r"loaded without it.*as_pair\(model, guide\)"):
        predict(load(tmp_path / "fit", model=likes))


def labelled(y: Tensor, mask: Tensor) -> None:
    """Two groups far apart, seen through two columns, of which one may be missing."""
    first = pyro.sample("first", dist.Normal(-3.0, 0.5))
    with pyro.plate("data", len(y)):
        arm = pyro.sample("arm", dist.Bernoulli(0.5))
        mean = torch.where(arm > 0, 3.0, first).unsqueeze(-1)
        pyro.sample("y", dist.Normal(mean, 0.5).expand_by([]).mask(mask).to_event(1), obs=y)


def test_labels_of_new_rows_follow_what_is_observed_there() -> None:
    random = torch.Generator().manual_seed(0)
    arm = torch.arange(30) % 2
    y = torch.where(arm > 0, 3.0, -3.0)[:, None] + 0.5 * torch.randn(30, 2, generator=random)
    method = HMC(num_chains=16, num_warmup=60, num_draws=60)
    found = fit(labelled, {"y": y, "mask": torch.ones(30, 2, dtype=torch.bool)}, method, seed=0)
    new = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    holes = torch.tensor([[True, False], [True, False]])
    completed = impute(found, {"y": new, "mask": holes}, num_draws=200)
    # the second column has the group's mean, which the first one gives away
    expected = torch.tensor([3.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(completed["y"][:, :, 1].mean(0), expected, rtol=0, atol=0.25)
    assert torch.equal(completed["y"][0, :, 0], expected)
