"""The log joint density of a model over all its unconstrained latents, and back to named sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.context import model_context
from pyrolatent.capture.discrete import check_enumerable, draw_sites, uniform_numbers
from pyrolatent.capture.failures import explained
from pyrolatent.capture.joint import LogJoint, evaluate
from pyrolatent.capture.ladder import MAX_POINTS, Batched, Point, Rung, climb, map_points
from pyrolatent.capture.messages import Message
from pyrolatent.capture.modes import FailingCholesky, ReadValues
from pyrolatent.capture.sites import SiteTable, read_sites
from pyrolatent.errors import ModelError
from pyrolatent.pair import Model
from pyrolatent.seeds import generator

POSITION = "position of the latents"  # beside the discrete sites, so that one map runs over both
MAX_CELLS = 2**22  # of all sites and tables over discrete values, on the device at a time: 32 MiB in float64


@final
@dataclass(frozen=True)
class LogDensity:
    """A captured log density: `(B, D) -> (B,)` with its gradient `(B, D)`.

    `batched` runs the model on B points, on the rung of the ladder that it allows.  Discrete latent
    sites are summed out, and `largest_table` is the size of the largest tensor on the way.
    """

    model: Model
    data: Mapping[str, Any]
    sites: SiteTable
    dtype: torch.dtype
    device: torch.device
    batched: Batched
    largest_table: int = 0

    @property
    def dim(self) -> int:
        return self.sites.layout.size

    @property
    def rung(self) -> Rung:
        return self.batched.rung

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density `(B,)` in nats and its gradient at `position (B, D)`."""
        with self.context():
            return self.batched(position)

    def context(self) -> AbstractContextManager[None]:
        return model_context(self.dtype, self.device)

    def constrain(
        self, position: Tensor, discrete: Mapping[str, Tensor] | None = None, at_once: int = MAX_POINTS
    ) -> dict[str, Tensor]:
        """Return latent and deterministic sites `(S, *site)` at `position (S, D)`, so many `at_once`.

        Without values `(S, *site)` of the `discrete` sites, what depends on them is left out.
        """
        points = {**(discrete or {}), POSITION: position}

        def sites(point: dict[str, Tensor]) -> dict[str, Tensor]:
            flat = point.pop(POSITION)
            with FailingCholesky():  # of a draw that cannot be, as next to an edge
                return evaluate(self.model, self.data, self.sites, flat, point).values

        with self.context(), torch.no_grad():
            return {**map_points(sites, points, self.rung, at_once), **(discrete or {})}

    def discrete(self, position: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Return the discrete sites `(S, *site)`, as whole numbers, at `position (S, D)`.

        For each position they are drawn from their joint distribution given all else.
        """
        if not self.sites.discrete:
            return {}

        def draw(point: dict[str, Tensor]) -> dict[str, Tensor]:
            joint = evaluate(self.model, self.data, self.sites, point.pop(POSITION))
            return draw_sites(joint.messages, self.sites.discrete, point)

        with self.context(), torch.no_grad():
            uniforms = uniform_numbers(self.sites.discrete, len(position), random)
            return map_points(draw, {**uniforms, POSITION: position}, self.rung)

    def samples(self, position: Tensor, seed: int) -> dict[str, Tensor]:
        """Return all sites `(chain, draw, *site)`, on the host, at `position (chain, draw, D)`.

        Discrete sites are drawn given the others.  The device holds a piece at a time, so its memory
        does not grow with the number of draws.
        """
        random = generator(seed, "discrete", device=self.device)
        flat, begin = position.flatten(0, 1), 0
        found: dict[str, Tensor] = {}
        for piece in flat.split(self.points_at_once):
            piece = piece.to(self.device)
            for name, values in self.constrain(piece, self.discrete(piece, random)).items():
                if name not in found:
                    shape = (len(flat), *values.shape[1:])
                    found[name] = torch.empty(shape, dtype=values.dtype, device="cpu")
                found[name][begin : begin + len(piece)] = values
            begin += len(piece)
        return {name: values.unflatten(0, position.shape[:2]) for name, values in found.items()}

    @property
    def points_at_once(self) -> int:
        """How many points have at most `MAX_CELLS` cells, one at least.

        Several full batches of `map_points` where they fit, so that each point is computed in the
        batch in which it would be without cuts.
        """
        table = self.sites
        kept = {**table.latents, **table.deterministics, **table.discrete}
        rows = {name: site for name, site in table.observed.items() if name not in table.summaries}
        cells = sum(site.shape.numel() for site in (*kept.values(), *rows.values())) + self.largest_table
        points = max(1, MAX_CELLS // cells)
        return points - points % MAX_POINTS if points > MAX_POINTS else points

    def log_prob_of_sites(self, position: Tensor) -> dict[str, float]:
        """Return each site's log-probability, and the Jacobian's, at one `position (D,)`."""
        with self.context(), torch.no_grad(), FailingCholesky():
            joint = evaluate(self.model, self.data, self.sites, position)
            terms = joint.terms | {"log |Jacobian|": torch.as_tensor(joint.log_jacobian)}
        return {name: float(term) for name, term in terms.items()}


def capture_density(
    model: Model,
    data: Mapping[str, Any],
    *,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
    total: Callable[[LogJoint], Tensor] | None = None,
) -> LogDensity:
    """Read the sites of `model(**data)` and capture its log density.

    Args:
        model: A Pyro model.
        data: Its arguments.
        seed: Of the points at which it is looked at.
        dtype: Of all floating-point numbers.
        device: Where it runs.
        total: What of a run counts, in nats; by default the log joint density of the free numbers.

    Raises:
        ModelError: The model has learnable parameters, no continuous latent site, or discrete ones
            that cannot be summed out.
        DataError: The entries of `data` do not fit each other.
    """
    device = device or torch.device("cpu")
    random = generator(seed, "sites", device=device)
    with model_context(dtype, device, validate=True), explained(data):
        sites = read_sites(model, data, random)
    check_sampleable(sites)

    def counting(count: Callable[[LogJoint], Tensor]) -> Point:
        return lambda flat: count(evaluate(model, data, sites, flat))

    with model_context(dtype, device), explained(data):
        examples = 2 * torch.rand(2, sites.layout.size, generator=random, device=device) - 1
        table = largest_table(model, data, sites, examples[0], random) if sites.discrete else 0
        fast, plain = (LogJoint.total, LogJoint.plain_total) if total is None else (total, total)
        batched = captured(counting(fast), counting(plain), examples)
    return LogDensity(model, data, sites, dtype, device, batched, table)


def captured(density: Point, plain: Point, examples: Tensor) -> Batched:
    """Capture a function `(D,) -> ()` of free numbers that runs a model, at `examples (B, D)`.

    `plain` is the same without any shortcut.

    Raises:
        ModelError: The density is random.
    """

    def watched(function: Point) -> Point:
        def point(flat: Tensor) -> Tensor:
            with ReadValues(), FailingCholesky() as cholesky:
                log_density = function(flat)
            return cholesky.guard(log_density)

        return point

    return climb(watched(density), watched(plain), examples)


def largest_table(
    model: Model, data: Mapping[str, Any], sites: SiteTable, flat: Tensor, random: torch.Generator
) -> int:
    """Check that the model can be enumerated; return the size of its largest table of log-probabilities."""

    def run(discrete: Mapping[str, Tensor]) -> dict[str, Message]:
        return evaluate(model, data, sites, flat, discrete).messages

    return check_enumerable(run, sites.discrete, random)


def check_sampleable(sites: SiteTable) -> None:
    """Refuse models without latent sites, and those with parameters to learn."""
    if sites.parameters:
        raise ModelError(
            "the model has learnable parameters, which a sampler would leave at their first values",
            where=f"parameters {list(sites.parameters)}",
            remedy="give them priors with pyro.sample, or use a method that learns parameters",
        )
    if sites.discrete and not sites.layout.size:
        raise ModelError(
            "the model has only discrete latent sites",
            where=f"sites {list(sites.discrete)}",
            why="once they are summed out, nothing is left to sample",
            remedy="give an unknown of the model a prior, or use infer_discrete of Pyro",
        )
    if not sites.layout.size:
        raise ModelError(
            "the model has no latent site to infer",
            why=f"its sites: observed {list(sites.observed)}, deterministic {list(sites.deterministics)}",
            remedy="add a pyro.sample statement without obs",
        )
