"""The sampler's choices: chains, compiling, lost chains, the bar."""

import contextlib
import os
import pty
import subprocess
import sys
import termios

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.capture.density import capture_density
from pyrolatent.infer import chains, speed
from pyrolatent.infer.speed import default_chains
from pyrolatent.infer.tuning import Tuned, lost, restart
from pyrolatent.kernels.hmc import HMCState, metric


def regression(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def data(num_rows: int) -> dict[str, Tensor]:
    x = torch.linspace(-1, 1, num_rows, dtype=torch.float64)
    return {"x": x, "y": 0.5 * x}


def test_chains_follow_rung_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    density = capture_density(regression, data(1_000), seed=0)
    assert default_chains(density) == 64
    # A chain's copies of 1,000 rows take 16 * 8 * 1,000 bytes.
    monkeypatch.setattr(speed, "MAX_BYTES", 20 * 128_000)
    assert default_chains(density) == 16
    monkeypatch.setattr(speed, "MAX_BYTES", 128_000)
    assert default_chains(density) == 4


def test_compiled_and_not_sample_the_same() -> None:
    plain = pyl.fit(regression, data(50), seed=1, compile=False)
    compiled = pyl.fit(regression, data(50), seed=1, compile=True)
    assert (plain.info["compiled"], compiled.info["compiled"]) == (False, True)
    # Rounding may differ, and grows along a chain: the first draws agree, all means agree.
    torch.testing.assert_close(
        compiled.samples["slope"].mean(), plain.samples["slope"].mean(), rtol=0, atol=0.02
    )


def test_without_a_compiler_the_fit_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "has_compiler", lambda: False)
    with pytest.warns(pyl.FitWarning, match=r"No C\+\+ compiler was found, so the fit ran uncompiled"):
        result = pyl.fit(regression, data(50), seed=1, compile=True)
    assert result.info["compiled"] is False


def test_a_plateau_does_not_hold_chains_back() -> None:
    """A mixture whose single-component saddle traps short ascents: every chain must reach the mode."""
    noise = torch.Generator().manual_seed(0)
    y = torch.randn(400, generator=noise, dtype=torch.float64)
    y = torch.where(torch.arange(400) < 250, y - 2.8, y + 2.8)

    def mixture(y: Tensor) -> None:
        low = pyro.sample("low", dist.Normal(0.0, 2.0))
        gap = pyro.sample("gap", dist.LogNormal(0.0, 1.0))
        scale = pyro.sample("scale", dist.HalfNormal(2.0))
        share = pyro.sample("share", dist.Beta(5.0, 5.0))
        parts = dist.Normal(torch.stack([low, low + gap]), scale)
        with pyro.plate("data", len(y)):
            pyro.sample(
                "y", dist.MixtureSameFamily(dist.Categorical(torch.stack([share, 1 - share])), parts), obs=y
            )

    result = pyl.fit(mixture, {"y": y}, seed=0)
    assert result.warnings == ()
    assert float(result.samples["low"].mean()) == pytest.approx(float(y[:250].mean()), abs=0.1)


def window(log_density: list[float], spread: list[float]) -> list[HMCState]:
    """Ten states of chains in two dimensions with these mean log densities and spreads."""
    noise = torch.randn(10, len(spread), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level, width = torch.tensor(log_density).double(), torch.tensor(spread).double()
    return [HMCState(width[:, None] * z, level, torch.zeros_like(z)) for z in noise]


def test_lost_chains_are_those_without_a_share() -> None:
    # A separate mode of one nat less counts; 400 nats below, stuck, or not a number do not, and
    # neither does a spike whose height makes up for none of its narrowness.
    found = lost(window([0.0, -1.0, -400.0, 0.0, float("nan"), 20.0], [1.0, 1.0, 1.0, 0.0, 1.0, 1e-20]))
    assert found.tolist() == [False, False, True, True, True, True]


def test_lost_chains_restart_where_others_are() -> None:
    position = torch.arange(12.0, dtype=torch.float64).reshape(6, 2)
    state = HMCState(position, position[:, 0], position)
    tuned = Tuned(state, metric(torch.ones(2).double()), torch.tensor(1.0), 1.5)
    moved = restart(
        tuned, torch.tensor([False, True, False, True, True, True]), torch.Generator().manual_seed(0)
    )
    assert moved.restarts == 4
    kept = [0, 2]
    assert torch.equal(moved.state.position[kept], position[kept])
    assert set(moved.state.log_density.tolist()) <= {0.0, 4.0}
    assert torch.equal(moved.state.gradient, moved.state.position)


SCRIPT = """
import torch, pyro, pyro.distributions as dist, pyrolatent as pyl
def model(y):
    pyro.sample("y", dist.Normal(pyro.sample("mean", dist.Normal(0., 1.)), 1.), obs=y)
pyl.fit(model, {"y": 0.3}, seed=0)
"""


def on_a_terminal(script: str) -> str:
    """Return what a process shows on a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with subprocess.Popen([sys.executable, "-c", script], stderr=theirs, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # raised when the other end is closed
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_one_bar_on_a_terminal() -> None:
    shown = on_a_terminal(SCRIPT)
    assert "225/225" in shown
    assert "divergences=0" in shown
    assert "step_size=" in shown
    assert "iteration/s" in shown
    assert shown.count("\n") == 1  # one bar, and the line feed when it ends


def test_an_infinite_rhat_is_not_overlooked() -> None:
    values = {"stuck": torch.tensor([1.0, torch.inf]), "constant": torch.tensor(torch.nan)}
    diagnostics = {site: {"rhat": value} for site, value in values.items()}
    assert chains.extreme(diagnostics, "rhat", largest=True) == ("stuck", float("inf"))
    assert chains.extreme(diagnostics, "rhat", largest=False) == ("stuck", 1.0)
