"""Runs that end by their target, and the No-U-Turn sampler as a method."""

import re
import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.errors import FitWarning
from pyrolatent.infer.chains import diagnostics_of, reached
from pyrolatent.result import Fit
from tests.user_models import eight_schools, eight_schools_data

DATA = {"y": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}


def conjugate(y: Tensor) -> None:
    """The posterior of the mean is N(3/2, 1/4), of its double N(3, 1)."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.deterministic("double", 2 * mean)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def fitted(method: pyl.HMC | pyl.NUTS) -> Fit:
    return pyl.fit(conjugate, DATA, method, seed=0, progress=False)


def test_a_run_ends_when_its_target_is_reached() -> None:
    result = fitted(pyl.HMC(num_chains=16, num_warmup=50, target_ess=400))
    assert result.draw_shape == (16, 100)  # no fewer are judged
    longer = fitted(pyl.HMC(num_chains=16, num_warmup=50, target_ess=2_000))
    assert longer.num_draws % (16 * 50) == 0
    assert 1_600 < longer.num_draws < 16 * 1_500
    assert longer.warnings == ()
    for diagnostics in longer.diagnostics.values():
        assert float(diagnostics["ess"]) >= 2_000
        assert float(diagnostics["rhat"]) <= 1.01
    # The draws are those of a run of that length that was planned.
    planned = fitted(pyl.HMC(num_chains=16, num_warmup=50, num_draws=longer.draw_shape[1]))
    assert torch.equal(planned.samples["double"], longer.samples["double"])


def test_a_budget_that_ends_before_the_target_is_said_aloud() -> None:
    expected = r"target_ess=100000 was not reached in 120 draws a chain: .* Raise num_draws, its budget\."
    with pytest.warns(FitWarning, match=expected):
        result = fitted(pyl.HMC(num_chains=16, num_warmup=50, num_draws=120, target_ess=100_000))
    assert result.draw_shape == (16, 120)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1: got 1.0"),
        ({"max_tree_depth": 0}, "max_tree_depth is too small: got 0. give at least 1"),
        ({"num_warmup": 3}, "num_warmup is too small: got 3"),
    ],
)
def test_settings_of_nuts_without_meaning_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(pyl.ArgumentError, match=re.escape(message)):
        pyl.NUTS(**settings)  # type: ignore[arg-type]


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(pyl.ArgumentError, match=r"path is unknown: got 'longest'\. choose 'rule' or 'chees'"):
        pyl.HMC(path="longest")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "method",
    [pyl.NUTS(num_warmup=150, num_draws=500), pyl.HMC(num_chains=32, path="chees")],
    ids=["nuts", "chees"],
)
def test_moments_of_a_known_posterior(method: pyl.HMC | pyl.NUTS) -> None:
    result = fitted(method)
    draws, ess = result.samples["double"], float(result.diagnostics["double"]["ess"])
    assert ess > 400
    assert float(draws.mean()) == pytest.approx(3.0, abs=4 / ess**0.5)
    assert float(draws.std()) == pytest.approx(1.0, abs=4 / (2 * ess) ** 0.5)


def test_trees_tell_how_large_they_were() -> None:
    with pytest.warns(FitWarning, match=r"^\d+ of 1600 transitions were cut at 7 leapfrog steps"):
        result = pyl.fit(
            eight_schools, eight_schools_data(), pyl.NUTS(num_warmup=200, num_draws=400, max_tree_depth=3),
            seed=0, progress=False,
        )  # fmt: skip
    stats = result.sample_stats
    assert result.info["path_length"] == pytest.approx(float((stats["step_size"] * stats["n_steps"]).mean()))
    depth, steps = stats["tree_depth"], stats["n_steps"]
    assert depth.dtype == steps.dtype == torch.int64
    assert 1 <= int(depth.min()) <= int(depth.max()) <= 3
    # The last subtree may end early and is then not merged.
    assert bool((steps >= 2**depth - 1).all())
    assert bool((steps <= 2 ** (depth + 1) - 1).all())
    assert list(stats) == [
        "lp", "energy", "acceptance_rate", "diverging", "step_size", "n_steps", "tree_depth",
    ]  # fmt: skip


def test_trees_that_were_cut_are_said_aloud() -> None:
    expected = r"^\d+ of 400 transitions were cut at 1 leapfrog steps: .* trees a larger max_tree_depth\.$"
    with pytest.warns(FitWarning) as told:
        fitted(pyl.NUTS(num_warmup=100, num_draws=100, max_tree_depth=1))
    assert any(re.match(expected, str(warning.message)) for warning in told)


def test_a_single_chain_is_compared_with_itself() -> None:
    """A target needs R-hat as well, and a chain whose halves differ has not reached it."""
    result = fitted(pyl.HMC(num_chains=1, num_warmup=100, target_ess=500))
    rhat, draws = result.diagnostics["double"]["rhat"], result.samples["double"].double()[0]
    halves = draws[: len(draws) // 2], draws[-(len(draws) // 2) :]
    between = (halves[0].mean() - halves[1].mean()) ** 2 / 2
    within = (halves[0].var() + halves[1].var()) / 2
    assert float(rhat) == pytest.approx(float(1 + between / within) ** 0.5, rel=1e-12)
    drift = torch.linspace(0, 1, 2_000, dtype=torch.float64)[None]
    assert not reached(diagnostics_of({"x": drift}, 1), target_ess=1)


def neck(y: Tensor) -> None:
    """A wide place and a narrow one, which no step size suits both."""
    log_scale = pyro.sample("log_scale", dist.Normal(0.0, 1.5))
    with pyro.plate("groups", 5):
        pyro.sample("effect", dist.Normal(0.0, log_scale.exp()))


@pytest.mark.parametrize(("model", "target"), [(conjugate, 0.8), (neck, 0.95)], ids=["normal", "stiff"])
def test_a_stiff_posterior_gets_smaller_steps(model: Any, target: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        result = pyl.fit(model, DATA, pyl.HMC(num_chains=64, num_warmup=200), seed=1, progress=False)
    rate = result.sample_stats["acceptance_rate"]
    # Dual averaging ends within a few hundredths of its target.
    assert float(rate.mean()) == pytest.approx(target, abs=0.05)
