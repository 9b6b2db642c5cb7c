"""A report of a fit: one HTML page with its pictures inside, to read, print or send.

Warnings come first, then what was fitted and the sites of the model, the summary, and pictures: what
the model predicts beside what was observed, correlations, completed cells, and how the fit ran.  A
page has the sections that the fit has something to show in.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import jinja2
import pandas as pd
from torch import Tensor

from pyrolatent import pictures
from pyrolatent.diagnostics import MAX_RHAT, MIN_ESS
from pyrolatent.folders import write_text
from pyrolatent.imputations import Imputations
from pyrolatent.labels import method_text
from pyrolatent.model_graph import site_rows
from pyrolatent.result import Fit
from pyrolatent.saved_parts import MissingData, model_name
from pyrolatent.summary import summary

MOST_ROWS = 60  # of one site in the summary, of the sites of a model, and of its parameters
ROUNDING = 1e-12  # a standard deviation this small beside the mean is one of rounding errors
DASH = "\N{EN DASH}"
TOLD = {"reason", "compiled", "rung", "seconds", "versions"}  # entries of info with a place of their own

State = dict[str, Any]


def report(
    fit: Fit,
    path: str | os.PathLike[str] | None = None,
    imputations: Imputations | None = None,
    truth: pd.DataFrame | None = None,
) -> str:
    """Describe a fit on one page of HTML that needs no other file.

    Args:
        fit: A fit.
        path: Where to write the page; a file there is replaced.
        imputations: From `impute(fit)`; without them completed cells are not shown.
        truth: The completed table with the values that were hidden, to be drawn beside the
            intervals.

    Returns:
        The page.

    Raises:
        StoreError: The page cannot be written.
        DataError: `truth` has other rows or columns than the completed table.
    """
    rows, judged = site_rows(fit), {key for found in fit.diagnostics.values() for key in found}
    page = template().render(
        name=model_name(fit.pair),
        data=data_in_words(fit),
        warnings=fit.warnings if imputations is None else (*fit.warnings, *imputations.warnings),
        facts=facts(fit),
        columns=column_rows(fit),
        model=rows[:MOST_ROWS],
        hidden=len(rows) - MOST_ROWS,
        graph=pictures.graph(fit, rows),
        sites=site_tables(fit),
        judged=judged,
        params=[(name, tuple(value.shape)) for name, value in fit.params.items()],
        limits={"rhat": MAX_RHAT, "ess": MIN_ESS, "rows": MOST_ROWS},
        checks=pictures.checks(fit),
        correlations=pictures.correlations(fit),
        completed=None if imputations is None else pictures.completed(imputations, truth),
        trace=pictures.trace(fit),
        losses=pictures.losses(fit),
        weights=pictures.weights(fit),
        version=fit.info["versions"]["pyrolatent"],
    )
    if path is not None:
        write_text(path, page)
    return page


def template() -> jinja2.Template:
    """Return the page; what stands in a table's cells or names is text to it, never HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyrolatent"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template("report.html")


def number(value: float, form: str = ".4g") -> str:
    """Return a number for a table, a dash for none."""
    text = DASH if math.isnan(value) else format(value, form)
    return text.replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


# What was fitted


def data_in_words(fit: Fit) -> str:
    """Return the size of the table, or of each entry of the data."""
    if isinstance(fit.data, MissingData):
        return "saved without its data"
    frame = fit.problem.frame
    if frame is None or fit.schema is None:
        sizes = {n: f"{tuple(v.shape)}" if isinstance(v, Tensor) else repr(v) for n, v in fit.data.items()}
        return ", ".join(f"{name} {size}" for name, size in sizes.items())
    cells = frame[[column.name for column in fit.schema.used]].isna().to_numpy()
    share = f"{100 * cells.mean():.1f} % of their cells missing"
    return f"{len(frame):,} rows, {cells.shape[1]} modelled columns, {share}"


def facts(fit: Fit) -> list[tuple[str, str]]:
    """Return what was fitted and how it ran, line by line."""
    info, problem = fit.info, fit.problem
    lines = [
        ("Model", model_name(fit.pair) + settings(fit.pair)),
        ("Method", method_text(fit.method)),
        ("Seed", str(fit.seed)),
        ("Numbers", f"{str(problem.dtype).removeprefix('torch.')} on {problem.device}"),
        ("Ran", ", ".join(how_it_ran(info))),
    ]
    if "seconds" in info:
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in info["seconds"].items())
        lines.append(("Seconds", f"{sum(info['seconds'].values()):.1f} ({stages})"))
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return [*lines, ("Versions", versions)]


def how_it_ran(info: Mapping[str, Any]) -> list[str]:
    """Return the rung, why it is not the top one, and every number that the method recorded."""
    parts = [f"rung {info['rung']}", str(info.get("reason", ""))]
    if "compiled" in info:
        parts.append("compiled" if info["compiled"] else "not compiled")
    numbers = {name: value for name, value in info.items() if name not in TOLD and is_number(value)}
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items()]
    return [part for part in parts if part]


def is_number(value: Any) -> bool:
    """True for a number, and not for True."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def settings(pair: Any) -> str:
    """Return the settings of a pair that are single values, such as (eta=1.0)."""
    values = {f.name: getattr(pair, f.name) for f in fields(pair)} if is_dataclass(pair) else {}
    single = [f"{name}={value!r}" for name, value in values.items() if isinstance(value, bool | int | float)]
    return f"({', '.join(single)})" if single else ""


def column_rows(fit: Fit) -> list[State]:
    """Return name, kind, dtype and missing cells of each column of the table."""
    frame, schema = fit.problem.frame, fit.schema
    if frame is None or schema is None or not len(frame):
        return []
    missing = frame.isna().sum()
    return [
        {"name": c.name, "kind": c.kind, "dtype": c.dtype, "missing": missing[c.name] / len(frame)}
        for c in schema.columns
    ]


def site_tables(fit: Fit) -> list[State]:
    """Return the summary site by site."""
    table, start, tables = summary(fit), 0, []
    for name, draws in fit.samples.items():
        size = draws[0, 0].numel()
        tables.append(site_table(name, table.iloc[start : start + size]))
        start += size
    return tables


def site_table(name: str, rows: pd.DataFrame) -> State:
    """Return the worst diagnostics of one site and at most 60 of its rows."""
    shown = rows.head(MOST_ROWS)
    constant = shown["sd"] <= ROUNDING * shown["mean"].abs()
    records = shown.assign(sd=shown["sd"].mask(constant, 0.0)).to_dict("records")
    worst = {"rhat": rows["rhat"].max() if "rhat" in rows else math.nan}
    worst["ess"] = rows["ess"].min() if "ess" in rows else math.nan
    return {"name": name, "size": len(rows), "rows": list(zip(shown.index, records, strict=True)), **worst}
