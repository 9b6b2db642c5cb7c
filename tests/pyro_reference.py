"""Pyro's own unconstrained log density, as an oracle in double precision.

`pyro_potential` is what Pyro's NUTS evaluates: each latent site moved to the real line by
`biject_to(support)`, plus the log-determinants.  Pyro takes the transforms from ONE trace, which is
wrong where a support depends on another site; `exact_dependent_support` is written by hand for that.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.integrator import potential_grad
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform
from torch.nn.functional import logsigmoid

Point = dict[str, Tensor]
LogDensityFn = Callable[[Mapping[str, Tensor]], tuple[Tensor, Point]]

# Enough for every model here; Pyro uses it where it enumerates.  None would make Pyro draw from the
# prior, which improper priors refuse.
MAX_PLATE_NESTING = 3


class PyroPotential(NamedTuple):
    """Pyro's view of a model at unconstrained site values.

    Attributes:
        log_density: {site: value of `shapes[site]`} -> (log density (), {site: its gradient}).
        transforms: Site -> transform from unconstrained to constrained values.
        shapes: Site -> unconstrained shape, in the order of the trace.
    """

    log_density: LogDensityFn
    transforms: dict[str, Transform]
    shapes: dict[str, torch.Size]


def pyro_potential(model: Callable[..., Any], data: Mapping[str, Any]) -> PyroPotential:
    """Return Pyro's own log density of `model(**data)` with its gradient, transforms and shapes."""
    with double_precision():
        energy, transforms, shapes = raw_potential(model, data)

    def log_density(values: Mapping[str, Tensor]) -> tuple[Tensor, Point]:
        with double_precision():
            gradient, value = potential_grad(energy, {name: values[name].detach().clone() for name in shapes})
        return -value, {name: -part for name, part in gradient.items()}

    return PyroPotential(log_density, transforms, shapes)


def raw_potential(
    model: Callable[..., Any], data: Mapping[str, Any], *, jit_compile: bool = False
) -> tuple[Callable[[Point], Tensor], dict[str, Transform], dict[str, torch.Size]]:
    """Return the potential (minus log density) that Pyro's NUTS would use, transforms and shapes.

    Runs under the caller's default dtype and validation switch, as NUTS does.
    """
    params, energy, inverse, trace = initialize_model(
        model,
        model_kwargs=dict(data),
        max_plate_nesting=MAX_PLATE_NESTING,
        jit_compile=jit_compile,
        skip_jit_warnings=True,
        init_strategy=_init_to_origin,
    )
    names = [name for name in trace.nodes if name in params]
    transforms = {name: inverse[name].inv for name in names}
    return energy, transforms, {name: params[name].shape for name in names}


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Run a block in float64 without validation (as Pyro's MCMC does), then restore both."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        torch.set_default_dtype(before)


def exact_dependent_support(choice: Tensor) -> LogDensityFn:
    """Return the log density of `user_models.dependent_support`, written by hand.

    With v = sigmoid(u_b) and b = (1 - a) v, the prior density 1 / (1 - a) of b cancels the 1 - a of
    db/dv, which leaves n_0 log a + (n_1 + n_2) log(1 - a) + n_1 log v + n_2 log(1 - v) plus the
    log-derivatives of a and v.
    """
    counts = torch.bincount(choice, minlength=3).double()

    def log_density(values: Mapping[str, Tensor]) -> tuple[Tensor, Point]:
        a, b = (values[name].detach().clone().requires_grad_() for name in ("a", "b"))
        value = (
            (counts[0] + 1) * logsigmoid(a)
            + (counts[1] + counts[2] + 1) * logsigmoid(-a)
            + (counts[1] + 1) * logsigmoid(b)
            + (counts[2] + 1) * logsigmoid(-b)
        )
        gradient = torch.autograd.grad(value, (a, b))
        return value.detach(), dict(zip(("a", "b"), gradient, strict=True))

    return log_density


def _init_to_origin(site: dict[str, Any]) -> Tensor:
    transform = biject_to(site["fn"].support)
    return transform(torch.zeros(transform.inverse_shape(site["fn"].shape())))
