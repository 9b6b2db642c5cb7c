"""The training loop: gradient steps on flat parameter vectors of all refits side by side.

The loop synchronises with the device only at its checks, of which a run has about a hundred.  A
gradient that is not finite counts as zero until the next check, where training stops and goes back
to the last good state.  Between two steps all that the next one depends on is a `Moment`, which a
checkpoint keeps: whoever goes on from there gets the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from tqdm import tqdm

from pyrolatent.checkpoint import Checkpoint
from pyrolatent.infer.interrupt import Interrupt, interruptible
from pyrolatent.infer.moment import Moment, Watch, random_states, restore_random
from pyrolatent.infer.optimizers import Schedule, made, rate, restore
from pyrolatent.infer.rows import Stream
from pyrolatent.infer.step import Step
from pyrolatent.ranks import Ranks


@final
@dataclass(frozen=True)
class Trained:
    """The end of a training run.

    Attributes:
        flat: Parameters `(R, P)`: the last ones, or the best ones where training could stop early.
        train: Loss `(R, step)` in nats.
        validation: Loss of held-out rows `(R, check)`; empty without.
        failed_at: The step at which the loss was not finite, if it ever was.
        failed_flat: The parameters near it `(P,)`.
        interrupted: Whether the user ended it.
    """

    flat: Tensor
    train: Tensor
    validation: Tensor
    failed_at: int | None = None
    failed_flat: Tensor | None = None
    interrupted: bool = False


@final
class Training:
    """A run of gradient steps from `flat (R, P)`; see `train`."""

    def __init__(
        self,
        step: Step,
        flat: Tensor,
        stream: Stream,
        schedule: Schedule,
        validate: Callable[[Tensor], Tensor] | None,
        checkpoint: Checkpoint,
        ranks: Ranks,
    ) -> None:
        self.step, self.stream, self.schedule, self.validate = step, stream, schedule, validate
        self.checkpoint, self.ranks = checkpoint, ranks
        self.free = flat.clone().requires_grad_()
        self.optimizer = made(schedule, self.free)
        self.typical = flat.new_zeros(len(flat))
        self.watch = Watch(
            flat.clone(), flat.clone(), flat.new_full((len(flat),), torch.inf), flat.new_zeros(len(flat))
        )
        self.losses = flat.new_empty(len(flat), schedule.num_steps)
        self.held_out: list[Tensor] = []
        self.done, self.kept, self.stopped = 0, 0, False
        self.resume()

    def run(self, bar: "tqdm[None]") -> Trained:
        """Take all steps that are left."""
        bar.update(self.done)
        num_steps = self.schedule.num_steps
        with interruptible(self.ranks.alone) as interrupt:
            while self.done < num_steps and not (self.stopped or interrupt.asked):
                before = self.done
                self.advance(interrupt)
                bar.update(self.done - before)
                if self.done % self.schedule.every == 0 or self.done == num_steps:
                    self.check(bar)
                if self.checkpoint.due(self.done, num_steps):
                    self.keep()
        if interrupt.asked and self.done == 1:
            raise KeyboardInterrupt
        interrupted = interrupt.asked and self.done < num_steps
        if interrupted and self.checkpoint.folder is not None and self.kept < self.done:
            self.keep()
        return self.ended(interrupted)

    def advance(self, interrupt: Interrupt) -> None:
        """Take steps up to the next check or checkpoint, or until the user asks to stop."""
        block: list[Tensor] = []
        batches, optimizer, free, schedule = self.batches, self.optimizer, self.free, self.schedule
        times = torch.arange(self.done, self.until, dtype=free.dtype, device=free.device)
        for number, time in enumerate(times.unbind(), self.done):
            loss, free.grad, self.typical = self.step(free.detach(), self.typical, time, *next(batches))
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * rate(number, schedule.num_steps)
            optimizer.step()
            block.append(loss)
            if interrupt.asked:
                break
        self.losses[:, self.done : self.done + len(block)] = torch.stack(block, 1)
        self.done += len(block)

    @property
    def until(self) -> int:
        """The step of the next check or checkpoint; as often as each other unless told otherwise."""
        periods = [self.schedule.every, *([self.checkpoint.every] if self.checkpoint.every else [])]
        return min(self.schedule.num_steps, *(self.done - self.done % period + period for period in periods))

    def check(self, bar: "tqdm[None]") -> None:
        """Look at the losses since the last check, and decide whether to go on."""
        last = (self.done - 1) // self.schedule.every * self.schedule.every
        losses, flat = self.losses[:, last : self.done], self.free.detach()
        if not losses.isfinite().all():
            self.stopped = True
            return
        if self.validate is not None:
            self.held_out.append(self.ranks.mean(self.validate(flat)))
        bar.set_postfix(loss=f"{float(losses.mean()):.5g}", refresh=False)
        loss = self.held_out[-1] if self.held_out else losses.mean(1)
        self.stopped = self.watch.see(flat, loss, self.schedule.patience)

    def keep(self) -> None:
        """Write a checkpoint."""
        moment = Moment(
            self.done, self.stopped, self.free.detach(), self.typical, self.optimizer.state_dict(),
            self.watch, self.held_out, self.stream.state, random_states(self.free, self.ranks),
        )  # fmt: skip
        self.checkpoint.write(moment, {"losses": self.losses[:, self.kept : self.done]})
        self.kept = self.done

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one to go on from."""
        moment = self.checkpoint.read([Moment, Watch], self.free.device)
        if moment is not None:
            self.done, self.kept, self.stopped = moment.done, moment.done, moment.stopped
            self.typical, self.watch, self.held_out = moment.typical, moment.watch, moment.held_out
            self.free.detach().copy_(moment.flat)
            restore(self.optimizer, self.free, moment.optimizer)
            self.stream.restore(moment.batches)
            self.losses[:, : self.done] = torch.cat([p["losses"] for p in self.checkpoint.pieces()], 1)
            restore_random(moment.random, self.free, self.ranks)
        self.batches = self.stream.after(self.done)

    def ended(self, interrupted: bool) -> Trained:
        """Return what was learnt."""
        train, watch, flat = self.losses[:, : self.done].contiguous(), self.watch, self.free.detach()
        validation = torch.stack(self.held_out, 1) if self.held_out else flat.new_zeros(len(flat), 0)
        finite = train.isfinite()
        if not finite.all():
            bad = int((~finite.all(0)).nonzero()[0])
            culprit = int((~finite.all(1)).nonzero()[0])
            return Trained(
                watch.good, train[:, :bad].contiguous(), validation, bad, flat[culprit].clone(), interrupted
            )
        best = watch.best if self.schedule.patience is not None and watch.smooth is not None else flat.clone()
        return Trained(best, train, validation, interrupted=interrupted)


def train(
    step: Step,
    flat: Tensor,
    stream: Stream,
    schedule: Schedule,
    validate: Callable[[Tensor], Tensor] | None,
    bar: "tqdm[None]",
    checkpoint: Checkpoint,
    ranks: Ranks,
) -> Trained:
    """Take gradient steps from `flat (R, P)`, or go on with those of a checkpoint.

    Args:
        step: Loss, gradient and typical norm of all refits.
        flat: Where to begin.
        stream: The rows of each step.
        schedule: Steps, learning rate, patience and optimiser.
        validate: From parameters `(R, P)` to the loss of held-out rows `(R,)`.
        bar: Progress.
        checkpoint: Where the run is kept.
        ranks: The processes that take the steps together.

    Raises:
        KeyboardInterrupt: The user interrupts the very first step, or the work of several processes.
    """
    return Training(step, flat, stream, schedule, validate, checkpoint, ranks).run(bar)
