"""Pyro models as a user writes them, with their data.

Plain functions of tensors and constants that know nothing of this package, called as
`model(**data)`.  Data are in double precision and the same on every call.

- `REFERENCES`: posteriordb's targets exactly as their Stan programs state them, where a published
  posterior says what is right.
- `GRADIENT_BAR`: the shapes of density that a user brings: small and hierarchical, tall data, a
  Cholesky factorisation, a long Python loop, a correlation matrix, a support that depends on another
  site.
- `RUNG_BAR`: what people write Pyro for, each in the way that comes to mind first: on every rung of the
  ladder it has the same density.  States and arms are discrete latents, summed out.
- `mvn`: the Bayesian multivariate normal with LKJ prior, without this package's version of it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

Data = dict[str, Any]
UserModel = tuple[Callable[..., None], Callable[[], Data]]

POSTERIORDB = Path(__file__).parent / "data" / "posteriordb"


# posteriordb


def ar_k(y: Tensor, order: int) -> None:
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    lags = torch.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], dim=-1)
    with pyro.plate("data", len(y) - order):
        pyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[order:])


def ar_k_data() -> Data:
    stan = _stan_data("arK-arK")
    return {"y": _tensor(stan["y"]), "order": stan["K"]}


def eight_schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("data", len(y)):
        theta_trans = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * theta_trans)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_data() -> Data:
    stan = _stan_data("eight_schools-eight_schools_noncentered")
    return {"y": _tensor(stan["y"]), "sigma": _tensor(stan["sigma"])}


def gp_poisson(x: Tensor, k: Tensor) -> None:
    # The jitter of 1e-10 needs double precision.
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    f_tilde = pyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    distance = x.unsqueeze(-1) - x
    covariance = alpha**2 * torch.exp(-0.5 * (distance / rho) ** 2) + 1e-10 * torch.eye(len(x))
    f = pyro.deterministic("f", torch.linalg.cholesky(covariance) @ f_tilde, event_dim=1)
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Poisson(f.exp()), obs=k)


def gp_poisson_data() -> Data:
    stan = _stan_data("gp_pois_regr-gp_pois_regr")
    return {"x": _tensor(stan["x"]), "k": _tensor(stan["k"])}


def kid_score(kid_score: Tensor, mom_iq: Tensor, mom_hs: Tensor) -> None:
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (4,)))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    mean = beta[0] + beta[1] * mom_hs + beta[2] * mom_iq + beta[3] * mom_hs * mom_iq
    with pyro.plate("data", len(kid_score)):
        pyro.sample("kid_score", dist.Normal(mean, sigma), obs=kid_score)


def kid_score_data() -> Data:
    stan = _stan_data("kidiq-kidscore_interaction")
    return {name: _tensor(stan[name]) for name in ("kid_score", "mom_iq", "mom_hs")}


def gauss_mix(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    arms = dist.Categorical(torch.stack([theta, 1 - theta]))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(arms, dist.Normal(mu, sigma)), obs=y)


def gauss_mix_data() -> Data:
    return {"y": _tensor(_stan_data("low_dim_gauss_mix-low_dim_gauss_mix")["y"])}


# The gradient bar


def logistic(x: Tensor, y: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def logistic_data() -> Data:
    noise = torch.Generator().manual_seed(1)
    x = _normal(10_000, 20, noise=noise)
    logits = x @ (0.5 * _normal(20, noise=noise))
    return {"x": x, "y": (_uniform(10_000, noise=noise) < logits.sigmoid()).double()}


def gp_regression(x: Tensor, y: Tensor) -> None:
    length = pyro.sample("length", dist.LogNormal(0.0, 1.0))
    amplitude = pyro.sample("amplitude", dist.HalfNormal(2.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    distance = x.unsqueeze(-1) - x
    kernel = amplitude**2 * torch.exp(-0.5 * (distance / length) ** 2) + noise**2 * torch.eye(len(x))
    cholesky = torch.linalg.cholesky(kernel)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), scale_tril=cholesky), obs=y)


def gp_regression_data() -> Data:
    x = torch.linspace(0.0, 10.0, 50, dtype=torch.float64)
    noise = torch.Generator().manual_seed(2)
    return {"x": x, "y": 1.5 * torch.sin(x) + 0.3 * _normal(50, noise=noise)}


def ar5_loop(y: Tensor) -> None:
    alpha = pyro.sample("alpha", dist.Normal(0.0, 1.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 0.5).expand([5]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    for t in range(5, len(y)):
        mean = alpha + beta @ y[t - 5 : t].flip(0)
        pyro.sample(f"y_{t}", dist.Normal(mean, sigma), obs=y[t])


def ar5_loop_data() -> Data:
    shocks = 0.2 * _normal(205, noise=torch.Generator().manual_seed(3))
    y = shocks.clone()
    for t in range(5, 205):
        y[t] = 0.1 + 0.6 * y[t - 1] - 0.3 * y[t - 2] + 0.2 * y[t - 5] + shocks[t]
    return {"y": y}


def random_slopes(x: Tensor, y: Tensor, group: Tensor, num_groups: int) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(3, 2.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    prior = dist.MultivariateNormal(mean, scale_tril=scale.unsqueeze(-1) * correlation)
    with pyro.plate("groups", num_groups):
        slopes = pyro.sample("slopes", prior)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal((x * slopes[group]).sum(-1), noise), obs=y)


def random_slopes_data() -> Data:
    noise = torch.Generator().manual_seed(4)
    group = torch.arange(400) % 20
    x = torch.cat([torch.ones(400, 1, dtype=torch.float64), _normal(400, 2, noise=noise)], dim=1)
    slopes = torch.tensor([1.0, 0.5, -0.5]) + 0.7 * _normal(20, 3, noise=noise)
    y = (x * slopes[group]).sum(-1) + 0.4 * _normal(400, noise=noise)
    return {"x": x, "y": y, "group": group, "num_groups": 20}


def dependent_support(choice: Tensor) -> None:
    """Shares of three choices; b can only be what a leaves over.

    With n_0, n_1, n_2 choices seen, exactly and independently a ~ Beta(n_0 + 1, n_1 + n_2 + 1) and
    b / (1 - a) ~ Beta(n_1 + 1, n_2 + 1).
    """
    a = pyro.sample("a", dist.Uniform(0.0, 1.0))
    b = pyro.sample("b", dist.Uniform(0.0, 1 - a))
    with pyro.plate("data", len(choice)):
        pyro.sample("choice", dist.Categorical(torch.stack([a, b, 1 - a - b])), obs=choice)


def dependent_support_data() -> Data:
    return {"choice": torch.tensor([0, 1, 2, 1, 2, 0, 2, 1, 2, 0, 2, 1])}


# The rung bar


def hierarchical_centred(y: Tensor, x: Tensor, group: Tensor, num_groups: int) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", num_groups):
        intercept = pyro.sample("intercept", dist.Normal(mean, spread))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(intercept[group] + slope * x, noise), obs=y)


def hierarchical_non_centred(y: Tensor, x: Tensor, group: Tensor, num_groups: int) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", num_groups):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        intercept = pyro.deterministic("intercept", mean + spread * shift)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(intercept[group] + slope * x, noise), obs=y)


def hierarchical_data() -> Data:
    noise = torch.Generator().manual_seed(6)
    group, x = torch.arange(60) % 8, _normal(60, noise=noise)
    y = (1.0 + 0.8 * _normal(8, noise=noise))[group] + 0.5 * x + 0.3 * _normal(60, noise=noise)
    return {"y": y, "x": x, "group": group, "num_groups": 8}


def poisson_regression(x: Tensor, count: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    slopes = pyro.sample("slopes", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("count", dist.Poisson((intercept + x @ slopes).exp()), obs=count)


def poisson_regression_data() -> Data:
    noise = torch.Generator().manual_seed(7)
    x = _normal(80, 3, noise=noise)
    rate = (0.5 + x @ torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)).exp()
    return {"x": x, "count": torch.poisson(rate, generator=noise)}


def ar5_short_data() -> Data:
    return {"y": ar5_loop_data()["y"][:45]}


def hidden_markov(y: Tensor) -> None:
    transition = pyro.sample("transition", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    location = pyro.sample("location", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    state = 0
    for t in pyro.markov(range(len(y))):
        state = pyro.sample(f"state_{t}", dist.Categorical(transition[state]))
        pyro.sample(f"y_{t}", dist.Normal(location[state], scale), obs=y[t])


def hidden_markov_data() -> Data:
    noise = torch.Generator().manual_seed(8)
    return {"y": torch.tensor([-1.0] * 8 + [1.5] * 7 + [-1.0] * 5) + 0.5 * _normal(20, noise=noise)}


def mixture(y: Tensor) -> None:
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
    location = pyro.sample("location", dist.Normal(0.0, 3.0).expand([3]).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        arm = pyro.sample("arm", dist.Categorical(shares))
        pyro.sample("y", dist.Normal(location[arm], scale), obs=y)


def mixture_data() -> Data:
    noise = torch.Generator().manual_seed(9)
    arm = torch.arange(60) % 3
    return {"y": torch.tensor([-3.0, 0.0, 2.5])[arm] + 0.6 * _normal(60, noise=noise)}


def ordinal(x: Tensor, grade: Tensor, num_grades: int) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    spaced = dist.Normal(torch.zeros(num_grades - 1), 2.0).to_event(1)
    cutpoints = pyro.sample(
        "cutpoints", dist.TransformedDistribution(spaced, [dist.transforms.OrderedTransform()])
    )
    with pyro.plate("data", len(x)):
        pyro.sample("grade", dist.OrderedLogistic(slope * x, cutpoints), obs=grade)


def ordinal_data() -> Data:
    noise = torch.Generator().manual_seed(10)
    x = _normal(70, noise=noise)
    latent = 0.8 * x + torch.logit(_uniform(70, noise=noise))
    return {"x": x, "grade": torch.bucketize(latent, torch.tensor([-1.0, 0.0, 1.5])), "num_grades": 4}


def horseshoe(x: Tensor, y: Tensor) -> None:
    overall = pyro.sample("overall", dist.HalfCauchy(1.0))
    local = pyro.sample("local", dist.HalfCauchy(1.0).expand([x.shape[1]]).to_event(1))
    weights = pyro.sample("weights", dist.Normal(0.0, overall * local).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weights, noise), obs=y)


def horseshoe_data() -> Data:
    noise = torch.Generator().manual_seed(11)
    x = _normal(50, 8, noise=noise)
    return {"x": x, "y": 2.0 * x[:, 0] - x[:, 3] + 0.5 * _normal(50, noise=noise)}


def zero_inflated(x: Tensor, count: Tensor) -> None:
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        rate = (intercept + slope * x).exp()
        pyro.sample("count", dist.ZeroInflatedPoisson(rate, gate=gate), obs=count)


def zero_inflated_data() -> Data:
    noise = torch.Generator().manual_seed(12)
    x = _normal(80, noise=noise)
    count = torch.poisson((0.7 + 0.4 * x).exp(), generator=noise)
    return {"x": x, "count": count * (_uniform(80, noise=noise) > 0.3)}


def censored_survival(x: Tensor, time: Tensor, died: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        scale = (intercept + slope * x).exp()
        with pyro.poutine.mask(mask=died):
            pyro.sample("time", dist.Weibull(scale, shape), obs=time)
        with pyro.poutine.mask(mask=~died):
            pyro.factor("survived", -((time / scale) ** shape))


def censored_survival_data() -> Data:
    noise = torch.Generator().manual_seed(13)
    x = _normal(60, noise=noise)
    time = (0.5 + 0.4 * x).exp() * (-_uniform(60, noise=noise).log()) ** (1 / 1.5)
    return {"x": x, "time": time.clamp(max=2.0), "died": time < 2.0}


# The multivariate normal


def mvn(x: Tensor) -> None:
    n, d = x.shape
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([d]).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([d]).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(d, 1.0))
    with pyro.plate("data", n):
        pyro.sample("x", dist.MultivariateNormal(mean, scale_tril=scale.unsqueeze(-1) * correlation), obs=x)


def mvn_data() -> Data:
    """263 rows of 12 columns that share one factor: correlations of 0.16 to 0.64."""
    noise = torch.Generator().manual_seed(5)
    loading = 0.4 + 0.4 * _uniform(12, noise=noise)
    factor, own = _normal(263, 1, noise=noise), _normal(263, 12, noise=noise)
    scale = 0.5 + 0.6 * _uniform(12, noise=noise)
    return {"x": scale * (loading * factor + (1 - loading**2).sqrt() * own)}


REFERENCES: dict[str, UserModel] = {
    "arK-arK": (ar_k, ar_k_data),
    "eight_schools-eight_schools_noncentered": (eight_schools, eight_schools_data),
    "gp_pois_regr-gp_pois_regr": (gp_poisson, gp_poisson_data),
    "kidiq-kidscore_interaction": (kid_score, kid_score_data),
    "low_dim_gauss_mix-low_dim_gauss_mix": (gauss_mix, gauss_mix_data),
}
GRADIENT_BAR: dict[str, UserModel] = {
    "eight_schools": (eight_schools, eight_schools_data),
    "logistic": (logistic, logistic_data),
    "gp_regression": (gp_regression, gp_regression_data),
    "ar5_loop": (ar5_loop, ar5_loop_data),
    "random_slopes": (random_slopes, random_slopes_data),
    "dependent_support": (dependent_support, dependent_support_data),
}
RUNG_BAR: dict[str, UserModel] = {
    "hierarchical_centred": (hierarchical_centred, hierarchical_data),
    "hierarchical_non_centred": (hierarchical_non_centred, hierarchical_data),
    "logistic": (logistic, logistic_data),
    "poisson": (poisson_regression, poisson_regression_data),
    "gp_regression": (gp_regression, gp_regression_data),
    "autoregression": (ar5_loop, ar5_short_data),
    "hidden_markov": (hidden_markov, hidden_markov_data),
    "mixture": (mixture, mixture_data),
    "ordinal": (ordinal, ordinal_data),
    "random_slopes": (random_slopes, random_slopes_data),
    "horseshoe": (horseshoe, horseshoe_data),
    "zero_inflated": (zero_inflated, zero_inflated_data),
    "censored_survival": (censored_survival, censored_survival_data),
}
MVN: UserModel = (mvn, mvn_data)


def reference(name: str) -> dict[str, dict[str, float]]:
    """Return posteriordb's parameter -> {mean, sd, q05, q95, draws} of the target `name`."""
    summary: dict[str, dict[str, float]] = json.loads((POSTERIORDB / f"{name}.json").read_text())["reference"]
    return summary


def by_reference_name(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split sites into posteriordb's scalars: `beta` (C, N, K) into `beta[1]` ... `beta[K]`, each (C, N)."""
    named: dict[str, Tensor] = {}
    for site, draws in samples.items():
        if draws.dim() == 2:
            named[site] = draws
        else:
            named |= {f"{site}[{k}]": column for k, column in enumerate(draws.flatten(2).unbind(-1), start=1)}
    return named


def _stan_data(name: str) -> Data:
    data: Data = json.loads((POSTERIORDB / f"{name}.json").read_text())["data"]
    return data


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _normal(*shape: int, noise: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=noise, dtype=torch.float64)


def _uniform(*shape: int, noise: torch.Generator) -> Tensor:
    return torch.rand(*shape, generator=noise, dtype=torch.float64)
