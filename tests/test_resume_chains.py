"""Runs of chains that are killed and gone on with in a new process, and runs over several processes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pyrolatent.diagnostics import mcse_mean

MODEL = """
import torch, pyro, pyro.distributions as dist
import pyrolatent as pyl

def model(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 10.0))
    noise = pyro.sample("noise", dist.HalfNormal(5.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(slope * x, noise), obs=y)

x = torch.linspace(-1, 1, 20, dtype=torch.float64)
"""

SCRIPT = (
    MODEL
    + """
import os, signal, sys
from pyrolatent.infer.sampler import Sampler
from safetensors.torch import save_file

method, folder, output, resume, die_at = sys.argv[1:]
METHODS = {
    "hmc": pyl.HMC(num_chains=16, num_warmup=40, num_draws=200),
    "long": pyl.HMC(num_chains=16, num_warmup=40, num_draws=2_000),
    "chees": pyl.HMC(num_chains=16, num_warmup=40, target_ess=800, path="chees"),
    "nuts": pyl.NUTS(num_chains=4, num_warmup=40, num_draws=100),
}

report, calls = Sampler.report, []
def dying(self, *rest):
    report(self, *rest)
    calls.append(None)
    if len(calls) == int(die_at):
        os.kill(os.getpid(), signal.SIGKILL)
Sampler.report = dying
fit = pyl.fit(model, {"x": x, "y": 2 * x + torch.sin(40 * x)}, METHODS[method], seed=3, progress=False,
              checkpoint=folder or None, checkpoint_every=7 if folder else None, resume=resume == "resume")
tensors = dict(fit.samples) | {f"stats/{name}": value for name, value in fit.sample_stats.items()}
save_file({name: value.contiguous() for name, value in tensors.items()}, output)
"""
)


def run(method: str, folder: Path | str, output: Path, resume: bool = False, die_at: int = 0) -> int:
    arguments = [method, str(folder), str(output), "resume" if resume else "", str(die_at)]
    return subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments]).returncode


def assert_identical(first: Path, second: Path) -> None:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", ["hmc", "chees", "nuts"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(method: str, tmp_path: Path) -> None:
    """Killed in the warm-up, and then among the draws; each time a new process goes on."""
    assert run(method, "", tmp_path / "whole") == 0
    assert run(method, tmp_path / "kept", tmp_path / "part", die_at=25) == -signal.SIGKILL
    assert run(method, tmp_path / "kept", tmp_path / "part", resume=True, die_at=60) == -signal.SIGKILL
    assert run(method, tmp_path / "kept", tmp_path / "part", resume=True) == 0
    assert_identical(tmp_path / "whole", tmp_path / "part")


def test_a_run_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    assert run("long", "", tmp_path / "whole") == 0
    arguments = ["long", str(tmp_path / "kept"), str(tmp_path / "part"), "resume", "0"]
    chance = random.Random(0)
    for _ in range(2):  # the second goes on with the first
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments])
        state = tmp_path / "kept" / "checkpoint.safetensors"
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.001)
        time.sleep(0.2 * chance.random())
        process.kill()
        assert process.wait() == -signal.SIGKILL  # and had not finished
    assert run("long", tmp_path / "kept", tmp_path / "part", resume=True) == 0
    assert_identical(tmp_path / "whole", tmp_path / "part")


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    assert run("hmc", tmp_path / "kept", tmp_path / "whole") == 0
    assert run("hmc", tmp_path / "kept", tmp_path / "part", resume=True) == 0
    assert_identical(tmp_path / "whole", tmp_path / "part")


PROCESSES = (
    MODEL
    + """
import sys
from pyrolatent.ranks import process_group
from safetensors.torch import save_file

with process_group() as ranks:
    for name, method in {"hmc": pyl.HMC(num_chains=32, num_warmup=60, num_draws=50),
                         "nuts": pyl.NUTS(num_chains=4, num_warmup=100, num_draws=200)}.items():
        fit = pyl.fit(model, {"x": x, "y": 2 * x + torch.sin(40 * x)}, method, seed=3, progress=False,
                      checkpoint=f"{sys.argv[1]}/{name}{ranks.size}")
        tensors = {key: value.contiguous() for key, value in fit.samples.items()}
        save_file(tensors, f"{sys.argv[1]}/{name}{ranks.rank}of{ranks.size}")
"""
)


def test_chains_are_shared_out_among_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESSES)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, check=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29611"]
    subprocess.run([*launch, str(script), str(tmp_path)], env=environment, check=True)
    for name in ("hmc", "nuts"):
        assert_identical(tmp_path / f"{name}0of2", tmp_path / f"{name}1of2")
        # Ascents and trees end by what a process sees of the chains: the same posterior, other numbers.
        alone, together = load_file(tmp_path / f"{name}0of1"), load_file(tmp_path / f"{name}0of2")
        for site, values in alone.items():
            assert values.shape == together[site].shape
            error = float(torch.hypot(mcse_mean(values), mcse_mean(together[site])))
            assert abs(float(values.mean() - together[site].mean())) < 4 * error
