"""EM where each row has continuous latents that are normal given all else.

Then the log joint density of a row is quadratic in its latents z, whatever the model: its gradient g and its
Hessian H at 0 give the posterior N(V g, V), V = -H^-1, and the integral

    log p(x) = f(m) + D/2 log(2 pi) + 1/2 log |V|,    m = V g.

Expectations of quadratics are means over 2 D points m +- sqrt(D) L e_j, L L' = V (the cubature rule of degree
3), so the M-step climbs a mean of plain log densities.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import pyro
import torch
from torch import Tensor
from torch.func import grad

from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import Batched, close, eager_value_and_gradient
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.sites import SiteTable, random_start, read_sites
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ModelError
from pyrolatent.infer.em_steps import CLIMB, Latents, Steps, counted, supports_of
from pyrolatent.infer.maximisation import Formulas, formulas
from pyrolatent.kernels.ascent import lbfgs_ascent
from pyrolatent.pair import Model
from pyrolatent.result import Problem


@final
@dataclass(frozen=True)
class RowLatents:
    """A model whose rows have latents, as a function of these and of what all rows share.

    Attributes:
        model: The model.
        data: Its arguments.
        shared: Its sites with the latents of rows given.
        layout: The latents of one row `(D,)`.
        num_rows: N.
        penalised: Whether priors of what all rows share count.
    """

    model: Model
    data: Mapping[str, Any]
    shared: SiteTable
    layout: Layout
    num_rows: int
    penalised: bool

    def log_joint(self, position: Tensor, rows: Tensor) -> Tensor:
        """Return the log joint density `()` at free numbers `(D_shared,)` and latents of rows `(N, D)`."""
        joint = evaluate(given(self.model, self.named(rows)), self.data, self.shared, position)
        return log_total(counted(joint, self.penalised))

    def named(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the latent sites `(N, *site)` of `rows (N, D)`."""
        return self.layout.unpack(rows)

    def zeros(self, position: Tensor) -> Tensor:
        """Return latents of rows `(N, D)`, all 0."""
        return torch.zeros(self.num_rows, self.layout.size, dtype=position.dtype, device=position.device)

    def curvature(self, position: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradients `(N, D)` and negative Hessians `(N, D, D)` of densities at `rows (N, D)`."""

        def slope(rows: Tensor) -> Tensor:
            gradient: Tensor = grad(lambda z: self.log_joint(position, z))(rows)
            return gradient

        axes = range(self.layout.size)  # rows do not depend on each other, so sums over them keep them apart
        columns = [grad(lambda z, axis=axis: slope(z)[:, axis].sum())(rows) for axis in axes]
        return slope(rows), -torch.stack(columns, -1)

    def posterior(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean `(N, D)` and the Cholesky factor of the precision `(N, D, D)` of each row's latents."""
        gradient, precision = self.curvature(position, self.zeros(position))
        factor = torch.linalg.cholesky_ex(precision)[0]
        return torch.cholesky_solve(gradient[..., None], factor)[..., 0], factor

    def log_likelihood(self, position: Tensor) -> Tensor:
        """Return the log-likelihood `()` of what all rows share, those of rows integrated out."""
        mean, factor = self.posterior(position)
        constant = 0.5 * self.num_rows * self.layout.size * math.log(2 * math.pi)
        return self.log_joint(position, mean) + constant - factor.diagonal(dim1=-2, dim2=-1).log().sum()

    def points(self, position: Tensor) -> list[Tensor]:
        """Return latents of rows `(N, D)`, over which a mean of quadratics is their expectation."""
        mean, factor = self.posterior(position)
        axes = torch.eye(self.layout.size, dtype=mean.dtype, device=mean.device).expand_as(factor)
        offsets = torch.linalg.solve_triangular(factor.mT, axes, upper=True) * math.sqrt(self.layout.size)
        return [mean + sign * offset for offset in offsets.unbind(-1) for sign in (1.0, -1.0)]


@final
@dataclass(frozen=True)
class GaussianSteps(Steps):
    """Those of a model whose rows have normal latents."""

    rows: RowLatents
    formulas: Formulas
    latents: Latents

    def expected_sums(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.log_likelihood(self.latents.position(latents))[0], []

    def improved(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        found = [self.improved_one(position) for position in self.latents.position(latents)]
        totals, better = zip(*found, strict=True)
        return torch.stack(totals), self.latents.of_positions(torch.stack(better))

    def improved_one(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihood `()` at free numbers `(D,)`, and better ones."""
        points = self.rows.points(position)

        def expected(flat: Tensor) -> Tensor:
            return torch.stack([self.rows.log_joint(flat, rows) for rows in points]).mean()

        def density(positions: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = eager_value_and_gradient(expected, positions[0])
            return value[None], gradient[None]

        return self.rows.log_likelihood(position), lbfgs_ascent(density, position[None], CLIMB)[0]

    def log_likelihood(self, position: Tensor) -> tuple[Tensor, Tensor]:
        return self.latents.density.batched(position)


def given(model: Model, values: Mapping[str, Tensor]) -> Model:
    """Return the model with the latents of rows at these values."""
    conditioned: Model = pyro.poutine.condition(model, data=dict(values))
    return conditioned


def gaussian_steps(
    problem: Problem, sites: SiteTable, random: torch.Generator, penalised: bool
) -> GaussianSteps:
    """Return the steps of a model with continuous latents of rows.

    Raises:
        ModelError: The latents of rows are not normal given all else.
    """
    own = {name: sites.latents[name] for name in sites.row_latents}
    layout = Layout({name: site.shape[1:] for name, site in own.items()})
    number = sites.rows or 0
    options: Any = {"dtype": problem.dtype, "device": problem.device}
    zeros = {name: torch.zeros(site.shape, **options) for name, site in own.items()}
    with model_context(problem.dtype, problem.device, validate=True):
        model = given(problem.pair.model, zeros)
        shared = read_sites(model, problem.data, random)
    check_rows(sites)
    rows = RowLatents(problem.pair.model, problem.data, shared, layout, number, penalised)
    with model_context(problem.dtype, problem.device):
        examples = random_start((2, shared.layout.size), random)
        check_normal(rows, examples[0], random, list(own))
        supports = supports_of(evaluate(model, problem.data, shared, examples[0]))
    batched = Batched(rows.log_likelihood, "eager")  # third derivatives are not captured
    density = LogDensity(model, problem.data, shared, problem.dtype, problem.device, batched)
    cells = Layout({name: site.shape for name, site in shared.latents.items()})
    others = torch.ones(cells.size, dtype=torch.bool)
    return GaussianSteps(rows, formulas((), cells, others, supports), Latents(density, cells))


def check_rows(sites: SiteTable) -> None:
    """Refuse discrete sites beside continuous latents of rows, and rows that are no first dimension.

    Raises:
        ModelError: With the sites.
    """
    misplaced = [name for name in sites.row_latents if sites.latents[name].plates != {DATA_PLATE: 0}]
    if sites.discrete or misplaced or not set(sites.latents) - set(sites.row_latents):
        raise ModelError(
            "EM integrates continuous latents of rows out where nothing else is in their way",
            where=f"sites {[*sites.row_latents, *sites.discrete]}",
            why="there are discrete sites too, other plates, or no latent that all rows share",
            remedy="use HMC() or SVI()",
        )


def check_normal(rows: RowLatents, position: Tensor, random: torch.Generator, names: list[str]) -> None:
    """Refuse latents of rows that are not normal given all else.

    Raises:
        ModelError: The curvature of a row's density is not the same everywhere, or not that of a peak.
    """
    zeros = rows.zeros(position)
    elsewhere = random_start(tuple(zeros.shape), random, zeros.dtype)
    slope, precision = rows.curvature(position, zeros)
    _, again = rows.curvature(position, elsewhere)
    first_moved = torch.cat([elsewhere[:1], zeros[1:]])
    if not close(rows.curvature(position, first_moved)[0][1:], slope[1:]):
        raise ModelError(
            "the rows of the model depend on each other",
            where=f"sites {names}",
            why="the density of other rows changed with the latents of the first",
            remedy="use HMC() or SVI()",
        )
    if not close(again, precision) or torch.linalg.cholesky_ex(precision)[1].any():
        raise ModelError(
            "the latents of rows are not normal given all else, so EM cannot integrate them out",
            where=f"sites {names}",
            remedy="use HMC() or SVI()",
        )
