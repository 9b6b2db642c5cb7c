"""Every method on every kind of model: it runs and agrees, or refuses with a message that says why."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.datasets import job_satisfaction
from pyrolatent.diagnostics import mcse_mean
from pyrolatent.errors import FitWarning, ModelError
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.infer.em import EM
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.method import Method
from pyrolatent.infer.nuts import NUTS
from pyrolatent.infer.svi import SVI
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.result import Fit
from pyrolatent.schema import infer_schema
from pyrolatent.summary import summary
from tests.user_models import eight_schools, eight_schools_data
from tests.user_pairs import regression, regression_data, vae


class Case(NamedTuple):
    """A model with its data; `sites` are those whose means the methods must agree on."""

    model: Any
    data: Any
    sites: tuple[str, ...]


def mixture(y: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(5.0, 5.0))
    first = pyro.sample("first", dist.Normal(-2.0, 1.0))
    gap = pyro.sample("gap", dist.LogNormal(1.0, 0.5))
    means = torch.stack([first, first + gap])
    with pyro.plate("data", len(y)):
        arm = pyro.sample("arm", dist.Bernoulli(share)).long()
        pyro.sample("y", dist.Normal(means[arm], 0.8), obs=y)


def mixture_data() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    noise = 0.8 * torch.randn(40, generator=random, dtype=torch.float64)
    return {"y": noise + torch.where(torch.arange(40) % 5 < 2, -2.0, 1.5)}


def weighted(y: Tensor) -> None:
    """A density that a `pyro.factor` completes, with a deterministic site."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    pyro.deterministic("double", 2 * mean)
    pyro.factor("likelihood", dist.Normal(mean, 1.0).log_prob(y).sum())


def table() -> Case:
    frame = job_satisfaction(120, seed=0).iloc[:, :3]
    frame = frame.mask(torch.rand(frame.shape, generator=torch.Generator().manual_seed(1)).numpy() < 0.1)
    return Case(BayesianMVN(infer_schema(frame)), frame, ("mean", "scale", "correlation"))


def labels_only(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        arm = pyro.sample("arm", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(2.0 * arm, 1.0), obs=y)


def counts(y: Tensor) -> None:
    number = pyro.sample("number", dist.Poisson(3.0))
    pyro.sample("y", dist.Normal(number, 1.0).expand([len(y)]).to_event(1), obs=y)


def nothing_open(y: Tensor) -> None:
    pyro.sample("y", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)


Y = {"y": torch.linspace(-1.0, 2.0, 7, dtype=torch.float64)}

CASES: dict[str, Callable[[], Case]] = {
    "regression": lambda: Case(regression, regression_data(), ("weights", "noise")),
    "eight schools": lambda: Case(eight_schools, eight_schools_data(), ("mu", "theta")),
    "mixture": lambda: Case(mixture, mixture_data(), ("share", "first", "gap")),
    "factor": lambda: Case(weighted, Y, ("mean", "double")),
    "normal with holes": table,
}
METHODS: dict[str, Method] = {
    "HMC": HMC(num_chains=16, num_warmup=100, num_draws=150),
    "NUTS": NUTS(num_chains=16, num_warmup=100, num_draws=100),
    "SVI": SVI(num_steps=2_500, lr=0.03, num_draws=2_000),
    "EM": EM(num_starts=3),
    "Laplace": Laplace(num_draws=2_000),
    "ImportanceSampling": ImportanceSampling(num_draws=10_000),
}
APPROXIMATE = {"SVI", "Laplace", "EM"}
WEAK_PRIORS = ("factor", "normal with holes")  # where the most likely values are the posterior's
SHIFT = 0.5  # of a posterior sd, that the mean of an approximation may be off without a warning

REFUSED: dict[str, tuple[Callable[..., None], dict[str, str]]] = {
    "labels only": (
        labels_only,
        {
            "HMC": r"only discrete latent sites",
            "NUTS": r"only discrete latent sites",
            "SVI": r"nothing to learn",
            "EM": r"only discrete latent sites",
            "Laplace": r"only discrete latent sites",
            "ImportanceSampling": r"only discrete latent sites",
        },
    ),
    "infinite support": (counts, dict.fromkeys(METHODS, r"site 'number'")),
    "nothing open": (
        nothing_open,
        {
            "HMC": r"no latent site to infer",
            "NUTS": r"no latent site to infer",
            "SVI": r"nothing to learn",
            "EM": r"no latent site to infer",
            "Laplace": r"no latent site to infer",
            "ImportanceSampling": r"no latent site to infer",
        },
    ),
    "network": (vae().model, {n: r"learns none" for n in METHODS if n != "SVI"}),
}


def quiet(case: Case, method: Method) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(case.model, case.data, method, seed=11, progress=False)


@functools.cache
def fitted(case: str, method: str) -> Fit:
    return quiet(CASES[case](), METHODS[method])


@functools.cache
def reference(case: str) -> Fit:
    return quiet(CASES[case](), HMC(num_chains=32, num_warmup=150, num_draws=300))


PAIRS = [(case, method) for case in CASES for method in METHODS if method != "EM" or case in WEAK_PRIORS]


@pytest.mark.parametrize(("case", "method"), PAIRS)
def test_methods_agree(case: str, method: str) -> None:
    found, expected = fitted(case, method), reference(case)
    for site in CASES[case]().sites:
        draws, truth = found.samples[site].double(), expected.samples[site].double()
        difference, sd = (draws.mean((0, 1)) - truth.mean((0, 1))).abs(), truth.std((0, 1))
        if any("Pareto k" in warning for warning in found.warnings):
            assert method in APPROXIMATE, "an exact method must do better than to warn"
            continue
        if method in APPROXIMATE:
            allowed = SHIFT * sd
        else:
            # up to 24 means a site, four methods: 4.5 combined standard errors
            independent = draws.std((0, 1)) / math.sqrt(draws.shape[1])
            own = mcse_mean(draws) if method == "HMC" else independent
            allowed = 4.5 * (own.square() + mcse_mean(truth).square()).sqrt()
        varies = sd > 1e-9 * truth.abs().amax((0, 1))  # the diagonal of a correlation does not
        assert (difference <= allowed)[varies].all(), site
        ratio = draws.std((0, 1)) / sd
        assert (ratio[varies] > 0.5).all() and (ratio[varies] < 1.5).all(), site


@pytest.mark.parametrize(("case", "method"), [*PAIRS, ("mixture", "EM")])
def test_every_fit_can_be_summarised_and_exported(case: str, method: str) -> None:
    found = fitted(case, method)
    frame = summary(found)
    assert frame["mean"].notna().all()
    exported = to_inference_data(found, groups=["posterior"])
    assert set(found.samples) <= set(exported["posterior"].data_vars)


@pytest.mark.parametrize(("case", "method"), [(c, m) for c, (_, told) in REFUSED.items() for m in told])
def test_what_cannot_be_done_is_refused(case: str, method: str) -> None:
    model, told = REFUSED[case]
    data = vae().data if case == "network" else Y
    with pytest.raises(ModelError, match=told[method]):
        fit(model, data, METHODS[method], seed=0, progress=False)


def test_labels_are_recovered_by_every_method() -> None:
    y = mixture_data()["y"]
    far = (y < -1.5) | (y > 1.5)
    for method in METHODS:
        arm = fitted("mixture", method).samples["arm"].double().mean((0, 1))
        torch.testing.assert_close(arm[far], (y[far] > 0).double(), rtol=0, atol=0.12)
