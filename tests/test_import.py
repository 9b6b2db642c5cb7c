"""What `import pyrolatent` costs, and that it changes nothing."""

import ast
import statistics
import subprocess
import sys

TIME = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
MAX_RATIO = 1.3

STATE = """
import logging, os, random, warnings
import numpy, pyro, torch
from pyro.infer.util import is_validation_enabled as infer_validation
from pyro.poutine.util import is_validation_enabled as poutine_validation

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "validation of distributions": torch.distributions.Distribution._validate_args,
        "validation of inference": (infer_validation(), poutine_validation()),
        "parameter store": list(pyro.get_param_store().keys()),
        "random state": (torch.initial_seed(), torch.get_rng_state().sum().item(), hash(random.getstate())),
        "numpy": (numpy.random.get_state()[1].sum().item(), numpy.geterr(), numpy.get_printoptions()),
        "log levels": [logging.getLogger(name).level for name in ("", "pyro", "torch", "torch._inductor")],
        "log handlers": len(logging.getLogger().handlers),
        "environment": dict(os.environ),
        "warning filters": warnings.filters[:],
    }

before = state()
import pyrolatent
after = state()
print([name for name in before if before[name] != after[name]])
"""


def fresh(source: str) -> str:
    """Run Python source in a new process and return what it printed."""
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def import_cost(rounds: int = 5) -> float:
    """Cost of `import pyrolatent` over that of `import pyro`: medians of rounds in turn, CPU seconds."""
    times = [[float(fresh(TIME.format(name))) for name in ("pyro", "pyrolatent")] for _ in range(rounds)]
    pyro, ours = (statistics.median(column) for column in zip(*times, strict=True))
    return ours / pyro


def test_import_costs_little_more_than_pyro():
    """A busy machine can spoil one set of rounds, so only three bad ones in a row count."""
    fresh("import pyrolatent")  # writes the bytecode
    costs: list[float] = []
    while len(costs) < 3 and (not costs or costs[-1] > MAX_RATIO):
        costs.append(import_cost())
    assert min(costs) <= MAX_RATIO


def test_import_changes_no_global_state():
    assert ast.literal_eval(fresh(STATE)) == []
