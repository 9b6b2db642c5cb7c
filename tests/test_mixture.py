"""`Mixture`: its density by brute force, EM by plain loops, samplers against EM, imputed cells."""

import functools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    LogNormal,
    Normal,
    biject_to,
    constraints,
)

import pyrolatent as pyl
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.diagnostics import mcse_mean
from pyrolatent.infer.em_setup import steps_of
from pyrolatent.infer.em_steps import MixtureSteps
from pyrolatent.models.mixture import Mixture
from pyrolatent.result import Problem
from pyrolatent.schema import Schema

COMPONENTS = 3
NUMBERS, BINARY, LABELLED = ["a", "b", "visits", "stars"], ["smoker", "owner"], {"town": 3, "mood": 4}


def table(num_rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Columns of every kind in the order of no kind, and holes; no number knows of another."""
    rng = np.random.default_rng(seed)
    z = rng.integers(COMPONENTS, size=num_rows)
    moods = ["awful", "bad", "good", "great"]
    frame = pd.DataFrame(
        {
            "smoker": np.where(rng.random(num_rows) < 0.2 + 0.3 * z, "yes", "no"),
            "a": rng.normal(3.0 * z - 2, 1.0),
            "town": np.array(["Bergen", "Oslo", "Tromso"])[(z + (rng.random(num_rows) < 0.4)) % 3],
            "b": np.exp(rng.normal(1.5 * z, 0.7)),
            "mood": pd.Categorical(
                np.array(moods)[np.minimum(z + rng.integers(2, size=num_rows), 3)], moods, ordered=True
            ),
            "visits": rng.poisson(3 + 10 * z).astype(float),
            "owner": rng.random(num_rows) < 0.7 - 0.2 * z,
            "stars": rng.integers(1, 6, size=num_rows).astype(float),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.15)


def schema_of(frame: pd.DataFrame) -> Schema:
    kinds = {"b": "positive", "visits": "count", "stars": "ordinal"}
    return pyl.infer_schema(frame, kinds={name: kind for name, kind in kinds.items() if name in frame})


def encoded(pair: Mixture, frame: pd.DataFrame) -> dict[str, Tensor]:
    return pair.schema.encode(frame)


def density_of(pair: Mixture, frame: pd.DataFrame) -> LogDensity:
    return capture_density(pair.model, encoded(pair, frame), seed=0)


@functools.cache
def density_with_holes() -> LogDensity:
    return density_of(Mixture(schema_of(table()), COMPONENTS), table())


def points(density: LogDensity, count: int = 4) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return torch.randn(count, density.dim, generator=noise, dtype=torch.float64)


# The density


def supports() -> dict[str, constraints.Constraint]:
    """In the order of the sites."""
    levels = {f"levels_{name}": constraints.simplex for name in ("town", "mood")}
    plain = {
        "rest": constraints.real,
        "spread": constraints.positive,
        "probability": constraints.unit_interval,
    }
    return {"share": constraints.simplex, "first": constraints.real} | plain | levels


def values_of(free: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The sites at unconstrained numbers, and log |d sites / d numbers|; `first` adds up positive steps."""
    first = free["first"]
    moved = {**free, "first": torch.cat([first[:1], first[:1] + first[1:].exp().cumsum(0)])}
    values, jacobian = {}, first[1:].sum()
    for name, support in supports().items():
        to_support = biject_to(support)
        values[name] = to_support(moved[name])
        jacobian = jacobian + to_support.log_abs_det_jacobian(moved[name], values[name]).sum()
    return values, jacobian


def log_prior(values: dict[str, Tensor]) -> Tensor:
    """Of all sites; every order of K numbers is as likely as the one that is looked at."""
    one = torch.ones((), dtype=torch.float64)  # for numbers as they are: Python's become float32
    wide = Normal(0 * one, 5 * one)
    total = wide.log_prob(values["first"]).sum() + math.log(math.factorial(COMPONENTS))
    total = total + wide.log_prob(values["rest"]).sum()
    total = total + LogNormal(0 * one, one).log_prob(values["spread"]).sum()
    total = total + Beta(one, one).log_prob(values["probability"]).sum()
    shares = [values["share"], values["levels_town"], values["levels_mood"]]
    return total + torch.stack([Dirichlet(torch.ones_like(v)).log_prob(v).sum() for v in shares]).sum()


def cells_in(values: dict[str, Tensor], k: int) -> dict[str, Distribution]:
    """The distribution of each column in component k."""
    means = torch.cat([values["first"][k, None], values["rest"][k]])
    found: dict[str, Distribution] = {
        name: Normal(mean, spread)
        for name, mean, spread in zip(NUMBERS, means, values["spread"][k], strict=True)
    }
    shares = zip(BINARY, values["probability"][k], strict=True)
    found |= {name: Bernoulli(share) for name, share in shares}
    return found | {name: Categorical(values[f"levels_{name}"][k]) for name in LABELLED}


def brute_force(free: dict[str, Tensor], data: dict[str, Tensor], names: list[str]) -> Tensor:
    """Each row's observed cells, one by one, in each component; the sum of these; priors; Jacobians."""
    values, jacobian = values_of(free)
    columns = [cells_in(values, k) for k in range(COMPONENTS)]
    total = log_prior(values) + jacobian
    for row, seen in zip(data["x"], data["mask"], strict=True):
        terms = []
        for k in range(COMPONENTS):
            cells = [columns[k][n].log_prob(v) for n, v, s in zip(names, row, seen, strict=True) if s]
            terms.append(values["share"][k].log() + sum(cells))
        total = total + torch.stack(terms).logsumexp(0)
    return total


def test_the_density_is_the_sum_over_components() -> None:
    frame, density = table(), density_with_holes()
    data = encoded(Mixture(schema_of(frame), COMPONENTS), frame)
    u = points(density)
    values, gradients = density(u)
    free = u.clone().requires_grad_()
    layout, names = density.sites.layout, list(frame.columns)
    expected = torch.stack([brute_force(layout.unpack(point), data, names) for point in free])
    (slopes,) = torch.autograd.grad(expected.sum(), free)
    # sums of some 1e3 terms of some 1e2, each of which errs by 1e-14
    torch.testing.assert_close(values, expected.detach(), rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(gradients, slopes, rtol=1e-9, atol=1e-9)
    assert density.rung == "vmap"


def test_masked_cells_never_matter() -> None:
    """Not one bit: put other numbers and labels behind the mask."""
    frame = table()
    pair = Mixture(schema_of(frame), COMPONENTS)
    data = encoded(pair, frame)
    labels = torch.tensor([bool(column.categories) for column in pair.schema.modelled])
    assert not data["mask"].all(0).any()  # a hole in every column
    other = torch.where(data["mask"], data["x"], torch.where(labels, 1.0, 7.5))
    density, u = density_with_holes(), points(density_with_holes())
    changed = capture_density(pair.model, {**data, "x": other}, seed=0)
    for found, expected in zip(changed(u), density(u), strict=True):
        assert torch.equal(found, expected)


def test_a_row_without_an_observed_cell_changes_nothing() -> None:
    frame = table()
    empty = frame.copy()
    empty.loc[len(frame)] = [None] * frame.shape[1]
    empty = empty.astype({"mood": frame["mood"].dtype})
    density, other = density_with_holes(), density_of(Mixture(schema_of(frame), COMPONENTS), empty)
    u = points(density)
    torch.testing.assert_close(other(u), density(u), rtol=1e-12, atol=1e-12)


# Sites, units and settings


def test_sites_are_what_they_are_called() -> None:
    density, schema = density_with_holes(), schema_of(table())
    sites = density.constrain(points(density))
    assert {name: tuple(site.shape[1:]) for name, site in sites.items()} == {
        "share": (3,),
        "first": (3,),
        "rest": (3, 3),
        "spread": (3, 4),
        "mean": (3, 4),
        "scale": (3, 4),
        "probability": (3, 2),
        "levels_town": (3, 3),
        "levels_mood": (3, 4),
    }
    assert list(density.sites.discrete) == ["component"] and list(density.sites.observed) == ["x"]
    assert (sites["first"].diff(dim=-1) > 0).all()
    numbers = [column for column in schema.modelled if column.name in NUMBERS]
    centre = torch.tensor([column.location for column in numbers], dtype=torch.float64)
    unit = torch.tensor([column.scale for column in numbers], dtype=torch.float64)
    location = torch.cat([sites["first"][..., None], sites["rest"]], -1)
    torch.testing.assert_close(sites["mean"], centre + unit * location)
    torch.testing.assert_close(sites["scale"], unit * sites["spread"])
    assert numbers[1].location == pytest.approx(np.log(table()["b"]).mean())  # positive: of logs


@pytest.mark.parametrize(
    ("columns", "sites"),
    [
        (["a"], {"share", "first", "spread"}),
        (["a", "b"], {"share", "first", "rest", "spread"}),
        (["owner"], {"share", "probability"}),
        (["mood"], {"share", "levels_mood"}),
    ],
)
def test_tables_of_one_kind(columns: list[str], sites: set[str]) -> None:
    frame = table()[columns]
    density = density_of(Mixture(schema_of(frame)), frame)
    assert set(density.sites.latents) == sites
    assert set(density.sites.deterministics) == ({"mean", "scale"} if "spread" in sites else set())
    assert torch.stack([part.isfinite().all() for part in density(points(density))]).all()


def test_codes_of_labels_are_codes_also_where_they_are_ordered() -> None:
    frame = table()
    pair = Mixture(schema_of(frame))
    mood = list(frame.columns).index("mood")
    expected = torch.tensor(np.where(frame["mood"].isna(), 0, frame["mood"].cat.codes), dtype=torch.float64)
    assert torch.equal(encoded(pair, frame)["x"][:, mood], expected)
    x = torch.from_numpy(np.nan_to_num(encoded(pair, frame)["x"].numpy()))
    pd.testing.assert_frame_equal(
        pair.schema.complete(frame.dropna(), x[: len(frame.dropna())]), frame.dropna()
    )


def test_settings_are_part_of_what_a_pair_is() -> None:
    schema = schema_of(table())
    pair = Mixture(schema)
    assert pair == Mixture(schema_of(table()), 2)
    assert pair != replace(pair, num_components=3)
    assert pair.guide is None and pair.columns == schema


@pytest.mark.parametrize("number", [1, 0, -2, 2.0, True, "2"])
def test_a_mixture_has_two_components(number: object) -> None:
    with pytest.raises(
        pyl.ArgumentError, match=f"num_components must be a whole number from 2: got {number!r}"
    ):
        Mixture(schema_of(table()), number)  # type: ignore[arg-type]


def test_many_labels_are_told() -> None:
    labels = [f"label {number % 101}" for number in range(300)]
    frame = pd.DataFrame({"label": labels, "a": np.random.default_rng(0).normal(size=300)})
    with pytest.warns(pyl.FitWarning, match=r"Columns \['label'\] have more than 100 labels") as told:
        Mixture(pyl.infer_schema(frame), 40)
    assert len(told) == 1 and told[0].filename == __file__


# EM


def em_fit(pair: Mixture, frame: pd.DataFrame) -> pyl.Fit:
    return pyl.fit(pair, frame, pyl.EM(), seed=0, progress=False)


def is_fast(pair: Mixture, frame: pd.DataFrame) -> bool:
    """Whether EM runs on formulas alone, without the code of the model."""
    cpu = torch.device("cpu")
    steps, _ = steps_of(Problem(pair, encoded(pair, frame), None, 0, torch.float64, cpu, False, False), False)
    return isinstance(steps, MixtureSteps) and bool(steps.formulas.known.all())


def peak(found: pyl.Fit) -> dict[str, Tensor]:
    """The sites where EM ended, of which a fit keeps draws around."""
    density = capture_density(found.pair.model, found.data, seed=0)
    return {name: value[0] for name, value in density.constrain(found.state["position"][None]).items()}


def apart(num_rows: int = 300, seed: int = 0) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Three components with different means of two numbers and different shares, and of which each row is."""
    rng = np.random.default_rng(seed)
    z = rng.choice(3, num_rows, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(
        {
            "a": rng.normal(np.array([-4.0, 0.0, 4.0])[z], 1.0),
            "b": np.exp(rng.normal(np.array([0.0, 1.0, 2.0])[z], 0.5)),
            "smoker": np.where(rng.random(num_rows) < np.array([0.2, 0.5, 0.8])[z], "yes", "no"),
            "town": np.array(["Bergen", "Oslo", "Tromso"])[
                (z + rng.choice(3, num_rows, p=[0.6, 0.2, 0.2])) % 3
            ],
        }
    )
    return frame, z


def holed(num_rows: int = 300) -> pd.DataFrame:
    frame, _ = apart(num_rows)
    return frame.mask(np.random.default_rng(1).random(frame.shape) < 0.15)


def test_em_finds_the_peak_that_scikit_learn_finds() -> None:
    frame = apart()[0][["a", "b"]]
    pair = Mixture(schema_of(frame), 3)
    assert is_fast(pair, frame)
    found = em_fit(pair, frame)
    x = encoded(pair, frame)["x"].numpy()
    peer = GaussianMixture(3, covariance_type="diag", reg_covar=0, tol=1e-12, max_iter=10_000, random_state=0)
    # both stop where less than 1e-6 nats are left
    assert found.info["log_likelihood"] == pytest.approx(peer.fit(x).score(x) * len(x), abs=1e-5)
    order, at = np.argsort(peer.means_[:, 0]), peak(found)
    centre, unit = pair.schema.location_vector, pair.schema.scale_vector
    assert found.warnings == ()
    # 1e-6 nats are 1e-3 standard errors, which are below 0.1 of a column's
    means = (at["mean"] - centre) / unit
    torch.testing.assert_close(means, torch.tensor(peer.means_[order]), rtol=0, atol=1e-4)
    squares = (at["scale"] / unit).square()
    torch.testing.assert_close(squares, torch.tensor(peer.covariances_[order]), rtol=0, atol=1e-4)


def log_densities(codes: bool, x: NDArray[np.float64], parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log p(x | k) `(n, K)` of observed cells `(n,)`, most likely given `parts (n, K)`."""
    weight = parts.sum(0)
    if codes:
        shares = np.stack([parts[x == code].sum(0) / weight for code in range(int(x.max()) + 1)])
        return np.log(shares)[x.astype(int)]
    mean = parts.T @ x / weight
    spread = np.sqrt((parts * (x[:, None] - mean) ** 2).sum(0) / weight)
    return stats.norm.logpdf(x[:, None], mean, spread)


def plain_em(
    pair: Mixture, frame: pd.DataFrame, parts: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """The textbook's loop, column by column, from shares `(N, K)` to the highest log-likelihood."""
    data = {name: value.numpy() for name, value in encoded(pair, frame).items()}
    total = 0.0
    for _ in range(1_000):
        terms = np.tile(np.log(parts.mean(0)), (len(frame), 1))
        for d, column in enumerate(pair.schema.modelled):
            seen = data["mask"][:, d]
            terms[seen] += log_densities(bool(column.categories), data["x"][seen, d], parts[seen])
        rows = np.logaddexp.reduce(terms, axis=1)
        parts, total = np.exp(terms - rows[:, None]), float(rows.sum())
    return total, parts


@pytest.mark.parametrize("columns", [["a", "b", "smoker", "town"], ["smoker", "a"]])
def test_em_with_holes_finds_the_peak_of_a_plain_loop(columns: list[str]) -> None:
    frame, truth = holed()[columns], np.eye(3)[apart()[1]]
    pair = Mixture(schema_of(frame), 3)
    assert is_fast(pair, frame)
    found = em_fit(pair, frame)
    total, parts = plain_em(pair, frame, 0.8 * truth + 0.2 / 3)
    assert found.warnings == ()
    assert found.info["log_likelihood"] == pytest.approx(total, abs=1e-5)
    at = peak(found)
    torch.testing.assert_close(at["share"], torch.tensor(parts.mean(0)), rtol=0, atol=1e-4)
    seen = frame["smoker"].notna().to_numpy()
    yes = parts[(frame["smoker"] == "yes").to_numpy()].sum(0) / parts[seen].sum(0)
    torch.testing.assert_close(at["probability"][:, 0], torch.tensor(yes), rtol=0, atol=1e-4)


def test_em_finds_latent_classes() -> None:
    """Binary columns alone: four answers and two classes, without a number that tells their order."""
    rng = np.random.default_rng(2)
    z = rng.integers(2, size=500)
    answers = rng.random((500, 4)) < np.where(z, 0.8, 0.25)[:, None]
    frame = pd.DataFrame(answers, columns=list("pqrs"), dtype=object).mask(rng.random((500, 4)) < 0.1)
    pair = Mixture(pyl.infer_schema(frame))
    assert is_fast(pair, frame)
    found, (total, parts) = em_fit(pair, frame), plain_em(pair, frame, 0.8 * np.eye(2)[z] + 0.1)
    assert found.warnings == ()
    assert found.info["log_likelihood"] == pytest.approx(total, abs=1e-5)
    shares = peak(found)["share"].sort().values
    torch.testing.assert_close(shares, torch.tensor(parts.mean(0)).sort().values, rtol=0, atol=1e-4)


# Samplers


@pytest.fixture(scope="module")
def both() -> tuple[pyl.Fit, pyl.Fit]:
    """EM and HMC where data are plenty and components apart: 120 rows in the smallest one."""
    frame = holed(600)[["a", "b", "smoker"]]
    pair = Mixture(schema_of(frame), 3)
    return em_fit(pair, frame), pyl.fit(pair, frame, pyl.HMC(), seed=0, compile=False, progress=False)


def test_chains_agree_since_components_have_an_order(both: tuple[pyl.Fit, pyl.Fit]) -> None:
    _, sampled = both
    assert sampled.warnings == ()
    assert max(float(sampled.diagnostics[site]["rhat"].max()) for site in sampled.sites.latents) < 1.01
    assert (sampled.samples["mean"][..., 0].diff(dim=-1) > 0).all()


@pytest.mark.parametrize("site", ["mean", "scale", "share", "probability"])
def test_hmc_agrees_with_em(both: tuple[pyl.Fit, pyl.Fit], site: str) -> None:
    """The mean of a posterior and its peak differ by its skew and the prior.

    For n cells a scale differs by up to 2/n of it, by sqrt(8/n) of its sd: 1/n by the degree of freedom that
    the mean takes, 1/(4n) by skew, the rest by the prior, which pulls a spread of 0.3 to 1.  A share p has
    |1 - 2p| / n, 1.5 / sqrt(n) of its sd where p is 0.2.  With n = 100 these are 0.28 and 0.15.
    """
    by_em, sampled = both
    draws = sampled.samples[site]
    sd = draws.std((0, 1))
    error = 4 * mcse_mean(draws) + 0.3 * sd
    assert ((draws.mean((0, 1)) - peak(by_em)[site]).abs() < error).all()
    torch.testing.assert_close(by_em.samples[site].std((0, 1)), sd, rtol=0.2, atol=0)


def test_the_truth_lies_in_the_posterior(both: tuple[pyl.Fit, pyl.Fit]) -> None:
    draws = both[1].flat_samples()
    truth = {
        "mean": [[-4.0, 0.0], [0.0, 1.0], [4.0, 2.0]],
        "scale": [[1.0, 0.5]] * 3,
        "share": [0.5, 0.3, 0.2],
        "probability": [[0.2], [0.5], [0.8]],
    }
    for site, value in truth.items():  # 18 numbers, each beyond 4 sd once in 16,000
        distance = draws[site].mean(0) - torch.tensor(value, dtype=torch.float64)
        assert (distance.abs() < 4 * draws[site].std(0)).all(), site


def test_svi_runs() -> None:
    frame = holed(400)[["a", "smoker"]]
    frame = frame[~(frame["a"] > 2)]
    pair = Mixture(schema_of(frame))
    found = pyl.fit(pair, frame, pyl.SVI(num_steps=4_000, lr=0.02), seed=0, compile=False, progress=False)
    assert found.warnings == ()
    expected = em_fit(pair, frame)
    sd = expected.samples["mean"].std((0, 1))
    # a mean field may be narrow, and its middle is that of the posterior
    assert ((found.samples["mean"].mean((0, 1)) - peak(expected)["mean"]).abs() < 0.5 * sd).all()


# Missing cells


FAR = {"a": (-10.0, 10.0), "b": (30.0, -30.0)}


def far_apart(seed: int = 3) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Two components 20 sd from one another, and of which each row is; a row has `a` or `b` at least."""
    rng = np.random.default_rng(seed)
    z = rng.integers(2, size=200)
    numbers = {name: rng.normal(np.array(means)[z], 1.0) for name, means in FAR.items()}
    towns = np.array(["Bergen", "Oslo", "Tromso"])[(z + rng.choice(3, 200, p=[0.8, 0.1, 0.1])) % 3]
    frame = pd.DataFrame(
        {**numbers, "town": towns, "smoker": np.where(z == (rng.random(200) < 0.1), "no", "yes")}
    )
    hidden = rng.random(frame.shape) < 0.3
    hidden[:, 0] &= ~hidden[:, 1]
    return frame.mask(hidden), z


@pytest.fixture(scope="module")
def far_fit() -> pyl.Fit:
    frame, _ = far_apart()
    return em_fit(Mixture(pyl.infer_schema(frame)), frame)


def check_imputed(imputed: pyl.Imputations, frame: pd.DataFrame, z: NDArray[np.int64]) -> None:
    """Every number lies with its component, and labels occur as often as there."""
    for completed in imputed.frames:
        assert not completed.isna().any(axis=None)
        pd.testing.assert_frame_equal(completed.where(frame.notna()), frame)
        for name, means in FAR.items():
            # 6 sd: one of the 1,000 or so draws of cells once in a million times
            assert ((completed[name] - np.array(means)[z]).abs() < 6).all()
    shares = imputed.probabilities("town")
    own = shares.to_numpy()[np.arange(len(shares)), z[frame["town"].isna()]]
    # A share of 0.8 in the 60 rows of a component that tell it errs by 0.05, in 1,000 draws by 0.013.
    assert (np.abs(own - 0.8) < 4 * math.hypot(0.05, 0.013)).all()
    assert imputed.warnings == ()


def test_missing_cells_lie_with_the_component_of_their_row(far_fit: pyl.Fit) -> None:
    frame, z = far_apart()
    assert far_fit.warnings == ()
    check_imputed(pyl.impute(far_fit), frame, z)


def test_missing_cells_of_new_rows_too(far_fit: pyl.Fit) -> None:
    frame, z = far_apart(seed=4)
    check_imputed(pyl.impute(far_fit, frame), frame, z)


def test_draws_of_hmc_complete_tables_of_all_kinds() -> None:
    frame = table(150)
    settings = pyl.HMC(num_chains=16, num_warmup=50, num_draws=20)
    with pytest.warns(pyl.FitWarning):  # so few draws
        found = pyl.fit(Mixture(schema_of(frame)), frame, settings, seed=0, compile=False, progress=False)
    with pytest.warns(pyl.FitWarning, match=r"\['visits', 'stars'\] are numbers rounded"):
        imputed = pyl.impute(found, num_draws=3)
    for completed in imputed.frames:
        assert not completed.isna().any(axis=None)
        assert completed.dtypes.equals(frame.dtypes)


def test_predictions_are_tables_of_both_components(far_fit: pyl.Fit) -> None:
    drawn = pyl.predict(far_fit, num_draws=50)
    low = drawn["a"] < 0
    assert ((drawn["a"] + 10).abs() < 6)[low].all() and ((drawn["b"] - 30).abs() < 7)[low].all()
    share = far_fit.samples["share"][0, :, 0]
    # 10,000 rows by 50 draws of the share
    error = math.hypot(0.5 / math.sqrt(10_000), float(share.std()) / math.sqrt(50))
    assert float(low.mean()) == pytest.approx(float(share.mean()), abs=4 * error)
