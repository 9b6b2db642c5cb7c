"""Random streams: every use of randomness spawns its own stream from the fit's one seed.

A stream is named by what it is for, so that adding a use never shifts another, and streams of
neighbouring seeds are unrelated (never `seed + i`).
"""

import contextlib
import zlib
from collections.abc import Iterator

import numpy as np
import torch


def fresh_seed() -> int:
    """Return a seed (32 bits) from the operating system's entropy, for a user who gave none."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def sequence(seed: int, *name: str | int) -> np.random.SeedSequence:
    """Return the seed sequence of the stream called `name` under `seed`."""
    key = tuple(zlib.crc32(str(part).encode()) for part in name)
    return np.random.SeedSequence(entropy=seed, spawn_key=key)


def generator(seed: int, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a torch generator on `device` for the stream called `name` under `seed`."""
    state = sequence(seed, *name).generate_state(1, np.uint64)[0]
    return torch.Generator(device=device).manual_seed(int(state >> np.uint64(1)))


def numpy_generator(seed: int, *name: str | int) -> np.random.Generator:
    """Return a numpy generator for the stream called `name` under `seed`."""
    return np.random.default_rng(sequence(seed, *name))


@contextlib.contextmanager
def seeded(seed: int, *name: str | int) -> Iterator[None]:
    """Run a block of code that draws from torch's global state under the stream `name`.

    The caller's random state, CPU and CUDA, is the same after the block as before.
    """
    with forked():
        torch.manual_seed(int(sequence(seed, *name).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


def forked() -> contextlib.AbstractContextManager[None]:
    """Return a block after which torch's own streams, of the CPU and all other devices, are as before."""
    return torch.random.fork_rng(range(torch.accelerator.device_count()))  # unnamed, many give a warning
