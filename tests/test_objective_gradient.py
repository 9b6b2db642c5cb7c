"""The captured objective is Pyro's own loss, its gradient right for every parameter, and its noise Pyro's."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyrolatent.capture.context import model_context
from pyrolatent.capture.objective import ObjectiveGradient, capture_objective
from pyrolatent.capture.parameters import Parameters, find_parameters
from pyrolatent.errors import ModelError
from pyrolatent.infer.guides import with_guide
from pyrolatent.infer.svi import read
from pyrolatent.objectives import elbo
from pyrolatent.pair import Pair, as_pair
from pyrolatent.result import Problem
from tests.user_pairs import PAIRS, UserPair, gamma_and_normal, vae

CPU, DOUBLE = torch.device("cpu"), torch.float64


def problem_of(user: UserPair) -> Problem:
    data = {name: value.double() if value.is_floating_point() else value for name, value in user.data.items()}
    return Problem(as_pair(user.model, user.guide), data, None, 0, DOUBLE, CPU, "auto", False)


@contextlib.contextmanager
def captured(user: UserPair) -> Iterator[tuple[Pair, Parameters, ObjectiveGradient]]:
    problem = problem_of(user)
    sites = read(problem)
    with model_context(DOUBLE, CPU):
        pair = with_guide(problem.pair, sites, torch.Generator().manual_seed(0))
        programs = [pair.guide, pair.model]
        parameters = find_parameters(programs, problem.data, seed=0, dtype=DOUBLE, device=CPU)
        gradient = capture_objective(elbo(), pair, parameters, problem.data, ({}, {}))
        yield pair, parameters, gradient


def point(parameters: Parameters) -> Tensor:
    noise = torch.randn(parameters.initial.shape, generator=torch.Generator().manual_seed(7), dtype=DOUBLE)
    return parameters.initial + 0.1 * noise


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_of_every_parameter_equals_finite_differences(name: str) -> None:
    with captured(PAIRS[name]()) as (_, parameters, gradient):
        assert gradient.rung == "graph", gradient.reason
        flat, step = point(parameters), torch.zeros((), dtype=DOUBLE)

        def loss(flat: Tensor) -> Tensor:
            torch.manual_seed(1)
            return gradient(flat, step, {})[0]

        torch.manual_seed(1)
        found = gradient(flat, step, {})[1]
        width = 1e-5
        steps = width * torch.eye(len(flat), dtype=DOUBLE)
        expected = torch.stack([(loss(flat + e) - loss(flat - e)) / (2 * width) for e in steps])
        # central differences: width^2 of truncation, 1e-16 / width of rounding, times the loss's scale
        scale = max(1.0, float(loss(flat).abs()), float(found.abs().max()))
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-7)
        unused = [n for n, part in parameters.layout.unpack(found).items() if not part.abs().sum() > 0]
        assert not unused, "parameters that the loss does not feel"


@pytest.mark.parametrize("name", PAIRS)
def test_loss_and_gradient_equal_those_of_pyro_under_the_same_seed(name: str) -> None:
    user = PAIRS[name]()
    with captured(user) as (pair, parameters, gradient):
        data = problem_of(user).data
        torch.manual_seed(3)
        loss, found = gradient(parameters.initial, torch.zeros((), dtype=DOUBLE), {})
        free = parameters.initial.clone().requires_grad_()
        torch.manual_seed(3)
        with parameters.at(free):
            expected = pyro.infer.Trace_ELBO().differentiable_loss(pair.model, pair.guide, **data)
        (gradient_of_pyro,) = torch.autograd.grad(expected, free)
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found, gradient_of_pyro, rtol=1e-10, atol=1e-10)


def test_modules_keep_their_own_weights() -> None:
    user = vae()
    networks = user.model.__self__  # type: ignore[attr-defined]
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    with captured(user) as (_, parameters, gradient):
        gradient(parameters.initial + 1.0, torch.zeros((), dtype=DOUBLE), {})
    for name, value in networks.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == torch.float32


def test_names_shapes_and_starts_are_those_of_the_store() -> None:
    user = PAIRS["constrained parameters"]()
    with captured(user) as (_, parameters, _):
        values = parameters.constrained(parameters.initial)
    assert list(values) == ["location", "tril", "centre", "spread"]
    torch.testing.assert_close(values["tril"], 0.2 * torch.eye(3, dtype=DOUBLE))
    torch.testing.assert_close(values["spread"], torch.tensor(0.3, dtype=DOUBLE))


def test_tensors_with_two_names_are_one_parameter() -> None:
    torch.manual_seed(0)
    tied = nn.Linear(2, 2)

    def model(x: Tensor) -> None:
        pyro.module("first", tied)
        pyro.module("second", tied)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(tied(tied(x)), 1.0).to_event(1), obs=x)

    found = find_parameters([model], {"x": torch.ones(3, 2)}, seed=0, dtype=torch.float32, device=CPU)
    assert found.layout.size == 6
    assert set(found.of_module) == {"first$$$weight", "first$$$bias"}


def test_a_module_with_a_memory_is_refused_and_left_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x), 1.0).to_event(1), obs=x)

    with pytest.raises(ModelError, match=r"changes its buffers when it runs.*LayerNorm"):
        find_parameters([model], {"x": torch.randn(4, 2)}, seed=0, dtype=torch.float32, device=CPU)
    assert torch.equal(network[1].running_mean, torch.zeros(2))
    network.eval()
    x = {"x": torch.randn(4, 2)}
    assert find_parameters([model], x, seed=0, dtype=torch.float32, device=CPU).layout.size == 10


def test_code_that_reads_what_it_learns_runs_eagerly() -> None:
    def model(y: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0))
        shift = scale if float(scale.detach()) > 1 else -scale
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(shift, 1.0), obs=y)

    def guide(y: Tensor) -> None:
        pass

    with captured(UserPair(model, guide, {"y": torch.zeros(3)})) as (_, parameters, gradient):
        assert gradient.rung == "eager"
        for value, slope in ((0.5, 1.5), (2.0, 6.0)):  # 3 scale^2 / 2 either way
            flat, step = torch.full_like(parameters.initial, value), torch.zeros((), dtype=DOUBLE)
            assert gradient(flat, step, {})[1].item() == pytest.approx(slope)


def test_a_shape_without_dimensions_stays_one() -> None:
    """HalfCauchy draws its scalar with `torch.Size([])`, which must not become an empty tuple."""

    def model(y: Tensor) -> None:
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        pyro.sample("y", dist.Normal(pyro.param("m", torch.tensor(0.0)), scale), obs=y)

    found = find_parameters([model], {"y": torch.tensor(0.0)}, seed=0, dtype=DOUBLE, device=CPU)
    with model_context(DOUBLE, CPU), found.at(found.initial):
        trace = pyro.poutine.trace(model).get_trace(torch.tensor(0.0))
    assert trace.nodes["scale"]["value"].shape == ()


def test_what_is_drawn_outside_of_torch_is_refused() -> None:
    import numpy as np

    random = np.random.default_rng(0)

    def model(y: Tensor) -> None:
        pyro.sample("y", dist.Normal(pyro.param("m", torch.tensor(0.0)) + random.normal(), 1.0), obs=y)

    with (
        pytest.raises(ModelError, match="differs from call to call"),
        captured(UserPair(model, lambda y: None, {"y": torch.tensor(0.0)})),
    ):
        pass


def test_noise_after_a_draw_that_depends_on_parameters_keeps_its_place() -> None:
    """A Gamma draws inside of the graph, so the normal after it must not be drawn before it."""

    with captured(gamma_and_normal()) as (_, parameters, gradient):
        assert gradient.rung == "graph", gradient.reason
        assert gradient.noisy is not None
        assert not gradient.noisy.deterministic
        inputs = parameters.initial, torch.zeros((), dtype=DOUBLE)
        torch.manual_seed(3)
        found = gradient(*inputs, {})
        torch.manual_seed(3)
        expected = gradient.evaluate(*inputs)
        for part, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(part, exact, rtol=1e-12, atol=1e-12)


def test_a_parameter_that_appears_late_is_refused() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        if float(mean.detach()) > 1:
            mean = mean + pyro.param("more", torch.tensor(0.0))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    with captured(UserPair(model, lambda y: None, {"y": torch.tensor(0.0)})) as (_, parameters, gradient):
        step = torch.zeros((), dtype=DOUBLE)
        gradient(parameters.initial, step, {})
        with pytest.raises(ModelError, match=r"\['more'\]: a parameter appears.*before the branch"):
            gradient(parameters.initial + 2.0, step, {})


def test_a_loss_without_parameters_in_it_is_refused() -> None:
    def model(y: Tensor) -> None:
        pyro.sample("y", dist.Normal(pyro.param("mean", torch.tensor(0.0)).detach(), 1.0), obs=y)

    with (
        pytest.raises(ModelError, match="no gradient reaches the parameters"),
        captured(UserPair(model, lambda y: None, {"y": torch.tensor(0.0)})),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "message"), [(lambda loss: loss[None], r"\(1,\)"), (Tensor.item, "returned float")]
)
def test_a_loss_that_is_no_scalar_tensor_is_refused(change: Callable[[Tensor], Any], message: str) -> None:
    def loss(pair: Pair, data: Any, noise: Any, step: Tensor) -> Any:
        return change(elbo()(pair, data, noise, step))

    user = PAIRS["constrained parameters"]()
    problem = problem_of(user)
    with model_context(DOUBLE, CPU):
        parameters = find_parameters([user.guide, user.model], problem.data, seed=0, dtype=DOUBLE, device=CPU)
        with pytest.raises(ModelError, match=message):
            capture_objective(loss, problem.pair, parameters, problem.data, ({}, {}))
