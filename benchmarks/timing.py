"""Contenders that take turns, so that a machine that speeds up or slows down favours none of them."""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Contender(NamedTuple):
    """Something to time, and the number of gradients that one call of it is worth."""

    call: Callable[[], Any]
    gradients: int


def race(contenders: dict[str, Contender], rounds: int, seconds: float) -> dict[str, float]:
    """Return each contender's median rate; a turn lasts about `seconds`."""
    repeats = {name: max(1, round(seconds / time_of(one.call, 1))) for name, one in contenders.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            elapsed = time_of(contenders[name].call, repeats[name])
            rates[name].append(repeats[name] * contenders[name].gradients / elapsed)
    return {name: round(statistics.median(measured), 1) for name, measured in rates.items()}


def time_of(call: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of `repeats` calls, after three that are not counted."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def parse_options(doc: str, models: Iterable[str]) -> argparse.Namespace:
    """Return the options of a benchmark of `models` whose docstring is `doc`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(models), metavar="MODEL", help=", ".join(models))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave inductor out")
    return parser.parse_args()
