"""The density of incomplete rows against a plain oracle: one marginal normal per row.

Tolerances: 1e-9 relative is what users are promised; the arithmetic gives about 1e-15.
"""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.func import grad, grad_and_value, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.density import capture_density
from pyrolatent.distributions import IncompleteMVN, RowDistribution, as_row_distribution
from pyrolatent.errors import ArgumentError, ModelError

PROMISED = {"rtol": 1e-9, "atol": 1e-9}
ALL_PATTERNS = torch.tensor(list(itertools.product([True, False], repeat=4)))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def parameters(dim, seed=0):
    """A mean (D,) and the Cholesky factor (D, D) of a well-conditioned covariance."""
    factor = randn(dim, 2 * dim, seed=seed + 1)
    return randn(dim, seed=seed), torch.linalg.cholesky(factor @ factor.mT / dim)


def table(mask, seed=0):
    """Rows (N, D) with 0 where `mask` is False, off the mean so that no residual is small."""
    return (1.0 + 2.0 * randn(*mask.shape, seed=seed + 2)) * mask


def random_mask(rows, dim, missing, seed=0):
    return torch.rand(rows, dim, generator=generator(seed)) >= missing


def oracle(loc, scale_tril, x, mask):
    """Log-density (N,) of each row's observed cells."""
    covariance = scale_tril @ scale_tril.mT
    rows = [
        torch.distributions.MultivariateNormal(loc[o], covariance[o][:, o], validate_args=False).log_prob(
            row[o]
        )
        if o.any()
        else 0.0 * (loc.sum() + scale_tril.sum())
        for row, o in zip(x, mask, strict=True)
    ]
    return torch.stack(rows)


def by_sum(loc, scale_tril, x, mask):
    rows = IncompleteMVN(loc, scale_tril, mask, validate_args=False)
    return rows.log_prob_sum(x, IncompleteMVN(loc.detach(), scale_tril.detach(), mask).summarise(x))


def by_row(loc, scale_tril, x, mask):
    return IncompleteMVN(loc, scale_tril, mask, validate_args=False).log_prob(x).sum()


def value_and_gradient(function, loc, scale_tril, x, mask):
    loc, scale_tril = loc.clone().requires_grad_(), scale_tril.clone().requires_grad_()
    value = function(loc, scale_tril, x, mask).sum()
    of_loc, of_scale = torch.autograd.grad(value, (loc, scale_tril))
    return value.detach(), of_loc, of_scale.tril()


MASKS = {
    "each pattern of 4 columns once": ALL_PATTERNS,
    "patterns of 4 columns repeated": ALL_PATTERNS[torch.randint(16, (400,), generator=generator(0))],
    "one pattern often": torch.tensor([[True, False, True]]).expand(50, -1),
    "263 x 12, 10 % missing": random_mask(263, 12, 0.1),
    "263 x 12, 50 % missing": random_mask(263, 12, 0.5),
    "263 x 12, 90 % missing": random_mask(263, 12, 0.9),
    "complete": torch.ones(263, 12, dtype=torch.bool),
    "complete, fewer rows than columns": torch.ones(3, 12, dtype=torch.bool),
    "systems too large to unroll": random_mask(40, 30, 0.5),
    "only systems too large to unroll": torch.arange(30).expand(20, -1) % 2 == 0,
    "few patterns, many rows of each": random_mask(10, 12, 0.2)[torch.arange(300) % 10],
    "few patterns, many rows, many holes": random_mask(10, 12, 0.6)[torch.arange(200) % 10],
    "many rows, systems too large to unroll": random_mask(4, 30, 0.5)[torch.arange(140) % 4],
    "one column with most of the holes": random_mask(200, 6, torch.tensor([0.9] + 5 * [0.02])),
    "70 columns": random_mask(30, 70, 0.05),
    "one column": random_mask(20, 1, 0.3),
    "one row": torch.tensor([[True, False, True, True]]),
    "nothing observed": torch.zeros(5, 3, dtype=torch.bool),
}
EACH_MASK = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


@EACH_MASK
def test_sum_is_sum_of_rows_is_oracle_with_gradients(mask):
    arguments = (*parameters(mask.shape[1]), table(mask), mask)
    expected = value_and_gradient(oracle, *arguments)
    for function in (by_sum, by_row):
        for found, wanted in zip(value_and_gradient(function, *arguments), expected, strict=True):
            torch.testing.assert_close(found, wanted, **PROMISED)


@EACH_MASK
def test_rows_are_those_of_the_oracle(mask):
    loc, scale_tril = parameters(mask.shape[1])
    found = IncompleteMVN(loc, scale_tril, mask).log_prob(table(mask))
    torch.testing.assert_close(found, oracle(loc, scale_tril, table(mask), mask), **PROMISED)


def test_each_single_pattern_alone():
    loc, scale_tril = parameters(4)
    for pattern in ALL_PATTERNS:
        mask = pattern[None]
        expected = oracle(loc, scale_tril, table(mask), mask).sum()
        torch.testing.assert_close(by_sum(loc, scale_tril, table(mask), mask), expected, **PROMISED)


def test_row_with_nothing_observed_has_density_one():
    loc, scale_tril = parameters(4)
    log_prob = IncompleteMVN(loc, scale_tril, ALL_PATTERNS).log_prob(table(ALL_PATTERNS))
    assert not ALL_PATTERNS[-1].any()
    assert log_prob[-1] == 0.0


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), 1e300, -5.0])
def test_values_at_missing_cells_never_matter(rubbish):
    mask = random_mask(60, 6, 0.4)
    x, noise = table(mask), randn(60, 6, seed=9)
    spoilt = torch.where(mask, x, rubbish)
    loc, scale_tril = parameters(6)
    for function in (by_sum, by_row):
        clean = value_and_gradient(function, loc, scale_tril, x, mask)
        for found, wanted in zip(
            value_and_gradient(function, loc, scale_tril, spoilt, mask), clean, strict=True
        ):
            assert torch.equal(found, wanted)
    rows = IncompleteMVN(loc, scale_tril, mask)
    assert torch.equal(rows.complete(spoilt, noise), rows.complete(x, noise))
    assert torch.equal(torch.stack(rows.conditional(spoilt)), torch.stack(rows.conditional(x)))
    of_value = grad(lambda x: IncompleteMVN(loc, scale_tril, mask, validate_args=False).log_prob(x).sum())
    assert torch.equal(of_value(spoilt), of_value(x))
    assert (of_value(spoilt)[~mask] == 0).all()


def test_order_of_rows_does_not_matter():
    mask = random_mask(263, 12, 0.1)
    x, (loc, scale_tril) = table(mask), parameters(12)
    order = torch.randperm(263, generator=generator(3))
    rows = IncompleteMVN(loc, scale_tril, mask).log_prob(x)
    shuffled = IncompleteMVN(loc, scale_tril, mask[order]).log_prob(x[order])
    torch.testing.assert_close(shuffled, rows[order], **PROMISED)
    torch.testing.assert_close(
        by_sum(loc, scale_tril, x[order], mask[order]), by_sum(loc, scale_tril, x, mask), **PROMISED
    )


def test_order_of_columns_does_not_matter():
    mask = random_mask(40, 5, 0.4)
    x, (loc, scale_tril) = table(mask), parameters(5)
    order = torch.randperm(5, generator=generator(3))
    reordered = torch.linalg.cholesky((scale_tril @ scale_tril.mT)[order][:, order])
    rows = IncompleteMVN(loc, scale_tril, mask).log_prob(x)
    found = IncompleteMVN(loc[order], reordered, mask[:, order]).log_prob(x[:, order])
    torch.testing.assert_close(found, rows, **PROMISED)


def test_large_means_cost_no_accuracy():
    # x - 1e4 and loc - 1e4 are exact in floating point, so both sides are one number in exact arithmetic
    mask = random_mask(50_000, 5, 0.2)
    loc, scale_tril = parameters(5)
    x, loc = (1e4 + table(mask)) * mask, 1e4 + loc
    moved = (x - 1e4) * mask
    expected = IncompleteMVN(loc - 1e4, scale_tril, mask).log_prob(moved).sum()
    torch.testing.assert_close(by_sum(loc, scale_tril, x, mask), expected, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(by_row(loc, scale_tril, x, mask), expected, rtol=1e-12, atol=0.0)


def ops(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def captured(mask, x):
    """The gradient at 3 points of a density with 2 D free numbers, its graph, and the points."""
    dim = mask.shape[1]
    _, scale_tril = parameters(dim)
    summary = IncompleteMVN(torch.zeros(dim).double(), scale_tril, mask).summarise(x)

    def density(free):
        scaled = free[dim:].exp()[:, None] * scale_tril
        return IncompleteMVN(free[:dim], scaled, mask, validate_args=False).log_prob_sum(x, summary)

    points = 0.3 * randn(3, 2 * dim, seed=4)
    function = vmap(grad_and_value(density))
    return function, make_fx(function)(points), points


@pytest.mark.parametrize("missing", [0.0, 0.1, 0.5])
def test_captured_numbers_are_eager_ones(missing):
    mask = random_mask(263, 12, missing)
    function, graph, points = captured(mask, table(mask))
    for found, wanted in zip(graph(points), function(points), strict=True):
        assert torch.equal(found, wanted)
    for found, wanted in zip(graph(points + 0.1), function(points + 0.1), strict=True):
        assert torch.equal(found, wanted)


def test_graph_calls_no_lapack_and_does_not_grow_with_rows():
    mask = random_mask(263, 12, 0.1)
    graphs = [captured(mask.repeat(times, 1), table(mask.repeat(times, 1)))[1] for times in (20, 100)]
    assert len(ops(graphs[0])) == len(ops(graphs[1]))
    assert not any("cholesky" in str(op) for op in ops(graphs[0]))


def test_summary_grows_with_patterns_not_with_rows():
    mask = random_mask(263, 12, 0.1).repeat(20, 1)
    summary = IncompleteMVN(*parameters(12), mask).summarise(table(mask))
    assert len(mask) == 5_260
    assert len(summary.whole) == 13
    patterns = mask[~mask.all(1)].unique(dim=0)
    assert len(summary.few) + len(summary.many) <= 12 * len(patterns)


def test_rows_under_vmap_over_parameters():
    mask = random_mask(30, 5, 0.4)
    x, (loc, scale_tril) = table(mask), parameters(5)
    locs, scales = loc + randn(4, 5, seed=8), scale_tril * torch.arange(1, 5)[:, None, None]

    def log_prob(loc, scale_tril):
        return IncompleteMVN(loc, scale_tril, mask, validate_args=False).log_prob(x)

    expected = torch.stack([oracle(a, b, x, mask) for a, b in zip(locs, scales, strict=True)])
    torch.testing.assert_close(vmap(log_prob)(locs, scales), expected, **PROMISED)


def test_second_derivatives_are_those_of_the_oracle():
    loc, scale_tril = parameters(4)
    arguments = (table(ALL_PATTERNS), ALL_PATTERNS)
    for which in (0, 1):
        found = jacrev(jacrev(by_row, which), which)(loc, scale_tril, *arguments)
        expected = jacrev(jacrev(lambda *a: oracle(*a).sum(), which), which)(loc, scale_tril, *arguments)
        lower = torch.ones(4, 4).tril().bool() if which else torch.ones(4).bool()
        torch.testing.assert_close(found[lower][:, lower], expected[lower][:, lower], **PROMISED)


def given_observed(loc, covariance, row, o):
    """Mean (m,) and covariance (m, m) of the missing cells of one row, from the textbook."""
    gain = covariance[~o][:, o] @ torch.linalg.inv(covariance[o][:, o])
    return loc[~o] + gain @ (row[o] - loc[o]), covariance[~o][:, ~o] - gain @ covariance[o][:, ~o]


CONDITIONAL = {
    "each pattern of 4 columns": ALL_PATTERNS,
    "263 x 12, 50 % missing": random_mask(263, 12, 0.5),
    "systems too large to unroll": random_mask(20, 24, 0.6),
}
EACH_CONDITIONAL = pytest.mark.parametrize("mask", CONDITIONAL.values(), ids=CONDITIONAL.keys())


@EACH_CONDITIONAL
def test_conditional_is_the_textbooks(mask):
    (loc, scale_tril), x = parameters(mask.shape[1]), table(mask)
    mean, sd = IncompleteMVN(loc, scale_tril, mask).conditional(x)
    assert torch.equal(mean[mask], x[mask])
    assert (sd[mask] == 0).all()
    for i, o in enumerate(mask):
        expected_mean, expected_covariance = given_observed(loc, scale_tril @ scale_tril.mT, x[i], o)
        torch.testing.assert_close(mean[i, ~o], expected_mean, **PROMISED)
        torch.testing.assert_close(sd[i, ~o], expected_covariance.diagonal().sqrt(), **PROMISED)


@EACH_CONDITIONAL
def test_completion_has_exactly_the_conditional_distribution(mask):
    # a draw is affine in the noise, b + A e with e ~ N(0, I): b is its mean and A A' its covariance
    (loc, scale_tril), x = parameters(mask.shape[1]), table(mask)
    rows = IncompleteMVN(loc, scale_tril, mask, validate_args=False)
    dim = mask.shape[1]
    mean = rows.complete(x, torch.zeros_like(x))
    units = torch.eye(dim, dtype=x.dtype)[:, None, :].expand(dim, *mask.shape)
    effect = vmap(lambda noise: rows.complete(x, noise))(units) - mean  # (noise number, N, D)
    assert torch.equal(mean[mask], x[mask])
    assert (effect[:, mask] == 0).all()
    for i, o in enumerate(mask):
        expected_mean, expected_covariance = given_observed(loc, scale_tril @ scale_tril.mT, x[i], o)
        torch.testing.assert_close(mean[i, ~o], expected_mean, **PROMISED)
        a = effect[:, i, ~o]
        torch.testing.assert_close(a.mT @ a, expected_covariance, **PROMISED)


def test_draws_have_the_conditional_moments():
    draws = 20_000
    mask = ALL_PATTERNS[[6, 9, 14, 15]]
    (loc, scale_tril), x = parameters(4), table(mask)
    rows = IncompleteMVN(loc, scale_tril, mask, validate_args=False)
    completed = vmap(lambda noise: rows.complete(x, noise))(randn(draws, 4, 4, seed=5))
    mean, sd = rows.conditional(x)
    assert (completed[:, mask] == x[mask]).all()
    # 5 standard errors: of a mean sd / sqrt(n), of a standard deviation about sd / sqrt(2 n)
    assert ((completed.mean(0) - mean).abs() <= 5 * sd / draws**0.5 + 1e-12).all()
    assert ((completed.std(0) - sd).abs() <= 5 * sd / (2 * draws) ** 0.5 + 1e-12).all()


def test_completion_is_a_function_of_noise_and_parameters_under_vmap():
    mask = random_mask(30, 5, 0.4)
    x, (loc, scale_tril) = table(mask), parameters(5)
    locs, noise = loc + randn(3, 5, seed=8), randn(3, 30, 5, seed=9)
    scales = scale_tril * torch.arange(1, 4)[:, None, None]

    def complete(loc, scale_tril, noise):
        return IncompleteMVN(loc, scale_tril, mask, validate_args=False).complete(x, noise)

    together = vmap(complete)(locs, scales, noise)
    for i in range(3):
        torch.testing.assert_close(together[i], complete(locs[i], scales[i], noise[i]), **PROMISED)


def test_complete_rows_need_no_completion():
    mask = torch.ones(3, 4, dtype=torch.bool)
    rows, x = IncompleteMVN(*parameters(4), mask), table(mask)
    assert torch.equal(rows.complete(x, randn(3, 4)), x)
    assert torch.equal(rows.conditional(x)[0], x)
    assert (rows.conditional(x)[1] == 0).all()


def test_samples_are_full_rows_of_the_normal():
    pyro.set_rng_seed(1)
    loc, scale_tril = parameters(3)
    rows = IncompleteMVN(loc, scale_tril, random_mask(5, 3, 0.5))
    assert rows.sample().shape == (5, 3)
    draws = rows.sample((10_000,))
    assert draws.shape == (10_000, 5, 3)
    covariance = scale_tril @ scale_tril.mT
    error = draws.flatten(0, 1).mT.cov() - covariance
    sd = covariance.diagonal().sqrt()
    # 50,000 rows: the standard error of a covariance is at most sqrt(2) sd_i sd_j / sqrt(n); 5 of them
    assert (error.abs() < 5 * 2**0.5 * sd[:, None] * sd / 50_000**0.5).all()
    assert ((draws.mean((0, 1)) - loc).abs() < 5 * sd / 50_000**0.5).all()


def test_batches_of_tables_have_batches_of_densities():
    mask = random_mask(6, 3, 0.3)
    rows = IncompleteMVN(*parameters(3), mask)
    x = randn(2, 4, 6, 3)
    found = rows.log_prob(x)
    assert found.shape == (2, 4, 6)
    torch.testing.assert_close(found[1, 2], rows.log_prob(x[1, 2]), **PROMISED)


def test_is_a_pyro_distribution():
    mask = random_mask(6, 3, 0.3)
    (loc, scale_tril), x = parameters(3), table(mask)

    def model():
        with pyro.plate("data", 6):
            pyro.sample("x", IncompleteMVN(loc, scale_tril, mask), obs=x)

    trace = pyro.poutine.trace(model).get_trace()
    torch.testing.assert_close(trace.log_prob_sum(), by_sum(loc, scale_tril, x, mask), **PROMISED)
    rows = trace.nodes["x"]["fn"]
    assert (rows.batch_shape, rows.event_shape) == ((6,), (3,))
    assert rows.support.event_dim == 1
    assert rows.expand((6,)) is rows


def test_float32_stays_float32():
    mask = random_mask(263, 12, 0.1)
    loc, scale_tril = parameters(12)
    expected = by_sum(loc, scale_tril, table(mask), mask)
    for function in (by_sum, by_row):
        found = function(loc.float(), scale_tril.float(), table(mask).float(), mask)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0.0)


def test_plain_normals_are_complete_rows():
    (loc, scale_tril), x = parameters(4), randn(7, 4)
    plain = dist.MultivariateNormal(loc, scale_tril=scale_tril)
    with_covariance = dist.MultivariateNormal(loc[None], scale_tril @ scale_tril.mT)
    torchs = torch.distributions.MultivariateNormal(loc, scale_tril=scale_tril.expand(7, 4, 4))
    for fn in (plain.expand((7,)), with_covariance.expand((7,)), torchs):
        rows = as_row_distribution(fn, 7)
        found = rows.log_prob_sum(x, rows.summarise(x))
        torch.testing.assert_close(found, plain.log_prob(x).sum(), **PROMISED)


def test_what_is_no_row_distribution():
    loc, scale_tril = parameters(4)
    many = torch.stack([loc * i for i in range(7)])
    assert as_row_distribution(dist.MultivariateNormal(many, scale_tril=scale_tril), 7) is None
    factors = torch.stack([scale_tril * i for i in range(1, 8)])
    assert as_row_distribution(dist.MultivariateNormal(loc, scale_tril=factors), 7) is None
    assert as_row_distribution(dist.MultivariateNormal(loc, scale_tril=scale_tril), 7) is None
    plain = dist.MultivariateNormal(loc, scale_tril=scale_tril)
    assert as_row_distribution(plain.expand((2, 7)), 7) is None
    assert as_row_distribution(plain.expand((7,)).mask(torch.ones(7).bool()), 7) is None
    assert as_row_distribution(dist.Normal(loc, 1.0).expand((7, 4)).to_event(1), 7) is None


def test_row_distributions_are_taken_as_they_are():
    rows = IncompleteMVN(*parameters(4), ALL_PATTERNS)
    assert isinstance(rows, RowDistribution)
    assert as_row_distribution(rows, 16) is rows


def test_plain_normals_in_a_plate_are_seen_through_when_captured():
    x, (loc, scale_tril) = randn(7, 4), parameters(4)
    summary = IncompleteMVN(loc, scale_tril, torch.ones(7, 4, dtype=torch.bool)).summarise(x)

    def density(free):
        with pyro.plate("data", 7):
            fn = dist.MultivariateNormal(free, scale_tril=scale_tril, validate_args=False)
            rows = as_row_distribution(fn.expand((7,)), 7)
        return rows.log_prob_sum(x, summary)

    def plainly(free):
        return dist.MultivariateNormal(free, scale_tril=scale_tril, validate_args=False).log_prob(x).sum()

    points = randn(3, 4, seed=6)
    graph = make_fx(vmap(grad_and_value(density)))(points)
    for found, wanted in zip(graph(points), vmap(grad_and_value(plainly))(points), strict=True):
        torch.testing.assert_close(found, wanted, **PROMISED)


def test_a_plates_rows_do_not_enter_the_graph_of_a_plain_normal():
    # else the gradient would write a tensor of all rows for each point
    x, factor = randn(5_000, 3), parameters(3)[1]

    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(mean, scale_tril=spread * factor), obs=x)

    def repeated(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        spread = pyro.sample("spread", dist.HalfNormal(1.0))
        fn = dist.MultivariateNormal(
            mean.expand(len(x), 3), scale_tril=(spread * factor).expand(len(x), 3, 3)
        )
        with pyro.plate("data", len(x)):
            pyro.sample("x", fn, obs=x)

    points = randn(2, 4)
    for function in (model, repeated):
        graph = capture_density(function, {"x": x}, seed=0).batched.graph(points)
        results = [node.meta["val"] for node in graph.module.graph.nodes if node.op == "call_function"]
        assert max(part.numel() for part in results if isinstance(part, torch.Tensor)) < 100


@pytest.mark.parametrize(
    ("loc", "scale_tril", "mask"),
    [((3,), (4, 4), (5, 4)), ((4,), (3, 3), (5, 4)), ((5, 4), (4, 4), (5, 4)), ((4,), (4, 4), (4,))],
)
def test_shapes_that_do_not_fit_are_refused(loc, scale_tril, mask):
    with pytest.raises(ArgumentError, match=r"do not fit: got .* one mean and one covariance"):
        IncompleteMVN(torch.zeros(loc), torch.ones(scale_tril), torch.ones(mask, dtype=torch.bool))


def test_masks_that_are_not_boolean_are_refused():
    with pytest.raises(ArgumentError, match=r"must be boolean: got torch.float64"):
        IncompleteMVN(*parameters(4), torch.ones(5, 4, dtype=torch.float64))


def test_a_plate_of_other_size_is_refused():
    with pytest.raises(
        ModelError, match=r"cannot be expanded: the mask has shape \(16,\), the plates \(2, 16\)"
    ):
        IncompleteMVN(*parameters(4), ALL_PATTERNS).expand((2, 16))
