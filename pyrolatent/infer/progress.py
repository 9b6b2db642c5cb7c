"""One progress bar for all chains, silent where nobody watches."""

from tqdm import tqdm


def progress_bar(total: int, *, wanted: bool) -> "tqdm[None]":
    """Return a bar over `total` iterations; it shows only on a terminal."""
    return tqdm(total=total, disable=None if wanted else True, unit="iteration", dynamic_ncols=True)
