"""Importance sampling where evidence, moments and weights are known."""

import math
import re
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.infer.importance import ImportanceSampling, evidence
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.proposal import HeavyNormal, NormalProposal, flattened
from pyrolatent.infer.resampling import BIAS, inclusion, resampled
from pyrolatent.infer.svi import SVI
from pyrolatent.psis import weights_ess
from pyrolatent.result import Fit
from tests import user_models as um

SEED = 5
HEIGHTS = torch.tensor([1.1, -0.4, 2.3, 0.8, 1.9, 0.2, 1.4, 3.0], dtype=torch.float64)


def standard_error(fit: Fit, site: str) -> Tensor:
    """Of the mean of the draws kept: that of the weighted mean, and that of keeping M of them."""
    draws = fit.samples[site]
    return draws.std((0, 1)) * (1 / fit.info["ess"] + 1 / fit.num_draws) ** 0.5


def check_evidence(fit: Fit, exact: float) -> None:
    assert fit.info["log_evidence"] == pytest.approx(exact, abs=4 * fit.info["log_evidence_error"])


# A normal of unknown mean and variance with its conjugate prior


def normal_inverse_gamma(y: Tensor) -> None:
    variance = pyro.sample("variance", dist.InverseGamma(3.0, 2.0))
    mean = pyro.sample("mean", dist.Normal(0.5, (variance / 2.0).sqrt()))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, variance.sqrt()), obs=y)


def exact_normal_inverse_gamma(y: Tensor) -> tuple[float, float, float]:
    """Posterior mean of `mean` and of `variance`, and log evidence (Murphy 2007, section 3)."""
    n, m, k, a, b = len(y), 0.5, 2.0, 3.0, 2.0
    average, spread = float(y.mean()), float(((y - y.mean()) ** 2).sum())
    k_n, a_n = k + n, a + n / 2
    m_n = (k * m + n * average) / k_n
    b_n = b + 0.5 * spread + k * n * (average - m) ** 2 / (2 * k_n)
    log_evidence = math.lgamma(a_n) - math.lgamma(a) + a * math.log(b) - a_n * math.log(b_n)
    log_evidence += 0.5 * math.log(k / k_n) - n / 2 * math.log(2 * math.pi)
    return m_n, b_n / (a_n - 1), log_evidence


def test_conjugate_normal_with_unknown_variance() -> None:
    mean, variance, log_evidence = exact_normal_inverse_gamma(HEIGHTS)
    fit = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, ImportanceSampling(), seed=SEED)
    check_evidence(fit, log_evidence)
    assert fit.info["log_evidence_error"] < 0.02
    for site, exact in (("mean", mean), ("variance", variance)):
        error = float(standard_error(fit, site))
        assert float(fit.samples[site].mean()) == pytest.approx(exact, abs=4 * error)
    assert fit.weights is not None
    assert fit.weights.pareto_k < 0.5
    assert fit.warnings == ()


def test_skewed_posterior_without_data() -> None:
    """The prior is the posterior: log evidence 0, Gamma(2, 1) has mean 2 and variance 2."""

    def skewed() -> None:
        pyro.sample("x", dist.Gamma(2.0, torch.ones(3)).to_event(1))

    fit = pyl.fit(skewed, {}, ImportanceSampling(), seed=SEED)
    check_evidence(fit, 0.0)
    x = fit.samples["x"][0]
    tolerance = 4 * (1 / fit.info["ess"] + 1 / fit.num_draws) ** 0.5
    torch.testing.assert_close(x.mean(0), torch.full((3,), 2.0).double(), rtol=0, atol=2**0.5 * tolerance)
    # The fourth central moment of Gamma(2, 1) is 24, so (x - 2)^2 has variance 24 - 4.
    torch.testing.assert_close(
        (x - 2).square().mean(0), torch.full((3,), 2.0).double(), rtol=0, atol=20**0.5 * tolerance
    )


def test_evidence_with_a_dependent_support() -> None:
    """Counts of three choices, uniform on the simplex: the normaliser is a product of betas."""
    model, make_data = um.GRADIENT_BAR["dependent_support"]
    counts = torch.bincount(make_data()["choice"]).tolist()

    def log_beta(p: int, q: int) -> float:
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    exact = log_beta(counts[0] + 1, counts[1] + counts[2] + 1) + log_beta(counts[1] + 1, counts[2] + 1)
    check_evidence(pyl.fit(model, make_data(), ImportanceSampling(), seed=SEED), exact)


def test_discrete_sites_are_summed_out_and_drawn() -> None:
    """Each row shifted by 3 with probability 0.3: the evidence is a sum over all 2^4 ways to shift."""
    y = torch.tensor([0.2, 3.4, -0.7, 1.6], dtype=torch.float64)

    def shifted(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            shift = pyro.sample("shift", dist.Bernoulli(0.3))
            pyro.sample("y", dist.Normal(mean + 3 * shift, 1.0), obs=y)

    ways = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * len(y))
    marginal = dist.MultivariateNormal(torch.zeros_like(y), torch.eye(len(y)).double() + 1)
    prior = dist.Bernoulli(torch.tensor(0.3, dtype=torch.float64)).log_prob(ways).sum(1)
    joint = prior + marginal.log_prob(y - 3 * ways)
    fit = pyl.fit(shifted, {"y": y}, ImportanceSampling(), seed=SEED)
    check_evidence(fit, float(joint.logsumexp(0)))
    expected = joint.softmax(0) @ ways
    error = (expected * (1 - expected)).sqrt() * (1 / fit.info["ess"] + 1 / fit.num_draws) ** 0.5
    found = fit.samples["shift"].double().mean((0, 1))
    assert ((found - expected).abs() < 4 * error).all()


def test_a_skewed_hierarchy_is_reached_by_moving() -> None:
    """At the mode of the eight schools the normal has a Pareto k above 1; moved, it will do."""
    model, make_data = um.REFERENCES["eight_schools-eight_schools_noncentered"]
    fit = pyl.fit(model, make_data(), ImportanceSampling(20_000), seed=SEED)
    assert fit.weights is not None
    assert fit.weights.pareto_k < 0.7
    assert fit.info["ess"] > 4_000
    reference = um.reference("eight_schools-eight_schools_noncentered")["mu"]
    error = math.hypot(float(standard_error(fit, "mu")), reference["sd"] / reference["draws"] ** 0.5)
    assert float(fit.samples["mu"].mean()) == pytest.approx(reference["mean"], abs=4 * error)
    assert fit.warnings == ()


# A normal mean: everything is known


def normal_mean(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def exact_normal_mean(y: Tensor) -> tuple[float, float, float]:
    """Posterior mean and sd, and log evidence."""
    precision = 1 + len(y)
    covariance = torch.eye(len(y)).double() + 1
    log_evidence = dist.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)
    return float(y.sum()) / precision, precision**-0.5, float(log_evidence)


POSTERIOR = exact_normal_mean(HEIGHTS)


def exact_guide(y: Tensor) -> None:
    pyro.sample("mean", dist.Normal(POSTERIOR[0], POSTERIOR[1]))


def narrow_guide(y: Tensor) -> None:
    pyro.sample("mean", dist.Normal(POSTERIOR[0], 0.3 * POSTERIOR[1]))


def distant_guide(y: Tensor) -> None:
    pyro.sample("mean", dist.Normal(100.0, 1.0))


def with_guide(guide: Any, **settings: Any) -> Fit:
    data = {"y": HEIGHTS}
    return pyl.fit(normal_mean, data, ImportanceSampling(1_000), guide=guide, seed=SEED, **settings)


def test_the_posterior_itself_has_equal_weights_and_keeps_every_draw() -> None:
    fit = with_guide(exact_guide)
    assert fit.weights is not None
    assert fit.weights.pareto_k == -math.inf
    expected = torch.full((1_000,), POSTERIOR[2], dtype=torch.float64)
    torch.testing.assert_close(fit.weights.raw, expected, rtol=0, atol=1e-10)
    assert fit.info["log_evidence"] == pytest.approx(POSTERIOR[2], abs=1e-10)
    assert fit.info["log_evidence_error"] == pytest.approx(0, abs=1e-6)
    assert fit.info["ess"] == pytest.approx(1_000)
    assert fit.samples["mean"].shape == (1, 1_000)
    assert len(fit.samples["mean"].unique()) == 1_000
    assert fit.warnings == ()


def test_normal_posterior_has_weights_of_at_most_two() -> None:
    """Half of the proposal is the posterior, so no weight is above 2 in units of the evidence."""
    fit = pyl.fit(normal_mean, {"y": HEIGHTS}, ImportanceSampling(), seed=SEED)
    assert fit.weights is not None
    assert float(fit.weights.raw.max()) <= POSTERIOR[2] + math.log(2) + 1e-9
    assert fit.weights.pareto_k < 0
    check_evidence(fit, POSTERIOR[2])
    assert fit.num_draws > 5_000 * (1 - 4 * fit.info["log_evidence_error"])


def test_a_light_proposal_is_found_out() -> None:
    """A normal of 0.3 times the posterior's width has k = 1 - 0.3^2 = 0.91."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        fit = with_guide(narrow_guide)
    assert re.match(r"Pareto k is [01]\.\d\d \(> 0\.67\): the weights cannot be trusted", fit.warnings[0])
    assert fit.weights is not None
    assert fit.weights.pareto_k > 0.7


def test_all_weight_on_one_draw_is_said_plainly() -> None:
    # Neighbouring draws differ by some 0.3 at the edge, where weights fall by 900 nats a unit.
    with pytest.warns(
        pyl.FitWarning, match=r"One of 1000 draws carries 100% of the importance weight"
    ) as caught:
        fit = with_guide(distant_guide)
    assert len(caught) == 1
    assert fit.num_draws < 10


def test_a_proposal_outside_the_support_is_refused() -> None:
    def positive() -> None:
        pyro.sample("x", dist.Exponential(1.0))

    def negative() -> None:
        pyro.sample("x", dist.Uniform(-2.0, -1.0))

    with pytest.raises(pyl.ModelError, match="site 'x', draw 0: a value lies outside the support"):
        pyl.fit(positive, {}, ImportanceSampling(100), guide=negative, seed=SEED)


def test_impossible_draws_have_no_weight() -> None:
    """Half of a normal: its evidence is 1/2, and no draw of the other half is kept."""

    def half() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("limit", torch.where(x > 0, 0.0, -torch.inf))

    def whole() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    fit = pyl.fit(half, {}, ImportanceSampling(4_000), guide=whole, seed=SEED)
    assert float(fit.samples["x"].min()) > 0
    assert fit.weights is not None
    assert fit.weights.pareto_k == -math.inf
    check_evidence(fit, math.log(0.5))


# Starts


def test_a_trained_guide_proposes_at_its_learnt_parameters() -> None:
    start = pyl.fit(normal_mean, {"y": HEIGHTS}, SVI(num_steps=1_000, lr=0.05), guide=AutoNormal, seed=SEED)
    fit = pyl.fit(normal_mean, {"y": HEIGHTS}, ImportanceSampling(), start=start, seed=SEED)
    check_evidence(fit, POSTERIOR[2])
    mean = float(fit.samples["mean"].mean())
    assert mean == pytest.approx(POSTERIOR[0], abs=4 * float(standard_error(fit, "mean")))
    # At its first parameters, of sd 0.1 around a random place, the guide would be worth some tens of draws.
    assert fit.info["ess"] > 8_000
    assert fit.warnings == ()


def test_parameters_of_the_model_stay_at_what_was_learnt() -> None:
    def empirical_bayes(y: Tensor) -> None:
        width = pyro.param("width", torch.tensor(1.5), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(0.0, width))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    start = pyl.fit(empirical_bayes, {"y": HEIGHTS}, SVI(num_steps=400, lr=0.05), seed=SEED)
    fit = pyl.fit(empirical_bayes, {"y": HEIGHTS}, ImportanceSampling(1_000), start=start, seed=SEED)
    width = float(start.params["width"])
    marginal = torch.eye(len(HEIGHTS)).double() + width**2
    exact = dist.MultivariateNormal(torch.zeros_like(HEIGHTS), marginal).log_prob(HEIGHTS)
    check_evidence(fit, float(exact))
    assert float(fit.params["width"]) == pytest.approx(width)


@pytest.mark.parametrize("method", [Laplace(), pyl.HMC()], ids=["Laplace", "HMC"])
def test_a_normal_at_another_fit(method: Any) -> None:
    start = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, method, seed=SEED)
    fit = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, ImportanceSampling(), start=start, seed=SEED)
    check_evidence(fit, exact_normal_inverse_gamma(HEIGHTS)[2])
    assert fit.info["ess"] > 5_000


def test_a_fit_of_another_model_is_refused() -> None:
    start = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, Laplace(), seed=SEED)
    words = (
        r"other latent sites: draws of {'variance': \(\), 'mean': \(\)}, where this model has {'mean': \(\)}"
    )
    for method in (ImportanceSampling(), pyl.HMC(), Laplace()):
        with pytest.raises(pyl.ModelError, match=words):
            pyl.fit(normal_mean, {"y": HEIGHTS}, method, start=start, seed=SEED)


# Guides that cannot propose


def learning_guide(y: Tensor) -> None:
    pyro.sample("mean", dist.Normal(pyro.param("place", torch.zeros(())), 1.0))


def other_guide(y: Tensor) -> None:
    pyro.sample("centre", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("guide", [learning_guide, AutoNormal])
def test_a_guide_that_nobody_trained_is_refused(guide: Any) -> None:
    with pytest.raises(pyl.ModelError, match=r"parameters that nobody has learnt.* start=that_fit"):
        with_guide(guide)


def test_a_guide_of_other_sites_is_refused_with_both_lists() -> None:
    with pytest.raises(pyl.ModelError, match=r"latent sites are \['mean'\], the guide draws \['centre'\]"):
        with_guide(other_guide)


def test_a_guide_that_is_a_point_is_refused() -> None:
    start = pyl.fit(normal_mean, {"y": HEIGHTS}, SVI(num_steps=10), guide=AutoDelta, seed=SEED)
    with pytest.raises(pyl.ModelError, match=r"sites \['mean'\]: the guide draws the same value every time"):
        pyl.fit(normal_mean, {"y": HEIGHTS}, ImportanceSampling(100), start=start, seed=SEED)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(pyl.ArgumentError, match=r"num_draws is too small: got 50\. give at least 100"):
        ImportanceSampling(50)


# What other verbs expect


def test_a_fit_is_what_other_verbs_expect() -> None:
    fit = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, ImportanceSampling(2_000), seed=SEED)
    again = pyl.fit(normal_inverse_gamma, {"y": HEIGHTS}, ImportanceSampling(2_000), seed=SEED)
    assert torch.equal(fit.samples["mean"], again.samples["mean"])
    assert fit.sample_stats["lp"].shape == fit.samples["mean"].shape
    table = pyl.summary(fit)
    # The mean of the draws kept is no better known than so many draws make it.
    assert (table["ess"] <= fit.num_draws).all()
    assert table["ess"].to_numpy() == pytest.approx((table["sd"] / table["mcse_mean"]) ** 2, rel=0.5)
    assert pyl.predict(fit, num_draws=10)["y"].shape == (10, len(HEIGHTS))
    assert pyl.to_inference_data(fit).posterior["mean"].shape == (1, fit.num_draws)


# Parts


def test_draws_are_kept_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([0.25, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.0], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    runs = [resampled(weights.log(), random) for _ in range(4_000)]
    assert all(len(run) == 4 == len(run.unique()) for run in runs)
    shares = torch.cat(runs).bincount(minlength=8) / 4_000
    # Binomial counts with p = 4 w: sd at most 1/2 / sqrt(4,000).
    torch.testing.assert_close(shares.double(), 4 * weights, rtol=0, atol=4 * 0.5 / 4_000**0.5)


def test_as_many_are_kept_as_bias_allows() -> None:
    random = torch.Generator().manual_seed(0)
    weights = (2 * torch.randn(2_000, generator=random, dtype=torch.float64)).softmax(0)
    probability = inclusion(weights)
    number = round(float(probability.sum()))
    assert float(probability.sum()) == pytest.approx(number)
    below = probability < 1
    factor = probability[below] / weights[below]
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))
    assert float((weights[~below] * factor[0]).min()) >= 1

    def moved(number: int) -> float:
        return float((weights - 1 / number).clamp(min=0).sum()) * number**0.5

    assert moved(number) <= BIAS < moved(number + 1)
    assert number > 1 / float(weights.max())


def test_equal_weights_are_all_kept() -> None:
    random = torch.Generator().manual_seed(0)
    weights = torch.full((999,), -math.log(999), dtype=torch.float64)
    weights += 1e-12 * torch.randn(999, generator=random, dtype=torch.float64)
    assert torch.equal(resampled(weights, random).sort().values, torch.arange(999))


def test_evidence_and_its_error_by_the_plain_formula() -> None:
    raw = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = raw.exp()
    log_evidence, error = evidence(raw)
    assert log_evidence == pytest.approx(math.log(weights.mean()))
    assert error == pytest.approx(float(weights.std(correction=0) / weights.mean()) / 300**0.5)


@pytest.mark.parametrize("kind", [NormalProposal, HeavyNormal])
def test_log_probabilities_are_those_of_the_draws(kind: Any) -> None:
    """E[p / q] = 1 for a normal p inside q's reach, and torch's own densities."""
    centre = torch.tensor([1.0, -2.0], dtype=torch.float64)
    factor = torch.tensor([[2.0, 0.5], [0.3, 0.4]], dtype=torch.float64)
    position, log_prob = kind(centre, factor).draw(20_000, torch.Generator().manual_seed(0))
    normal = dist.MultivariateNormal(centre, factor @ factor.mT)
    expected = normal.log_prob(position)
    if kind is HeavyNormal:
        student = dist.MultivariateStudentT(5.0, centre, torch.linalg.cholesky(factor @ factor.mT))
        expected = torch.logaddexp(expected, student.log_prob(position)) - math.log(2)
    torch.testing.assert_close(log_prob, expected)
    ratio = (normal.log_prob(position) - log_prob).exp()
    # Ratios lie between 0 and 2, so their mean's standard error is at most 1 / sqrt(20,000).
    assert float(ratio.mean()) == pytest.approx(1, abs=4 / 20_000**0.5)


def test_flattened_weights_have_the_effective_number_asked_for() -> None:
    raw = 5 * torch.randn(1_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw[:10] = -torch.inf
    assert weights_ess(flattened(raw, 200.0)) == pytest.approx(200, rel=1e-3)
    torch.testing.assert_close(flattened(0.1 * raw, 200.0), (0.1 * raw).log_softmax(0))
