"""Everything is computed where the data are; a tensor left behind on the CPU raises.

No GPU is needed: `tests.fake_device` provides a device that refuses to meet the CPU.  With `--device cuda`
the same tests run on a GPU, where only what does not hang on its random numbers can be compared.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

import pyrolatent as pyl
from pyrolatent import EM, HMC, NUTS, SVI, Fit, FitWarning, ImportanceSampling, Laplace, checkpoint
from pyrolatent.capture.density import capture_density
from pyrolatent.errors import ModelError
from pyrolatent.infer import optimizers
from pyrolatent.infer.method import Method
from pyrolatent.kernels import nuts
from pyrolatent.kernels.adaptation import hessians, laplace, path_length, pooled_covariance
from pyrolatent.kernels.ascent import lbfgs_ascent
from pyrolatent.kernels.chees import chees_gradient
from pyrolatent.kernels.hmc import metric, start, transition
from pyrolatent.kernels.leapfrog import leapfrog_step
from pyrolatent.kernels.nuts import leaf_step
from pyrolatent.models import BayesianMVN
from pyrolatent.objectives import iwae
from pyrolatent.psis import psis
from tests import em_models
from tests import user_models as um
from tests.fake_device import DEVICE, OnDevice, Waits, fake_device, moved
from tests.test_mvn import with_every_pattern
from tests.user_pairs import PAIRS


@pytest.fixture
def away(device: torch.device) -> torch.device:
    """A device that is not the CPU: the GPU if it was asked for, else the fake one."""
    return DEVICE if device.type == "cpu" else device


def at(place: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Provide a device within a block."""
    return fake_device() if place == DEVICE else contextlib.nullcontext()


def is_there(tensor: Tensor, place: torch.device) -> bool:
    return tensor.device.type == place.type


SHORT = HMC(num_chains=4, num_warmup=20, num_draws=10)
TREES = NUTS(num_chains=2, num_warmup=20, num_draws=10, max_tree_depth=3)
HOST = torch.device("cpu")
Fitting = Callable[..., Fit]


def bayesian_mvn() -> tuple[Callable[..., None], um.Data]:
    frame = with_every_pattern()
    pair = BayesianMVN(pyl.infer_schema(frame))
    return pair.model, pair.schema.encode(frame)


def written(model: um.UserModel) -> Callable[[], tuple[Callable[..., None], um.Data]]:
    return lambda: (model[0], model[1]())


MODELS = {name: written(model) for name, model in {**um.REFERENCES, **um.RUNG_BAR, "mvn": um.MVN}.items()}
MODELS |= {"dependent_support": written(um.GRADIENT_BAR["dependent_support"]), "BayesianMVN": bayesian_mvn}


@pytest.mark.parametrize("name", MODELS)
def test_density_and_gradient_are_computed_on_the_device(name: str, away: torch.device) -> None:
    model, data = MODELS[name]()
    on_cpu = capture_density(model, data, seed=0)
    points = 2 * torch.rand(4, on_cpu.dim, dtype=torch.float64) - 1
    # On the fake device the same operations run in the same order on the same processor.
    tolerance = 1e-13 if away == DEVICE else 1e-8
    with at(away):
        density = capture_density(model, moved(data, away), seed=0, device=away)
        assert density.rung == on_cpu.rung
        for flat in points.split(2):  # twice, so that nothing of the first can be baked into a graph
            found = density(flat.to(away))
            assert all(is_there(part, away) for part in found)
            torch.testing.assert_close(
                [part.cpu() for part in found], list(on_cpu(flat)), rtol=tolerance, atol=tolerance
            )
        sites = density.constrain(points.to(away))
        assert all(is_there(site, away) for site in sites.values())


def quick(*args: Any, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return pyl.fit(*args, seed=0, progress=False, **options)


def of_schools(method: Method) -> Fitting:
    return lambda place=HOST, **options: quick(
        um.eight_schools, moved(um.eight_schools_data(), place), method, device=place, **options
    )


def of_pair(name: str, method: Method) -> Fitting:
    def run(place: torch.device = HOST, **options: Any) -> Fit:
        user = PAIRS[name]()
        guide = user.guide if method.learns else None
        return quick(user.model, moved(user.data, place), method, guide=guide, device=place, **options)

    return run


EM_MODELS = {**em_models.MIXTURES, **em_models.OTHERS, "prices": (em_models.prices, em_models.prices_data)}


def of_shared(name: str) -> Fitting:
    model, data = EM_MODELS[name]
    return lambda place=HOST, **options: quick(
        model, moved(data(), place), EM(num_starts=2, num_steps=30, num_draws=20), device=place, **options
    )


FITS: dict[str, Fitting] = {
    "HMC": of_schools(SHORT),
    "HMC chees": of_pair("AutoNormal", HMC(num_chains=4, num_warmup=20, num_draws=10, path="chees")),
    "HMC target": of_pair("AutoNormal", HMC(num_chains=16, num_warmup=20, num_draws=100, target_ess=10)),
    "NUTS": of_pair("AutoNormal", TREES),
    "Laplace": of_pair("AutoNormal", Laplace(100)),
    "ImportanceSampling": of_pair("AutoNormal", ImportanceSampling(200)),
    "SVI": of_pair(
        "AutoNormal",
        SVI(num_steps=40, batch_size=16, validation_fraction=0.2, patience=20, num_draws=10),
    ),
    "SVI refits": of_pair("AutoNormal", SVI(num_steps=20, batch_size=16, num_refits=2, num_draws=10)),
    "SVI VAE": of_pair("VAE", SVI(num_steps=20, batch_size=16, num_draws=10)),
    "SVI iwae": of_pair("VAE", SVI(iwae(3), num_steps=20, batch_size=16, num_draws=10)),
    "SVI rows": of_pair("latents of rows", SVI(num_steps=20, num_draws=10)),
    **{f"EM {name}": of_shared(name) for name in ("normal", "labelled", "answers", "log spreads", "prices")},
}


@functools.cache
def on_host(name: str) -> Fit:
    return FITS[name]()


@functools.cache
def there(name: str, place: torch.device) -> Fit:
    with at(place):
        return FITS[name](place)


def numbers(found: Fit) -> dict[str, Tensor]:
    """All numbers of a fit but its state, which lies on the device."""
    of_sites = {f"{kind} of {n}": x for n, kinds in found.diagnostics.items() for kind, x in kinds.items()}
    weights = {} if found.weights is None else {"raw": found.weights.raw, "smooth": found.weights.smoothed}
    return {**found.samples, **found.sample_stats, **found.losses, **found.params, **weights, **of_sites}


def check_same(found: Fit, expected: Fit, tolerance: float) -> None:
    """Compare all numbers, each of which has to be on the host."""
    ours = numbers(found) | {name: value.cpu() for name, value in found.state.items()}
    theirs = numbers(expected) | {name: value.cpu() for name, value in expected.state.items()}
    assert [name for name, value in ours.items() if not is_there(value, HOST)] == []
    assert all(is_there(value, found.problem.device) for value in found.state.values())
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if tolerance < math.inf:
            torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance, equal_nan=True)
        assert value.shape[:1] == theirs[name].shape[:1]


def rounding(found: Fit) -> float:
    """How far numbers of the device may be from those of the CPU: on a GPU other ones are drawn."""
    if found.problem.device != DEVICE:
        return math.inf
    # The same operations on the same processor, but for tensors that BLAS finds aligned otherwise.
    return 1e-4 if found.problem.dtype == torch.float32 else 1e-8


@pytest.mark.parametrize("name", FITS)
def test_a_fit_runs_on_the_device_of_its_data(name: str, away: torch.device) -> None:
    found, expected = there(name, away), on_host(name)
    assert found.problem.device == away
    assert found.info["rung"] == expected.info["rung"] == "vmap"
    check_same(found, expected, rounding(found))


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    """Log density and gradient of independent normals of standard deviations 1, 2, 3."""
    gradient = -position / torch.arange(1, 4, device=position.device, dtype=position.dtype) ** 2
    return 0.5 * (position * gradient).sum(-1), gradient


def kernels_at(place: torch.device) -> dict[str, Any]:
    """What the kernels make of the same numbers everywhere."""
    random = torch.Generator().manual_seed(0)
    begin, noise = torch.randn(2, 8, 3, generator=random, dtype=torch.float64).to(place)
    uniforms = iter(torch.rand(40, 8, generator=random, dtype=torch.float64).to(place))
    covariance = pooled_covariance(begin, torch.eye(3, dtype=torch.float64, device=place))
    mass, size = metric(covariance), torch.full((8, 1), 0.3, dtype=torch.float64, device=place)
    state = start(gaussian, begin)
    moved, info = transition(leapfrog_step(gaussian), state, mass, size, 5, noise, next(uniforms))
    grown, tree = nuts.transition(leaf_step(gaussian), state, mass, size, 4, noise, uniforms.__next__)
    top = lbfgs_ascent(gaussian, begin, 40)
    around = laplace(gaussian(top)[0], hessians(gaussian, top, batch=8))
    slope = chees_gradient(begin, info, mass, 5 * size[:, 0])
    smoothed, pareto_k = psis(10 * torch.randn(400, generator=random, dtype=torch.float64).to(place))
    found = {"HMC": moved, "its info": info, "NUTS": grown, "its info too": tree, "ascent": top,
             "Laplace": around, "ChEES": slope, "psis": smoothed, "density": state}  # fmt: skip
    return found | {"numbers": (pareto_k, path_length(begin, mass))}


def test_kernels_give_the_same_numbers_on_the_device(away: torch.device) -> None:
    expected = kernels_at(HOST)
    with at(away):
        found = kernels_at(away)
        tensors = tree_leaves({name: parts for name, parts in found.items() if name != "numbers"})
        assert all(is_there(part, away) for part in tensors)
        found = tree_map_only(Tensor, Tensor.cpu, found)
    torch.testing.assert_close(tree_leaves(found), tree_leaves(expected), rtol=1e-9, atol=1e-9)


class Killed(Exception):
    """Stands for the end of a process."""


def die_after(files: int, patch: pytest.MonkeyPatch) -> None:
    """Let the process end when it wants to write one more file than that."""
    put, left = checkpoint.write_bytes, iter(range(files))

    def mortal(path: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise Killed
        put(path, content)

    patch.setattr(checkpoint, "write_bytes", mortal)


@pytest.mark.parametrize(
    ("name", "files"), [("HMC chees", 35), ("NUTS", 7), ("ImportanceSampling", 2), ("SVI", 15)]
)
def test_a_run_on_the_device_goes_on_there(name: str, files: int, away: torch.device, tmp_path: Path) -> None:
    with at(away):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            die_after(files, patch)
            FITS[name](away, checkpoint=tmp_path)
        found = FITS[name](away, resume=tmp_path)
    check_same(found, there(name, away), 0.0)


SECOND: dict[str, Method] = {
    "HMC": SHORT,
    "ImportanceSampling": ImportanceSampling(200),
    "SVI": SVI(num_steps=20, num_draws=10),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_fit_begins_at_another_on_the_device(name: str, away: torch.device) -> None:
    second = of_pair("AutoNormal", SECOND[name])
    first = there("SVI", away)
    with at(away):
        found = second(away, start=first)
    check_same(found, second(start=on_host("SVI")), rounding(found))


def small_table() -> pd.DataFrame:
    return with_every_pattern().iloc[:, :2].head(12)


def of_table(place: torch.device) -> Fit:
    frame = small_table()
    return quick(BayesianMVN(pyl.infer_schema(frame)), frame, SHORT, device=place)


def after(found: Fit, folder: Path) -> dict[str, Any]:
    """What the verbs make of a fit to a table."""
    pyl.save(found, folder)
    inference = pyl.to_inference_data(found)
    return {
        "predict": pyl.predict(found, num_draws=3),
        "new rows": pyl.predict(found, small_table().head(4), num_draws=3),
        "impute": next(pyl.impute(found, num_draws=3).frames),
        "interval": pyl.impute(found).interval(0.9)[0],
        "summary": pyl.summary(found),
        "loaded": pyl.summary(pyl.load(folder)),
    } | {
        group: getattr(inference, group).to_dataframe()
        for group in ("posterior", "log_likelihood", "posterior_predictive", "prior_predictive")
    }


def test_verbs_take_a_fit_from_the_device(away: torch.device, tmp_path: Path) -> None:
    with at(away):
        found = after(of_table(away), tmp_path / "there")
    expected = after(of_table(HOST), tmp_path / "here")
    for name, frame in expected.items():
        if away == DEVICE:
            pd.testing.assert_frame_equal(found[name], frame, rtol=1e-6, atol=1e-8, obj=name)
        pd.testing.assert_index_equal(found[name].index, frame.index)
        pd.testing.assert_index_equal(found[name].columns, frame.columns)


def test_predictions_come_to_the_host(away: torch.device) -> None:
    trained = there("SVI VAE", away)
    with at(away):
        found = pyl.predict(trained, num_draws=3)
    expected = pyl.predict(on_host("SVI VAE"), num_draws=3)
    assert isinstance(found, Mapping)
    for name, values in found.items():
        assert is_there(values, HOST)
        assert values.shape == expected[name].shape
        if (tolerance := rounding(trained)) < math.inf:
            torch.testing.assert_close(values, expected[name], rtol=tolerance, atol=tolerance)


def with_holes(y: Tensor, mask: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0).mask(mask), obs=y)


def test_completed_tensors_come_to_the_host(away: torch.device) -> None:
    data = {"y": torch.arange(5.0, dtype=torch.float64), "mask": torch.arange(5) % 2 == 0}
    with at(away):
        found = pyl.impute(quick(with_holes, moved(data, away), Laplace(100), device=away), num_draws=3)
    assert is_there(found["y"], HOST)
    assert torch.equal(found["y"][:, ::2], data["y"][::2].expand(3, 3))
    assert (found["y"][:, 1::2] != data["y"][1::2]).all()


@pytest.fixture
def gpu(device: torch.device) -> torch.device:
    if device.type == "cpu":
        pytest.skip("inductor compiles nothing for the fake device: run with --device cuda")
    return device


def test_a_replayed_graph_gives_the_numbers_of_the_graph(gpu: torch.device) -> None:
    density = capture_density(um.MVN[0], moved(um.MVN[1](), gpu), seed=0, device=gpu)
    points = [0.1 * torch.randn(64, density.dim, device=gpu, dtype=torch.float64) for _ in range(5)]
    with density.context(), torch.no_grad():
        graph = density.batched.graph(points[0])
        fast = graph.compile()
        found = [fast(flat) for flat in points]  # all are kept: a replay must not write into earlier results
        expected = [graph(flat) for flat in points]
    assert fast.ran_compiled
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_compiled_training_is_the_same_on_a_gpu(gpu: torch.device) -> None:
    run = of_pair("VAE", SVI(num_steps=50, batch_size=16, num_draws=2))
    plain, compiled = run(gpu, compile=False), run(gpu, compile=True)
    assert compiled.info["compiled"]
    torch.testing.assert_close(compiled.losses["train"], plain.losses["train"], rtol=1e-3, atol=1e-3)


def waits(run: Fitting) -> int:
    with fake_device(), Waits() as counted:
        run(DEVICE)
    return counted.number


@pytest.mark.parametrize(
    ("most", "method"),
    [(11, functools.partial(HMC, 2, 20)), (12, functools.partial(NUTS, 2, 20, max_tree_depth=1))],
    ids=["HMC", "NUTS"],
)
def test_a_draw_hardly_waits_for_the_device(most: int, method: Callable[..., Method]) -> None:
    """Each wait is some 20 microseconds on a GPU, so their number must not creep up."""
    few, many = (waits(of_schools(method(num_draws=number))) for number in (10, 20))
    assert 0 < many - few <= 10 * most


def test_training_does_not_wait_for_the_device_between_its_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "CHECKS", 5)
    few, many = (waits(of_pair("VAE", SVI(num_steps=n, batch_size=16, num_draws=2))) for n in (20, 40))
    assert few == many


OUTSIDE = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)


class Shifted(dist.Normal):
    """A distribution that forgets the device."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - torch.ones(3, device="cpu"))


def made_on_the_cpu(mean: Tensor) -> Any:
    return dist.Normal(mean + torch.zeros(3, device="cpu"), 1.0)


def made_outside(mean: Tensor) -> Any:
    return dist.Normal(mean * OUTSIDE, 1.0)


def stacked_number(mean: Tensor) -> Any:
    return dist.Normal(torch.stack([mean, mean, torch.tensor(1.0, device="cpu")]), 1.0)


def made_in_a_distribution(mean: Tensor) -> Any:
    return Shifted(mean, torch.ones(3))


def made_in_a_transform(mean: Tensor) -> Any:
    shift = dist.transforms.AffineTransform(torch.zeros(3, device="cpu"), 1.0)
    return dist.TransformedDistribution(dist.Normal(mean, torch.ones(3)), [shift])


STRAYS = [made_on_the_cpu, made_outside, stacked_number, made_in_a_distribution, made_in_a_transform]


@pytest.mark.parametrize("make", STRAYS)
def test_a_stray_tensor_raises(make: Callable[[Tensor], Any], away: torch.device) -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", make(mean).to_event(1), obs=y)

    data = {"y": torch.ones(3, dtype=torch.float64)}
    capture_density(model, data, seed=0)  # on the CPU nobody sees it
    with at(away), pytest.raises(ModelError, match=r"has a tensor on another device .* device='cpu'"):
        capture_density(model, moved(data, away), seed=0, device=away)


def test_a_prior_made_on_the_cpu_is_refused_in_words(away: torch.device) -> None:
    with at(away), pytest.raises(ModelError, match="the model has a tensor on another device"):
        of_pair("PyroModule", SVI(num_steps=3))(away)


def test_reading_into_numpy_needs_a_move() -> None:
    with fake_device():
        x = torch.ones(2, device=DEVICE)
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            x.numpy()
        assert x.cpu().numpy().tolist() == x.numpy(force=True).tolist() == x.tolist() == [1.0, 1.0]


def test_single_numbers_may_come_from_the_cpu() -> None:
    with fake_device():
        x = torch.arange(3.0, device=DEVICE) * torch.tensor(2.0)
    assert isinstance(x, OnDevice)
    assert x.tolist() == [0.0, 2.0, 4.0]


def test_waits_are_counted() -> None:
    with fake_device():
        x, host = torch.arange(3.0, device=DEVICE), torch.zeros(3)
        with Waits() as counted:
            _ = x * 2, x[x.long()], x + torch.tensor(1.0), torch.where(x > 1, x, 0.0), host.sum().item()
        assert counted.number == 0
        with Waits() as counted:
            _ = float(x.sum()), bool((x > 1).any()), x[x > 1], (x > 1).nonzero(), x.cpu()
            host[:] = x
        assert counted.number == 6
