"""Rows of mixed columns against one loop over rows and columns.

Tolerances: 1e-12 relative where both sides add up the same numbers in another order.
"""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.density import capture_density
from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.distributions import as_row_distribution
from pyrolatent.errors import ArgumentError, DataError, ModelError
from pyrolatent.univariate import value_inside

ROWS = 7
EXACT = {"rtol": 1e-12, "atol": 1e-12}
CUTPOINTS = torch.tensor([-1.0, 0.0, 1.5], dtype=torch.float64)

# A distribution of a column from unconstrained numbers (N,): scales, rates and shapes are their exp.
FAMILIES: dict[str, Callable[[Tensor], torch.distributions.Distribution]] = {
    "normal": lambda t: dist.Normal(t, 1.5),
    "student": lambda t: dist.StudentT(3.0, t, 1.0),
    "mixture": lambda t: dist.MixtureSameFamily(
        dist.Categorical(logits=t[..., None] * torch.tensor([0.0, 1.0])),
        dist.Normal(t[..., None] + torch.tensor([-1.0, 1.0]), 1.0),
    ),
    "lognormal": lambda t: dist.LogNormal(t, 0.5),
    "gamma": lambda t: dist.Gamma(2.0, t.exp()),
    "weibull": lambda t: dist.Weibull(t.exp(), 1.5),
    "pareto": lambda t: dist.Pareto(2.0, 3.0 + t.exp()),
    "beta": lambda t: dist.Beta(2.0, t.exp()),
    "uniform": lambda t: dist.Uniform(2.0, 4.0 + t.exp(), validate_args=False),
    "bernoulli": lambda t: dist.Bernoulli(logits=t),
    "categorical": lambda t: dist.Categorical(logits=t[..., None] * torch.tensor([0.0, 1.0, -1.0])),
    "ordered": lambda t: dist.OrderedLogistic(t, CUTPOINTS.to(t)),
    "binomial": lambda t: dist.Binomial(5, logits=t),
    "poisson": lambda t: dist.Poisson(t.exp()),
    "negative binomial": lambda t: dist.NegativeBinomial(3.0, logits=t),
    "zero-inflated": lambda t: dist.ZeroInflatedPoisson(t.exp(), gate=torch.tensor(0.3)),
    "geometric": lambda t: dist.Geometric(logits=t),
}
WITHOUT_QUANTILES = {
    "student",
    "mixture",
    "gamma",
    "beta",
    "poisson",
    "negative binomial",
    "zero-inflated",
    "geometric",
}
EACH_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixed(parameters: Tensor, mask: Tensor) -> ColumnwiseDistribution:
    """One column of each family, at `parameters (..., N, D)`."""
    columns = {name: FAMILIES[name](parameters[..., d]) for d, name in enumerate(FAMILIES)}
    return ColumnwiseDistribution(columns, mask, validate_args=False)


@pytest.fixture(scope="module")
def mask() -> Tensor:
    seen = torch.rand(ROWS, len(FAMILIES), generator=torch.Generator().manual_seed(1)) < 0.6
    seen[2] = False  # a row with nothing observed
    seen[3] = True
    return seen


@pytest.fixture
def parameters() -> Tensor:
    return randn(ROWS, len(FAMILIES), seed=2)


@pytest.fixture
def value(parameters: Tensor, mask: Tensor) -> Tensor:
    """Cells drawn from their columns, 0 where missing, which is outside of the support of some."""
    return torch.where(mask, mixed(parameters, mask).sample(), 0.0)


def by_loop(parameters: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The log-densities `(N, D)` of the observed cells, cell by cell."""
    cells = torch.zeros(mask.shape)
    for row, d in mask.nonzero().tolist():
        family = list(FAMILIES.values())[d]
        cells[row, d] = family(parameters[row : row + 1, d]).log_prob(value[row : row + 1, d])[0]
    return cells


def test_rows_and_cells_are_those_of_a_loop(parameters: Tensor, value: Tensor, mask: Tensor) -> None:
    rows = mixed(parameters, mask)
    assert (rows.batch_shape, rows.event_shape) == ((ROWS,), (len(FAMILIES),))
    expected = by_loop(parameters, value, mask)
    torch.testing.assert_close(rows.log_prob_cells(value), expected, **EXACT)
    torch.testing.assert_close(rows.log_prob(value), expected.sum(1), **EXACT)
    assert rows.log_prob(value)[2] == 0


def test_the_sum_is_the_sum_of_rows(parameters: Tensor, value: Tensor, mask: Tensor) -> None:
    rows = mixed(parameters, mask)
    assert as_row_distribution(rows, ROWS) is rows
    found = rows.log_prob_sum(value, rows.summarise(value))
    torch.testing.assert_close(found, rows.log_prob(value).sum(), **EXACT)


def test_a_known_row() -> None:
    """Normal(1, 2) at 2, Bernoulli(0.25) at 1, Categorical(.2, .3, .5) at code 2, and a missing Gamma."""
    columns = {
        "a": dist.Normal(1.0, 2.0),
        "b": dist.Bernoulli(0.25),
        "c": dist.Categorical(torch.tensor([0.2, 0.3, 0.5])),
        "d": dist.Gamma(2.0, 1.0),
    }
    rows = ColumnwiseDistribution(columns, torch.tensor([[True, True, True, False]]))
    found = rows.log_prob(torch.tensor([[2.0, 1.0, 2.0, 0.0]]))
    normal = -0.125 - math.log(2 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, torch.tensor([normal + math.log(0.25) + math.log(0.5)]), **EXACT)


@EACH_FAMILY
@pytest.mark.parametrize("held", [0.0, -7.5, 1e300, torch.nan, torch.inf])
def test_a_missing_cell_touches_neither_value_nor_gradient(family: str, held: float) -> None:
    t, seen = randn(ROWS, seed=3), torch.arange(ROWS) % 2 == 0
    cells = FAMILIES[family](t).sample()

    def log_prob(t: Tensor, missing: float) -> Tensor:
        value = torch.where(seen, cells, missing)[:, None]
        column = ColumnwiseDistribution({"a": FAMILIES[family](t)}, seen[:, None], validate_args=False)
        return column.log_prob(value).sum()

    gradient = grad(log_prob)(t, held)
    torch.testing.assert_close(log_prob(t, held), FAMILIES[family](t).log_prob(cells)[seen].sum(), **EXACT)
    assert (gradient[~seen] == 0).all()
    expected = grad(lambda t: FAMILIES[family](t).log_prob(cells)[seen].sum())(t)
    torch.testing.assert_close(gradient, expected, **EXACT)


@EACH_FAMILY
def test_the_value_put_for_a_missing_cell_lies_inside(family: str) -> None:
    column = FAMILIES[family](randn(ROWS, seed=4))
    inside = value_inside(column)
    assert column.support.check(inside.expand(ROWS)).all()
    assert column.log_prob(inside.expand(ROWS)).isfinite().all()


def test_particles_are_runs_one_by_one(value: Tensor, mask: Tensor) -> None:
    """Parameters (K, 1, N, D) under an outer plate, the value (N, D) shared."""
    particles = randn(4, 1, ROWS, len(FAMILIES), seed=5)
    rows = mixed(particles, mask)
    assert rows.batch_shape == (4, 1, ROWS)
    each = torch.stack([mixed(p[0], mask).log_prob(value) for p in particles])
    torch.testing.assert_close(rows.log_prob(value), each[:, None], **EXACT)


def test_expanding_repeats_the_density_and_draws_anew(
    parameters: Tensor, value: Tensor, mask: Tensor
) -> None:
    rows = mixed(parameters, mask).expand((5, ROWS))
    assert rows.batch_shape == (5, ROWS)
    torch.testing.assert_close(
        rows.log_prob(value), mixed(parameters, mask).log_prob(value).expand(5, ROWS), **EXACT
    )
    normal = rows.sample((2,))[..., 0]
    assert normal.shape == (2, 5, ROWS)
    assert normal.unique().numel() == normal.numel()


def test_columns_shared_by_all_rows_are_drawn_for_each() -> None:
    columns = {"a": dist.Normal(0.0, 1.0), "b": dist.Categorical(torch.tensor([0.5, 0.5]))}
    rows = ColumnwiseDistribution(columns, torch.ones(1000, 2, dtype=torch.bool))
    drawn = rows.sample()
    assert (drawn.shape, drawn.dtype) == ((1000, 2), torch.float64)
    assert drawn[:, 0].unique().numel() == 1000
    assert abs(drawn[:, 1].mean() - 0.5) < 4 * 0.5 / 1000**0.5  # 4 standard errors


def test_particles_in_plates() -> None:
    """As SVI runs a model and its guide: an outer plate to the left, and sites with their own shapes."""
    value, seen = torch.tensor([[0.5, 1.0], [0.0, 0.0], [-1.0, 1.0]]), torch.tensor([[True, True]] * 3)
    seen[1, 0] = False

    def model() -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 3):
            columns = {"a": dist.Normal(centre, 1.0), "b": dist.Bernoulli(0.3)}
            pyro.sample("x", ColumnwiseDistribution(columns, seen), obs=value)

    with pyro.plate("particles", 6, dim=-2):
        trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["x"]
    assert site["log_prob"].shape == (6, 3)
    centre = trace.nodes["centre"]["value"]
    a = torch.where(seen[:, 0], dist.Normal(centre, 1.0).log_prob(value[:, 0]), 0.0)
    torch.testing.assert_close(site["log_prob"], a + dist.Bernoulli(0.3).log_prob(value[:, 1]), **EXACT)


# Drawing what is missing


def test_completion_keeps_what_is_observed(parameters: Tensor, value: Tensor, mask: Tensor) -> None:
    rows = mixed(parameters, mask)
    full = rows.complete(value, randn(ROWS, len(FAMILIES), seed=6))
    assert torch.equal(full[mask], value[mask])
    assert mixed(parameters, torch.ones_like(mask)).support.check(full).all()


@EACH_FAMILY
def test_which_columns_draw_from_noise(family: str) -> None:
    column = ColumnwiseDistribution(
        {"a": FAMILIES[family](torch.zeros(3))}, torch.zeros(3, 1, dtype=torch.bool)
    )
    assert column.draws_from_noise == (family not in WITHOUT_QUANTILES)
    noise = randn(3, 1, seed=7)
    again = [column.complete(torch.zeros(3, 1), noise) for _ in range(9)]
    assert all(torch.equal(again[0], other) for other in again) == column.draws_from_noise


def test_a_normal_cell_is_location_plus_scale_times_noise() -> None:
    rows = ColumnwiseDistribution({"a": dist.Normal(3.0, 2.0)}, torch.zeros(5, 1, dtype=torch.bool))
    noise = torch.tensor([[-6.0], [-1.0], [0.0], [0.5], [6.0]])
    # Phi(6) differs from 1 by 1e-9, known to 1e-16: the quantile is good to 1e-16 / phi(6) = 2e-8
    torch.testing.assert_close(rows.complete(torch.zeros(5, 1), noise), 3 + 2 * noise, rtol=0, atol=1e-7)


def test_labels_are_cut_where_cumulative_probabilities_say() -> None:
    """Bernoulli(0.3) is 1 above Phi^-1(0.7), Categorical(.2, .3, .5) changes at .2 and .5."""
    columns = {"b": dist.Bernoulli(0.3), "c": dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))}
    share = torch.tensor([0.001, 0.199, 0.201, 0.499, 0.501, 0.699, 0.701, 0.999])
    noise = torch.special.ndtri(share)[:, None].expand(-1, 2)
    rows = ColumnwiseDistribution(columns, torch.zeros(8, 2, dtype=torch.bool))
    full = rows.complete(torch.zeros(8, 2), noise)
    assert full[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert full[:, 1].tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


@EACH_FAMILY
def test_draws_have_the_distribution_of_their_column(family: str) -> None:
    """4,000 completed cells against 4,000 sampled ones: p-values below 1e-4 are no accident."""
    count = 4000
    column = FAMILIES[family](torch.full((count,), 0.3))
    rows = ColumnwiseDistribution({"a": column}, torch.zeros(count, 1, dtype=torch.bool))
    drawn = rows.complete(torch.zeros(count, 1), randn(count, 1, seed=8))[:, 0]
    sampled = column.sample().double()
    if not column.support.is_discrete:
        assert stats.ks_2samp(drawn.numpy(), sampled.numpy()).pvalue > 1e-4
        return
    levels = torch.arange(6.0)  # the last one for all above
    counts = [torch.bincount(cells.clamp(max=5).long(), minlength=6) for cells in (drawn, sampled)]
    table = torch.stack(counts)[:, (counts[0] + counts[1]) > 0]
    assert table.shape[1] <= len(levels)
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_extreme_noise_gives_possible_cells(dtype: torch.dtype) -> None:
    columns = {
        "a": dist.LogNormal(torch.zeros(2, dtype=dtype), 1.0),
        "b": dist.OrderedLogistic(torch.zeros(2), CUTPOINTS),
    }
    rows = ColumnwiseDistribution(columns, torch.zeros(2, 2, dtype=torch.bool))
    noise = torch.tensor([[-40.0, -40.0], [40.0, 40.0]], dtype=dtype)
    full = rows.complete(torch.zeros(2, 2, dtype=dtype), noise)
    assert (full.dtype, full[:, 1].tolist()) == (dtype, [0, 3])
    assert full.isfinite().all() and full[0, 0] >= 0 and full[1, 0] > 100


def test_completion_under_vmap_is_completion_one_by_one() -> None:
    seen = torch.tensor([[True, False, False], [False, True, False]])
    value = torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]])
    centres, noise = randn(5, seed=9), randn(5, 2, 3, seed=10)

    def completed(centre: Tensor, noise: Tensor) -> Tensor:
        columns = {
            "a": dist.Normal(centre, 1.0, validate_args=False),
            "b": dist.Bernoulli(logits=centre, validate_args=False),
            "c": dist.Categorical(logits=centre * torch.tensor([0.0, 1.0, 2.0]), validate_args=False),
        }
        return ColumnwiseDistribution(columns, seen, validate_args=False).complete(value, noise)

    each = torch.stack([completed(*pair) for pair in zip(centres, noise, strict=True)])
    torch.testing.assert_close(vmap(completed)(centres, noise), each, **EXACT)


def test_moments_given_what_is_observed() -> None:
    columns = {
        "a": dist.Gamma(6.0, 2.0),
        "b": dist.Bernoulli(0.2),
        "c": dist.Categorical(torch.tensor([0.2, 0.3, 0.5])),
        "d": dist.Normal(5.0, 1.0),
    }
    rows = ColumnwiseDistribution(columns, torch.tensor([[False, False, False, True]]))
    mean, sd = rows.conditional(torch.tensor([[0.0, 0.0, 0.0, 7.0]]))
    torch.testing.assert_close(mean, torch.tensor([[3.0, 0.2, 1.3, 7.0]]), **EXACT)
    variance = torch.tensor([[1.5, 0.16, 2.3 - 1.69, 0.0]])  # of c: .3 + 4 * .5 - 1.3^2
    torch.testing.assert_close(sd, variance.sqrt(), **EXACT)


# In a model


def table_model(x: Tensor, mask: Tensor) -> None:
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    columns = {
        "height": dist.Normal(centre, 1.0),
        "income": dist.Gamma(2.0, rate),
        "smoker": dist.Bernoulli(logits=centre),
        "site": dist.Categorical(weights),
    }
    with pyro.plate("data", len(x)):
        pyro.sample("x", ColumnwiseDistribution(columns, mask), obs=x)


SEEN = torch.tensor([[True, True, True, True], [True, False, False, True], [False, True, True, False]])
X = torch.tensor([[0.5, 2.0, 1.0, 2.0], [1.5, 0.0, 0.0, 0.0], [0.0, 0.7, 0.0, 0.0]], dtype=torch.float64)


def test_the_captured_density_is_the_formula_and_its_gradient() -> None:
    """On the top rung: priors and Jacobians by hand, the gradient by differences."""
    density = capture_density(table_model, {"x": X, "mask": SEEN}, seed=0)
    assert density.rung == "vmap"
    position = randn(3, density.dim, seed=11)
    found, gradient = density(position)
    sites = density.constrain(position)
    centre, rate, weights = sites["centre"], sites["rate"], sites["weights"]
    likelihood = (
        stats.norm.logpdf(0.5, centre)
        + stats.norm.logpdf(1.5, centre)
        + stats.gamma.logpdf(2.0, 2, scale=1 / rate)
        + stats.gamma.logpdf(0.7, 2, scale=1 / rate)
        - torch.nn.functional.softplus(-centre).numpy()
        - torch.nn.functional.softplus(centre).numpy()
        + weights[:, 2].log().numpy()
        + weights[:, 0].log().numpy()
    )
    nothing = capture_density(table_model, {"x": 0 * X, "mask": torch.zeros_like(SEEN)}, seed=0)
    torch.testing.assert_close(found - nothing(position)[0], torch.from_numpy(likelihood), **EXACT)
    step = 1e-5 * torch.eye(density.dim)
    for d in range(density.dim):
        # central differences: h^2 / 6 of a third derivative below 10, and rounding of 1e-15 * 10 / h
        slope = (density(position + step[d])[0] - density(position - step[d])[0]) / 2e-5
        torch.testing.assert_close(gradient[:, d], slope, rtol=1e-8, atol=1e-8)


def test_the_graph_holds_no_missing_value() -> None:
    """Traced once, the same graph serves whatever missing cells hold."""

    def log_prob(value: Tensor) -> Tensor:
        return ColumnwiseDistribution(
            {"a": dist.Gamma(2.0, 1.0, validate_args=False)}, SEEN[:, 1:2], validate_args=False
        ).log_prob(value)

    graph = make_fx(log_prob)(X[:, 1:2])
    other = torch.where(SEEN[:, 1:2], X[:, 1:2], torch.nan)
    assert torch.equal(graph(other), log_prob(X[:, 1:2]))


def test_a_value_outside_its_columns_support_is_refused_by_column_row_and_value() -> None:
    bad = X.clone()
    bad[2, 2] = 3.0
    message = (
        r"site 'x', column 'smoker', row 2: an observed value lies outside the support of its "
        r"distribution: 3 under Bernoulli, 1 of 3 values. correct the data"
    )
    with pytest.raises(DataError, match=message):
        capture_density(table_model, {"x": bad, "mask": SEEN}, seed=0)
    seen = SEEN.clone()
    seen[2, 2] = False
    assert capture_density(table_model, {"x": bad, "mask": seen}, seed=0).rung == "vmap"


def test_a_row_that_a_handler_masks_is_not_looked_at() -> None:
    bad = X.clone()
    bad[2, 1] = -1.0
    counts = torch.tensor([True, True, False])

    def handled(x: Tensor, mask: Tensor) -> None:
        with pyro.poutine.mask(mask=counts):
            table_model(x, mask)

    def wrapped(x: Tensor, mask: Tensor) -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        columns = {"a": dist.Normal(centre, 1.0), "b": dist.Gamma(2.0, 1.0)}
        with pyro.plate("data", 3):
            pyro.sample("x", ColumnwiseDistribution(columns, mask[:, :2]).mask(counts), obs=x[:, :2])

    for model in (handled, wrapped):
        capture_density(model, {"x": bad, "mask": SEEN}, seed=0)
        with pytest.raises(DataError, match=r"row 1: .* -1 under Gamma"):
            capture_density(model, {"x": bad[[0, 2, 1]], "mask": SEEN[[0, 2, 1]]}, seed=0)


def test_an_unobserved_row_cannot_be_a_latent_site() -> None:
    def latent() -> None:
        pyro.sample(
            "x", ColumnwiseDistribution({"a": dist.Bernoulli(0.5)}, torch.ones(2, 1, dtype=torch.bool))
        )

    with pytest.raises(ModelError, match=r"a latent site is discrete: site 'x'|site 'x': a latent site is"):
        capture_density(latent, {}, seed=0)


def test_support_knows_what_is_missing(parameters: Tensor, value: Tensor, mask: Tensor) -> None:
    rows = mixed(parameters, mask)
    assert rows.support.is_discrete and rows.support.event_dim == 1
    assert rows.support.check(value).all()
    value[3, list(FAMILIES).index("poisson")] = 0.5
    assert rows.support.check(value).tolist() == [True, True, True, False, True, True, True]


def test_validation_names_column_row_and_value() -> None:
    columns = {"age": dist.Normal(0.0, 1.0), 7: dist.Poisson(1.0)}
    rows = ColumnwiseDistribution(columns, torch.ones(2, 2, dtype=torch.bool), validate_args=True)
    with pytest.raises(DataError, match=r"^column 7, row 1: .*: -2 under Poisson, 1 of 2 values"):
        rows.log_prob(torch.tensor([[0.0, 1.0], [0.0, -2.0]]))


# What cannot be rows

TWO = torch.ones(4, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("columns", "mask", "message"),
    [
        (
            {"a": dist.Normal(0.0, 1.0)},
            TWO.float(),
            r"the mask must be boolean: got torch.float32. pass True",
        ),
        ({"a": dist.Normal(0.0, 1.0)}, TWO, r"one column for each distribution: got \(4, 2\) and 1 dist"),
        ({"a": dist.Normal(0.0, 1.0)}, TWO[:, 0], r"one column for each distribution: got \(4,\) and 1"),
        (
            {"a": dist.Normal(0.0, 1.0), "b": dist.Normal(torch.zeros(3), 1.0)},
            TWO,
            r"column 'b', Normal: the distribution does not have a cell for each row: .*\(3,\), the mask",
        ),
        (
            {"a": dist.Normal(0.0, 1.0), "b": dist.Dirichlet(torch.ones(2))},
            TWO,
            r"column 'b', Dirichlet: a cell holds one number: its event_shape is \(2,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit(columns: dict[str, object], mask: Tensor, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ColumnwiseDistribution(columns, mask)
