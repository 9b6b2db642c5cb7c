"""Options of the suite, one thread for everybody, and the law that a test leaves no trace."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

THREADS = 1
# Before torch and matplotlib are imported, so that processes started by tests inherit it too.
os.environ.update(OMP_NUM_THREADS=str(THREADS), MPLBACKEND="Agg")

import pyro
import pytest
import torch
from pyro.infer.util import is_validation_enabled as infer_validation
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.util import is_validation_enabled as poutine_validation

LOGGERS = ("", "pyro", "torch", "torch._dynamo", "torch._inductor", "arviz", "matplotlib")


class Switch(NamedTuple):
    """A piece of global state: how to read it, and how to put it back for the next test."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]


def _log_levels() -> tuple[int, ...]:
    return tuple(logging.getLogger(name).level for name in LOGGERS)


def _set_log_levels(levels: tuple[int, ...]) -> None:
    for name, level in zip(LOGGERS, levels, strict=True):
        logging.getLogger(name).setLevel(level)


SWITCHES = {
    "default dtype": Switch(torch.get_default_dtype, torch.set_default_dtype),
    "default device": Switch(torch.get_default_device, lambda _: torch.set_default_device(None)),
    "gradients enabled": Switch(torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic algorithms": Switch(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
    "threads": Switch(torch.get_num_threads, torch.set_num_threads),
    "validation of distributions": Switch(
        lambda: torch.distributions.Distribution._validate_args,
        torch.distributions.Distribution.set_default_validate_args,
    ),
    "validation of inference": Switch(infer_validation, pyro.infer.enable_validation),
    "validation of poutine": Switch(poutine_validation, pyro.poutine.enable_validation),
    "parameter store": Switch(
        lambda: tuple(pyro.get_param_store().keys()), lambda _: pyro.clear_param_store()
    ),
    "handlers of Pyro": Switch(lambda: tuple(_PYRO_STACK), lambda _: _PYRO_STACK.clear()),
    "log levels": Switch(_log_levels, _set_log_levels),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=["cpu", "cuda"], default="cpu", help="where fits of tests run")
    parser.addoption("--dtype", choices=["float64", "float32"], default="float64", help="their precision")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else fits would choose a GPU that happens to be there
    elif not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch finds no CUDA device")
    torch.set_num_threads(THREADS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # not so in the background


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device chosen by `--device`, which is also the one that fits choose for data on the CPU."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The precision chosen by `--dtype`."""
    return getattr(torch, request.config.getoption("--dtype"))


@pytest.fixture(autouse=True)
def leaves_no_trace() -> Iterator[None]:
    """Start from seed 0 with an empty store, and fail a test after which a global switch stands otherwise.

    The random state is not compared, since most tests draw from it themselves; fits that must not
    touch it are tested for that by name.
    """
    pyro.set_rng_seed(0)
    before = {name: switch.read() for name, switch in SWITCHES.items()}
    yield
    after = {name: switch.read() for name, switch in SWITCHES.items()}
    changed = {name: (before[name], after[name]) for name in SWITCHES if after[name] != before[name]}
    for name in changed:
        SWITCHES[name].write(before[name])
    assert not changed, f"global state changed by the test (before, after): {changed}"
