"""Two processes that share the rows of each step learn what one learns."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrolatent.capture.context import model_context
from pyrolatent.capture.noise import NoisyGraph, capture_noisy, cuts
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.infer import training
from pyrolatent.infer.learner import prepare
from pyrolatent.infer.optimizers import rate
from pyrolatent.infer.svi import SVI, read
from pyrolatent.ranks import Ranks, process_group
from pyrolatent.result import Fit
from tests.test_objective_gradient import problem_of
from tests.test_svi import quiet
from tests.test_svi_resume import tensors
from tests.user_pairs import (
    UserPair,
    gamma_and_normal,
    local_data,
    local_scales,
    regression,
    regression_data,
    vae,
)

ROOT = Path(__file__).parent.parent
DOUBLE = torch.float64


def of_regression(method: SVI, **options: Any) -> Fit:
    return quiet(regression, regression_data(), method, guide=AutoNormal, seed=4, compile=False, **options)


def of_vae(method: SVI, **options: Any) -> Fit:
    user = vae()
    options = {"guide": user.guide, "seed": 4, "compile": False, "dtype": DOUBLE} | options
    return quiet(user.model, user.data, method, **options)


watched = {"validation_fraction": 0.25, "patience": 50}
CASES: dict[str, tuple[Callable[..., Fit], SVI]] = {
    "a guide that all rows share": (of_regression, SVI(num_steps=100, lr=0.02, num_draws=5)),
    "its batches": (of_regression, SVI(num_steps=100, lr=0.02, batch_size=6, num_draws=5, **watched)),
    "latents of rows": (of_vae, SVI(num_steps=100, batch_size=10, num_draws=5)),
    "refits": (of_vae, SVI(num_steps=100, batch_size=10, num_refits=2, num_draws=5)),
}


def of_gamma(method: SVI, **options: Any) -> Fit:
    user = gamma_and_normal()
    data = {"y": torch.linspace(-1.0, 1.0, 10, dtype=DOUBLE)}
    return quiet(user.model, data, method, guide=user.guide, seed=4, compile=False, **options)


KILLED = SVI(num_steps=100, num_draws=5)


def deadly(step: int, num_steps: int) -> float:
    if step == 70:
        raise MemoryError("killed")
    return rate(step, num_steps)


def run_all(folder: str) -> None:
    """Run every case as one of the processes that `torchrun` starts, and write what came out."""
    with process_group() as ranks:
        for name, (run, method) in CASES.items():
            found = run(method)
            assert found.info["processes"] == 2 and found.info["own_noise"] == "", found.info
            write(found, Path(folder) / f"{name}.{ranks.rank}")
        own = of_gamma(KILLED)
        assert "drawn from what is learnt" in own.info["own_noise"]
        write(own, Path(folder) / f"own.{ranks.rank}")
        training.rate = deadly  # type: ignore[attr-defined]
        with pytest.raises(MemoryError):
            of_gamma(KILLED, checkpoint=f"{folder}/kept", checkpoint_every=30)
        training.rate = rate  # type: ignore[attr-defined]
        write(of_gamma(KILLED, resume=f"{folder}/kept"), Path(folder) / f"resumed.{ranks.rank}")


def write(found: Fit, path: Path) -> None:
    save_file({name: value.clone().contiguous() for name, value in tensors(found).items()}, path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two real processes have put their fits."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "script.py"
    script.write_text(f"from tests.test_svi_ranks import run_all\nrun_all({str(folder)!r})\n")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *launch],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(written: Path, name: str) -> None:
    run, method = CASES[name]
    expected = tensors(run(method))
    first, second = (load_file(written / f"{name}.{rank}") for rank in range(2))
    assert set(first) == set(expected)
    for key, value in expected.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-6, atol=1e-6)
    assert expected["losses: train"].shape[1] == 100


def test_processes_that_draw_their_own_noise_learn_the_same_everywhere(written: Path) -> None:
    """Also when they go on from a checkpoint, each with its own noise."""
    first, *others = (load_file(written / f"{name}.{rank}") for name in ("own", "resumed") for rank in (0, 1))
    assert all(torch.equal(value, other[key]) for other in others for key, value in first.items())


# What is refused, before the processes have met


def shared(user: UserPair, batch_size: int | None) -> None:
    problem = replace(problem_of(user), ranks=Ranks(0, 2))
    sites = read(problem)
    with model_context(DOUBLE, torch.device("cpu")), torch.no_grad():
        prepare(problem, sites, batch_size, 0.0, 1)


@pytest.mark.parametrize(("num_rows", "batch_size", "size"), [(20, 7, 7), (21, None, 21)])
def test_rows_that_cannot_be_shared_out_equally(num_rows: int, batch_size: int | None, size: int) -> None:
    user = UserPair(regression, AutoNormal, regression_data(num_rows))
    with pytest.raises(ArgumentError, match=rf"batch_size.*{size} over 2 processes.*multiple of 2"):
        shared(user, batch_size)


def test_rows_that_cannot_be_dealt_out() -> None:
    def outside(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)

    with pytest.raises(ModelError, match=r"every observation in plate .data..*in one process"):
        shared(UserPair(outside, AutoNormal, {"y": torch.zeros(8)}), None)
    with pytest.raises(ModelError, match=r"latents of rows \['scale'\].*in one process"):
        shared(UserPair(local_scales, AutoNormal, local_data()), None)


# Noise of a batch, cut into that of its parts


def noisy(draw: Callable[[Any], Any], rows: int) -> NoisyGraph:
    with model_context(DOUBLE, torch.device("cpu")):
        return capture_noisy(lambda x: draw(x) + 0 * x.sum(), torch.zeros(rows))


@pytest.mark.parametrize(
    ("draw", "dims"),
    [
        (lambda x: torch.randn(3).sum(), [None]),
        (lambda x: torch.randn(len(x), 3).sum(), [0]),
        (lambda x: (torch.rand(2, len(x)) * torch.randn(())).sum(), [1, None]),
        (lambda x: torch.nn.functional.dropout(torch.ones(len(x), 4)).sum(), [0]),
    ],
)
def test_noise_of_rows_is_cut_and_that_of_all_is_shared(draw: Callable[[Any], Any], dims: list[Any]) -> None:
    assert cuts(noisy(draw, 3), noisy(draw, 6), 2) == (dims, "")


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda x: torch.randn(len(x), len(x)).sum(), "its shape does not follow the rows"),
        (lambda x: torch.randn(len(x) + 1).sum(), "its shape does not follow the rows"),
        (lambda x: torch.randperm(len(x)).sum(), "a batch draws in another way"),
        (lambda x: torch.bernoulli(x).sum(), "drawn from what is learnt or computed"),
    ],
)
def test_noise_that_cannot_be_cut_says_why(draw: Callable[[Any], Any], why: str) -> None:
    dims, reason = cuts(noisy(draw, 3), noisy(draw, 6), 2)
    assert dims is None and why in reason
