"""Pieces of Pyro and torch in a form that function transforms accept, or run well.

`DiscreteHMM` multiplies matrices in the log domain, with logarithms of sums that may be zero.  Pyro
does so by an autograd function of its own and a write in place, of which `vmap` refuses one and
unrolls the other.  Under `vmap` torch takes its cross entropy apart into some twenty operations on all rows.
While a model of ours runs, plain expressions of the same value and gradient take their places.
"""

import contextlib
from collections.abc import Iterator
from typing import final

import torch
from pyro.distributions import hmm
from pyro.ops import special
from torch import Tensor
from torch.distributions import bernoulli
from torch.nn.functional import logsigmoid


@final
class SafeLog:
    """The logarithm, whose derivative 1 / x is at most 1 / eps."""

    @staticmethod
    def apply(x: Tensor) -> Tensor:
        eps = torch.finfo(x.dtype).eps
        slope = x / eps
        return torch.where(x < eps, slope + (x.log() - slope).detach(), x.clamp(min=eps).log())


def log_matmul_exp(x: Tensor, y: Tensor) -> Tensor:
    """Return log(exp(x) @ exp(y)) of `x (..., I, J)` and `y (..., J, K)`, as Pyro does."""
    floor = torch.finfo(x.dtype).min  # -inf - -inf would be NaN
    x_shift = x.detach().amax(-1, keepdim=True).clamp(min=floor)
    y_shift = y.detach().amax(-2, keepdim=True).clamp(min=floor)
    product = (x - x_shift).exp() @ (y - y_shift).exp()
    return SafeLog.apply(product) + x_shift + y_shift


def binary_cross_entropy_with_logits(logits: Tensor, value: Tensor, reduction: str = "none") -> Tensor:
    """Return -log p of `value` in [0, 1], as torch does without `vmap`; Bernoulli asks for each entry's."""
    return (1 - value) * logits - logsigmoid(logits)


REPLACED = (
    (hmm, "_logmatmulexp", log_matmul_exp),
    (special, "_SafeLog", SafeLog),
    (bernoulli, "binary_cross_entropy_with_logits", binary_cross_entropy_with_logits),
)


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Let Pyro use these expressions, and restore its own on leaving."""
    own = [getattr(module, name) for module, name, _ in REPLACED]
    for module, name, expression in REPLACED:
        setattr(module, name, expression)
    try:
        yield
    finally:
        for (module, name, _), original in zip(REPLACED, own, strict=True):
            setattr(module, name, original)
