"""Rows of results as the page of benchmarks reads them: which count, and how a figure or a bar is written."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks import record

UNKNOWN = "-"

Row = Mapping[str, Any]


class Verdict(NamedTuple):
    """A bar, what was measured, and whether that meets it."""

    what: str
    bar: str
    measured: str
    met: str


class Table(NamedTuple):
    """A table of the page; cells are ready to print."""

    columns: tuple[str, ...]
    cells: list[list[str]]
    title: str = ""


class Found(NamedTuple):
    """What rows say about a question, and which ones were read."""

    tables: list[Table]
    verdicts: list[Verdict]
    rows: list[Row]


# Which rows


def rows_of(results: str) -> list[Row]:
    """Return all rows of a file of results, oldest first."""
    path = record.RESULTS / f"{results}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def newest(rows: Iterable[Row], *keys: str) -> list[Row]:
    """Return the last row of each case, told apart by `keys`."""
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def last_run(rows: list[Row], key: str, case: str) -> list[Row]:
    """Return the rows of a case that were written together, and last."""
    mine = [row for row in rows if row[key] == case]
    return [row for row in mine if row["date"] == mine[-1]["date"]]


def around(rows: list[Row]) -> str:
    """Return when, where and with which versions rows were measured."""
    versions: dict[str, set[str]] = {}
    for row in rows:
        for name, version in (*row["versions"].items(), *peer_versions(row).items()):
            versions.setdefault(name, set()).add(version)
    days = sorted({row["date"][:10] for row in rows})
    where = sorted({f"{row['processor']}, {row['cores']} cores, threads: {row['threads']}" for row in rows})
    listed = ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in versions.items())
    return f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} on {'; '.join(where)}. {listed}."


def peer_versions(row: Row) -> dict[str, str]:
    """Return the versions of a peer's packages; its environment has a Python and a NumPy of its own."""
    return {
        name if name not in row["versions"] else f"{name} (peers')": version
        for name, version in row.get("peer_versions", {}).items()
        if version != row["versions"].get(name)
    }


# Figures in words


def figure(value: float | None) -> str:
    """Return three digits or so of a number."""
    if value is None or value != value:
        return UNKNOWN
    digits = next((digits for digits, least in enumerate((100, 10, 1)) if abs(value) >= least), 3)
    return f"{value:,.{digits}f}"


def figures(row: Row, *keys: str) -> list[str]:
    return [figure(row[key]) for key in keys]


def spread(values: Iterable[float]) -> str:
    """Return the smallest and the largest."""
    ordered = sorted(values)
    return f"{figure(ordered[0])} to {figure(ordered[-1])}"


def ratio(one: float | None, other: float | None) -> float:
    """Return one over the other, NaN where either is missing."""
    return one / other if one is not None and other else float("nan")


# Bars


def at_least(what: str, limit: float, ratios: Mapping[str, float]) -> Verdict:
    """Hold ratios to a lower limit: the first is what users get, others what they can have."""
    fine = [name for name, value in ratios.items() if value >= limit]
    return Verdict(what, f">= {limit:g}x", listed(ratios), met(fine, ratios))


def at_most(what: str, limit: float, ratios: Mapping[str, float]) -> Verdict:
    """Hold ratios to an upper limit, likewise."""
    fine = [name for name, value in ratios.items() if value <= limit]
    return Verdict(what, f"<= {limit:g}x", listed(ratios), met(fine, ratios))


def listed(ratios: Mapping[str, float]) -> str:
    """Return the ratios that there are, each with its name if it has one."""
    found = {name: value for name, value in ratios.items() if value == value}
    return ", ".join(f"{figure(v)}x" + (f" ({name})" if name else "") for name, v in found.items()) or UNKNOWN


def met(fine: list[str], names: Iterable[str]) -> str:
    """Return whether the first of `names`, or only another, is among the fine ones."""
    return "yes" if next(iter(names)) in fine else "when compiled" if fine else "**no**"
