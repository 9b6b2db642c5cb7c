"""Training loops in plain PyTorch, as peers of ours: as most people write them, and as an expert does."""

import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Loss = Callable[[Tensor], Tensor]  # of a batch, a mean over its rows
Loop = Callable[[int], float]  # steps -> seconds of one


def plain_loop(networks: nn.Module, loss: Loss, x: Tensor, batch_size: int, lr: float) -> Loop:
    """Return the loop of most notebooks: a `DataLoader`, and `loss.item()` at each step."""
    optimizer = torch.optim.Adam(networks.parameters(), lr=lr)
    loader = DataLoader(x, batch_size=batch_size, shuffle=True, drop_last=True)

    def run(steps: int) -> float:
        batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps)
        start, total = time.perf_counter(), 0.0
        for batch in batches:
            optimizer.zero_grad()
            value = loss(batch)
            value.backward()
            optimizer.step()
            total += value.item() * batch.size(0)
        return (time.perf_counter() - start) / steps

    return run


def compiled_loop(networks: nn.Module, loss: Loss, x: Tensor, batch_size: int, lr: float) -> Loop:
    """Return an expert's: `torch.compile` of the loss and so of its backward pass, fused Adam, rows gathered
    from a tensor in memory, losses kept and not read.  It is compiled already.
    """
    optimizer = torch.optim.Adam(networks.parameters(), lr=lr, fused=True)
    compiled = torch.compile(loss, dynamic=False)
    epoch = len(x) // batch_size * batch_size

    def run(steps: int) -> float:
        start, losses = time.perf_counter(), []
        while len(losses) < steps:
            for index in torch.randperm(len(x))[:epoch].split(batch_size)[: steps - len(losses)]:
                optimizer.zero_grad()
                value = compiled(x[index])
                value.backward()
                optimizer.step()
                losses.append(value.detach())
        assert torch.stack(losses).mean().isfinite()
        return (time.perf_counter() - start) / steps

    run(10)
    return run
