"""What a run of chains refuses before it begins, and what it holds and keeps as it goes."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.cli import main
from pyrolatent.infer.kept_draws import AHEAD, Draws
from pyrolatent.infer.sampler import Sampler
from pyrolatent.infer.start import begin_at
from pyrolatent.ranks import Ranks
from pyrolatent.result import Fit

SHORT = pyl.HMC(num_chains=16, num_warmup=20, num_draws=40)
TREES = pyl.NUTS(num_chains=2, num_warmup=20, num_draws=20)
Model = Callable[[Tensor], None]


def normal(centre: float, dim: int = 1) -> Model:
    """A model of the same name whatever its prior."""

    def model(y: Tensor) -> None:
        means = pyro.sample("means", dist.Normal(centre * torch.ones(dim), 1.0).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(means[0], 1.0), obs=y)

    return model


def fitted(
    model: Model, method: pyl.HMC | pyl.NUTS = SHORT, folder: Path | None = None, **kept: int | bool
) -> Fit:
    data = {"y": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        return pyl.fit(model, data, method, seed=0, progress=False, compile=False, checkpoint=folder, **kept)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--checkpoint", "out"], "Error: {out}: the checkpoint would be in the way of the fit. "),
        (["--checkpoint", "out/kept"], "Error: {out}: the checkpoint would be in the way of the fit. "),
        (["--resume"], "Error: --resume needs a checkpoint. name its folder with --checkpoint."),
        (["--checkpoint-every", "9"], "Error: --checkpoint-every needs a checkpoint. "),
    ],
)
def test_options_of_a_checkpoint_are_checked_before_the_table_is_read(
    options: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["fit", "absent.csv", "--out", "out", *options])
    assert result.exit_code == 1
    assert result.stderr.startswith(expected.format(out="out"))
    assert list(tmp_path.iterdir()) == []


def test_all_processes_refuse_what_one_of_them_cannot_begin_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others wait for it."""

    def positive(position: Tensor) -> tuple[Tensor, Tensor]:
        return position.log().sum(-1), 1 / position

    def gather(ranks: Ranks, part: Tensor) -> Tensor:  # the second process is at points of no density
        return torch.cat([part, torch.zeros_like(part)])

    monkeypatch.setattr(Ranks, "gather", gather)
    draws, flat = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.ones(1, 1)
    with pytest.raises(pyl.ModelError, match="not finite at draws of the fit to start from: 4 of 8 chains"):
        begin_at(positive, draws, 8, 2, flat, Ranks(0, 2))


@pytest.mark.parametrize("value", [50.5, float("nan"), "9"])
def test_numbers_of_draws_are_whole(value: object) -> None:
    with pytest.raises(pyl.ArgumentError, match=f"num_draws is no whole number: got {value!r}"):
        pyl.HMC(num_draws=value)  # type: ignore[arg-type]


def test_draws_are_held_in_the_order_in_which_they_come() -> None:
    position = torch.randn(3, 11, 2, generator=torch.Generator().manual_seed(0))
    held = Draws(11)
    for piece in position.split([1, 1, 1, 4, 1, 3], 1):  # room grows at the first, third and fourth
        held.extend({"position": piece, "lp": piece[..., 0]})
        assert torch.equal(held.since()["position"], position[:, : held.number])
        assert torch.equal(held.since(2)["lp"], position[:, 2 : held.number, 0])
    assert held.number == 11


def test_draws_that_still_are_on_the_device_are_among_those_returned() -> None:
    position = torch.randn(3, 2 * AHEAD + 7, 2, generator=torch.Generator().manual_seed(0))
    held = Draws(len(position[0]))
    for number, draw in enumerate(position.unbind(1), 1):
        held.append(draw, {"lp": draw[:, 0]})
        assert held.number == number
        if number in (1, AHEAD, AHEAD + 3):
            assert torch.equal(held.since()["position"], position[:, :number])
    assert torch.equal(held.since(4)["lp"], position[:, 4:, 0])


def test_a_budget_takes_no_memory_before_it_is_used() -> None:
    """A thousand million draws of 16 chains are 128 GB for each number."""
    result = fitted(normal(0.0), pyl.HMC(num_chains=16, num_warmup=20, num_draws=10**9, target_ess=300))
    assert result.draw_shape == (16, 100)


@pytest.mark.parametrize("method", [SHORT, TREES], ids=["hmc", "nuts"])
@pytest.mark.parametrize("other", [normal(5.0), normal(0.0, 2)], ids=["prior", "dimensions"])
def test_a_run_of_a_model_that_was_edited_is_not_gone_on_with(
    method: pyl.HMC | pyl.NUTS, other: Model, tmp_path: Path
) -> None:
    whole = fitted(normal(0.0), method, tmp_path)
    again = fitted(normal(0.0), method, tmp_path, resume=True)
    assert torch.equal(again.samples["means"], whole.samples["means"])
    with pytest.raises(
        pyl.StoreError, match="is the checkpoint of another model: the log density of its chains"
    ):
        fitted(other, method, tmp_path, resume=True)


def test_an_interrupted_run_is_kept_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it can be resumed, so there is a checkpoint before one was due."""
    report, calls = Sampler.report, []

    def interrupt(self: Sampler, *rest: object) -> None:
        report(self, *rest)  # type: ignore[arg-type]
        calls.append(rest)
        if len(calls) == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "report", interrupt)
        part = fitted(normal(0.0), folder=tmp_path, checkpoint_every=1_000)
    assert part.draw_shape == (16, 10)
    assert part.warnings[0].startswith("Interrupted after 10 of 40 draws a chain. Pass resume=")
    again, whole = fitted(normal(0.0), folder=tmp_path, resume=True), fitted(normal(0.0))
    assert torch.equal(again.samples["means"], whole.samples["means"])
