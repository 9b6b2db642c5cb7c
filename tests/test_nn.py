"""Heads and encoders against SciPy, and weights that belong to a fit."""

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pyrolatent import SVI, fit, infer_schema
from pyrolatent.column import Column
from pyrolatent.counts import LargeCounts
from pyrolatent.encoded import Encoded
from pyrolatent.models import VAE
from pyrolatent.nn import EmbeddingEncoder, Network, RowDecoder, RowEncoder
from pyrolatent.nn.heads import SCALE_FLOOR, between, num_levels

FEATURES, ROWS = 3, 5


def table(num_rows: int = 200) -> pd.DataFrame:
    """One column of each kind, two of some."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "real": rng.normal(3, 2, num_rows),
            "stars": rng.integers(1, 6, num_rows),
            "positive": rng.lognormal(0, 1, num_rows),
            "count": rng.poisson(30, num_rows),
            "binary": rng.random(num_rows) < 0.3,
            "colour": rng.choice(["red", "green", "blue"], num_rows),
            "unit": rng.beta(0.6, 0.6, num_rows),
            "other real": rng.normal(-1, 1, num_rows),
            "size": pd.Categorical(rng.choice(["S", "M", "L"], num_rows), ["S", "M", "L"], ordered=True),
        }
    )


@pytest.fixture
def columns() -> tuple[Column, ...]:
    schema = infer_schema(table())
    kinds = ["real", "ordinal", "positive", "count", "binary", "categorical", "unit", "real", "ordinal"]
    assert [column.kind for column in schema.modelled] == kinds
    return schema.modelled


@pytest.fixture
def decoder(columns: tuple[Column, ...]) -> RowDecoder:
    torch.manual_seed(0)
    return RowDecoder(columns, (4,), FEATURES).double()


def cells(decoder: RowDecoder, z: Tensor) -> dict:
    return dict(decoder(z))


def z_of(num_rows: int = ROWS) -> Tensor:
    return torch.randn(num_rows, FEATURES, generator=torch.Generator().manual_seed(1)).double()


def test_columns_of_a_kind_share_a_head(decoder: RowDecoder) -> None:
    found = cells(decoder, z_of())
    assert list(found) == [
        ("real", "positive", "unit", "other real"),
        ("stars",),
        ("count",),
        ("binary",),
        ("colour",),
        ("size",),
    ]
    assert all(part.batch_shape == (ROWS, len(names)) for names, part in found.items())


def test_scales_begin_at_one_and_have_a_floor(decoder: RowDecoder) -> None:
    scale = cells(decoder, z_of())["real", "positive", "unit", "other real"].scale
    torch.testing.assert_close(scale, torch.full_like(scale, 1 + SCALE_FLOOR))
    with torch.no_grad():
        decoder.heads[0].raw_scale.fill_(-100.0)
    scale = cells(decoder, z_of())["real", "positive", "unit", "other real"].scale
    torch.testing.assert_close(scale, torch.full_like(scale, SCALE_FLOOR))


def test_heavy_tails_are_those_of_student(columns: tuple[Column, ...]) -> None:
    heavy = RowDecoder(columns, (), FEATURES, heavy_tails=True).double()
    cell = cells(heavy, z_of())["real", "positive", "unit", "other real"]
    expected = stats.t.logpdf(
        0.3, cell.df.detach().numpy(), cell.loc.detach().numpy(), cell.scale.detach().numpy()
    )
    torch.testing.assert_close(cell.log_prob(torch.tensor(0.3).double()), torch.tensor(expected))


def test_counts_are_negative_binomial_in_their_own_units(
    decoder: RowDecoder, columns: tuple[Column, ...]
) -> None:
    (cell,) = (part for names, part in cells(decoder, z_of()).items() if names == ("count",))
    column = columns[3]
    number = torch.tensor([0.0, 3.0, 30.0, 60.0, 300.0]).double()[:, None]
    found = cell.log_prob((number - column.location) / column.scale)
    total = cell.numbers.total_count.detach().numpy()
    expected = stats.nbinom.logpmf(number.numpy(), total, 1 - cell.numbers.probs.detach().numpy())
    torch.testing.assert_close(found, torch.tensor(expected))
    # a network that knows nothing yet begins near the mean of the column
    mean = cell.numbers.mean.detach()
    assert float(mean.log().sub(np.log(column.location)).abs().max()) < 2


def test_ordinal_levels_are_slices_of_a_logistic_number(
    decoder: RowDecoder, columns: tuple[Column, ...]
) -> None:
    cell = cells(decoder, z_of())[("stars",)]
    column, z = columns[1], z_of()
    assert num_levels(column) == 5
    levels = (torch.arange(1.0, 6.0).double() - column.location) / column.scale
    found = cell.log_prob(levels[:, None, None]).exp()  # (5, N, 1)
    head, features = decoder.heads[1], torch.cat([z, decoder.body(z)], -1)
    raw = head.raw_thresholds[0].detach().numpy()
    edges = np.cumsum([raw[0], *np.log1p(np.exp(raw[1:]))])
    below = stats.logistic.cdf(edges[:, None] - head.location(features).detach().numpy()[:, 0])
    expected = np.diff(below, axis=0, prepend=0, append=1)
    torch.testing.assert_close(found[..., 0], torch.tensor(expected))


def test_levels_far_out_keep_their_logarithms() -> None:
    edges = torch.tensor([[40.0, 41.0, 900.0], [-900.0, -40.0, -39.0]]).double()
    found = between(edges)
    expected = torch.tensor(
        [
            stats.logistic.logsf(40) + np.log1p(-np.exp(-1)),  # between 40 and 41
            stats.logistic.logcdf(-39) + np.log1p(-np.exp(-1)),
        ]
    )
    torch.testing.assert_close(torch.stack([found[0, 1], found[1, 2]]), expected)
    torch.testing.assert_close(found.logsumexp(-1), torch.zeros(2).double())


def test_a_cell_that_is_no_whole_number_is_outside() -> None:
    encoded = Encoded(torch.distributions.Poisson(torch.ones(2)), torch.tensor([3.0, 0.0]), torch.tensor(2.0))
    inside = encoded.support.check(torch.tensor([[-1.0, 2.5], [-1.25, -0.5]]))
    assert inside.tolist() == [[True, True], [False, False]]


def test_an_encoder_sees_nothing_of_missing_cells(columns: tuple[Column, ...]) -> None:
    random = torch.Generator().manual_seed(2)
    x = torch.randint(0, 2, (ROWS, len(columns)), generator=random).double()
    mask = torch.rand(ROWS, len(columns), generator=random) < 0.5
    for encoder in (RowEncoder(columns, (4,), FEATURES), EmbeddingEncoder(columns, 4, FEATURES)):
        found = encoder.double()(x, mask)
        other = encoder(torch.where(mask, x, 17.0), mask)
        assert found.event_shape == (FEATURES,)
        torch.testing.assert_close(found.mean, other.mean, rtol=0, atol=0)
        torch.testing.assert_close(found.variance, other.variance, rtol=0, atol=0)


def test_an_encoder_does_not_take_labels_for_numbers(columns: tuple[Column, ...]) -> None:
    """Three labels have three indicators: what the middle one says is not between the others."""
    encoder = RowEncoder(columns, (), FEATURES)
    assert encoder.head.location.in_features == (len(columns) + 2) + len(columns)


def test_weights_belong_to_a_run() -> None:
    network = Network("line", lambda: nn.Linear(2, 1))
    found = []
    for seed in (0, 0, 1):
        with pyro.get_param_store().scope():
            torch.manual_seed(seed)
            found.append(network(torch.ones(2)).detach())
            assert set(pyro.get_param_store().keys()) == {"line.weight", "line.bias"}
            torch.testing.assert_close(network(torch.ones(2)), found[-1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert all(parameter.is_meta for parameter in network.structure.parameters())


def test_large_counts_are_exact_in_float32() -> None:
    counts = torch.tensor([0.0, 3.0, 1e4, 3e5, 2e6])
    number, mean = 0.7, 1e5
    found = LargeCounts(torch.tensor(number), logits=torch.tensor(mean / number).log()).log_prob(counts)
    expected = stats.nbinom.logpmf(counts.double().numpy(), number, number / (number + mean))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_large_counts_survive_standardisation_in_float32() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"amount": rng.negative_binomial(1, 1e-6, 500), "other": rng.normal(size=500)})
    schema = infer_schema(frame)
    assert schema.modelled[0].kind == "count"
    method = SVI(num_steps=3)
    assert fit(VAE(schema, 1), frame, method, seed=0, progress=False).problem.dtype is torch.float32
