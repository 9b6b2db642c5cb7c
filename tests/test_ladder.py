"""Every rung of the ladder gives the same density, and no rung bakes a value in."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.conditioned import log_likelihood
from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.ladder import Batched, climb
from pyrolatent.capture.modes import ReadsLatentError, ReadValues
from pyrolatent.infer.hmc import leapfrog_graph
from pyrolatent.infer.speed import default_chains, slowness
from tests.pyro_reference import pyro_potential
from tests.user_models import RUNG_BAR

Point = Callable[[Tensor], Tensor]

# torch says so of every operation that it runs point by point inside of vmap.
SLOW = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    with model_context(torch.float64, torch.device("cpu")):
        yield


def points(dim: int, count: int = 4) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, dim, generator=noise, dtype=torch.float64) - 1


def in_pairs(batched: Callable[[Tensor], tuple[Tensor, Tensor]], flat: Tensor) -> Tensor:
    """Return values and gradients `(B, 1 + D)`; the graph of the first two points serves the others too."""
    results = [batched(pair) for pair in flat.split(2)]
    return torch.cat([torch.column_stack(result) for result in results])


# The law


@functools.cache
def density_of(name: str) -> LogDensity:
    model, make_data = RUNG_BAR[name]
    return capture_density(model, make_data(), seed=0)


@pytest.mark.parametrize("name", RUNG_BAR)
def test_rungs_agree_with_each_other_and_with_pyro(name: str) -> None:
    model, make_data = RUNG_BAR[name]
    density, potential = density_of(name), pyro_potential(model, make_data())
    layout, flat = density.sites.layout, points(density_of(name).dim)
    oracle = [potential.log_density(layout.unpack(point)) for point in flat]
    expected = torch.stack([torch.cat([value[None], layout.pack(slope)]) for value, slope in oracle])
    with density.context():
        for rung in (density.rung, "points", "eager"):
            found = in_pairs(Batched(density.batched.point, rung), flat)
            assert (found - expected).abs().max() <= 1e-10 * expected.abs().max(), rung


def test_every_model_runs_at_all_points_at_once() -> None:
    rungs = {name: density_of(name).rung for name in RUNG_BAR}
    assert {name for name, rung in rungs.items() if rung != "vmap"} == {"ordinal"}
    assert rungs["ordinal"] == "shim"


# The shim: `x (3,)` into something that is written in place


def one_by_one(x: Tensor) -> Tensor:
    out = torch.empty(3)
    for i in range(3):
        out[i] = x[i] ** 2
    return out


def through_a_view(x: Tensor) -> Tensor:
    out = torch.zeros(2, 3)
    row = out[1]
    row[1:] = x[1:]
    return out.sum(0) * x[0]


def added_up(x: Tensor) -> Tensor:
    total = torch.zeros(())
    for part in x.exp():
        total += part
    return total


def into_a_copy_of_data(x: Tensor) -> Tensor:
    filled = DATA.clone()
    filled[DATA > 1] = x[:2]
    return filled * x[2]


def where_a_latent_mask_says(x: Tensor) -> Tensor:
    out = 2 * x
    out[x > 0] = 0.5
    return out * x


def one_latent_value_for_a_mask(x: Tensor) -> Tensor:
    out = torch.ones(3)
    out[x < 0.2] = x[0]
    return out


def rows_by_mask(x: Tensor) -> Tensor:
    out = torch.outer(x, x)
    out[x > 0] = 0.0
    return out


def by_several_functions(x: Tensor) -> Tensor:
    out = torch.full_like(DATA, 2.0)
    out.index_add_(0, torch.tensor([0, 0, 2]), x)
    out[1:] *= x
    return out.masked_fill_(DATA > 2, 0.5)


DATA = torch.tensor([0.0, 2.0, 3.0, 1.0], dtype=torch.float64)
WRITES = [
    one_by_one,
    through_a_view,
    added_up,
    into_a_copy_of_data,
    where_a_latent_mask_says,
    one_latent_value_for_a_mask,
    rows_by_mask,
    by_several_functions,
]


def watched(function: Point) -> Point:
    """Return `function` as a density, watched as those of models are."""

    def point(flat: Tensor) -> Tensor:
        with ReadValues():
            return function(flat).sum()

    return point


@pytest.mark.parametrize("write", WRITES)
def test_writes_in_place_run_at_all_points_at_once(write: Point) -> None:
    point, flat = watched(write), points(3)
    batched = climb(point, point, points(3, 6)[4:])
    assert (batched.rung, batched.vectorised) == ("shim", True)
    assert batched.reason.startswith("vmap: ")
    expected = in_pairs(Batched(point, "eager"), flat)
    torch.testing.assert_close(in_pairs(batched, flat), expected, rtol=1e-12, atol=1e-12)


def written(y: Tensor) -> None:
    x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    doubled = torch.zeros(3)
    for i in range(3):
        doubled[i] = 2 * x[i]
    doubled = pyro.deterministic("doubled", doubled, event_dim=1)
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(doubled, 1.0), obs=y)


def test_what_is_read_back_takes_the_same_rung() -> None:
    data = {"y": torch.ones(3, dtype=torch.float64)}
    density, flat = capture_density(written, data, seed=0), points(3)
    assert density.rung == "shim"
    sites = density.constrain(flat)
    assert torch.equal(sites["doubled"], 2 * flat)
    with density.context():
        found = log_likelihood(written, data, {"x": flat}, density.rung)["y"]
    torch.testing.assert_close(found, dist.Normal(2 * flat, 1.0).log_prob(data["y"]))


def test_a_sampler_runs_all_chains_in_one_graph() -> None:
    density = capture_density(written, {"y": torch.ones(3, dtype=torch.float64)}, seed=0)
    assert default_chains(density) == 64
    with density.context():
        assert leapfrog_graph(density, 4, compile=False, planned=0) is not None
    assert slowness(density, compile=False) == ()


def counts(x: Tensor) -> Tensor:
    positive = torch.zeros(3, dtype=torch.long)
    positive[:] = x > 0  # whole numbers stay unbatched: what is written into them is rarely latent
    return positive * x


def test_what_the_shim_cannot_run_point_by_point() -> None:
    point, flat = watched(counts), points(3)
    batched = climb(point, point, flat[:2])
    assert (batched.rung, batched.vectorised) == ("points", False)
    torch.testing.assert_close(in_pairs(batched, flat), in_pairs(Batched(point, "eager"), flat))


# No value is baked in


def after_a_write(read: Point) -> Point:
    """Return code that `vmap` refuses for a harmless line before it meets `read`."""

    def code(x: Tensor) -> Tensor:
        out = torch.zeros(3)
        out[0] = x[0]
        return out * read(out + x)

    return code


READS: dict[str, Point] = {
    "item": lambda x: x.detach()[1].item() * x,
    "float": lambda x: float(x.detach()[1]) * x,
    "list": lambda x: torch.tensor(x.tolist()) * x,
    "list of tensors": lambda x: torch.tensor(data=[x.detach()[0], x.detach()[1], 0.0]) * x,
    "numpy": lambda x: torch.as_tensor(x.detach().numpy()) * x,
    "function of numpy": lambda x: torch.as_tensor(np.exp(np.asarray(x.detach()))) * x,
    "dlpack": lambda x: torch.from_dlpack(x.detach()) * x,
    "branch": lambda x: x if x[0] > 0 else -x,
    "text": lambda x: x * len(f"{x.detach()[0]:.17g}"),
    "representation": lambda x: x * len(repr(x.detach())),
    "membership": lambda x: x * (DATA[0] in (x > 0).double()),
    "comparison": lambda x: x * torch.equal(x > 0, torch.zeros(len(x), dtype=torch.bool)),
    "mask": lambda x: x[x > 0].sum() * x,
    "positions": lambda x: x * len(torch.nonzero(x > 0)),
    "where": lambda x: x * len(torch.where(x > 0)[0]),
    "repeats": lambda x: x * torch.ones(len(x)).repeat_interleave((x > 0).long()).sum(),
    "length": lambda x: x * torch.ones(9)[: (x > 0).sum()].sum(),
    "distinct": lambda x: x * len(torch.unique(x > 0)),
    "bins": lambda x: x * torch.bincount((x > 0).long()).shape[0],
    "largest": lambda x: max(x) * x,
}


@SLOW
@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("wrap", [lambda read: read, after_a_write])
def test_code_that_reads_latent_values_is_never_captured(name: str, wrap: Callable[[Point], Point]) -> None:
    point, flat = watched(wrap(READS[name])), points(3)
    batched = climb(point, point, flat[:2])
    assert batched.rung == "eager", batched
    # Right away too: a graph of one point would be silently wrong elsewhere.
    with pytest.raises((RuntimeError, TypeError)):
        Batched(point, "points")(flat[:1])


def gradient_graph(function: Point, *examples: Tensor) -> Callable[..., Tensor]:
    """Trace `function` with its gradient by plain autograd, as objectives are: no function transforms."""

    def evaluate(x: Tensor, *data: Tensor) -> Tensor:
        with ReadValues():
            free = x.detach().requires_grad_()
            return torch.autograd.grad(function(free, *data).sum(), free)[0]

    return make_fx(evaluate)(*examples)


@pytest.mark.parametrize("name", READS)
def test_inputs_of_a_graph_are_not_read(name: str) -> None:
    with pytest.raises((ReadsLatentError, RuntimeError), match=r"depends on|value out of a tracing tensor"):
        gradient_graph(lambda x: READS[name](x), torch.tensor([0.5, -0.5, 2.0]))


@pytest.mark.parametrize("name", READS)
def test_rows_that_change_are_not_read(name: str) -> None:
    with pytest.raises((ReadsLatentError, RuntimeError), match=r"depends on|value out of a tracing tensor"):
        gradient_graph(lambda x, row: READS[name](row) * x, torch.ones(3), torch.tensor([0.5, -0.5, 2.0]))


@pytest.mark.parametrize("name", READS)
def test_constants_are_read(name: str) -> None:
    constant = torch.tensor([0.5, -0.5, 2.0])
    graph = gradient_graph(lambda x: READS[name](constant) * x**2, torch.ones(3))
    x = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(graph(x), (2 * READS[name](constant) * x).expand(3))


@pytest.mark.parametrize("name", READS)
def test_constants_are_read_at_all_points_at_once(name: str) -> None:
    constant = torch.tensor([0.5, -0.5, 2.0], dtype=torch.float64)
    point = watched(lambda x: READS[name](constant) * x**2)
    batched = climb(point, point, points(3, 2))
    assert batched.rung == "vmap", batched.reason
    torch.testing.assert_close(in_pairs(batched, points(3)), in_pairs(Batched(point, "eager"), points(3)))


def test_random_numbers_are_not_read() -> None:
    with pytest.raises(ReadsLatentError, match="float"):
        gradient_graph(lambda x: x * float(torch.rand(())), torch.ones(3))


def test_a_view_written_into_is_as_latent_as_what_it_was_written_from() -> None:
    def whole(x: Tensor) -> Tensor:
        out = torch.zeros(2, 3)
        before = out.sum() + 1
        first, second = out[0], out[1]
        second[:] = x
        assert before.item() == 1  # made before the write
        return out.tolist()[0][0] * first * x

    with pytest.raises(ReadsLatentError, match="tolist"):
        gradient_graph(whole, torch.ones(3))


def test_shapes_are_no_values() -> None:
    def padded(x: Tensor) -> Tensor:
        zeros = torch.zeros_like(x)
        return torch.cat([x, torch.tensor(zeros.tolist())]) * (len(x) + x.shape[0])

    graph = gradient_graph(padded, torch.ones(3))
    assert torch.equal(graph(torch.zeros(3)), torch.full((3,), 6.0))


def test_a_chosen_entry_may_be_latent() -> None:
    """Indexing by a tensor that depends on latents reads no value, except of a single number."""
    point = watched(lambda x: x[x.argsort()] * torch.arange(3))
    batched = climb(point, point, points(3, 2))
    assert batched.rung == "vmap"
    torch.testing.assert_close(in_pairs(batched, points(3)), in_pairs(Batched(point, "eager"), points(3)))
