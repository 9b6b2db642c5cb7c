"""EM where each row has continuous latents that are normal given all else.

Then the log joint density f of a row is quadratic in its latents z, whatever the model, and its gradient g is
linear: H e_j = g(e_j) - g(0) are the columns of its Hessian, exactly.  These give the posterior N(V g(0), V),
V = -H^-1, and the integral

    log p(x) = f(m) + D/2 log(2 pi) + 1/2 log |V|,    m = V g(0),

in first derivatives alone, so that it is captured with its gradient as any density.  All latents that rows
share climb it (the ECME of Liu and Rubin 1994).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.func import grad

from pyrolatent.capture.context import model_context
from pyrolatent.capture.density import LogDensity, captured
from pyrolatent.capture.expectation import log_total
from pyrolatent.capture.failures import explained
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import close, map_points
from pyrolatent.capture.messages import Message
from pyrolatent.capture.modes import FailingCholesky
from pyrolatent.capture.sites import SiteTable, random_start, read_sites
from pyrolatent.capture.vector import Layout
from pyrolatent.infer.em_row_checks import check_normal, check_row_sites, check_supports
from pyrolatent.infer.em_steps import counted, supports_of
from pyrolatent.infer.maximisation import Formulas, formulas
from pyrolatent.pair import Model
from pyrolatent.result import Problem
from pyrolatent.seeds import generator
from pyrolatent.systems import factors


@final
class AtZeros(Messenger):
    """Gives the sites with these names the value 0, however many rows there are."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, message: Message) -> None:
        if message["name"] in self.names:
            message["value"] = torch.zeros(message["fn"].shape())
            message["is_observed"] = True


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

    def given(self, rows: Tensor) -> Model:
        """Return the model with the latents of rows `(N, D)` at these values."""
        conditioned: Model = pyro.poutine.condition(self.model, data=self.layout.unpack(rows))
        return conditioned

    def log_joint(self, position: Tensor, rows: Tensor) -> Tensor:
        """Return the log joint density `()` at free numbers `(D_shared,)` and latents of rows `(N, D)`."""
        joint = evaluate(self.given(rows), self.data, self.shared, position)
        return log_total(counted(joint, self.penalised))

    def slope(self, position: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of the log joint density by `rows (N, D)`, of the same shape."""
        gradient: Tensor = grad(lambda z: self.log_joint(position, z))(rows)
        return gradient

    def quadratic(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradients at 0 `(N, D)` and negative Hessians `(N, D, D)` of the densities of rows."""
        axes = torch.eye(self.layout.size, dtype=position.dtype, device=position.device)
        zeros = axes.new_zeros(self.num_rows, self.layout.size)
        gradient = self.slope(position, zeros)
        columns = [gradient - self.slope(position, zeros + axis) for axis in axes.unbind()]
        return gradient, torch.stack(columns, -1)

    def log_likelihood(self, position: Tensor) -> Tensor:
        """Return the log-likelihood `()` of what all rows share, those of rows integrated out."""
        gradient, precision = self.quadratic(position)
        log_det, _ = eliminated(gradient, precision)
        # half of g'Vg has the derivative V g
        mean = grad(lambda g: 0.5 * eliminated(g, precision.detach())[1])(gradient.detach())
        constant = 0.5 * self.num_rows * self.layout.size * math.log(2 * math.pi)
        return self.log_joint(position, mean.detach()) + constant - 0.5 * log_det  # at its peak in the mean

    def posterior(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean `(N, D)` and the Cholesky factor of the precision `(N, D, D)` of each row's latents."""
        gradient, precision = self.quadratic(position)
        factor = torch.linalg.cholesky(precision)
        return torch.cholesky_solve(gradient[..., None], factor)[..., 0], factor

    def drawn(self, position: Tensor, noise: Tensor) -> Tensor:
        """Return latents of rows from their posterior, made of standard normal `noise`, both `(N, D)`."""
        mean, factor = self.posterior(position)
        return mean + torch.linalg.solve_triangular(factor.mT, noise[..., None], upper=True)[..., 0]


def eliminated(gradient: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Return sums over rows `()` of log |P| and of g' P^-1 g, for g `(N, D)` and P `(N, D, D)`."""
    systems = torch.cat([gradient[..., None], precision], -1).movedim(0, -1)[..., None]
    ((logs, squares),) = factors({len(systems): systems}, 1)
    return logs.sum(), squares.sum()


def rows_of(problem: Problem, sites: SiteTable, shared: SiteTable, penalised: bool) -> RowLatents:
    """Return the model as a function of the latents of its rows, and of the `shared` ones."""
    layout = Layout({name: sites.latents[name].shape[1:] for name in sites.row_latents})
    return RowLatents(problem.pair.model, problem.data, shared, layout, sites.rows or 0, penalised)


def integrated(
    problem: Problem, sites: SiteTable, random: torch.Generator, penalised: bool
) -> tuple[LogDensity, Formulas]:
    """Return the log-likelihood of what all rows share, and that none of it has a formula.

    Raises:
        ModelError: The latents of rows are not normal given all else.
    """
    check_row_sites(sites)
    model = AtZeros(sites.row_latents)(problem.pair.model)
    with model_context(problem.dtype, problem.device):
        joint = evaluate(problem.pair.model, problem.data, sites, random_start((sites.layout.size,), random))
        supports = supports_of(joint)
        check_supports({name: supports.pop(name) for name in sites.row_latents})
    with model_context(problem.dtype, problem.device, validate=True), explained(problem.data):
        shared = read_sites(model, problem.data, random)
    rows = rows_of(problem, sites, shared, penalised)
    with model_context(problem.dtype, problem.device), explained(problem.data):
        check_normal(rows, random)
        examples = random_start((2, shared.layout.size), random)
        batched = captured(rows.log_likelihood, rows.log_likelihood, examples)
    density = LogDensity(model, problem.data, shared, problem.dtype, problem.device, batched)
    cells = Layout({name: site.shape for name, site in shared.latents.items()})
    return density, formulas((), cells, torch.ones(cells.size, dtype=torch.bool), supports)


def samples_of_rows(
    problem: Problem, density: LogDensity, sites: SiteTable, draws: Tensor
) -> dict[str, Tensor]:
    """Return all sites `(1, draw, *site)`, on the host, at positions `(draw, D)` of what all rows share.

    Latents of rows are drawn from their posterior at each of these.
    """
    rows = rows_of(problem, sites, density.sites, penalised=False)
    random = generator(problem.seed, "latents of rows", device=draws.device)
    shape = (len(draws), rows.num_rows, rows.layout.size)
    noise = torch.randn(shape, generator=random, dtype=draws.dtype, device=draws.device)

    def whole(point: dict[str, Tensor]) -> dict[str, Tensor]:
        with FailingCholesky():
            own = rows.layout.unpack(rows.drawn(point["shared"], point["noise"]))
        return {"position": sites.layout.pack({**density.sites.layout.unpack(point["shared"]), **own})}

    size = density.points_at_once
    with density.context(), torch.no_grad():
        positions = map_points(whole, {"shared": draws, "noise": noise}, density.rung, size)["position"]
    return replace(density, model=problem.pair.model, sites=sites).samples(positions[None], problem.seed)


def unmoved_sites(problem: Problem, density: LogDensity, sites: SiteTable, position: Tensor) -> list[str]:
    """Return latents and deterministics that latents of rows do not move, by a look at `position (D,)`."""
    rows = rows_of(problem, sites, density.sites, penalised=False)
    with density.context(), torch.no_grad():
        mean, _ = rows.posterior(position)
        runs = [
            evaluate(rows.given(given), rows.data, rows.shared, position).values for given in (mean, mean + 1)
        ]
    return [name for name, value in runs[0].items() if close(runs[1][name], value)]
