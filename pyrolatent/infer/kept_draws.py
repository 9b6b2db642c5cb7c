"""The draws of a sampler on the host, in buffers that grow with them."""

from typing import final

import torch
from torch import Tensor

AHEAD = 25  # draws that leave the device together


@final
class Draws:
    """Positions `(chain, draw, D)` and statistics `(chain, draw)`, on the host, filled as they are made.

    Room doubles as it is needed, since a budget may be much larger than what is drawn of it.  Some draws
    at a time leave the device, which waits for each copy.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.number = 0
        self.kept = 0  # draws that a checkpoint holds
        self.buffers: dict[str, Tensor] = {}
        self.ahead: list[dict[str, Tensor]] = []  # the last draws, still on the device

    def append(self, position: Tensor, stats: dict[str, Tensor]) -> None:
        """Add one draw of all chains."""
        self.ahead.append({"position": position, **stats})
        self.number += 1
        if len(self.ahead) == AHEAD:
            self.settle()

    def settle(self) -> None:
        """Copy what is still on the device."""
        if self.ahead:
            piece = {name: torch.stack([draw[name] for draw in self.ahead], 1) for name in self.ahead[0]}
            self.number -= len(self.ahead)
            self.ahead = []
            self.extend(piece)

    def extend(self, piece: dict[str, Tensor]) -> None:
        """Add draws `(chain, draw, ...)`."""
        end = self.number + piece["lp"].shape[1]
        for name, value in piece.items():
            held = self.buffers.get(name, value[:, :0])
            if held.shape[1] < end:
                shape = (len(value), min(2 * end, self.most), *value.shape[2:])
                held = torch.empty(shape, dtype=value.dtype, device="cpu")
                held[:, : self.number] = self.buffers.get(name, value)[:, : self.number]
                self.buffers[name] = held
            held[:, self.number : end] = value
        self.number = end

    def since(self, first: int = 0) -> dict[str, Tensor]:
        """Return the draws made after the `first` ones, by name."""
        self.settle()
        return {name: buffer[:, first : self.number] for name, buffer in self.buffers.items()}
