"""Sites that look alike get one log-probability, and it is the sum of theirs."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.func import vmap

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.context import model_context
from pyrolatent.capture.grouping import grouped_log_probs
from pyrolatent.capture.ladder import value_and_gradient
from tests.user_models import ar5_loop, ar5_short_data

Sizes = tuple[int, ...]
NUMBER = 3


@pytest.fixture(autouse=True)
def in_double_precision() -> Any:
    with model_context(torch.float64, torch.device("cpu"), validate=False):
        yield


def real(*sizes: int) -> Tensor:
    return torch.randn(sizes).requires_grad_()


def positive(*sizes: int) -> Tensor:
    return (0.5 + torch.rand(sizes)).requires_grad_()


def share(*sizes: int) -> Tensor:
    return (0.1 + 0.8 * torch.rand(sizes)).requires_grad_()


def triangle(*sizes: int) -> Tensor:
    return (torch.randn(sizes).tril(-1) + torch.diag_embed(0.5 + torch.rand(sizes[:-1]))).requires_grad_()


def covariance(*sizes: int) -> Tensor:
    factor = triangle(*sizes).detach()
    return (factor @ factor.mT).requires_grad_()


SHARED = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

ALIKE: dict[str, Callable[..., Any]] = {
    "normal": lambda *b: dist.Normal(real(*b), positive(*b)),
    "normal with one scale": lambda *b: dist.Normal(real(*b), SHARED),
    "normal with a number": lambda *b: dist.Normal(real(*b), 2.0),
    "normal expanded": lambda *b: dist.Normal(real(), SHARED).expand(b),
    "student": lambda *b: dist.StudentT(4.0, real(*b), positive(*b)),
    "lognormal": lambda *b: dist.LogNormal(real(*b), positive(*b)),
    "exponential": lambda *b: dist.Exponential(positive(*b)),
    "gamma": lambda *b: dist.Gamma(positive(*b), positive(*b)),
    "beta": lambda *b: dist.Beta(positive(*b), positive(*b)),
    "uniform": lambda *b: dist.Uniform(-positive(*b), positive(*b)),
    "half cauchy": lambda *b: dist.HalfCauchy(positive(*b)),
    "weibull": lambda *b: dist.Weibull(positive(*b), positive(*b)),
    "poisson": lambda *b: dist.Poisson(positive(*b)),
    "zero-inflated poisson": lambda *b: dist.ZeroInflatedPoisson(positive(*b), gate=share(*b)),
    "bernoulli": lambda *b: dist.Bernoulli(share(*b)),
    "bernoulli by logits": lambda *b: dist.Bernoulli(logits=real(*b)),
    "binomial": lambda *b: dist.Binomial(5, share(*b)),
    "negative binomial": lambda *b: dist.NegativeBinomial(3, logits=real(*b)),
    "categorical": lambda *b: dist.Categorical(share(*b, 3)),
    "categorical by logits": lambda *b: dist.Categorical(logits=real(*b, 3)),
    "ordered logistic": lambda *b: dist.OrderedLogistic(real(*b), real(*b, 3).sort(-1)[0]),
    "dirichlet": lambda *b: dist.Dirichlet(positive(*b, 3)),
    "multivariate normal": lambda *b: dist.MultivariateNormal(real(*b, 3), scale_tril=triangle(*b, 3, 3)),
    "by covariance": lambda *b: dist.MultivariateNormal(real(*b, 3), covariance(*b, 3, 3)),
    "one factor for all": lambda *b: dist.MultivariateNormal(real(*b, 3), scale_tril=triangle(3, 3)),
    "events": lambda *b: dist.Normal(real(*b, 2), positive(*b, 2)).to_event(1),
    "events of vectors": lambda *b: dist.Dirichlet(positive(*b, 2, 3)).to_event(1),
    "masked": lambda *b: dist.Normal(real(*b), SHARED).mask(torch.rand(b) < 0.5),
    "masked events": lambda *b: dist.Normal(real(*b, 2), 1.0).mask(torch.rand(*b, 2) < 0.5).to_event(1),
    "masked by True": lambda *b: dist.Normal(real(*b), SHARED).mask(True),
}
UNLIKE: dict[str, Callable[..., Any]] = {
    "one-hot": lambda *b: dist.OneHotCategorical(share(*b, 3)),
    "multinomial": lambda *b: dist.Multinomial(4, share(*b, 3)),
    "mixture": lambda *b: dist.MixtureSameFamily(
        dist.Categorical(share(*b, 2)), dist.Normal(real(*b, 2), positive(*b, 2))
    ),
    "transformed": lambda *b: dist.TransformedDistribution(
        dist.Normal(real(*b), 1.0), [dist.transforms.ExpTransform()]
    ),
    "mixture of normals": lambda *b: dist.MixtureOfDiagNormals(
        real(*b, 2, 3), positive(*b, 2, 3), real(*b, 2)
    ),
}


def message(name: str, fn: Any, value: Any, **handled: Any) -> dict[str, Any]:
    """Return an observed site as it is after its run."""
    site = {"name": name, "fn": fn, "value": value, "scale": 1.0, "mask": None, "args": (), "kwargs": {}}
    return {**site, "is_observed": True, **handled}


def messages(make: Callable[..., Any], sizes: Sizes, **handled: Any) -> dict[str, dict[str, Any]]:
    fns = [make(*sizes) for _ in range(NUMBER)]
    return {f"y_{t}": message(f"y_{t}", fn, fn.sample().detach(), **handled) for t, fn in enumerate(fns)}


def one_by_one(sites: dict[str, Any]) -> Tensor:
    log_probs = [site["fn"].log_prob(site["value"]) * site["scale"] for site in sites.values()]
    return sum(log_prob.sum() for log_prob in log_probs)


def leaves(sites: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that the distributions were made of, where gradients end."""
    found: dict[Any, Tensor] = {}
    nodes = [one_by_one(sites).grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            nodes += [parent for parent, _ in node.next_functions]
            if "AccumulateGrad" in node.name():
                found[node] = node.variable
    return list(found.values())


@pytest.mark.parametrize("sizes", [(), (4,)])
@pytest.mark.parametrize("name", [*ALIKE, *UNLIKE])
def test_the_sum_and_its_gradients_are_those_of_the_sites(name: str, sizes: Sizes) -> None:
    sites = messages((ALIKE | UNLIKE)[name], sizes, scale=2.5)
    sums = grouped_log_probs(sites)
    assert list(sums) == (["y_0"] if name in ALIKE else list(sites))
    found, expected = sum(sums.values()), one_by_one(sites)
    assert all(part.shape == () for part in sums.values())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    free = leaves(sites)
    gradients = [torch.autograd.grad(total, free, retain_graph=True) for total in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_groups_are_of_one_class_shape_and_scale() -> None:
    y, vector = torch.tensor(0.3), torch.ones(2)
    sites = {
        "a": message("a", dist.Normal(0.0, 1.0), y),
        "b": message("b", dist.StudentT(3.0), y),
        "c": message("c", dist.Normal(0.0, 2.0), y),
        "scaled": message("scaled", dist.Normal(0.0, 1.0), y, scale=2.0),
        "latent": message("latent", dist.Normal(0.0, 1.0), y, is_observed=False),
        "vector": message("vector", dist.Normal(vector, 1.0), vector),
        "event": message("event", dist.Normal(vector, 1.0).to_event(1), vector),
        "probs": message("probs", dist.Bernoulli(torch.tensor(0.5)), y.round()),
        "logits": message("logits", dist.Bernoulli(logits=torch.tensor(0.5)), y.round()),
        "d": message("d", dist.Normal(1.0, 2.0), y),
    }
    sums = grouped_log_probs(sites)
    assert list(sums) == [name for name in sites if name not in ("c", "d")]
    expected = sum(sites[name]["fn"].log_prob(y) for name in ("a", "c", "d"))
    torch.testing.assert_close(sums["a"], expected)


def test_tensors_as_scale_or_mask_keep_a_site_alone() -> None:
    mask = torch.tensor([True, False])
    for handled in ({"mask": mask}, {"scale": torch.tensor([2.0, 0.5])}):
        sites = messages(lambda: dist.Normal(real(2), 1.0), (), **handled)
        sums = grouped_log_probs(sites)
        assert list(sums) == list(sites)
        log_prob = sites["y_1"]["fn"].log_prob(sites["y_1"]["value"])
        expected = log_prob[0] if "mask" in handled else 2 * log_prob[0] + 0.5 * log_prob[1]
        torch.testing.assert_close(sums["y_1"], expected)


def test_values_that_are_broadcast_keep_a_site_alone() -> None:
    sites = {name: message(name, dist.Normal(real(), 1.0), torch.ones(5)) for name in "ab"}
    sites["c"] = message("c", dist.Normal(real(), 1.0), 1.5)
    sums = grouped_log_probs(sites)
    assert list(sums) == ["a", "b", "c"]
    torch.testing.assert_close(sums["b"], sites["b"]["fn"].log_prob(1.0) * 5)


def test_parameters_asked_for_before_change_nothing() -> None:
    """`Bernoulli(logits=...).probs` is kept from then on, and would be a second way to make it."""
    sites = messages(lambda: dist.Bernoulli(logits=real()), ())
    assert all(0 < site["fn"].probs < 1 for site in sites.values())
    torch.testing.assert_close(grouped_log_probs(sites)["y_0"], one_by_one(sites))


def graph_of_loop(total: Callable[[dict[str, Any]], Tensor], points: Tensor) -> Graph:
    """Capture the likelihood of the autoregression at `points (B, 7)`, added up by `total`."""
    data = ar5_short_data()

    def point(flat: Tensor) -> Tensor:
        sites = {"alpha": flat[0], "beta": flat[1:6], "sigma": flat[6].exp()}
        trace = poutine.trace(pyro.condition(ar5_loop, sites)).get_trace(**data)
        return total({name: node for name, node in trace.nodes.items() if name.startswith("y_")})

    return capture(vmap(value_and_gradient(point)), points)


def test_a_loop_takes_less_than_half_of_the_operations() -> None:
    points = torch.randn(2, 7)
    plain = graph_of_loop(one_by_one, points)
    grouped = graph_of_loop(lambda sites: torch.stack([*grouped_log_probs(sites).values()]).sum(), points)
    assert grouped.num_ops < plain.num_ops / 2
    torch.testing.assert_close(grouped(points), plain(points), rtol=1e-12, atol=1e-12)
