"""The log density of each row's latents given what all rows share.

Where every latent site belongs to a row and all else is fixed (learnt weights, data), the rows are
independent problems of one shape.  Their densities come from one run of the model, unsummed over
the plate, and one backward pass serves them all.  Kernels take every row of every particle for a
chain of its own: each is accepted or rejected alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor
from torch.func import grad, vmap

from pyrolatent.capture.compile import Graph, capture
from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.enumeration import log_sum_product
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import close
from pyrolatent.capture.messages import DATA_PLATE, is_deterministic
from pyrolatent.capture.modes import FailingCholesky
from pyrolatent.capture.sites import SiteTable
from pyrolatent.capture.vector import Layout, stacked
from pyrolatent.errors import ModelError

Evaluated = tuple[Tensor, Tensor]


@final
@dataclass(frozen=True)
class RowDensity:
    """Log densities of rows: `(B, N, D) -> (B, N)` in nats, with gradients `(B, N, D)`.

    Attributes:
        joint: The density of all rows together, at positions `(N D,)`.
        sites: The model's sites, with the layout of one row's latents `(D,)`.
        num_rows: N.
    """

    joint: LogDensity
    sites: SiteTable
    num_rows: int
    graphs: dict[int, Graph] = field(default_factory=dict, repr=False)  # by B: sizes are baked in

    @property
    def dim(self) -> int:
        return self.sites.layout.size

    def __call__(self, position: Tensor) -> Evaluated:
        """Return log densities `(B, N)` and gradients `(B, N, D)` at `position (B, N, D)`."""
        with self.joint.context():
            if self.joint.rung != "vmap":
                return stacked([self.evaluate_plainly(point) for point in position])
            if len(position) not in self.graphs:
                self.graphs[len(position)] = capture(vmap(self.evaluate), position)
            return self.graphs[len(position)](position)

    def of_chains(self, position: Tensor) -> Evaluated:
        """Return the same for kernels: `(B N, D)` to `(B N,)` and `(B N, D)`, row by row of each particle."""
        values, gradients = self(position.reshape(-1, self.num_rows, self.dim))
        return values.flatten(), gradients.flatten(0, 1)

    def evaluate(self, position: Tensor) -> Evaluated:
        """Return log densities `(N,)` and gradients `(N, D)` at one particle `(N, D)`."""

        def summed(rows: Tensor) -> Evaluated:
            values = self.log_density(rows)
            return values.sum(), values

        gradient, values = grad(summed, has_aux=True)(position)
        return values, gradient

    def evaluate_plainly(self, position: Tensor) -> Evaluated:
        """The same by autograd, for code that function transforms refuse."""
        with torch.enable_grad():
            free = position.detach().requires_grad_()
            values = self.log_density(free)
            (gradient,) = torch.autograd.grad(values.sum(), free)
        return values.detach(), gradient

    def log_density(self, position: Tensor) -> Tensor:
        """Return the log density `(N,)` of each row at `position (N, D)`."""
        with FailingCholesky() as cholesky:
            joint = evaluate(self.joint.model, self.joint.data, self.sites, position)
            terms = {n: m for n, m in joint.messages.items() if not is_deterministic(m)}
            log_joint = log_sum_product(terms, plate=DATA_PLATE)
            jacobians = (part.reshape(self.num_rows, -1).sum(-1) for part in joint.log_jacobians.values())
        return cholesky.guard(log_joint + sum(jacobians))

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return latent and deterministic sites `(S, *site)` at `position (S, N, D)`."""
        named = self.sites.layout.unpack(position)
        flat = torch.cat([part.flatten(1) for part in named.values()], dim=1)
        return self.joint.constrain(flat)


def by_rows(density: LogDensity) -> RowDensity:
    """Return the density of each row's latents from that of all together.

    Raises:
        ModelError: A latent, observed or factor site stands outside of plate "data", or what one
            row's latents are changes the density of another.
    """
    sites = density.sites
    check_all_in_rows(sites)
    assert sites.rows is not None  # or the check above would have failed
    layout = Layout({name: shape[1:] for name, shape in sites.layout.shapes.items()})
    rows = RowDensity(density, replace(sites, layout=layout, summaries={}), sites.rows)
    check_independent(rows)
    return rows


def check_all_in_rows(sites: SiteTable) -> None:
    """Refuse a model that is not a collection of rows."""
    tables: Mapping[str, Any] = {**sites.latents, **sites.discrete, **sites.observed}
    outside = [name for name, site in tables.items() if site.plates.get(DATA_PLATE) != 0]
    if outside or sites.factors:
        raise ModelError(
            "rows have densities of their own only where every site belongs to a row",
            where=f"sites {[*outside, *sites.factors]}",
            why="they stand outside of pyro.plate('data', N), or the plate is not their first dimension",
            remedy="move them into the plate, make what rows share a parameter, or use the joint density",
        )


def check_independent(rows: RowDensity) -> None:
    """Refuse a model in which rows read each other's latents."""
    random = torch.Generator(device=rows.joint.device).manual_seed(0)
    shape = (rows.num_rows, rows.dim)
    options: dict[str, Any] = {"dtype": rows.joint.dtype, "device": rows.joint.device}
    position = torch.rand(shape, generator=random, **options)
    moved = torch.cat([position[:1] + 0.5, position[1:]])
    with rows.joint.context(), torch.no_grad():
        before, after = rows.log_density(position), rows.log_density(moved)
    if not close(after[1:], before[1:]):
        raise ModelError(
            "the rows of the model depend on each other",
            why="other densities changed when the latents of the first row did",
            remedy="use the joint density, or take out what is computed over rows (means, normalisation)",
        )
