"""What EM refuses of continuous latents of rows, since it could not integrate them out or not see them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent.capture.ladder import AGREEMENT, close
from pyrolatent.capture.messages import DATA_PLATE
from pyrolatent.capture.sites import SiteTable, random_start
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ModelError
from pyrolatent.infer.maximisation import plain

OTHERS = "use HMC() or SVI()"
NUM_DRAWS = 3  # of what all rows share, at which rows are looked at
SCALES = (1.0, 5.0, 25.0)  # of latents of rows, times their mean and standard normal numbers


class QuadraticRows(Protocol):
    """Log densities of rows, to be quadratic in the latents of each."""

    @property
    def layout(self) -> Layout:
        """The latents of one row `(D,)`."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def shared(self) -> SiteTable:
        """The sites with the latents of rows given."""

    def slope(self, position: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient by `rows (N, D)` at free numbers `(D_shared,)`."""

    def quadratic(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradients at 0 `(N, D)` and negative Hessians `(N, D, D)`."""


def check_plates(sites: SiteTable) -> None:
    """Refuse latents of rows in a plate of another name, which would be taken for ones that all rows share.

    A plate of columns that crosses the data plate holds observations too, but its latents are shared.

    Raises:
        ModelError: With the site and the plate.
    """
    rows = {
        plate for site in sites.observed.values() if DATA_PLATE not in site.plates for plate in site.plates
    }
    for name, site in sites.latents.items():
        if DATA_PLATE not in site.plates and (held := rows.intersection(site.plates)):
            raise ModelError(
                "the latents of rows lie in a plate that EM does not know for that of the rows",
                where=f"site {name!r}, plate {min(held)!r}",
                why="the plate holds observations too, so each cell of the site would be fitted to its own",
                remedy=f"call the plate of the rows {DATA_PLATE!r}, or {OTHERS}",
            )


def check_row_sites(sites: SiteTable) -> None:
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
            remedy=OTHERS,
        )


def check_supports(supports: Mapping[str, Any]) -> None:
    """Refuse latents of rows that cannot take every value.

    Raises:
        ModelError: With the site and its support.
    """
    for name, support in supports.items():
        if plain(support) is not constraints.real:
            raise not_normal([name], f"the support is {support}, that of a normal all numbers")


def check_normal(rows: QuadraticRows, random: torch.Generator) -> None:
    """Refuse latents of rows that are not normal given all else, at random values of all latents.

    Raises:
        ModelError: Rows depend on each other, the gradient of a row's density is not linear in its latents,
            or the density has no peak.
    """
    names = list(rows.layout.names)
    positions = random_start((NUM_DRAWS, rows.shared.layout.size), random)
    check_apart(rows, positions[0], random)
    for position in positions:
        gradient, precision = rows.quadratic(position)
        factor, failed = torch.linalg.cholesky_ex(precision)
        if failed.any() or not gradient.isfinite().all():
            raise not_normal(names, "the density of a row has no peak, or is not finite")
        mean = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
        for scale in SCALES:
            noise = torch.randn(mean.shape, generator=random, dtype=mean.dtype, device=mean.device)
            elsewhere = scale * (mean + noise)
            if not is_line(rows.slope(position, elsewhere), gradient, precision, elsewhere):
                raise not_normal(names, "the gradient of its density is not linear in them")


def is_line(slope: Tensor, gradient: Tensor, precision: Tensor, rows: Tensor) -> bool:
    """True where the `slope (N, D)` at `rows` is `gradient (N, D)` less `precision (N, D, D)` times them."""
    expected = gradient - (precision @ rows[..., None])[..., 0]
    # what rounding is a share of
    size = 1 + gradient.abs() + (precision.abs() @ rows.abs()[..., None])[..., 0]
    return bool(((slope - expected).abs() <= AGREEMENT[slope.dtype] * size).all())


def check_apart(rows: QuadraticRows, position: Tensor, random: torch.Generator) -> None:
    """Refuse rows that depend on each other.

    Raises:
        ModelError: The density of other rows changes with the latents of the first.
    """
    zeros = position.new_zeros(rows.num_rows, rows.layout.size)
    moved = zeros.clone()
    moved[0] = random_start(tuple(zeros.shape[1:]), random, zeros.dtype)
    if not close(rows.slope(position, moved)[1:], rows.slope(position, zeros)[1:]):
        raise ModelError(
            "the rows of the model depend on each other",
            where=f"sites {list(rows.layout.names)}",
            why="the density of other rows changed with the latents of the first",
            remedy=OTHERS,
        )


def not_normal(names: Sequence[str], why: str) -> ModelError:
    """Return the error of latents of rows that EM cannot integrate out."""
    return ModelError(
        "the latents of rows are not normal given all else, so EM cannot integrate them out",
        where=f"sites {list(names)}",
        why=why,
        remedy=OTHERS,
    )
