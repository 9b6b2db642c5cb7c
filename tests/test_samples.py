"""Draws of all sites come piece by piece, and are those that one piece would give."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyrolatent.capture import density as under_test
from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.ladder import MAX_POINTS
from tests import user_models as um
from tests.fake_device import DEVICE, OnDevice, fake_device, moved


def two_discrete_sites(y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    flip = pyro.sample("flip", dist.Bernoulli(0.3))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.6])))
        label = pyro.deterministic("label", 2 * z + flip)
        pyro.sample("y", dist.Normal(loc[z] + flip, 1.0), obs=y)
        pyro.deterministic("shifted", label + loc[0])


def in_place(y: Tensor) -> None:
    """Runs at points one by one: it reads a latent value."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.deterministic("sign", torch.tensor(1.0 if loc.item() > 0 else -1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y)


ROWS = {"y": torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)}
MODELS: dict[str, um.UserModel] = {
    "mvn": um.MVN,
    "eight_schools": um.REFERENCES["eight_schools-eight_schools_noncentered"],
    "mixture": um.RUNG_BAR["mixture"],
    "hidden_markov": um.RUNG_BAR["hidden_markov"],
    "two_discrete_sites": (two_discrete_sites, lambda: ROWS),
    "in_place": (in_place, lambda: ROWS),
}


def density_and_positions(name: str, num_draws: int) -> tuple[LogDensity, Tensor]:
    model, data = MODELS[name]
    density = capture_density(model, data(), seed=0)
    random = torch.Generator().manual_seed(1)
    return density, torch.randn(3, num_draws, density.dim, generator=random, dtype=torch.float64)


def whole(density: LogDensity, position: Tensor, seed: int) -> dict[str, Tensor]:
    """Everything at once."""
    flat = position.flatten(0, 1)
    discrete = density.discrete(flat, under_test.generator(seed, "discrete"))
    found = density.constrain(flat, discrete)
    return {name: values.unflatten(0, position.shape[:2]) for name, values in found.items()}


@pytest.mark.parametrize("name", MODELS)
def test_pieces_of_full_batches_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    num_draws = 100 if density_and_positions(name, 1)[0].batched.vectorised else 5
    density, position = density_and_positions(name, num_draws)
    expected = whole(density, position, seed=7)
    cells = under_test.MAX_CELLS // density.points_at_once
    monkeypatch.setattr(under_test, "MAX_CELLS", 2 * cells * MAX_POINTS if num_draws == 100 else 2 * cells)
    assert density.points_at_once < 3 * num_draws
    found = density.samples(position, 7)
    assert list(found) == list(expected)
    for site, values in expected.items():
        assert found[site].dtype == values.dtype
        assert torch.equal(found[site], values)


@pytest.mark.parametrize("name", ["mvn", "mixture", "two_discrete_sites"])
def test_draws_do_not_depend_on_the_cut(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    density, position = density_and_positions(name, 20)
    expected = whole(density, position, seed=7)
    for cells in (1, 40 * under_test.MAX_CELLS // density.points_at_once):  # one point, a few, at a time
        monkeypatch.setattr(under_test, "MAX_CELLS", cells)
        found = density.samples(position, 7)
        # batches of another size may round otherwise
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()


def test_the_device_holds_no_more_with_ten_times_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = MODELS["two_discrete_sites"]
    monkeypatch.setattr(under_test, "MAX_CELLS", 4_000)
    constrain, sizes = LogDensity.constrain, []

    def counted(self: LogDensity, position: Tensor, discrete: dict[str, Tensor]) -> dict[str, Tensor]:
        found = constrain(self, position, discrete)
        assert all(isinstance(values, OnDevice) for values in found.values())
        sizes.append((len(position), sum(values.numel() for values in found.values())))
        return found

    monkeypatch.setattr(LogDensity, "constrain", counted)
    with fake_device():
        density = capture_density(model, moved(data()), seed=0, device=DEVICE)
        for num_draws in (100, 1_000):
            sizes.clear()
            found = density.samples(torch.zeros(2, num_draws, density.dim, dtype=torch.float64), 0)
            assert all(values.shape[:2] == (2, num_draws) for values in found.values())
            assert not any(isinstance(values, OnDevice) for values in found.values())
            points, cells = zip(*sizes, strict=True)
            assert sum(points) == 2 * num_draws
            assert max(points) == density.points_at_once
            assert max(cells) <= under_test.MAX_CELLS
