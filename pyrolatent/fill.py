"""Holes filled by means: what many do before they fit a model, and what to compare with.

A filled cell says that its value is known, and that it is the mean: correlations shrink by the share of
cells filled, and intervals are too narrow.  Models of this package take holes as they are.
"""

import pandas as pd
import torch

from pyrolatent.column import Column, numbers
from pyrolatent.schema import infer_schema


def fill_means(frame: pd.DataFrame, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a table with the holes of each column filled by its mean, or its most frequent label.

    Whole numbers are filled by the mean rounded, positive numbers by the mean too, not that of their logs.

    Args:
        frame: N rows; datetimes and identifiers stay as they are.
        like: The rows that means and labels are learnt from; by default `frame` itself.

    Raises:
        DataError: No schema can be inferred, or `frame` lacks a column.
    """
    known = frame if like is None else like
    schema = infer_schema(known)
    filling = torch.tensor([typical(column, known[column.name]) for column in schema.modelled])
    return schema.complete(frame, filling.expand(len(frame), -1))


def typical(column: Column, cells: pd.Series) -> float:
    """Return the mean of a column, or the code of its most frequent label, as the column encodes it."""
    values = cells.dropna()
    typical = values.mode().iloc[:1] if column.categories else pd.Series([numbers(values).mean()])
    return float(column.encode(typical)[0])
