"""From starts to peaks of a likelihood: iterations of EM, then Newton's method.

EM finds the hills and is slow on ridges, where what is left to gain comes in ever smaller steps.  There
Newton's method goes on: near a peak it takes a few steps, and its curvature is the observed information.
On many rows the starts run on some of them first, and all rows see only what is best there.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.exponential import MIN_SCALE, NormalFamily
from pyrolatent.infer.em_starts import climbed_starts, cluster_starts
from pyrolatent.infer.em_steps import MixtureSteps, Steps
from pyrolatent.infer.laplace import COMPARABLE
from pyrolatent.infer.modes import Mode, newton_ascent
from pyrolatent.infer.relabelling import in_order
from pyrolatent.infer.stages import Kept, kept_of
from pyrolatent.infer.start import check_same_model, starting_draws
from pyrolatent.result import Fit, Problem

KEPT = 3  # starts at most that Newton's method goes on with
APART = 0.01  # nats by which two peaks differ
ABOVE_FLOOR = 1.01
SLOW = 0.01  # share by which steps shrink, below which Newton's method is faster
LITTLE = 0.1  # nats that an iteration gains, from which it may take over


@final
@dataclass(frozen=True)
class Peak:
    """A peak of the likelihood.

    Attributes:
        mode: The peak, with the normal that its curvature makes.
        latents: There `(R,)`.
        spiked: Whether a scale is at its floor, so that it is no peak.
    """

    mode: Mode
    latents: Tensor
    spiked: bool

    @property
    def is_one(self) -> bool:
        """Whether the likelihood falls in all directions."""
        return self.mode.reached and not self.mode.flat.shape[1]


@final
@dataclass(frozen=True)
class Ends:
    """Where starts ended.

    Attributes:
        latents: `(B, R)`.
        total: Log-likelihoods there `(B,)`, in nats.
        count: Iterations `()`.
        finished: Whether none of them was cut `()`.
    """

    latents: Tensor
    total: Tensor
    count: Tensor
    finished: Tensor


@final
@dataclass(frozen=True)
class Budget:
    """How long EM goes on.

    Attributes:
        num_starts: Side by side.
        num_steps: Iterations at most.
        tolerance: Nats left to gain at which a start ends.
    """

    num_starts: int
    num_steps: int
    tolerance: float


def find_peaks(
    budget: Budget, steps: Steps, some: Steps | None, problem: Problem, bar: Any
) -> tuple[list[Peak], Ends]:
    """Return the peaks that starts lead to, the best first, and where EM ended.

    `some` are the steps on fewer rows, on which all starts run first.
    """
    kept = kept_of(problem)
    if problem.start is not None:
        starts = steps.latents.of_positions(begun(problem.start, steps))
    elif some is None:
        starts = first_latents(steps, budget.num_starts, problem.seed)
    else:
        first, _ = peaks_from(budget, some, first_latents(some, budget.num_starts, problem.seed), kept, bar)
        near = [p for p in first if first[0].mode.log_density - p.mode.log_density < COMPARABLE]
        starts = torch.stack([peak.latents for peak in near])
    return peaks_from(budget, steps, starts, kept, bar)


def first_latents(steps: Steps, number: int, seed: int) -> Tensor:
    """Return where `number` starts begin `(B, R)`."""
    if isinstance(steps, MixtureSteps):
        return cluster_starts(steps, number, seed)
    return climbed_starts(steps, number, seed)


def begun(start: Fit, steps: Steps) -> Tensor:
    """Return where an earlier fit of the same model was `(1, D)`."""
    density = steps.latents.density
    if "position" in start.state:
        check_same_model(density, start)
        return start.state["position"].to(density.device, density.dtype)[None]
    return starting_draws(density, start).mean(0, keepdim=True)


def peaks_from(budget: Budget, steps: Steps, starts: Tensor, kept: Kept, bar: Any) -> tuple[list[Peak], Ends]:
    """Return the peaks that `starts (B, R)` lead to, the best first, and where EM ended."""
    ends = Ends(**kept.once(lambda: vars(iterated(budget, steps, starts, bar, hands_over=True))))
    spiked = spikes(steps, ends.latents)
    real = ends.total if spiked.all() else torch.where(spiked, -torch.inf, ends.total)
    tried = torch.stack([ends.latents[start] for start in different(real)[:KEPT] if real[start].isfinite()])
    peaks = [peak_above(steps, latents, kept) for latents in tried]
    if not all(peak.is_one for peak in peaks):  # but a saddle, which Newton's method does not leave
        ends = Ends(**kept.once(lambda: vars(iterated(budget, steps, tried, bar, hands_over=False))))
        peaks = [peak_above(steps, latents, kept) for latents in ends.latents]
    heights = torch.stack(
        [torch.where(torch.tensor(p.spiked), -torch.inf, p.mode.log_density) for p in peaks]
    )
    return [peaks[number] for number in different(heights)], ends


def different(heights: Tensor) -> list[int]:
    """Return positions in `heights (B,)`, the highest first, one of those that are equal.

    These are of one peak, or of two that differ by labels alone.
    """
    found: list[int] = []
    for position in heights.argsort(descending=True).tolist():
        if not found or not (heights[found[-1]] - heights[position]).abs() < APART:
            found.append(position)
    return found


def peak_above(steps: Steps, latents: Tensor, kept: Kept) -> Peak:
    """Return the peak above `latents (R,)`, by Newton's method."""
    latents = in_order(steps, latents) if isinstance(steps, MixtureSteps) else latents
    position = steps.latents.position(latents[None])[0]
    mode = Mode(**kept.once(lambda: vars(newton_ascent(steps.log_likelihood, position))))
    cells = steps.latents.of_positions(mode.position[None])
    return Peak(mode, cells[0], bool(spikes(steps, cells)[0]))


def iterated(budget: Budget, steps: Steps, latents: Tensor, bar: Any, *, hands_over: bool) -> Ends:
    """Return where EM ends from `latents (B, R)`: each start where little is left to gain.

    Or where Newton's method is faster, if EM hands over to that.

    Two iterations tell how fast steps shrink, and by that a point ahead, from which it goes on if the
    likelihood there is higher (Varadhan and Roland 2008, "Simple and globally convergent methods for
    accelerating the convergence of any EM algorithm", scheme S3).
    """
    latents = latents.clone()
    total = torch.full_like(latents[:, 0], -torch.inf)
    active, count = torch.arange(len(total), device=total.device), 0
    while count < budget.num_steps:
        begun = latents[active]
        first, once = steps.improved(begun)
        second, twice = steps.improved(once)
        total[active], latents[active] = second, twice
        change, turn = once - begun, twice - 2 * once + begun
        shrinks = turn.norm(dim=1) / change.norm(dim=1).clamp(min=torch.finfo(change.dtype).tiny)
        gain = second - first
        goes_on = left_to_gain(gain, shrinks) > budget.tolerance
        goes_on &= (gain > LITTLE) | (shrinks > SLOW) | (not hands_over)
        active = active[goes_on]
        count += 3
        bar.update(3)
        if not len(active):
            break
        length = 1 / shrinks[goes_on, None]
        ahead = begun[goes_on] + 2 * length * change[goes_on] + length.square() * turn[goes_on]
        ahead = torch.where((length > 1) & steps.formulas.possible(ahead), ahead, latents[active])
        third, better = steps.improved(ahead)
        latents[active] = torch.where((third >= total[active])[:, None], better, latents[active])
    return Ends(latents, total, torch.tensor(count), torch.tensor(not len(active)))


def left_to_gain(gain: Tensor, shrinks: Tensor) -> Tensor:
    """Return what is left to gain `(B,)` if steps go on to shrink so, by a share `shrinks (B,)` each time.

    Near a peak gains shrink as squares of steps do.
    """
    left = (1 - shrinks.clamp(max=1.0)).square()
    return torch.where(gain > 0, gain * left / (1 - left).clamp(min=torch.finfo(gain.dtype).eps), 0.0)


def spikes(steps: Steps, latents: Tensor) -> Tensor:
    """Return which of `latents (B, R)` have a scale at its floor `(B,)`."""
    spiked = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
    for part in steps.formulas.parts:
        if isinstance(part.family, NormalFamily):
            _, scale = part.family.standard(part.parameters(latents))
            spiked |= (scale < ABOVE_FLOOR * MIN_SCALE).any(-1)
    return spiked
