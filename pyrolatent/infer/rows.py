"""Rows of the data: which entries hold them, and how they are dealt out in batches.

Batches wrap around the shuffled epoch: all have one size, and no row is left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any, final

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrolatent.capture.messages import DATA_PLATE, Message, in_data_plate
from pyrolatent.capture.sites import SiteTable
from pyrolatent.errors import ModelError
from pyrolatent.pair import FunctionPair, Model, Pair
from pyrolatent.ranks import Ranks

MAX_AHEAD = 64  # batches gathered at once
# What to do where rows cannot be dealt out:
WHOLE = "leave out batch_size, validation_fraction and num_refits, and fit in one process"


@final
@dataclass(frozen=True)
class RowData:
    """The data of a model, rows apart from what all rows share."""

    rows: dict[str, Tensor]  # (N, ...) each
    constants: dict[str, Any]
    num_rows: int

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return the rows at `index (..., B)` as `(..., B, ...)`."""
        return {name: value[index] for name, value in self.rows.items()}


def split_rows(data: Mapping[str, Any], num_rows: int) -> RowData:
    """Take apart entries whose first dimension is that of the data plate, and all others."""
    rows = {n: v for n, v in data.items() if isinstance(v, Tensor) and v.ndim and len(v) == num_rows}
    return RowData(rows, {name: value for name, value in data.items() if name not in rows}, num_rows)


@final
class Epochs:
    """Shuffled epochs of rows, one after the other, cut into batches; some batches are dealt at a time.

    Attributes:
        block: Positions `(K, batch_size)` of the batches dealt last; K is such that little memory is
            needed to gather the rows of all K at once.
        before: Batches dealt before these.
    """

    def __init__(self, num_rows: int, batch_size: int, random: torch.Generator) -> None:
        self.num_rows, self.random = num_rows, random
        self.ahead = max(1, min(MAX_AHEAD, num_rows // batch_size))
        self.left = torch.empty(0, dtype=torch.long, device=random.device)
        self.block = self.left.view(0, batch_size)
        self.before = 0

    def deal(self) -> Tensor:
        """Return the next block."""
        size = self.ahead * self.block.shape[1]
        while len(self.left) < size:
            epoch = torch.randperm(self.num_rows, generator=self.random, device=self.random.device)
            self.left = torch.cat([self.left, epoch])
        self.before += len(self.block)
        self.block, self.left = self.left[:size].view(self.ahead, -1), self.left[size:]
        return self.block

    @property
    def state(self) -> dict[str, Any]:
        """What the next block depends on, and the last one."""
        random = self.random.get_state()
        return {"random": random, "left": self.left, "block": self.block, "before": self.before}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"])
        self.left, self.block, self.before = state["left"], state["block"], state["before"]


@final
@dataclass(frozen=True)
class Stream:
    """The rows of each step, of which every process gets its share.

    Attributes:
        data: All rows.
        train: Positions of those to learn from, by refit `(R, M)`.
        epochs: How they are cut into batches; None where each step has all of them, or none.
        ranks: The processes that share each batch.
    """

    data: RowData
    train: Tensor
    epochs: Epochs | None
    ranks: Ranks

    def after(self, done: int) -> Iterator[list[Tensor]]:
        """Yield the rows of each step after the first `done`, `(R, B, ...)` an entry."""
        if self.epochs is None:
            whole = self.data.take(self.ranks.share(self.train, 1)) if self.data.rows else {}
            yield from repeat(list(whole.values()))
        else:
            yield from self.dealt(self.epochs, done - self.epochs.before)

    def dealt(self, epochs: Epochs, skipped: int) -> Iterator[list[Tensor]]:
        """Yield the rows of batches after the first `skipped` of the block dealt last."""
        while True:
            if skipped == len(epochs.block):
                epochs.deal()
                skipped = 0
            index = self.train[:, self.ranks.share(epochs.block, 1)].transpose(0, 1)  # (K, R, B)
            parts = self.data.take(index).values()
            yield from (list(rows) for rows in islice(zip(*parts, strict=True), skipped, None))
            skipped = len(epochs.block)

    @property
    def state(self) -> dict[str, Any]:
        """Where in the epochs it stands."""
        return {} if self.epochs is None else self.epochs.state

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.epochs is not None:
            self.epochs.restore(state)


@final
class ScaledRows(Messenger):
    """Scales every site of the data plate, so that a batch speaks for all rows."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def _pyro_sample(self, message: Message) -> None:
        if in_data_plate(message):
            message["scale"] = message["scale"] * self.scale


def scaled(pair: Pair, scale: float) -> Pair:
    """Return the pair with its rows counted `scale` times; `pair` itself where that is once."""
    if scale == 1 or pair.guide is None:
        return pair

    def of(program: Model) -> Callable[..., Any]:
        def run(**data: Any) -> Any:
            with ScaledRows(scale):
                return program(**data)

        return run

    return FunctionPair(of(pair.model), of(pair.guide))


def check_batches(pair: Pair, data: RowData, sites: SiteTable, batch_size: int) -> None:
    """Run model and guide on fewer rows and refuse those whose plate does not follow the rows.

    Raises:
        ModelError: An observed site stands outside of the data plate, or the plate keeps its size.
    """
    outside = [name for name, site in sites.observed.items() if DATA_PLATE not in site.plates]
    if outside or not data.rows:
        raise ModelError(
            "rows can be dealt out only with every observation in plate 'data'",
            where=f"sites {outside}" if outside else "",
            why="what stands outside of it cannot be divided into batches, or among processes",
            remedy=f"observe it inside `with pyro.plate('data', len(x))`, or {WHOLE}",
        )
    size = max(1, min(batch_size, data.num_rows - 1))
    check_size("model", pair.model, data, size)
    if pair.guide is not None:
        check_size("guide", pair.guide, data, size)


def check_size(part: str, program: Model, data: RowData, size: int) -> None:
    """Refuse a program whose plate does not have the `size` of its rows; a guide may have none."""
    index = torch.arange(size, device=next(iter(data.rows.values())).device)
    sizes: set[int] | None = None
    try:
        trace = pyro.poutine.trace(program).get_trace(**data.constants, **data.take(index))
        nodes = trace.nodes.values()
        frames = [frame for node in nodes if node["type"] == "sample" for frame in node["cond_indep_stack"]]
        sizes = {frame.size for frame in frames if frame.name == DATA_PLATE}
        why = f"with {size} rows its size is {sorted(sizes)}"
    except (RuntimeError, ValueError, IndexError) as error:
        why = f"with {size} rows the {part} fails: {error}"
    if sizes == {size} or (part == "guide" and sizes == set()):
        return
    raise ModelError(
        f"the size of plate 'data' does not follow the rows that the {part} is given",
        where="plate 'data'",
        why=why,
        remedy=f"write pyro.plate('data', len(x)) with x an argument of the {part}, and make what belongs "
        f"to single rows from the rows; or {WHOLE}",
    )
