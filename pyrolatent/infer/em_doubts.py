"""What speaks against a result of EM: cut starts, several peaks, spikes, edges, unknown directions."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from pyrolatent.capture.density import LogDensity
from pyrolatent.infer.em_climb import Ends, Peak
from pyrolatent.infer.em_steps import MixtureSteps, Steps
from pyrolatent.infer.laplace import COMPARABLE, sites_of
from pyrolatent.infer.modes import Mode
from pyrolatent.kernels.leapfrog import Density

WORTH = 10.0  # nats that a mixture should be above a single component
ROUNDS = 2  # of formulas, whose scales depend on locations
FALL = 0.5  # nats by which a normal falls within a standard deviation
ROUGHLY = 3.0  # times more or less of it that still count as normal
FAR = 1_000.0  # times as far, for directions along which it does not fall
HALVINGS = 60
PARALLEL = 1 - 1e-6  # cosine of axes that are the same


def unfinished(ends: Ends) -> tuple[str, ...]:
    """Return a warning of starts that were cut."""
    return (
        ()
        if ends.finished
        else (f"EM was still gaining after {int(ends.count)} iterations. Raise num_steps.",)
    )


def peak_doubts(peaks: list[Peak]) -> tuple[str, ...]:
    """Return what speaks against the first of the peaks, with what to do."""
    best, *others = (float(peak.mode.log_density) for peak in peaks)
    near = [other for other in others if best - other < COMPARABLE]
    if not near:
        return ()
    heights = ", ".join(f"{height:.2f}" for height in (best, *near))
    return (
        f"The likelihood has several peaks of about the same height ({heights} nats), with different "
        "results: the data do not tell which is right. Label some rows, take fewer components, or use HMC().",
    )


def looked_around(mode: Mode, evaluate: Density) -> tuple[Mode, Tensor]:
    """Return the normal around a peak with what can be drawn from it, and where it is none.

    A standard deviation along each axis both ways tells: the likelihood falls by half a nat if it is normal.
    Towards an edge of what is possible it does not fall.  Axes along which it is not normal are shortened, so
    that draws are numbers.

    Returns:
        The peak; and the axes `(D, M)`, of length 1, along which the likelihood is far from normal.
    """

    def falls(steps: Tensor) -> tuple[Tensor, Tensor]:
        points = mode.position + torch.stack([steps, -steps], 1)  # (M, 2, D)
        heights = evaluate(points.flatten(0, 1))[0].nan_to_num(nan=-torch.inf)
        least, most = (mode.log_density - heights.unflatten(0, (-1, 2))).aminmax(dim=1)
        return least, most

    axes, unknown = axes_of(mode)
    along = axes / axes.norm(dim=1, keepdim=True)
    least, most = falls(torch.where(unknown, FAR, 1.0)[:, None] * axes)
    at_edge = (least < FALL / ROUGHLY) & ((most > FALL) | ~unknown)
    rough = at_edge | ((most > FALL * ROUGHLY) & ~unknown)
    axes[at_edge] = torch.where(axes.norm(dim=1, keepdim=True) > 1, along, axes)[at_edge]
    for _ in range(HALVINGS if rough.any() else 0):
        axes[rough] = torch.where(
            falls(axes[rough])[1][:, None] > FALL * ROUGHLY, axes[rough] / 2, axes[rough]
        )
    return replace(mode, factor=axes.mT, flat=along[unknown & ~at_edge].mT), along[rough].mT


def axes_of(mode: Mode) -> tuple[Tensor, Tensor]:
    """Return axes `(D, D)` of the normal around a peak, and which of them it does not know `(D,)`.

    The others are principal ones, so that a long one to an edge has no share in what is well known.
    """
    columns = mode.factor.mT
    unknown = ((columns / columns.norm(dim=1, keepdim=True) @ mode.flat).abs() > PARALLEL).any(1)
    vectors, lengths, _ = torch.linalg.svd(columns[~unknown].mT, full_matrices=False)
    order = unknown.sort(stable=True).values  # those that are known first
    return torch.cat([(vectors * lengths).mT, columns[unknown]]), order


def normal_doubts(mode: Mode, rough: Tensor, density: LogDensity, penalised: bool) -> tuple[str, ...]:
    """Return what speaks against the normal around a peak, with what to do.

    Args:
        mode: The peak.
        rough: Axes `(D, M)` along which the likelihood is not that of a normal.
        density: Of the model.
        penalised: Whether priors count.
    """
    found = []
    remedy = "use HMC()." if penalised else "give priors and pass EM(penalised=True), or use HMC()."
    if number := mode.flat.shape[1]:
        found.append(
            f"The likelihood does not tell {number} of {density.dim} directions, in "
            f"{sites_of(mode.flat, density)}: only what is left when they are combined is known. "
            f"Fix one of them, or {remedy}"
        )
    if rough.shape[1] or not mode.reached:
        axes = rough if rough.shape[1] else mode.factor @ mode.slope
        found.append(
            f"The likelihood is not like a normal around its peak in {sites_of(axes, density)}, or still "
            "rises at an edge of what is possible: standard errors there mean nothing. To get intervals, "
            f"{remedy}"
        )
    return tuple(found)


def over_one_component(steps: Steps, best: Peak) -> float:
    """Return how much more likely a mixture is than the best one with a single value of the discrete sites.

    In nats; infinity for other models.
    """
    if not isinstance(steps, MixtureSteps) or steps.rows.num_values == 1:
        return math.inf
    rows = steps.rows
    all_rows = torch.eye(rows.num_values).to(rows.design)[..., None] * (rows.design @ rows.counts)
    latents = best.latents.expand(rows.num_values, -1)
    for _ in range(ROUNDS):
        latents = steps.formulas.improved(latents, rows.sums(all_rows))
    heights = steps.expected_sums(latents)[0].nan_to_num(nan=-torch.inf)
    return float(best.mode.log_density - heights.max())


def component_doubts(gain: float) -> tuple[str, ...]:
    """Return a warning where a mixture is hardly better than one of its components."""
    if gain >= WORTH:
        return ()
    return (
        f"The mixture is {gain:.1f} nats more likely than a single component (< {WORTH:g}): the data hardly "
        "tell that there are several. Do not read a result into them; label some rows or take one component.",
    )
