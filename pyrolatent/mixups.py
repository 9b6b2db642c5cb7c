"""Rows of one table, or images, with the details of others, by the two stages of a `MultiStageVAE`.

The content of row i, c, comes from one set of rows; its details, z, from what the first stage left of
row j of another.  What is taken away from row j before z is read off it makes the three variants of the
thesis that they stem from:

| variant | written there | z is read off |
|---|---|---|
| "details" | (X_i, X_j - Y_j) | what the first stage leaves of row j |
| "whole" | (X_i, X_j) | row j itself |
| "contrast" | (X_i, X_j - Y_i) | what the first stage's view of row i leaves of row j |
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from pyrolatent.errors import ArgumentError, DataError, ModelError
from pyrolatent.latents import Data, Rows, as_rows, decoded
from pyrolatent.models.msvae import MultiStageVAE
from pyrolatent.predict import with_data
from pyrolatent.result import Fit

Variant = Literal["details", "whole", "contrast"]


def mixup(fit: Fit, content: Data, style: Data, variant: Variant = "details") -> Rows:
    """Return rows with the content of some and the details of others.

    Latents are posterior means, cells what the model expects, as by `reconstruct`.

    Args:
        fit: A fit of a `MultiStageVAE`.
        content: N rows as the fit takes them.
        style: N rows, the details of which are taken one for one.
        variant: What the details are read off.

    Returns:
        N rows, a table with the index of `content`, or tensors.

    Raises:
        ModelError: The fit is of another model.
        ArgumentError: There is no such variant.
        DataError: The two have different numbers of rows.
    """
    pair = fit.pair
    if not isinstance(pair, MultiStageVAE):
        raise ModelError("mixup needs two stages", why=f"got a fit of {type(pair).__name__}")
    if variant not in get_args(Variant):
        why, remedy = f"got {variant!r}", f"choose one of {get_args(Variant)}"
        raise ArgumentError("there is no such variant", why=why, remedy=remedy)
    first, second = with_data(fit, content), with_data(fit, style)
    if len(first.data["x"]) != len(second.data["x"]):
        why = f"{len(first.data['x'])} and {len(second.data['x'])}"
        raise DataError("content and style have different numbers of rows", why=why)
    with second.context():
        c = pair.first_latents(**first.data).mean
        z = pair.details(**second.data, minus=taken_away(pair, variant, c, second)).mean
    frame = first.problem.frame
    return as_rows(first, decoded(first, {"c": c, "z": z}), None if frame is None else frame.index)


def taken_away(pair: MultiStageVAE, variant: Variant, c: Tensor, style: Fit) -> Tensor:
    """Return what is taken away from the rows that details are read off."""
    if variant == "contrast":
        return pair.first_rows(c)
    of_style = pair.first_rows(pair.first_latents(**style.data).mean)
    return of_style if variant == "details" else torch.zeros_like(of_style)
