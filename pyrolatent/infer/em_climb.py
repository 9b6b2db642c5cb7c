"""From starts to peaks of a likelihood: iterations of EM, then Newton's method.

EM finds the hills and is slow on ridges, where what is left to gain comes in ever smaller steps.  There
Newton's method goes on: near a peak it takes a few steps, and its curvature is the observed information.
On many rows the starts run on some of them first, and all rows see only what is best there.
"""

from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from pyrolatent.errors import ModelError
from pyrolatent.exponential import MIN_SCALE, NormalFamily
from pyrolatent.infer.em_labelled_starts import labelled_starts
from pyrolatent.infer.em_starts import climbed_starts, cluster_starts
from pyrolatent.infer.em_steps import MixtureSteps, ModelSteps, Steps
from pyrolatent.infer.laplace import COMPARABLE
from pyrolatent.infer.modes import Mode, newton_ascent
from pyrolatent.infer.relabelling import in_order
from pyrolatent.infer.stages import Kept
from pyrolatent.infer.start import check_same_model, starting_draws
from pyrolatent.result import Fit, Problem

KEPT = 3  # starts at most that Newton's method goes on with
APART = 0.01  # nats by which two peaks differ
ABOVE_FLOOR = 1.01
NARROW = 1e-3  # of the standard deviation of all values: a scale that is a spike
FEW_ROWS = 30  # if it is that of fewer
SLOW = 0.01  # share by which steps shrink, below which Newton's method is faster
LITTLE = 0.1  # nats that an iteration gains, from which it may take over


Found = TypeVar("Found")


@final
@dataclass(frozen=True)
class Peak:
    """A peak of the likelihood.

    Attributes:
        mode: The peak, with the normal that its curvature makes.
        latents: There `(R,)`.
    """

    mode: Mode
    latents: Tensor

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
class Search:
    """How peaks are looked for.

    Attributes:
        problem: With the model and the seed.
        num_starts: Side by side.
        num_steps: Iterations at most.
        tolerance: Nats left to gain at which a start ends.
        kept: Results that are computed once.
        bar: Of progress.
    """

    problem: Problem
    num_starts: int
    num_steps: int
    tolerance: float
    kept: Kept
    bar: Any

    def peaks(self, steps: Steps, some: Steps | None) -> tuple[list[Peak], Ends]:
        """Return the peaks that starts lead to, the best first, and where EM ended.

        `some` are the steps on fewer rows, on which all starts run first.
        """
        if self.problem.start is not None:
            starts = steps.latents.of_positions(begun(self.problem.start, steps))
        elif some is None:
            starts = self.starts(steps)
        else:
            first, _ = self.peaks_from(some, self.starts(some))
            near = [p for p in first if first[0].mode.log_density - p.mode.log_density < COMPARABLE]
            starts = torch.stack([peak.latents for peak in near])
        return self.peaks_from(steps, starts)

    def starts(self, steps: Steps) -> Tensor:
        """Return where starts begin `(B, R)`."""
        number, seed = self.num_starts, self.problem.seed
        if isinstance(steps, MixtureSteps):
            return cluster_starts(steps, number, seed)
        found = labelled_starts(steps, number, seed) if isinstance(steps, ModelSteps) else None
        return climbed_starts(steps, number, seed) if found is None else found

    def peaks_from(self, steps: Steps, starts: Tensor) -> tuple[list[Peak], Ends]:
        """Return the peaks that `starts (B, R)` lead to, the best first, and where EM ended.

        Raises:
            ModelError: Every start ended in a spike.
        """
        ends = Ends(**self.kept.once(lambda: vars(self.iterated(steps, starts, hands_over=True))))
        real = torch.where(spikes(steps, ends.latents), torch.nan, ends.total)
        tried = checked([ends.latents[start] for start in different(real)[:KEPT]])
        peaks = [self.peak_above(steps, latents) for latents in tried]
        if not all(peak.is_one for peak in peaks):  # but a saddle, which Newton's method does not leave
            stacked = torch.stack(tried)
            ends = Ends(**self.kept.once(lambda: vars(self.iterated(steps, stacked, hands_over=False))))
            peaks = [self.peak_above(steps, latents) for latents in ends.latents]
        heights = torch.stack([peak.mode.log_density for peak in peaks])
        heights = torch.where(
            spikes(steps, torch.stack([peak.latents for peak in peaks])), torch.nan, heights
        )
        return checked([peaks[number] for number in different(heights)]), ends

    def peak_above(self, steps: Steps, latents: Tensor) -> Peak:
        """Return the peak above `latents (R,)`, by Newton's method."""
        latents = in_order(steps, latents) if isinstance(steps, MixtureSteps) else latents
        position = steps.latents.position(latents[None])[0]
        mode = Mode(**self.kept.once(lambda: vars(newton_ascent(steps.log_likelihood, position))))
        cells = steps.latents.of_positions(mode.position[None])
        return Peak(mode, cells[0])

    def iterated(self, steps: Steps, latents: Tensor, *, hands_over: bool) -> Ends:
        """Return where EM ends from `latents (B, R)`: each start where little is left to gain.

        Or where Newton's method is faster, if EM hands over to that.

        Two iterations tell how fast steps shrink, and by that a point ahead, from which it goes on if the
        likelihood there is higher (Varadhan and Roland 2008, "Simple and globally convergent methods for
        accelerating the convergence of any EM algorithm", scheme S3).
        """
        latents = latents.clone()
        total = torch.full_like(latents[:, 0], -torch.inf)
        active, count = torch.arange(len(total), device=total.device), 0
        while count < self.num_steps:
            begun = latents[active]
            first, once = steps.improved(begun)
            second, twice = steps.improved(once)
            total[active], latents[active] = second, twice
            change, turn = once - begun, twice - 2 * once + begun
            shrinks = turn.norm(dim=1) / change.norm(dim=1).clamp(min=torch.finfo(change.dtype).tiny)
            gain = second - first
            goes_on = left_to_gain(gain, shrinks) > self.tolerance
            goes_on &= (gain > LITTLE) | (shrinks > SLOW) | (not hands_over)
            active = active[goes_on]
            count += 3
            self.bar.update(3)
            if not len(active):
                break
            length = 1 / shrinks[goes_on, None]
            ahead = begun[goes_on] + 2 * length * change[goes_on] + length.square() * turn[goes_on]
            ahead = torch.where((length > 1) & steps.formulas.possible(ahead), ahead, latents[active])
            third, better = steps.improved(ahead)
            latents[active] = torch.where((third >= total[active])[:, None], better, latents[active])
        return Ends(latents, total, torch.tensor(count), torch.tensor(not len(active)))


def begun(start: Fit, steps: Steps) -> Tensor:
    """Return where an earlier fit of the same model was `(1, D)`."""
    density = steps.latents.density
    if "position" in start.state:
        check_same_model(density, start)
        return start.state["position"].to(density.device, density.dtype)[None]
    return starting_draws(density, start).mean(0, keepdim=True)


def different(heights: Tensor) -> list[int]:
    """Return positions in `heights (B,)` that are finite, the highest first, one of those that are equal.

    These are of one peak, or of two that differ by labels alone.
    """
    found: list[int] = []
    finite = heights.nan_to_num(nan=-torch.inf)
    for position in finite.argsort(descending=True)[: int(finite.isfinite().sum())].tolist():
        if not found or not (heights[found[-1]] - heights[position]).abs() < APART:
            found.append(position)
    return found


def checked(found: list[Found]) -> list[Found]:
    """Return what starts led to.

    Raises:
        ModelError: All of them ended in a spike.
    """
    if not found:
        raise ModelError(
            "every start of EM ended in a spike, or where the likelihood is not finite",
            why="with a scale of 0 around values that are all equal, the likelihood has no end",
            remedy="take fewer components; or give scales a prior that is 0 at 0, as LogNormal is, and use "
            "EM(penalised=True) or HMC()",
        )
    return found


def left_to_gain(gain: Tensor, shrinks: Tensor) -> Tensor:
    """Return what is left to gain `(B,)` if steps go on to shrink so, by a share `shrinks (B,)` each time.

    Near a peak gains shrink as squares of steps do.
    """
    left = (1 - shrinks.clamp(max=1.0)).square()
    return torch.where(gain > 0, gain * left / (1 - left).clamp(min=torch.finfo(gain.dtype).eps), 0.0)


def spikes(steps: Steps, latents: Tensor) -> Tensor:
    """Return which of `latents (B, R)` have a spike `(B,)`: a scale at its floor, or around few rows."""
    spiked = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
    for part, sums in zip(steps.formulas.parts, steps.expected_sums(latents)[1], strict=True):
        if isinstance(part.family, NormalFamily):
            _, scale = part.family.standard(part.parameters(latents))
            around_few = (scale < NARROW) & (sums[..., 0] < FEW_ROWS)
            spiked |= ((scale < ABOVE_FLOOR * MIN_SCALE) | around_few).any(-1)
    return spiked
