"""Draws from the LKJ distribution of correlation matrices, where torch's own have the wrong spread.

`LKJCholesky.sample` of torch 2.13 gives the squared length of a row below the diagonal from
Beta(i - 1/2, .) where the onion method has Beta(i / 2, .), for row i = 0, 1, ...: from the third row
on it draws from another distribution than the one whose density it knows.
"""

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Independent, LKJCholesky, TransformedDistribution


def corrected_draw(distribution: Distribution) -> Tensor | None:
    """Return a draw of an LKJ distribution, also transformed or independent; None of any other."""
    match distribution:
        case LKJCholesky():
            return lkj_cholesky(distribution.dim, distribution.concentration)
        case Independent():
            return corrected_draw(distribution.base_dist)
        case TransformedDistribution():
            value = corrected_draw(distribution.base_dist)
            for transform in distribution.transforms if value is not None else ():
                value = transform(value)
            return value
        case _:
            return None


def lkj_cholesky(dim: int, concentration: Tensor) -> Tensor:
    """Return Cholesky factors `(..., dim, dim)` of matrices from LKJ(concentration `(...)`).

    The onion method (Lewandowski, Kurowicka and Joe 2009, section 3.2): the part of row i below the
    diagonal points anywhere, and its squared length is Beta(i / 2, concentration + (dim - 1 - i) / 2).
    """
    row = torch.arange(dim, dtype=concentration.dtype, device=concentration.device)
    rest = concentration[..., None] + (dim - 1 - row) / 2
    squared_length = Beta((row / 2).clamp(min=0.5).expand_as(rest), rest).sample() * (row > 0)
    arrow = torch.randn(*concentration.shape, dim, dim, dtype=row.dtype, device=row.device).tril(-1)
    direction = arrow / arrow.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(row.dtype).tiny)
    below = squared_length.sqrt()[..., None] * direction
    return below + torch.diag_embed((1 - squared_length).sqrt())
