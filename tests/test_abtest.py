"""Models of tests: their likelihood by brute force, exact posteriors, and the same answer by every method."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import capture_density
from pyrolatent.capture.expectation import log_total
from pyrolatent.errors import ArgumentError, DataError, FitWarning
from pyrolatent.infer.em_setup import steps_of
from pyrolatent.infer.em_steps import MixtureSteps, counted
from pyrolatent.models.abtest import KINDS, ABTest, Family, Priors
from pyrolatent.ordered import Ordered
from pyrolatent.revenue import ZeroInflatedLogNormal
from pyrolatent.schema import Schema, infer_schema

FAMILIES: tuple[Family, ...] = (
    "normal", "student", "lognormal", "bernoulli", "poisson", "negative_binomial", "revenue",
)  # fmt: skip
ROWS = 120


def table(family: Family, rows: int = ROWS, holes: float = 0.25) -> pd.DataFrame:
    """Three arms and a covariate; labels and outcomes are partly missing."""
    random = np.random.default_rng(7)
    group = random.integers(3, size=rows)
    before = random.normal(size=rows)
    shift = 0.4 * group
    outcome = {
        "normal": lambda: 50 + 10 * shift + (8 + group) * random.normal(size=rows),
        "student": lambda: shift + random.standard_t(5, size=rows),
        "lognormal": lambda: np.exp(3 + shift + 0.5 * random.normal(size=rows)),
        "bernoulli": lambda: (random.random(rows) < 0.2 + 0.2 * group).astype(float),
        "poisson": lambda: random.poisson(2 + 2 * group).astype(float),
        "negative_binomial": lambda: random.poisson(random.gamma(2, 1 + group)).astype(float),
        "revenue": lambda: (random.random(rows) < 0.6) * np.exp(2 + shift + 0.7 * random.normal(size=rows)),
    }[family]()
    frame = pd.DataFrame({"y": outcome, "arm": np.array(["a", "b", "c"])[group], "before": before})
    for name in ("y", "arm"):
        frame.loc[random.random(rows) < holes, name] = None if name == "arm" else np.nan
    return frame


def schema_of(frame: pd.DataFrame, family: Family) -> Schema:
    return infer_schema(frame, kinds={"y": KINDS[family], "arm": "categorical"})


def pair_of(frame: pd.DataFrame, family: Family, **settings: Any) -> ABTest:
    return ABTest(schema_of(frame, family), "y", "arm", family, **settings)


def quiet(pair: Any, data: Any, method: Any, **settings: Any) -> pyl.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return pyl.fit(pair, data, method, **{"seed": 0, "progress": False, **settings})


# The likelihood


def log_density(family: Family, y: float, latents: dict[str, Any], k: int, moved: float) -> float:
    """log p(y | arm k), in the units of the model, by SciPy."""
    own = {name: value[k] if np.shape(value) == (3,) else value for name, value in latents.items()}
    match family:
        case "normal" | "lognormal":
            return float(stats.norm.logpdf(y, own["location"] + moved, own["spread"]))
        case "student":
            return float(stats.t.logpdf(y, 2 + own["tails"], own["location"] + moved, own["spread"]))
        case "bernoulli":
            log_odds = math.log(own["probability"] / (1 - own["probability"])) + moved
            return float(stats.bernoulli.logpmf(y, 1 / (1 + math.exp(-log_odds))))
        case "poisson":
            return float(stats.poisson.logpmf(y, own["rate"] * math.exp(moved)))
        case "negative_binomial":
            size, mean = own["concentration"], own["rate"] * math.exp(moved)
            return float(stats.nbinom.logpmf(y, size, size / (size + mean)))
    if y == 0:
        return math.log1p(-own["probability"])
    amount = stats.lognorm.logpdf(y, own["spread"], scale=math.exp(own["location"] + moved))
    return math.log(own["probability"]) + float(amount)


@pytest.mark.parametrize("covariates", [(), ("before",)], ids=["plain", "covariate"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_likelihood_is_that_of_brute_force(family: Family, covariates: tuple[str, ...]) -> None:
    frame = table(family, 40)
    pair = pair_of(frame, family, covariates=covariates)
    data = pair.schema.encode(frame)
    density = capture_density(pair.model, data, seed=0, total=lambda joint: log_total(counted(joint, False)))
    position = torch.linspace(-0.6, 0.5, density.dim, dtype=torch.float64)
    (found,), _ = density(position[None])
    sites = {name: value[0].numpy() for name, value in density.constrain(position[None]).items()}
    x, mask = data["x"].numpy(), data["mask"].numpy()
    total = 0.0
    for row, seen in zip(x, mask, strict=True):
        moved = float(row[2:] @ sites["slope"]) if covariates else 0.0
        terms = []
        for k in range(3):
            value = math.log(sites["share"][k])
            if seen[1]:
                value += 0.0 if row[1] == k else -math.inf
            if seen[0]:
                value += log_density(family, row[0], sites, k, moved)
            terms.append(value)
        total += float(np.logaddexp.reduce(terms))
    assert float(found) == pytest.approx(total, abs=1e-8)


@pytest.mark.parametrize("family", ["lognormal", "bernoulli", "poisson", "negative_binomial", "revenue"])
def test_an_arm_has_the_mean_and_spread_of_all_rows(family: Family) -> None:
    frame = table(family, 40)
    pair = pair_of(frame, family, covariates=("before",))
    data = pair.schema.encode(frame)
    density = capture_density(pair.model, data, seed=0)
    position = torch.linspace(-0.6, 0.5, density.dim, dtype=torch.float64)
    sites = {name: value[0] for name, value in density.constrain(position[None]).items()}
    moved = data["x"][:, 2:] @ sites["slope"]
    mean, sd = pair.moments(pair.distribution({name: v[..., None] for name, v in sites.items()}, moved))
    variance = sd.square().mean(1) + mean.var(1, correction=0)  # within rows, and between them
    torch.testing.assert_close(sites["mean"], mean.mean(1))
    torch.testing.assert_close(sites["sd"], variance.sqrt())


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_cells_do_not_matter(family: Family) -> None:
    frame = table(family, 40)
    pair = pair_of(frame, family)
    data = pair.schema.encode(frame)
    other = {**data, "x": torch.where(data["mask"], data["x"], 1.0)}
    values = []
    for rows in (data, other):
        density = capture_density(pair.model, rows, seed=0)
        values.append(density(torch.full((1, density.dim), 0.3, dtype=torch.float64))[0])
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("family", ["normal", "lognormal", "bernoulli", "poisson", "revenue"])
def test_em_knows_formulas_for_them(family: Family) -> None:
    frame = table(family)
    pair = pair_of(frame, family)
    problem = quiet(pair, frame, pyl.EM(num_draws=10)).problem
    with model_context(torch.float64, torch.device("cpu")), torch.no_grad():
        steps, _ = steps_of(problem, False)
    assert isinstance(steps, MixtureSteps)


# Exact answers


def article(sales: Tensor, treated: Tensor) -> None:
    """The article's analysis: known variances, means N(0, variance 10)."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), math.sqrt(10.0)).to_event(1))
    with pyro.plate("data", len(sales)):
        pyro.sample("sales", dist.Normal(mean[treated], torch.tensor([10.0, 12.0])[treated]), obs=sales)


def test_known_variances_have_the_conjugate_posterior() -> None:
    random = torch.Generator().manual_seed(0)
    treated = torch.arange(600) % 2
    noise = torch.randn(600, generator=random, dtype=torch.float64)
    sales = torch.where(treated == 0, 49.9 + 9.7 * noise, 56.1 + 12 * noise)
    precision = 1 / 10 + 300 / torch.tensor([100.0, 144.0], dtype=torch.float64)
    sums = torch.stack([sales[treated == k].sum() for k in range(2)])
    mean, sd = sums / torch.tensor([100.0, 144.0]) / precision, precision.rsqrt()
    data = {"sales": sales, "treated": treated}
    best = quiet(article, data, pyl.EM(penalised=True, num_starts=1))
    torch.testing.assert_close(best.state["position"], mean, rtol=1e-9, atol=0)
    torch.testing.assert_close(best.state["covariance"].diagonal().sqrt(), sd, rtol=1e-6, atol=0)
    sampled = quiet(article, data, pyl.HMC(num_chains=16, num_warmup=100, num_draws=200))
    draws = sampled.samples["mean"].flatten(0, 1)
    assert ((draws.mean(0) - mean).abs() < 5 * sd / math.sqrt(1_000)).all()
    assert (draws[:, 1] > draws[:, 0]).double().mean() > 0.999


def test_flat_priors_and_unit_variances_have_the_means_of_the_rows() -> None:
    """The article's second example: N(11, 0.2) and N(16, 0.2)."""

    def unit(sales: Tensor, treated: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)))
        with pyro.plate("data", len(sales)):
            pyro.sample("sales", dist.Normal(mean[treated], 1.0), obs=sales)

    sales = torch.tensor([10.0, 12, 11, 9, 13, 15, 17, 16, 14, 18], dtype=torch.float64)
    found = quiet(unit, {"sales": sales, "treated": torch.arange(10) // 5}, pyl.EM(num_starts=1))
    torch.testing.assert_close(
        found.state["position"], torch.tensor([11.0, 16.0]).double(), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(found.state["covariance"], 0.2 * torch.eye(2).double(), rtol=1e-6, atol=1e-9)


def test_few_rows_with_unknown_variance_have_the_posterior_of_student() -> None:
    """Normal-inverse-gamma with a flat prior of the log scale: a mean has a t distribution."""

    def unknown(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        log_scale = pyro.sample("log_scale", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, log_scale.exp()), obs=x)

    x = torch.tensor([4.1, 5.2, 3.3, 6.0, 5.5, 4.4, 7.1, 5.0], dtype=torch.float64)
    fit = quiet(unknown, {"x": x}, pyl.HMC(num_chains=32, num_warmup=150, num_draws=400))
    draws = fit.samples["mean"].flatten().numpy()
    exact = stats.t(7, float(x.mean()), float(x.std()) / math.sqrt(8))
    ess = float(fit.diagnostics["mean"]["ess"])
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        share = (draws < exact.ppf(level)).mean()
        assert abs(share - level) < 4.5 * math.sqrt(level * (1 - level) / ess)


# Every method on one pair


@pytest.fixture(scope="module")
def normal_fits() -> dict[str, pyl.Fit]:
    frame = table("normal", 900, 0.2)
    pair = pair_of(frame, "normal")
    methods = {
        "EM": pyl.EM(num_draws=4_000),
        "HMC": pyl.HMC(num_chains=32, num_warmup=100, num_draws=150),
        "NUTS": pyl.NUTS(num_chains=8, num_warmup=150, num_draws=200),
        "ImportanceSampling": pyl.ImportanceSampling(num_draws=10_000),
        "SVI": pyl.SVI(num_steps=3_000, lr=0.02, num_draws=4_000),
    }
    return {name: quiet(pair, frame, method) for name, method in methods.items()}


@pytest.mark.parametrize("method", ["EM", "NUTS", "ImportanceSampling", "SVI"])
def test_methods_agree(normal_fits: dict[str, pyl.Fit], method: str) -> None:
    found, expected = normal_fits[method], normal_fits["HMC"]
    for site in ("mean", "sd", "share"):
        draws, truth = found.samples[site].double(), expected.samples[site].double()
        sd = truth.std((0, 1))
        # 0.2 of a posterior sd: four Monte Carlo errors of 1,000 draws on either side, and the prior's pull
        assert ((draws.mean((0, 1)) - truth.mean((0, 1))).abs() < 0.2 * sd).all(), site
        assert ((draws.std((0, 1)) / sd - 1).abs() < 0.15).all(), site


@pytest.mark.parametrize("family", ["bernoulli", "poisson", "revenue", "negative_binomial"])
def test_em_and_hmc_agree(family: Family) -> None:
    frame = table(family, 900, 0.2)
    pair = pair_of(frame, family)
    best = quiet(pair, frame, pyl.EM(num_draws=4_000, num_starts=2))
    sampled = quiet(pair, frame, pyl.HMC(num_chains=16, num_warmup=100, num_draws=150))
    for site in ("mean", "share"):
        draws, truth = best.samples[site].double(), sampled.samples[site].double()
        sd = truth.std((0, 1))
        assert ((draws.mean((0, 1)) - truth.mean((0, 1))).abs() < 0.35 * sd).all(), site
        assert ((draws.std((0, 1)) / sd - 1).abs() < 0.25).all(), site


def test_unknown_cells_are_imputed_from_their_arm() -> None:
    frame = table("normal", 300, 0.0)
    frame["y"] += 200.0 * (frame["arm"] == "c")
    holes = frame.copy()
    holes.loc[::7, "arm"] = None
    holes.loc[3::7, "y"] = np.nan
    fit = quiet(pair_of(holes, "normal"), holes, pyl.EM())
    done = pyl.impute(fit, num_draws=5)
    for completed in done.frames:
        far = frame["arm"] == "c"
        assert ((completed["arm"] == "c") == far)[::7].all()
        assert (completed.loc[3::7, "y"] > 150).equals(far[3::7])


def test_arms_without_labels_come_in_order() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"y": np.concatenate([random.normal(0, 1, 300), random.normal(6, 1, 200)])})
    pair = ABTest(infer_schema(frame, kinds={"y": "real"}), "y", 2)
    for method in (pyl.EM(), pyl.HMC(num_chains=16, num_warmup=100, num_draws=100)):
        fit = quiet(pair, frame, method)
        mean = fit.samples["mean"].mean((0, 1))
        share = fit.samples["share"].mean((0, 1))
        assert abs(float(mean[0])) < 4 / math.sqrt(300) and abs(float(mean[1]) - 6) < 4 / math.sqrt(200)
        assert abs(float(share[0]) - 0.6) < 4 * math.sqrt(0.24 / 500)


def test_fits_are_saved_with_their_model(tmp_path: Path) -> None:
    frame = table("revenue")
    pair = pair_of(frame, "revenue", covariates=("before",), priors=Priors(location=3.0))
    fit = quiet(pair, frame, pyl.EM(num_starts=1, num_draws=50))
    pyl.save(fit, tmp_path / "fit")
    loaded = pyl.load(tmp_path / "fit")
    assert loaded.pair == pair
    pd.testing.assert_frame_equal(pyl.summary(loaded), pyl.summary(fit))


# What is refused


def test_wrong_settings_are_refused() -> None:
    frame = table("normal")
    schema = schema_of(frame, "normal")
    with pytest.raises(ArgumentError, match=r"family is unknown: got 'gamma'.*negative_binomial"):
        ABTest(schema, "y", "arm", "gamma")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="two arms or more: got 1"):
        ABTest(schema, "y", 1)
    with pytest.raises(DataError, match=r"\['z'\]: the table lacks columns of the test"):
        ABTest(schema, "z", "arm")
    with pytest.raises(DataError, match=r"column 'y'.*poisson outcomes are count.*'y': 'count'"):
        ABTest(schema, "y", "arm", "poisson")
    with pytest.raises(DataError, match=r"column 'before'.*labels of arms are categorical"):
        ABTest(schema, "y", "before")
    with pytest.raises(
        DataError, match=r"column 'arm': a covariate of kind 'categorical': .*drop_first=True"
    ):
        ABTest(schema, "y", "arm", covariates=("arm",))
    with pytest.raises(DataError, match="arms without labels cannot be told apart by bernoulli"):
        ABTest(schema_of(table("bernoulli"), "bernoulli"), "y", 2, "bernoulli")
    with pytest.raises(DataError, match="revenue below 0"):
        ABTest(schema_of(table("student"), "student"), "y", "arm", "revenue")
    for arms in (2.0, True, None):
        with pytest.raises(ArgumentError, match=f"arms are no column and no whole number: got {arms}"):
            ABTest(schema, "y", arms)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="covariates are no tuple: got 'before'"):
        ABTest(schema, "y", "arm", covariates="before")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="prior of a spread must have a width: got 0"):
        Priors(spread=0.0)


def test_covariates_are_of_kinds_that_are_standardised() -> None:
    frame = table("normal")
    random, known = np.random.default_rng(0), {"y": "real", "arm": "categorical"}
    refused = {
        "binary": (
            random.integers(2, size=ROWS) * 1.0,
            r"\.astype\(float\), and declare it: kinds={'x': \"real\"}",
        ),
        "categorical": (
            random.choice(["p", "q"], ROWS),
            r"get_dummies\(frame\['x'\].*declare these \"real\"",
        ),
        "datetime": (pd.date_range("2024-01-01", periods=ROWS), "pass a number of days instead"),
        "identifier": (np.arange(ROWS), "kinds={'x': \"real\"}"),
    }
    for kind, (cells, remedy) in refused.items():
        schema = infer_schema(frame.assign(x=cells), kinds={**known, "x": kind})
        with pytest.raises(DataError, match=rf"column 'x': a covariate of kind '{kind}': .*{remedy}"):
            ABTest(schema, "y", "arm", covariates=("x",))
    for cells in (refused["binary"][0], refused["identifier"][0]):
        frame["x"] = cells.astype(float)
        pair = ABTest(infer_schema(frame, kinds={**known, "x": "real"}), "y", "arm", covariates=("x",))
        assert float(pair.schema.encode(frame)["x"][:, 2].mean()) == pytest.approx(0.0, abs=1e-12)


# Distributions of its own


def test_amounts_are_zero_or_log_normal() -> None:
    share, loc, scale = torch.tensor(0.3), torch.tensor(1.0), torch.tensor(0.5)
    amounts = ZeroInflatedLogNormal(share, loc, scale)
    assert float(amounts.log_prob(torch.tensor(0.0)).exp()) == pytest.approx(0.7)
    x = torch.linspace(1e-4, 60, 400_001)
    assert float(torch.trapezoid(amounts.log_prob(x).exp(), x)) == pytest.approx(0.3, abs=1e-4)
    torch.manual_seed(0)
    draws = amounts.sample(torch.Size([200_000]))
    error = float(amounts.variance.sqrt()) / math.sqrt(200_000)
    assert abs(float(draws.mean() - amounts.mean)) < 4 * error
    levels = torch.tensor([0.5, 0.69, 0.75, 0.9, 0.99])
    for level, quantile in zip(levels, amounts.icdf(levels), strict=True):
        assert float((draws <= quantile).double().mean()) >= float(level) - 0.005
    assert amounts.icdf(torch.tensor(0.69)) == 0
    with pytest.raises(ValueError, match="within the support"):
        ZeroInflatedLogNormal(share, loc, scale, validate_args=True).log_prob(torch.tensor(-1.0))


def test_sorted_draws_have_the_density_of_their_orders() -> None:
    ordered = Ordered(dist.Normal(0.0, 1.0), 3)
    torch.manual_seed(0)
    draws = ordered.sample(torch.Size([20_000]))
    assert (draws.diff(dim=1) >= 0).all()
    # the largest of three: mean 0.8463, variance 0.5595 (Harter 1961)
    assert abs(float(draws[:, 2].mean()) - 0.84628) < 4 * math.sqrt(0.5595 / 20_000)
    value = torch.tensor([-1.0, 0.0, 0.5])
    expected = math.log(6) + dist.Normal(0.0, 1.0).log_prob(value).sum()
    torch.testing.assert_close(ordered.log_prob(value), expected)
