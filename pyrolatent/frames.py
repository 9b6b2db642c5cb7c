"""A table for a function of the user: its columns find the function's arguments by name.

    def regression(income, age, age_mask, site): ...

    fit(regression, frame)

An argument named like a column gets that column `(N,)` in the user's units: numbers and truth values
as floating-point numbers, labels as their codes, which are integers and so can index a vector of
effects.  `age_mask` is True where `age` is observed; a missing cell has value 0, and a column with
holes whose mask the function does not take is refused.  An argument with a default that is no column
keeps its default.

`x (N, D)` gets the encoded matrix of the other columns, those that can be modelled, standardised and
with labels as codes; `mask (N, D)` is True where they are observed.

What was learnt of the columns is kept in a `Schema`, so that new rows are encoded as the rows of the
fit were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import Parameter

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyrolatent.column import Column, check_observed, holds_numbers, numbers
from pyrolatent.declared import Declared
from pyrolatent.errors import DataError, ModelError
from pyrolatent.kinds import guess_kind, learn_column
from pyrolatent.pair import FunctionPair, Model, Pair, arguments_of
from pyrolatent.schema import Schema, check_columns, check_names, infer_schema, listing

MATRIX = ("x", "mask")
SUFFIX = "_mask"


def with_columns(pair: Pair, frame: pd.DataFrame) -> Pair:
    """Return a pair of functions with what the columns of a table are to it, other pairs as they are.

    Args:
        pair: Any pair; a schema that a `FunctionPair` already has says what its columns are.
        frame: The table of the fit.

    Raises:
        ModelError: The function takes an argument that is no column, or none that is one.
        DataError: A column cannot become numbers, or its name has two meanings.
    """
    if not isinstance(pair, FunctionPair):
        return pair
    return replace(pair, columns=learn_columns(pair.function, frame, pair.columns))


def learn_columns(model: Model, frame: pd.DataFrame, given: Schema | None = None) -> Schema:
    """Return what the columns of `frame` are to the function: in `x`, by name, or nothing.

    Columns that are not in the schema `given` are inferred.
    """
    check_names(frame)
    arguments = named_arguments(model)
    check_meanings(list(arguments), frame)
    check_all_columns(arguments, frame)
    named = [name for name in arguments if name in frame.columns]
    known = {column.name: column for column in given.columns if column.modelled} if given else {}
    columns = [known.get(name) or learn_argument(frame[name]) for name in named]
    if takes_matrix(arguments):
        columns += learn_matrix(frame.drop(columns=named), given)
    return Schema(tuple(columns), tuple(named))


def learn_matrix(rest: pd.DataFrame, given: Schema | None) -> list[Column]:
    """Return the columns of `x`, and those beside them that pass through."""
    if not len(rest.columns):
        remedy = "Leave x and mask out"
        raise DataError("no column is left for x", why="the function takes all by name", remedy=remedy)
    columns = infer_schema(rest).columns if given is None else given.columns
    return [column for column in columns if column.name in rest.columns]


def learn_argument(series: pd.Series) -> Column:
    """Return what a column is that a function takes by name: numbers or labels, whatever they tell."""
    kind = guess_kind(series)
    if kind == "datetime":
        raise DataError(
            "a column of times cannot be an argument",
            where=f"column {series.name!r}",
            remedy="Make numbers of it, such as the days since the first",
        )
    check_observed(series)
    if kind == "identifier":
        kind = "real" if holds_numbers(series) else "categorical"
    return learn_column(series, Declared(kind), standardise=False)


def arguments_from_frame(model: Model, frame: pd.DataFrame, schema: Schema) -> dict[str, Tensor]:
    """Return the arguments of a function that a table holds.

    Args:
        model: The function.
        frame: N rows, those of the fit or new ones.  A column whose argument has a default may be
            left out of new rows.
        schema: What the columns are to the function, from `learn_columns`.

    Returns:
        Argument -> `(N,)`: numbers as float64, codes of labels as int64, masks as bool; `x` and
        `mask` as `(N, D)`.

    Raises:
        DataError: A column is absent, has holes and no mask, holds text instead of numbers, or a
            label that the fit did not know.
    """
    arguments = named_arguments(model)
    given = [name for name, argument in arguments.items() if is_given(argument, frame, schema)]
    columns = {column.name: column for column in schema.columns}
    check_columns(frame, [name for name in given if name in schema.named])
    matrix = schema.encode(frame) if takes_matrix(arguments) else {}
    entries = {name: matrix[name] for name in given if name in MATRIX}
    for name in given:
        if name in schema.named:
            entries[name] = cells(columns[name], frame[name])
        elif name not in MATRIX:
            entries[name] = torch.tensor(frame[name.removesuffix(SUFFIX)].notna().to_numpy())
    check_masks(given, frame, schema)
    return entries


def is_given(argument: Parameter, frame: pd.DataFrame, schema: Schema) -> bool:
    """True for an argument that comes from the table."""
    optional = argument.default is not argument.empty
    if argument.name in schema.named:
        return not optional or argument.name in frame.columns
    return argument.name in MATRIX or is_mask(argument.name, frame)


def cells(column: Column, series: pd.Series) -> Tensor:
    """Return a column `(N,)` in the user's units, 0 where missing."""
    values = column.values(series) if column.labelled else numbers(series)
    filled = torch.tensor(np.where(np.isnan(values), 0.0, values))
    return filled.long() if column.labelled else filled


def named_arguments(model: Model) -> dict[str, Parameter]:
    """Return the arguments of a function by name; for `**data` these are `x` and `mask`."""
    arguments = arguments_of(model)
    named = {a.name: a for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)}
    takes_any = any(a.kind is a.VAR_KEYWORD for a in arguments)
    return named | ({n: Parameter(n, Parameter.KEYWORD_ONLY) for n in MATRIX} if takes_any else {})


def takes_matrix(arguments: Mapping[str, Parameter]) -> bool:
    """True for a function with an argument `x` or `mask`."""
    return any(name in arguments for name in MATRIX)


def is_mask(name: str, frame: pd.DataFrame) -> bool:
    """True for the name of a column's mask."""
    return name.endswith(SUFFIX) and name not in frame.columns and name.removesuffix(SUFFIX) in frame.columns


def check_meanings(names: Sequence[str], frame: pd.DataFrame) -> None:
    """Refuse an argument that could be a column and something else."""
    both = {name: "the matrix of the other columns" for name in names if name == "x"}
    both |= {name: "the mask of x" for name in names if name == "mask"}
    masks = [name for name in names if name.endswith(SUFFIX)]
    both |= {name: f"the mask of {base!r}" for name in masks if (base := name.removesuffix(SUFFIX)) in frame}
    for name in (name for name in both if name in frame.columns):
        raise DataError(
            "an argument of the function has two meanings",
            where=f"argument {name!r}",
            why=f"it is {both[name]}, and the table has a column of that name",
            remedy="Rename the column and, if it is meant, the argument",
        )


def check_all_columns(arguments: Mapping[str, Parameter], frame: pd.DataFrame) -> None:
    """Refuse a function that needs more than the table holds, or nothing of it."""
    found = [n for n in arguments if n in MATRIX or n in frame.columns or is_mask(n, frame)]
    lacking = [n for n, a in arguments.items() if a.default is a.empty and n not in found]
    what = "the function takes none of the columns" if not found else "arguments that are no columns"
    if lacking or not found:
        raise ModelError(
            what,
            where=f"arguments {listing(lacking or list(arguments))}",
            why=f"the columns are {listing(frame.columns.tolist())}",
            remedy="rename the arguments or the columns; what is no column needs a default, "
            "or pass a dictionary of all arguments instead of a table",
        )


def check_masks(given: Sequence[str], frame: pd.DataFrame, schema: Schema) -> None:
    """Refuse holes that the function would take for zeros."""
    by_name = [name for name in given if name in schema.named and name + SUFFIX not in given]
    in_matrix = schema.names if "x" in given and "mask" not in given else ()
    missing = {name: int(frame[name].isna().sum()) for name in (*by_name, *in_matrix)}
    holes = {name: count for name, count in missing.items() if count}
    if not holes:
        return
    first = next(iter(holes))
    mask = f"{first}{SUFFIX}" if first in given else "mask"
    more = f", and {len(holes) - 1} more columns" if len(holes) > 1 else ""
    raise DataError(
        "missing cells that the function knows nothing of",
        where=f"column {first!r}",
        why=f"{holes[first]} of {len(frame)} cells are missing{more}",
        remedy=f"Take the argument {mask}, which is True where a cell is observed, or drop these rows",
    )
