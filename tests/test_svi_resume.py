"""Training that is killed goes on in a new process to the very numbers that it would have had."""

import functools
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyrolatent.capture.compile import has_compiler
from pyrolatent.errors import FitWarning
from pyrolatent.fit import fit
from pyrolatent.infer import training
from pyrolatent.infer.optimizers import Schedule, made, rate, restore
from pyrolatent.infer.svi import SVI
from pyrolatent.result import Fit
from pyrolatent.snapshots import flatten, rebuild
from tests.user_pairs import gamma_and_normal, regression, regression_data, vae

ROOT = Path(__file__).parent.parent
SEED = 3


class Case(NamedTuple):
    """A fit, how often it is kept, and the step in which it is killed."""

    run: Callable[..., Fit]
    method: SVI
    every: int | None
    killed_in: int


def of_regression(**options: Any) -> Fit:
    return fit(regression, regression_data(), guide=AutoNormal, **options)


def of_vae(**options: Any) -> Fit:
    user = vae()
    return fit(user.model, user.data, guide=user.guide, **options)


def of_gamma(**options: Any) -> Fit:
    """Draws that depend on what is learnt stay inside of the graph."""
    user = gamma_and_normal()
    return fit(user.model, user.data, guide=user.guide, **options)


momentum = functools.partial(torch.optim.SGD, momentum=0.9)
watched = {"validation_fraction": 0.25, "patience": 30}
CASES = {
    "full batch": Case(of_regression, SVI(num_steps=60, num_draws=5), 1, 31),
    "batches": Case(of_vae, SVI(num_steps=200, batch_size=10, num_draws=5, **watched), 7, 130),
    "momentum": Case(
        of_regression,
        SVI(num_steps=200, lr=1e-4, batch_size=12, optimizer=momentum, num_draws=5, **watched),
        None,
        99,
    ),
    "refits": Case(of_vae, SVI(num_steps=60, batch_size=9, num_refits=2, num_draws=5), 11, 58),
    "draws in the graph": Case(of_gamma, SVI(num_steps=40, num_draws=5), 3, 20),
}


def run(case: Case, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        kept = {"checkpoint_every": case.every} if {"checkpoint", "resume"} & options.keys() else {}
        options = {"seed": SEED, "compile": False} | kept | options
        return case.run(method=case.method, progress=False, **options)


def tensors(found: Fit) -> dict[str, Tensor]:
    """Everything that a fit holds."""
    parts = {"samples": found.samples, "losses": found.losses, "params": found.params, "state": found.state}
    return {f"{kind}: {name}": value for kind, part in parts.items() for name, value in part.items()}


def run_killed(folder: str) -> None:
    """Run every case in a process of its own that kills itself without a word."""
    for name, case in CASES.items():
        if (child := os.fork()) == 0:

            def deadly(step: int, num_steps: int, killed_in: int = case.killed_in) -> float:
                if step == killed_in:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rate(step, num_steps)

            training.rate = deadly  # type: ignore[attr-defined]
            run(case, checkpoint=Path(folder) / name)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, name


def run_to_the_end(folder: str) -> None:
    """Go on with every case and write what came out."""
    for name, case in CASES.items():
        found = tensors(run(case, resume=Path(folder) / name))
        save_file(
            {key: value.clone(memory_format=torch.contiguous_format) for key, value in found.items()},
            Path(folder) / f"{name}.end",
        )


def in_new_process(call: str, folder: Path) -> None:
    code = f"from tests.test_svi_resume import {call}; {call}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all cases were killed by one process and finished by another."""
    folder = tmp_path_factory.mktemp("killed")
    in_new_process("run_killed", folder)
    in_new_process("run_to_the_end", folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_goes_on_in_a_new_process_to_equal_bits(resumed: Path, name: str) -> None:
    expected, found = tensors(run(CASES[name])), load_file(resumed / f"{name}.end")
    assert set(found) == set(expected)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert (resumed / name / "checkpoint.safetensors").exists()


# What follows happens in one process: an exception, or a signal, in the middle of a step.


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Let something happen in the middle of a step, once."""

    def acting(number: int, num_steps: int) -> float:
        if number == step:
            monkeypatch.setattr(training, "rate", rate)
            act()
        return rate(number, num_steps)

    monkeypatch.setattr(training, "rate", acting)


def fail() -> None:
    raise MemoryError("killed")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def differing(found: Fit, expected: Fit) -> list[str]:
    other = tensors(found)
    return [name for name, value in tensors(expected).items() if not torch.equal(other[name], value)]


def check_goes_on(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Fit:
    at_step(monkeypatch, case.killed_in, fail)
    with pytest.raises(MemoryError, match="killed"):
        run(case, checkpoint=folder, **options)
    again = run(case, resume=folder, **options)
    assert differing(again, run(case, **options)) == []
    return again


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_compiled_steps_go_on_to_equal_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(of_regression, SVI(num_steps=30, batch_size=16, num_draws=2), 4, 17)
    assert check_goes_on(case, tmp_path, monkeypatch, compile=True).info["compiled"]


OPTIMIZERS = [
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
]
OPTIMIZERS += ["Rprop", "SGD"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_of_torch_goes_on_where_it_was(name: str) -> None:
    """Its state by way of a checkpoint's form, in single precision, where loading could round."""
    schedule = Schedule(100, 0.1, None, getattr(torch.optim, name))
    random = torch.Generator().manual_seed(0)

    def steps(optimizer: torch.optim.Optimizer, free: Tensor, gradients: Tensor) -> None:
        for gradient in gradients:
            free.grad = gradient.clone()
            optimizer.step()

    gradients, free = torch.randn(9, 2, 5, generator=random), torch.ones(2, 5, requires_grad=True)
    optimizer = made(schedule, free)
    steps(optimizer, free, gradients[:5])
    kept: dict[str, Tensor] = {}
    plain = flatten(optimizer.state_dict(), kept)
    again = free.detach().clone().requires_grad_()
    steps(optimizer, free, gradients[5:])
    other = made(schedule, again)
    restore(other, again, rebuild(json.loads(json.dumps(plain)), kept, [], free.device))
    steps(other, again, gradients[5:])
    assert torch.equal(again, free)


def test_ctrl_c_returns_what_was_learnt_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(of_vae, SVI(num_steps=120, batch_size=10, num_draws=3), 50, 0)
    at_step(monkeypatch, 76, interrupt)
    found = run(case, checkpoint=tmp_path)
    assert found.losses["train"].shape == (1, 77) and found.info["steps"] == 77
    (said,) = (text for text in found.warnings if "Interrupted" in text)
    assert said.startswith("Interrupted after step 77 of 120. Pass resume='")
    assert all(draws.isfinite().all() for draws in found.samples.values())
    whole = run(case)
    assert torch.equal(found.losses["train"], whole.losses["train"][:, :77])
    assert differing(run(case, resume=tmp_path), whole) == []


def test_ctrl_c_without_a_checkpoint_says_how_to_train_on(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(of_regression, SVI(num_steps=50, num_draws=3), None, 0)
    at_step(monkeypatch, 20, interrupt)
    found = run(case)
    assert any("Interrupted after step 21 of 50. Pass start= this fit" in text for text in found.warnings)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_in_the_first_step_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(monkeypatch, 0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(Case(of_regression, SVI(num_steps=50), None, 0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_stopped_early_is_not_trained_on(tmp_path: Path) -> None:
    method = SVI(num_steps=2_000, lr=0.05, batch_size=20, validation_fraction=0.4, patience=1, num_draws=2)
    case = Case(of_regression, method, None, 0)
    stopped = run(case, checkpoint=tmp_path)
    assert stopped.info["steps"] < 2_000
    assert differing(run(case, resume=tmp_path), stopped) == []
