"""Tests of several arms: which is better, how sure that is, when to stop, and how many rows it takes."""

from pyrolatent.abtest.analysis import ABResult, analyze
from pyrolatent.abtest.latents import LatentDifference, latent_difference
from pyrolatent.abtest.monitoring import Monitoring, monitor
from pyrolatent.abtest.planning import Plan, plan
from pyrolatent.abtest.what_if import AverageEffect, average_effect, counterfactual

__all__ = [
    "ABResult",
    "AverageEffect",
    "LatentDifference",
    "Monitoring",
    "Plan",
    "analyze",
    "average_effect",
    "counterfactual",
    "latent_difference",
    "monitor",
    "plan",
]
