"""Metrics of trained guides, whose latents are known functions of the rows, and of pairs of tables."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.latents import guide_draws
from pyrolatent.metrics import (
    active_units,
    classifier_two_sample,
    divergence,
    latent_fixing_score,
    marginal_recovery,
    total_correlation,
)
from pyrolatent.metrics.consistency import decoded_rows, observed_arguments
from pyrolatent.models import VAE
from pyrolatent.result import Fit
from tests.fake_device import DEVICE, fake_device
from tests.test_vae import MIXED, factors, holes, trained

Parameters = dict[str, Tensor]


def known(
    location: Callable[[Tensor], Tensor],
    scale: Tensor,
    x: Tensor,
    decoder: Callable[[Tensor], Tensor] = lambda z: z,
) -> Fit:
    """A fit whose guide is q(z | x) = N(location(x), scale) to rounding, and which expects `decoder(z)`.

    What is learnt is a shift from 0 of the guide, in one step of no length.
    """

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(scale)), 1.0).to_event(1))
            cells = decoder(z)
            pyro.sample("x", dist.Normal(cells, 1.0).to_event(cells.dim() - z.dim() + 1), obs=x)

    def guide(x: Tensor) -> None:
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(location(x) + shift, scale.to(x)).to_event(1))

    return quickly(model, guide, {"x": x})


def quickly(model: Any, guide: Any, data: dict[str, Tensor]) -> Fit:
    method = pyl.SVI(num_steps=1, lr=1e-12)
    return pyl.fit(
        model, data, method, guide=guide, seed=0, dtype=torch.float64, compile=False, progress=False
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


# --- the latent-fixing score ---


def test_an_encoder_that_undoes_the_decoder_finds_the_latent() -> None:
    fit = known(lambda x: x, torch.full((4,), 0.1), normal(100, 4))
    assert latent_fixing_score(fit, num_votes=50, num_evaluation=50) == (1.0, 1.0)


def test_majorities_follow_latents_that_change_places() -> None:
    fit = known(lambda x: x.roll(1, -1), torch.full((3,), 0.1), normal(100, 3))
    assert latent_fixing_score(fit, num_votes=100, num_evaluation=100) == (1.0, 1.0)


def test_an_encoder_that_reads_nothing_scores_what_chance_does() -> None:
    fit = known(lambda x: 0 * x, torch.ones(5), normal(50, 5))
    score = latent_fixing_score(fit, num_votes=1_000, num_evaluation=1_000)
    assert abs(score.evaluation - 0.2) < 4 * (0.2 * 0.8 / 1_000) ** 0.5
    again = latent_fixing_score(fit, num_votes=1_000, num_evaluation=1_000)
    assert score == again
    assert score != latent_fixing_score(fit, num_votes=1_000, num_evaluation=1_000, seed=1)


def test_mixed_latents_are_a_tie() -> None:
    """Turned by 45 degrees, what is held still is half of each."""
    turn = torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double() / 2**0.5
    fit = known(lambda x: x @ turn, torch.full((2,), 1e-3), normal(2_000, 2))
    score = latent_fixing_score(fit, num_votes=200, num_evaluation=400)
    assert abs(score.evaluation - 0.5) < 4 * 0.5 / 400**0.5


def test_images_and_several_votes_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two of four pixels are the latents; the votes are dealt out in runs of 3."""
    sizes = []

    def location(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.flatten(1)[:, :2]

    def decoder(z: Tensor) -> Tensor:
        return torch.cat([z, z.sum(-1, keepdim=True), 0 * z[..., :1]], -1).unflatten(-1, (1, 2, 2))

    fit = known(location, torch.full((2,), 0.05), normal(40, 1, 2, 2), decoder)
    monkeypatch.setattr("pyrolatent.metrics.consistency.MAX_ROWS", 3 * 40)
    sizes.clear()
    assert latent_fixing_score(fit, num_votes=10, num_evaluation=10) == (1.0, 1.0)
    assert sizes == [40] + 6 * [120] + [80]


def test_a_table_of_all_kinds_with_holes() -> None:
    method = pyl.SVI(num_steps=100, batch_size=100)
    fit = pyl.fit(VAE(pyl.infer_schema(MIXED), 2), MIXED, method, seed=0, progress=False, compile=False)
    score = latent_fixing_score(fit, MIXED.head(50), num_votes=100, num_evaluation=100)
    assert 0 <= score.evaluation <= 1
    latents = guide_draws(fit, 0)
    assert observed_arguments(fit, latents) == {"x": "x"}
    again = decoded_rows(fit, {"x": "x"}, latents, 0).data
    assert torch.equal(again["mask"], fit.data["mask"])
    assert not again["x"][~fit.data["mask"]].any()  # a missing cell stays 0
    pd.testing.assert_frame_equal(
        fit.schema.decode(again["x"], MIXED.index).where(MIXED.notna()),
        fit.schema.decode(expected_cells(fit, latents), MIXED.index).where(MIXED.notna()),
    )


def expected_cells(fit: Fit, latents: Parameters) -> Tensor:
    return pyl.latents.decoded(fit, latents)["x"]


def test_what_is_observed_must_be_an_argument() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=2 * x)

    def guide(x: Tensor) -> None:
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + shift, 1.0))

    fit = quickly(model, guide, {"x": normal(20)})
    with pytest.raises(pyl.ModelError, match="site 'x': what the model observes is no argument of it"):
        latent_fixing_score(fit)
    assert list(active_units(fit).index) == ["z[0]"]  # a latent that is one number


# --- total correlation ---


def grid(*values: list[float]) -> Tensor:
    return torch.cartesian_prod(*(torch.tensor(v).double() for v in values))


def test_rows_on_a_grid_have_no_total_correlation() -> None:
    """Of all pairs of x_1 and x_2, q(z) is the product of its components at every z."""
    fit = known(lambda x: x, torch.tensor([0.5, 0.3]), grid([-1.0, 0.0, 2.0], [0.0, 1.0, 1.5, 3.0]))
    found = total_correlation(fit, num_draws=3)
    assert abs(found.total_correlation) < 1e-12
    assert found.mutual_information > 0.1


def test_equal_rows_say_nothing_of_each_other() -> None:
    """I(z; n) = 0, and what is left is KL(N(1, 1/2) || N(0, 1)) of each latent: 0.818147 nats."""
    fit = known(lambda x: x, torch.full((2,), 0.5), torch.ones(3_000, 2).double())
    found = total_correlation(fit)
    single = math.log(2) + (0.25 + 1 - 1) / 2
    # log q - log p of a draw is log 2 - e^2 / 2 + (1 + e / 2)^2 / 2, e of variance 1, e^2 of variance 2
    variance = 2 * ((3 / 8) ** 2 * 2 + (1 / 2) ** 2)
    assert abs(found.mutual_information) < 1e-12
    assert abs(found.total_correlation) < 1e-12
    assert abs(found.dimension_wise - 2 * single) < 4 * (variance / 3_000) ** 0.5


def test_rows_far_apart_are_known_from_their_latents() -> None:
    """Rows 1 apart on a line, latents known to 0.01: each tells the row, and so the other latent, log N."""
    fit = known(lambda x: x, torch.full((2,), 0.01), torch.arange(200.0).double()[:, None].expand(200, 2))
    found = total_correlation(fit)
    assert found.mutual_information == pytest.approx(math.log(200))
    assert found.total_correlation == pytest.approx(math.log(200))


def test_normal_latents_have_the_total_correlation_of_normals() -> None:
    """z_j = x + 0.6 e_j: correlation 1 / 1.36, so -1/2 log(1 - 1 / 1.36^2) nats; x at its quantiles."""
    rows = 2_000
    x = torch.special.ndtri((torch.arange(rows).double() + 0.5) / rows)[:, None].expand(rows, 2)
    fit = known(lambda x: x, torch.full((2,), 0.6), x)
    found = total_correlation(fit)
    correlation = 1 / (1 + 0.6**2)
    expected = -0.5 * math.log(1 - correlation**2)
    # the log-ratio of joint and marginal normals has standard deviation `correlation`
    assert abs(found.total_correlation - expected) < 4 * correlation / rows**0.5
    information = 0.5 * math.log((1.36**2 - 1) / 0.6**4)  # log |S| - log |0.36 I|
    assert abs(found.mutual_information - information) < 4 * (2 / rows) ** 0.5


def several_sites() -> Fit:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Normal(0.5, 2.0))
            pyro.sample("x", dist.Normal(z[..., 0] + u, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", torch.tensor([0.5, -1.0]))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None] * slope, 0.4 + 0.1 * x[:, None].abs()).to_event(1))
            pyro.sample("u", dist.Normal(0.3 * x, 0.7))

    return quickly(model, guide, {"x": normal(30)})


def densities(fit: Fit) -> tuple[Tensor, Tensor, torch.distributions.Normal]:
    """Locations and scales `(N, L)` of the guide of `several_sites`, and its prior `(L,)`."""
    x, slope = fit.data["x"], fit.params["slope"]
    location = torch.cat([x[:, None] * slope, 0.3 * x[:, None]], 1)
    scale = torch.cat([(0.4 + 0.1 * x[:, None].abs()).expand(-1, 2), torch.full((30, 1), 0.7)], 1)
    prior = torch.distributions.Normal(torch.tensor([0.0, 0.0, 0.5]), torch.tensor([1.0, 1.0, 2.0]))
    return location, scale, prior


def test_the_parts_are_those_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = several_sites()
    found = total_correlation(fit)
    with fit.context(), pyl.seeds.seeded(fit.seed, "total correlation"):
        trace = pyro.poutine.trace(fit.pair.guide).get_trace(**fit.data)
    z = torch.cat([trace.nodes["z"]["value"], trace.nodes["u"]["value"][:, None]], 1)
    location, scale, prior = densities(fit)
    conditional, aggregate, components = 0.0, 0.0, 0.0
    for i in range(30):
        of_rows = torch.distributions.Normal(location, scale).log_prob(z[i])  # (n, j)
        conditional += float(of_rows[i].sum()) / 30
        aggregate += float(of_rows.sum(1).exp().mean().log()) / 30
        components += float(of_rows.exp().mean(0).log().sum()) / 30
    expected = (
        conditional - aggregate,
        aggregate - components,
        components - float(prior.log_prob(z).sum(1).mean()),
    )
    assert tuple(found) == pytest.approx(expected)
    monkeypatch.setattr(divergence, "DENSITIES", 7 * 30 * 3)  # blocks of 7 rows
    assert tuple(total_correlation(fit)) == pytest.approx(expected)


def test_the_parts_add_up_to_the_divergence() -> None:
    fit, num_draws = several_sites(), 200
    found = total_correlation(fit, num_draws=num_draws)
    exact = float(active_units(fit)["kl"].sum())
    location, scale, prior = densities(fit)
    # log q - log p of a draw is (a - 1) e^2 / 2 + b e and a constant
    a, b = (scale / prior.scale) ** 2, (location - prior.loc) * scale / prior.scale**2
    variance = float((0.5 * (a - 1) ** 2 + b**2).sum(1).mean())
    assert abs(found.divergence - exact) < 4 * (variance / (num_draws * 30)) ** 0.5
    assert sum(found) == found.divergence
    assert total_correlation(fit) == total_correlation(fit, seed=fit.seed)
    assert total_correlation(fit) != total_correlation(fit, seed=1)


def test_new_rows_and_wrong_numbers() -> None:
    fit = several_sites()
    assert total_correlation(fit, {"x": normal(5, seed=1)}) != total_correlation(fit)
    with pytest.raises(pyl.ArgumentError, match="num_draws must be a positive number: got 0"):
        total_correlation(fit, num_draws=0)
    with pytest.raises(pyl.ArgumentError, match="num_votes must be a positive number: got 0"):
        latent_fixing_score(fit, num_votes=0)
    with pytest.raises(pyl.DataError, match="needs several rows: got one"):
        latent_fixing_score(fit, {"x": normal(1)})


def test_latents_that_depend_on_each_other_have_no_parts() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        factor = pyro.param("factor", torch.eye(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x, scale_tril=factor))

    fit = quickly(model, guide, {"x": normal(20, 2)})
    with pytest.raises(pyl.ModelError, match="not independent of each other under the guide"):
        total_correlation(fit)
    units = active_units(fit)
    assert units["kl"].isna().all()
    assert units["active"].all()


def test_stages_that_depend_on_each_other_have_no_parts() -> None:
    """The density of u given a row is known at the c drawn for this row only."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(0.0, 1.0))
            u = pyro.sample("u", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(c + u, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Normal(x + shift, 0.5))
            pyro.sample("u", dist.Normal(x - c, 0.5))

    fit = quickly(model, guide, {"x": normal(50)})
    with pytest.raises(pyl.ModelError, match="site 'u': what the guide draws depends on what it drew before"):
        total_correlation(fit)
    assert list(active_units(fit).index) == ["c[0]", "u[0]"]
    assert 0 <= latent_fixing_score(fit, num_votes=20, num_evaluation=20).train <= 1


def test_a_guide_that_draws_more_has_no_density() -> None:
    def model(x: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(slope * z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("slope", dist.Normal(pyro.param("location", torch.zeros(())), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    fit = quickly(model, guide, {"x": normal(20)})
    with pytest.raises(pyl.ModelError, match=re.escape("sites ['slope']: the guide draws more")):
        total_correlation(fit)


# --- active units ---


def test_active_latents_are_those_whose_means_vary() -> None:
    """Means a x_j with x_j of variance 1, of which two are 0 or next to it; KL of normals by hand."""
    weights, x = torch.tensor([1.0, 0.05, 0.0]).double(), normal(500, 3)
    fit = known(lambda x: x * weights, torch.tensor([0.5, 1.0, 1.0]), x)
    found = active_units(fit)
    means = x * weights
    assert list(found.index) == ["z[0]", "z[1]", "z[2]"]
    assert list(found["active"]) == [True, False, False]
    np.testing.assert_allclose(found["variance"], means.var(0), atol=1e-9)
    scale = torch.tensor([0.5, 1.0, 1.0])
    divergences = ((scale**2 + means**2 - 1) / 2 - scale.log()).mean(0)
    np.testing.assert_allclose(found["kl"], divergences, atol=1e-9)
    assert list(active_units(fit, threshold=1e-3)["active"]) == [True, True, False]


def test_a_divergence_without_a_formula_is_drawn() -> None:
    """Of N(x, 1/2) and Student's t with 5 degrees of freedom, by quadrature."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.StudentT(5.0, 0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        shift = pyro.param("shift", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + shift, 0.5))

    x = normal(400)
    fit = quickly(model, guide, {"x": x})
    nodes = torch.linspace(-4, 4, 2_001).double()
    z = x[:, None] + nodes
    log_ratio = dist.Normal(x[:, None], 0.5).log_prob(z) - dist.StudentT(5.0).log_prob(z)
    density = dist.Normal(0.0, 0.5).log_prob(nodes).exp() * (8 / 2_000)
    exact = (log_ratio * density).sum(1)
    spread = ((log_ratio - exact[:, None]) ** 2 * density).sum(1).mean() ** 0.5
    assert abs(active_units(fit)["kl"].item() - exact.mean()) < 4 * spread / (400 * 100) ** 0.5


def test_a_large_beta_collapses_and_is_told() -> None:
    with pytest.warns(pyl.FitWarning, match=r"None of the 2 latents is active.*Lower beta"):
        found = active_units(trained(factors(), pyl.elbo(50.0), 600))
    assert not found["active"].any()
    assert (found["kl"] < 0.02).all()
    plain = active_units(trained(factors(), pyl.elbo(), 600))
    assert plain["active"].all()
    assert (plain["kl"] > 0.2).all()


def test_nothing_is_left_behind_on_the_host() -> None:
    table = holes(factors(), 0.2).head(100)

    def measured(place: torch.device) -> list[Any]:
        method = pyl.SVI(num_steps=20, batch_size=50)
        pair, options = VAE(pyl.infer_schema(table), 2), {"progress": False, "compile": False}
        fit = pyl.fit(pair, table, method, seed=0, device=place, **options)
        score = latent_fixing_score(fit, num_votes=20, num_evaluation=20)
        return [
            *score,
            *total_correlation(fit),
            *active_units(fit)["kl"],
            *pyl.encode(fit, sample=True)["z[0]"],
        ]

    with fake_device():
        found = measured(DEVICE)
    np.testing.assert_allclose(found, measured(torch.device("cpu")), rtol=1e-4, atol=1e-6)


# --- two tables ---


def labelled(shares: list[float], rows: int = 1_000) -> pd.Series:
    return pd.Series(np.repeat(list("abc"), (np.array(shares) * rows).round().astype(int)))


def test_marginals_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    number = pd.Series(rng.permutation(1_000) / 1_000)
    second = pd.DataFrame(
        {
            "number": number,
            "label": labelled([0.5, 0.5, 0.0]),
            "flag": np.arange(1_000) < 500,
            "when": pd.Timestamp("2020-01-01"),
        }
    )
    first = pd.DataFrame(
        {
            "flag": np.arange(1_000) < 250,
            "number": 2 * number + 0.25,
            "label": labelled([0.2, 0.5, 0.3]).astype("category"),
            "when": pd.Timestamp("2021-01-01"),
            "other": 1,
        }
    )
    first.loc[::7, ["number", "label"]] = np.nan  # rows at random for numbers; every share is kept
    found = marginal_recovery(first, second)
    assert list(found.index) == ["flag", "number", "label"]
    # uniform on (1/4, 9/4) and (0, 1): the distance is largest at 1, 1 - 3/8; 857 rows err by 0.046
    assert found.loc["number", "ks_complement"] == pytest.approx(3 / 8, abs=1.36 / 857**0.5)
    shift, sd = 0.75, 12**-0.5
    assert found.loc["number", "mean_difference"] == pytest.approx(shift / sd, abs=4 * 2 / 857**0.5)
    assert found.loc["number", "sd_ratio"] == pytest.approx(2, rel=4 * 0.45 / 857**0.5)
    assert found.loc["label", "tv_complement"] == pytest.approx(0.7, abs=0.005)
    assert found.loc["flag", "tv_complement"] == pytest.approx(0.75)
    assert found.loc[["flag", "label"]].iloc[:, :3].isna().all(axis=None)
    assert math.isnan(found.loc["number", "tv_complement"])


def test_a_table_recovers_its_own_marginals() -> None:
    found = marginal_recovery(MIXED, MIXED)
    assert list(found.index) == list(MIXED)
    figures = found.assign(mean_difference=found["mean_difference"] + 1)
    assert ((figures == 1) | figures.isna()).all(axis=None)
    assert figures.notna().any(axis=1).all()


def test_marginals_that_cannot_be_compared() -> None:
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [np.nan, np.nan]})
    with pytest.raises(pyl.DataError, match=re.escape("columns ['b']: a column has no observed cell")):
        marginal_recovery(table, table)
    with pytest.raises(pyl.DataError, match="the tables have no column in common"):
        marginal_recovery(table[["a"]], table[["b"]])
    constant = marginal_recovery(table[["a"]], pd.DataFrame({"a": [1.0, 1.0]}))
    assert np.isinf(constant.loc["a", "sd_ratio"])


def correlated(correlation: float, rows: int, seed: int) -> pd.DataFrame:
    covariance = [[1, correlation], [correlation, 1]]
    rows = np.random.default_rng(seed).multivariate_normal([0, 0], covariance, size=rows)
    return pd.DataFrame(rows, columns=["a", "b"])


def test_rows_from_one_distribution_cannot_be_told_apart() -> None:
    before = torch.get_rng_state()
    found = [
        classifier_two_sample(correlated(0.5, 400, seed), correlated(0.5, 400, 100 + seed), seed=seed)
        for seed in range(10)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    accuracy = np.array([test.accuracy for test in found])
    assert {test.num_held_out for test in found} == {400}
    assert (abs(accuracy - 0.5) < 4 * 0.5 / 400**0.5).all()
    assert abs(accuracy.mean() - 0.5) < 4 * 0.5 / 4_000**0.5
    assert min(test.p_value for test in found) > 1e-4


def test_correlations_are_told_apart_that_marginals_do_not_show() -> None:
    """The best rule asks for the sign of a b: right with probability 1/2 + arcsin(0.8) / pi."""
    first, second = correlated(0.8, 2_000, 0), correlated(-0.8, 2_000, 1)
    assert (marginal_recovery(first, second)["ks_complement"] > 1 - 1.63 / 1_000**0.5).all()
    found = classifier_two_sample(first, second)
    best = 0.5 + math.asin(0.8) / math.pi
    error = (best * (1 - best) / 2_000) ** 0.5
    assert best - 0.03 - 4 * error < found.accuracy < best + 4 * error
    assert found.p_value < 1e-50
    assert found == classifier_two_sample(first, second)
    assert found != classifier_two_sample(first, second, seed=1)


def test_labels_and_holes_are_seen_too() -> None:
    """Labels that go with a number in one table only, and cells that are missing in one only."""
    rng = np.random.default_rng(0)
    number = rng.normal(size=1_200)
    together = pd.DataFrame({"x": number, "label": np.where(number > 0, "up", "down")})
    apart = together.assign(label=rng.permutation(together["label"]))
    assert classifier_two_sample(together, apart).accuracy > 0.5 + 0.25 - 4 * 0.5 / 1_200**0.5
    holes = together.mask(rng.random(together.shape) < 0.3)
    # without a hole, as 0.49 of the rows are, the answer is "complete": right for 1/2 + 0.51 / 2
    assert abs(classifier_two_sample(holes, together).accuracy - 0.755) < 0.03 + 4 * 0.43 / 1_200**0.5
    few = classifier_two_sample(MIXED, MIXED.sample(frac=0.5, random_state=0), num_steps=20)
    assert few.num_held_out == 2 * (len(MIXED) // 2 - len(MIXED) // 4)


def test_tables_that_cannot_be_told_apart() -> None:
    table = correlated(0.0, 10, 0)
    with pytest.raises(pyl.DataError, match="cannot be compared: 3 and 10 rows"):
        classifier_two_sample(table.head(3), table)
    with pytest.raises(pyl.DataError, match="cannot be compared"):
        classifier_two_sample(table[["a"]], table[["b"]])
    with pytest.raises(pyl.ArgumentError, match="num_steps must be a positive number"):
        classifier_two_sample(table, table, num_steps=0)
    with pytest.raises(pyl.ArgumentError, match="a hidden layer has no features"):
        classifier_two_sample(table, table, hidden=(8, 0))
