"""How far a trained guide is from the posterior, by its own draws.

Draws of the guide are weighed against the joint density; the tail of the weights, by Pareto k, says
whether the guide covers the posterior (Yao, Vehtari, Simpson and Gelman 2018, "Yes, but did it
work?").  Only where all unknowns are latent sites that the guide draws as they are: networks that
were learnt have no posterior here, and latents of rows that networks make have one each.
"""

import torch

from pyrolatent.capture.parameters import find_parameters
from pyrolatent.capture.sites import SiteTable
from pyrolatent.errors import ModelError
from pyrolatent.infer.guide_proposal import GuideProposal, checked
from pyrolatent.infer.guides import is_amortised
from pyrolatent.infer.learner import Learner
from pyrolatent.infer.points import capture_points
from pyrolatent.infer.proposal import log_ratios
from pyrolatent.infer.start import captured
from pyrolatent.kernels.adaptation import MAX_DENSE
from pyrolatent.psis import psis
from pyrolatent.result import Problem, Weights
from pyrolatent.seeds import generator

NUM_DRAWS = 1_000


def guide_weights(problem: Problem, learner: Learner, sites: SiteTable, flat: torch.Tensor) -> Weights | None:
    """Return the weights of the guide's draws at parameters `(P,)`, or None where they mean nothing."""
    if not judged(problem, sites):
        return None
    density = captured(problem, problem.pair.model)
    proposal = GuideProposal(learner.guide, learner.parameters, flat, density, problem.seed)
    try:
        random = generator(problem.seed, "fidelity", device=problem.device)
        position, log_prob = checked(proposal).draw(NUM_DRAWS, random)
        points = capture_points(density, False, NUM_DRAWS)
        raw = log_ratios(points(position)[0], log_prob)
    except ModelError:  # a point, as of AutoDelta, which claims no spread
        return None
    smoothed, pareto_k = psis(raw)
    return Weights(raw.cpu(), smoothed.cpu(), pareto_k)


def judged(problem: Problem, sites: SiteTable) -> bool:
    """True where the guide stands for the posterior of all unknowns."""
    by_row = is_amortised(problem.pair) and bool(sites.row_latents)
    model, data = problem.pair.model, problem.data
    learnt = find_parameters([model], data, seed=problem.seed, dtype=problem.dtype, device=problem.device)
    return 0 < sites.layout.size <= MAX_DENSE and not by_row and not learnt.layout.size
