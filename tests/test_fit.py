"""`fit` on user models: known posteriors, reproducible, honest, and clear about bad input."""

import inspect
import math
import re
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.diagnostics import mcse_mean

Y = torch.tensor([1.2, -0.4, 0.9, 2.1, 0.3], dtype=torch.float64)
SIGMA, PRIOR = 0.7, 2.0


def conjugate(y: Tensor, sigma: float) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, PRIOR))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def exact_posterior() -> tuple[float, float]:
    """Mean and sd of the mean's posterior, normal with known variance."""
    precision = 1 / PRIOR**2 + len(Y) / SIGMA**2
    return float(Y.sum()) / SIGMA**2 / precision, precision**-0.5


def fitted(**settings: object) -> pyl.Fit:
    return pyl.fit(conjugate, {"y": Y, "sigma": SIGMA}, seed=3, **settings)  # type: ignore[arg-type]


def test_conjugate_normal_is_exact() -> None:
    result = fitted()
    mean, sd = exact_posterior()
    draws = result.samples["mean"]
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * float(mcse_mean(draws)))
    # The standard error of a sd is at most sd / sqrt(2 ess) for a normal; four of them.
    ess = float(result.diagnostics["mean"]["ess"])
    assert float(draws.std()) == pytest.approx(sd, abs=4 * sd / math.sqrt(2 * ess))
    assert result.warnings == ()
    assert float(result.diagnostics["mean"]["rhat"]) < 1.01
    assert ess > 1_000


def test_statistics_carry_the_names_of_arviz() -> None:
    result = fitted()
    names = {"lp", "energy", "diverging", "acceptance_rate", "step_size", "n_steps"}
    assert set(result.sample_stats) == names
    assert {tuple(values.shape) for values in result.sample_stats.values()} == {(64, 150)}
    draws = result.samples["mean"]
    prior, sigma = torch.tensor([PRIOR, SIGMA], dtype=torch.float64)
    likelihood = dist.Normal(draws[..., None], sigma).log_prob(Y).sum(-1)
    expected = dist.Normal(0.0, prior).log_prob(draws) + likelihood
    torch.testing.assert_close(result.sample_stats["lp"], expected, rtol=1e-10, atol=1e-10)


def test_one_seed_one_result_and_no_trace_of_it() -> None:
    before = torch.get_rng_state()
    first, second = fitted(), fitted()
    assert torch.equal(first.samples["mean"], second.samples["mean"])
    assert torch.equal(before, torch.get_rng_state())
    other = pyl.fit(conjugate, {"y": Y, "sigma": SIGMA}, seed=4)
    assert not torch.equal(first.samples["mean"], other.samples["mean"])
    fresh = pyl.fit(conjugate, {"y": Y, "sigma": SIGMA})
    assert torch.equal(
        fresh.samples["mean"], pyl.fit(conjugate, {"y": Y, "sigma": SIGMA}, seed=fresh.seed).samples["mean"]
    )


def test_arrays_series_lists_and_constants_are_taken() -> None:
    expected = fitted().samples["mean"]
    for y in (Y.numpy(), pd.Series(Y.numpy()), Y.tolist(), Y):
        result = pyl.fit(conjugate, {"y": y, "sigma": SIGMA}, seed=3)
        assert torch.equal(result.samples["mean"], expected)


def test_what_happens_to_the_data_after_the_fit_does_not_matter() -> None:
    y = Y.clone()
    result = pyl.fit(conjugate, {"y": y, "sigma": SIGMA}, seed=3)
    y.zero_()
    assert torch.equal(result.data["y"], Y)


def test_other_objects_pass_through_as_they_are() -> None:
    def model(names: list[str], ragged: list[list[int]], label: str, nothing: None, flag: bool) -> None:
        assert (names, ragged, label, nothing, flag) == (["a"], [[1], [2, 3]], "x", None, True)
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    data = {"names": ["a"], "ragged": [[1], [2, 3]], "label": "x", "nothing": None, "flag": True}
    assert pyl.fit(model, data, seed=0).samples["mean"].shape == (64, 150)


def test_float32_data_are_raised_to_the_dtype_of_the_fit() -> None:
    result = pyl.fit(conjugate, {"y": Y.float(), "sigma": SIGMA}, seed=3)
    assert result.samples["mean"].dtype is torch.float64
    single = pyl.fit(conjugate, {"y": Y, "sigma": SIGMA}, seed=3, dtype=torch.float32)
    assert single.samples["mean"].dtype is torch.float32
    assert float(single.samples["mean"].mean()) == pytest.approx(exact_posterior()[0], abs=0.05)


def test_settings_are_filled_in_and_kept() -> None:
    result = fitted(method=pyl.HMC(num_chains=16, num_warmup=60, num_draws=100))
    assert result.method == pyl.HMC(num_chains=16, num_warmup=60, num_draws=100)
    assert result.samples["mean"].shape == (16, 100)
    assert fitted().method == pyl.HMC(num_chains=64, num_warmup=75, num_draws=150)
    assert result.info["rung"] == "vmap"
    assert result.info["compiled"] is False


def test_a_model_without_plate_and_with_deterministics() -> None:
    def model(y: Tensor) -> None:
        x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        total = pyro.deterministic("total", x.sum())
        pyro.sample("y", dist.Normal(total, 1.0), obs=y)

    result = pyl.fit(model, {"y": 3.0}, seed=0)
    torch.testing.assert_close(result.samples["total"], result.samples["x"].sum(-1))
    # total ~ N(0, 2) a priori, observed with variance 1: posterior mean 3 * 2 / 3.
    assert float(result.samples["total"].mean()) == pytest.approx(
        2.0, abs=4 * float(mcse_mean(result.samples["total"]))
    )


def test_slower_rungs_sample_the_same_posterior() -> None:
    def branching(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, PRIOR))
        scale = SIGMA if float(mean) > -100 else 1.0
        pyro.sample("y", dist.Normal(mean, scale).expand([len(y)]).to_event(1), obs=y)

    with pytest.warns(pyl.FitWarning, match=r"one by one, which is slow \(vmap: Tensor.__float__ of"):
        result = pyl.fit(branching, {"y": Y}, pyl.HMC(num_warmup=100, num_draws=400), seed=3)
    assert result.info["rung"] == "eager"
    assert result.samples["mean"].shape == (4, 400)
    draws = result.samples["mean"]
    assert float(draws.mean()) == pytest.approx(exact_posterior()[0], abs=4 * float(mcse_mean(draws)))


def test_divergences_of_a_funnel_are_said_aloud() -> None:
    def funnel() -> None:
        width = pyro.sample("width", dist.Normal(0.0, 3.0))
        pyro.sample("x", dist.Normal(torch.zeros(9), (width / 2).exp()).to_event(1))

    with pytest.warns(pyl.FitWarning):
        result = pyl.fit(funnel, {}, seed=0)
    assert any(re.search(r"^\d+ of 9600 transitions diverged.*Reparameterise", m) for m in result.warnings)
    assert int(result.sample_stats["diverging"].sum()) > 0


def test_two_modes_are_said_aloud() -> None:
    def modes() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 20.0))
        pyro.factor("wells", torch.logsumexp(dist.Normal(torch.tensor([-9.0, 9.0]), 0.2).log_prob(x * 10), 0))

    with pytest.warns(pyl.FitWarning):
        result = pyl.fit(modes, {}, seed=0)
    assert any(m.startswith("Nested R-hat of 'x'") and "several modes" in m for m in result.warnings)


def test_predictions_of_the_conjugate_normal() -> None:
    result = fitted()
    draws = pyl.predict(result, num_draws=2_000)["y"]
    assert draws.shape == (2_000, 5)
    mean, sd = exact_posterior()
    assert float(draws.mean()) == pytest.approx(
        mean, abs=5 * math.hypot(sd, SIGMA / math.sqrt(5)) / math.sqrt(1_000)
    )
    # Within a draw the rows share the mean: the variance of a cell is that of the mean plus sigma^2.
    assert float(draws.var(0).mean()) == pytest.approx(sd**2 + SIGMA**2, rel=5 * math.sqrt(2 / 2_000))
    more = pyl.predict(result, {"y": torch.zeros(3), "sigma": 0.01}, num_draws=50)["y"]
    assert more.shape == (50, 3)
    assert float(more.std(1).max()) < 0.05
    assert torch.equal(pyl.predict(result, num_draws=7)["y"], pyl.predict(result, num_draws=7)["y"])


def refused(
    error: type[Exception], match: str, model: object = conjugate, data: object = None, **settings: object
) -> None:
    with pytest.raises(error, match=match):
        pyl.fit(model, {"y": Y, "sigma": SIGMA} if data is None else data, seed=0, **settings)  # type: ignore[arg-type]


def test_arguments_of_the_model_must_match_the_data() -> None:
    refused(
        pyl.ModelError,
        r"missing in the data: \['sigma'\]; unknown to the model: \['sd'\]; "
        r"the model takes \['y', 'sigma'\]; the data hold \['y', 'sd'\]",
        data={"y": Y, "sd": 1.0},
    )


def test_arguments_of_the_guide_must_match_the_data() -> None:
    def guide(y: Tensor) -> None:
        pyro.sample("mu", dist.Normal(0.0, 1.0))

    match = r"the guide's arguments.* unknown to the guide: \['sigma'\]"
    refused(pyl.ModelError, match, method=pyl.SVI(num_steps=1), guide=guide)


def test_default_arguments_may_be_left_out() -> None:
    def model(y: Tensor, sigma: float = SIGMA) -> None:
        conjugate(y, sigma)

    result = pyl.fit(model, {"y": Y}, seed=3)
    assert torch.equal(result.samples["mean"], fitted().samples["mean"])


def test_a_density_that_is_not_finite_is_taken_apart() -> None:
    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Exponential(mean.exp()), obs=y)

    y = torch.tensor([1.0, float("nan")])
    match = r"not finite at the start: log-probabilities at the last: mean -.*, y nan.*NaN: \{'y': 1\}"
    refused(pyl.ModelError, match, model, {"y": y})


def test_unequal_rows_parameters_and_nonsense_are_refused() -> None:
    def two(x: Tensor, y: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    def learnable(y: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(()))
        pyro.sample("mean", dist.Normal(0.0, scale))

    refused(
        pyl.DataError,
        r"unequal row counts: rows: \{'x': 2, 'y': 3\}",
        two,
        {"x": torch.ones(2), "y": torch.ones(3)},
    )
    refused(
        pyl.ModelError,
        r"parameters \['scale'\]: the model has learnable parameters, and HMC learns none",
        learnable,
        {"y": Y},
        method=pyl.HMC(),
    )
    refused(pyl.ModelError, "the model is not a function: got int", 3)
    refused(
        pyl.ModelError,
        r"arguments \['sigma'\]: arguments that are no columns: the columns are \['y'\]",
        data=pd.DataFrame({"y": [1.0, 2.0]}),
    )


def test_predictions_for_rows_without_latents_are_refused() -> None:
    def schools(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("data", len(y)):
            effect = pyro.sample("effect", dist.Normal(mean, 1.0))
            pyro.sample("y", dist.Normal(effect, 1.0), obs=y)

    result = pyl.fit(schools, {"y": Y}, seed=0)
    message = r"sites \['effect'\], 5 rows in the fit: .*latents of each row, and they do not fit these rows"
    with pytest.raises(pyl.ModelError, match=message):
        pyl.predict(result, {"y": torch.zeros(3)})


def test_arguments_of_the_wrong_kind_are_named() -> None:
    refused(pyl.ArgumentError, "the method is not a method: got 'hmc'", method="hmc")
    refused(pyl.ArgumentError, "HMC has no use for a guide", method=pyl.HMC(), guide=lambda y, sigma: None)
    refused(
        pyl.ArgumentError,
        "dtype must be torch.float32 or torch.float64: got torch.float16",
        dtype=torch.float16,
    )
    refused(pyl.DataError, "the data are neither a table nor a dictionary: got list", data=[1.0, 2.0])
    for seed in (-1, 1.5):
        with pytest.raises(pyl.ArgumentError, match=f"a seed is a whole number from 0: got {seed}"):
            pyl.fit(conjugate, {"y": Y, "sigma": SIGMA}, seed=seed)  # type: ignore[arg-type]


def test_arguments_of_a_module_are_those_of_its_forward() -> None:
    class Program(PyroModule):  # type: ignore[misc]
        def forward(self, y: Tensor) -> None:
            conjugate(y, SIGMA)

    refused(pyl.ModelError, r"missing in the data: \['y'\]; unknown .*\['x'\]", Program(), {"x": Y})
    assert torch.equal(pyl.fit(Program(), {"y": Y}, seed=3).samples["mean"], fitted().samples["mean"])


def test_predictions_without_data_and_through_point_masses() -> None:
    def line(x: Tensor, y: Tensor | None = None) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        mean = pyro.sample("line", dist.Delta(slope * x).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.1), obs=y)

    x = torch.linspace(1, 2, 20, dtype=torch.float64)
    result = pyl.fit(line, {"x": x, "y": 3 * x}, seed=0)
    drawn = pyl.predict(result, {"x": torch.tensor([100.0])}, num_draws=50)
    assert isinstance(drawn, dict)
    assert list(drawn) == ["y"]
    assert drawn["y"].shape == (50, 1)
    assert float(drawn["y"].mean()) == pytest.approx(300, rel=0.02)


@pytest.mark.parametrize(("name", "value"), [("num_chains", 0), ("num_warmup", 5), ("num_draws", 9)])
def test_settings_without_meaning_are_refused(name: str, value: int) -> None:
    with pytest.raises(pyl.ArgumentError, match=f"{name} is too small: got {value}"):
        pyl.HMC(**{name: value})


def test_an_interrupted_run_is_a_fit_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrolatent.infer.sampler import Sampler

    report, calls = Sampler.report, []

    def interrupt(self: Sampler, stage: str, *rest: object) -> None:
        report(self, stage, *rest)  # type: ignore[arg-type]
        calls.append(stage)
        if calls.count("draws") == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(Sampler, "report", interrupt)
    with pytest.warns(pyl.FitWarning):
        result = fitted()
    assert "Interrupted after 20 of 150 draws a chain. Fit again for the full number." in result.warnings
    assert result.samples["mean"].shape == (64, 20)
    assert result.sample_stats["lp"].shape == (64, 20)


def test_a_fit_is_silent_where_nobody_watches(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted()
    assert capfd.readouterr() == ("", "")


def test_public_names_are_documented() -> None:
    for name in pyl.__all__:
        assert inspect.getdoc(getattr(pyl, name)), name


def test_numpy_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    fitted()
    assert (np.random.get_state()[1] == before).all()
