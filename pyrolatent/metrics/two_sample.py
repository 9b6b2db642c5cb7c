"""Can a classifier tell the rows of two tables apart?"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.nn import mlp
from pyrolatent.nn.encoders import features, levels_of
from pyrolatent.objectives import check_positive
from pyrolatent.schema import infer_schema
from pyrolatent.seeds import generator, numpy_generator, seeded

STREAM = "classifier two-sample test"
LEAST_ROWS = 4  # of each table
BATCH = 256
RATE, DECAY = 3e-3, 1e-2  # of AdamW


class TwoSample(NamedTuple):
    """What a classifier learnt about which table a row is from.

    Attributes:
        accuracy: Its share of right answers on rows held out; 1/2 of rows from one distribution.
        p_value: Of answers as good or better, were the tables from one distribution.
        num_held_out: Rows held out, of both tables together.
    """

    accuracy: float
    p_value: float
    num_held_out: int


def classifier_two_sample(
    first: pd.DataFrame,
    second: pd.DataFrame,
    hidden: Sequence[int] = (64,),
    num_steps: int = 500,
    seed: int = 0,
) -> TwoSample:
    """Return whether a network tells the rows of two tables apart (Lopez-Paz and Oquab, 2017, section 3).

    It learns from half of the rows of each table and answers for the others.  Were both tables from one
    distribution, its right answers would be binomial with probability 1/2, whatever it has learnt.  It sees
    the columns of a row together, and which cells are missing, and so what marginals and correlations do
    not show.  A small p-value says that the tables differ; a large one that this network, from so many
    rows, did not find out.

    Rows must be independent of each other, so a table and its reconstruction cannot be compared.

    Args:
        first: `(N, D)`, columns of all kinds; missing cells are allowed.
        second: `(M, D)`.  Of the larger table as many rows are picked as the other has.
        hidden: Features of each hidden layer.
        num_steps: Steps of the optimiser, of up to 256 rows each.
        seed: Of the rows that are held out, the network and its training.

    Raises:
        ArgumentError: `num_steps` is not positive, or a layer has no features.
        DataError: A table has fewer than 4 rows, they have no column in common, or one of these cannot be
            encoded (`infer_schema`), a constant one, say.
    """
    from scipy.stats import binom  # slow to import

    check_settings(hidden, num_steps)
    rows, labels, held_out = encoded_rows(first, second, seed)
    network = trained(rows[~held_out], labels[~held_out], hidden, num_steps, seed)
    with torch.no_grad():
        right = int(((network(rows[held_out])[:, 0] > 0) == (labels[held_out] > 0)).sum())
    number = int(held_out.sum())
    return TwoSample(right / number, float(binom.sf(right - 1, number, 0.5)), number)


def encoded_rows(first: pd.DataFrame, second: pd.DataFrame, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return equally many rows of both tables as features `(R, F)`, 1 or 0 `(R,)`, and which to hold out.

    Columns are scaled by all rows, from whichever table.

    Raises:
        DataError: There are too few rows or columns, or one that cannot be encoded.
    """
    names, number = [name for name in first if name in second], min(len(first), len(second))
    if number < LEAST_ROWS or not names:
        raise DataError(
            "the tables cannot be compared",
            why=f"{len(first)} and {len(second)} rows, columns {names} in both",
            remedy=f"pass tables of {LEAST_ROWS} rows at least, with the same columns",
        )
    random = numpy_generator(seed, STREAM)
    picked = [table[names].iloc[random.permutation(len(table))[:number]] for table in (first, second)]
    pooled = pd.concat(picked, ignore_index=True)
    schema = infer_schema(pooled)
    data = schema.encode(pooled)
    seen = data["mask"].to(data["x"])
    rows = torch.cat([features(data["x"], seen, levels_of(schema.modelled)), seen], 1).float()
    labels = (torch.arange(2 * number) < number).float()
    return rows, labels, torch.arange(2 * number) % number >= number // 2


def trained(rows: Tensor, labels: Tensor, hidden: Sequence[int], num_steps: int, seed: int) -> nn.Module:
    """Return a network from rows `(R, F)` to log-odds `(R, 1)`, trained on labels `(R,)`."""
    with seeded(seed, STREAM):
        network = nn.Sequential(mlp([rows.shape[1], *hidden]), nn.Linear([rows.shape[1], *hidden][-1], 1))
    network = network.float()
    random = generator(seed, STREAM, "batches")
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    for _ in range(num_steps):
        batch = torch.randperm(len(rows), generator=random)[:BATCH]
        loss = binary_cross_entropy_with_logits(network(rows[batch])[:, 0], labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def check_settings(hidden: Sequence[int], num_steps: int) -> None:
    """Refuse layers without features, and no training.

    Raises:
        ArgumentError: With what was given.
    """
    check_positive("num_steps", num_steps)
    if any(size < 1 for size in hidden):
        raise ArgumentError("a hidden layer has no features", why=f"got hidden={tuple(hidden)}")
