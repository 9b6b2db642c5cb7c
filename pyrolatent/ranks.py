"""Processes that work on one fit together, as `torchrun` starts them.

Where a process group of `torch.distributed` runs, a fit belongs to all of its processes: each has a
share of the chains or of the rows, and all return the same fit.  Without one, a process is alone, and
every operation here returns what it was given.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch import distributed as dist

from pyrolatent.errors import ArgumentError


@final
@dataclass(frozen=True)
class Ranks:
    """The place of this process among all of a fit."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True in the one process that writes and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def share(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Return this process's part of `whole`, which is cut into equal parts along `dim`.

        It has memory of its own, since the last bits of a product hang on where its factors begin.
        """
        return whole if self.alone else whole.tensor_split(self.size, dim)[self.rank].clone()

    def gather(self, part: Tensor) -> Tensor:
        """Return the parts of all processes, joined along their first dimension."""
        if self.alone:
            return part
        sent = sendable(part.to(torch.uint8) if part.dtype == torch.bool else part)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent)
        return torch.cat(received).to(part.device, part.dtype)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over all processes."""
        if self.alone:
            return value
        total = sendable(value.clone())
        dist.all_reduce(total)
        return (total / self.size).to(value.device)

    def agreed(self, number: int) -> int:
        """Return the number that the first process has."""
        if self.alone:
            return number
        return int(self.gather(torch.tensor([number]))[0])

    def check_share(self, name: str, number: int) -> None:
        """Refuse a `number` of things that cannot be shared out equally.

        Raises:
            ArgumentError: It is not a multiple of the number of processes.
        """
        if number % self.size:
            raise ArgumentError(
                f"{name} cannot be shared out equally",
                why=f"{number} over {self.size} processes",
                remedy=f"choose a multiple of {self.size}",
            )


ALONE = Ranks()


def sendable(part: Tensor) -> Tensor:
    """Return the tensor, contiguous, where the backend of the process group can reach it."""
    return (part.cuda() if dist.get_backend() == "nccl" else part).contiguous()


def current_ranks() -> Ranks:
    """Return the place of this process in the process group, if one runs."""
    running = dist.is_available() and dist.is_initialized()
    return Ranks(dist.get_rank(), dist.get_world_size()) if running else Ranks()


@contextlib.contextmanager
def process_group() -> Iterator[Ranks]:
    """Join the processes that `torchrun` has started.

    Tensors on the host travel over gloo, and so do all where there are fewer GPUs than processes; else
    those on a GPU travel over NCCL.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_ranks()
        return
    one_each = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if one_each:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if one_each else "gloo")
    try:
        yield current_ranks()
    finally:
        dist.destroy_process_group()
