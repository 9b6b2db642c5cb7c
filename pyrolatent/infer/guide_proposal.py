"""A guide as a proposal: its draws, weighed by its own log-probability."""

from dataclasses import dataclass, field
from typing import final

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from pyrolatent.capture.bounds import recorded, run_pair, terms
from pyrolatent.capture.density import LogDensity
from pyrolatent.capture.messages import is_auxiliary, log_prob_sum
from pyrolatent.capture.parameters import Parameters, find_parameters
from pyrolatent.capture.unconstrain import unconstrain_with_jacobian
from pyrolatent.errors import ModelError
from pyrolatent.infer.guide_draws import repeated
from pyrolatent.infer.guides import is_autoguide
from pyrolatent.infer.proposal import Draws, Proposal
from pyrolatent.pair import FunctionPair, Model
from pyrolatent.result import Problem
from pyrolatent.seeds import seeded


@final
@dataclass(frozen=True)
class GuideProposal(Proposal):
    """A guide with its parameters at fixed values."""

    guide: Model
    parameters: Parameters
    flat: Tensor  # (P,)
    density: LogDensity = field(repr=False)
    seed: int

    def draw(self, num_draws: int, random: torch.Generator) -> Draws:
        """Return draws of the guide, which follow torch's own stream under the fit's seed.

        Raises:
            ModelError: A site is a point, or is drawn where the model does not allow it.
        """
        names = self.density.sites.layout.names
        with seeded(self.seed, "guide"):
            *values, log_probs = repeated(self.once, self.flat[None], num_draws)[0]
        samples = dict(zip(names, values, strict=True))
        position, log_jacobian = unconstrain_with_jacobian(self.density, samples)
        points = [name for name, value in samples.items() if (value == value[:1]).all()]
        if points:
            raise ModelError(
                "the guide draws the same value every time, so it proposes nothing",
                where=f"sites {points}",
                remedy="give them a distribution, or fit with SVI and another guide",
            )
        return Draws(position, log_probs + log_jacobian)

    def once(self, flat: Tensor) -> list[Tensor]:
        """Return one draw of each latent site, and the log-probability `()` of all in nats."""
        with self.parameters.at(flat):
            drawn = terms(recorded(self.guide, self.density.data))
            total = sum(log_prob_sum(message) for message in drawn.values())
        values = [drawn[name]["value"].clone() for name in self.density.sites.layout.names]
        return [*values, torch.as_tensor(total)]


def trained_guide(problem: Problem, density: LogDensity) -> GuideProposal | None:
    """Return the guide that the fit to start from has learnt, if it has one."""
    start = problem.start
    if start is None or start.guide is None or start.parameters is None:
        return None
    flat = start.state["parameters"][0].to(device=problem.device, dtype=problem.dtype)
    return checked(GuideProposal(start.guide, start.parameters, flat, density, problem.seed))


def given_guide(problem: Problem, density: LogDensity) -> GuideProposal | None:
    """Return the guide of the pair, if it has one.

    Raises:
        ModelError: The guide has parameters, which nobody has learnt.
    """
    guide, data = problem.pair.guide, problem.data
    if guide is None:
        return None
    if is_autoguide(guide) or isinstance(guide, AutoGuide):
        raise not_learnt(type(guide).__name__)
    seed, dtype, device = problem.seed, problem.dtype, problem.device
    parameters = find_parameters([guide], data, seed=seed, dtype=dtype, device=device)
    if parameters.layout.size:
        raise not_learnt(f"parameters {list(parameters.layout.names)}")
    return checked(GuideProposal(guide, parameters, parameters.initial, density, seed))


def not_learnt(where: str) -> ModelError:
    """Return the error for a guide that knows nothing of the posterior yet."""
    return ModelError(
        "the guide has parameters that nobody has learnt",
        where=where,
        remedy="fit with pyrolatent.SVI() first and pass start=that_fit, or leave guide out",
    )


def checked(proposal: GuideProposal) -> GuideProposal:
    """Refuse a guide that does not draw just the latent sites of the density."""
    density = proposal.density
    with proposal.parameters.at(proposal.flat):
        run = run_pair(FunctionPair(density.model, proposal.guide), density.data, {})
    drawn = [name for name, message in run.guide.items() if not is_auxiliary(message)]
    if set(drawn) != set(density.sites.layout.names):
        raise ModelError(
            "the sites of the guide are not those to be weighed",
            why=f"it draws {drawn}, the continuous latent sites are {list(density.sites.layout.names)}",
            remedy="leave discrete sites out of the guide: they are summed out",
        )
    return proposal
