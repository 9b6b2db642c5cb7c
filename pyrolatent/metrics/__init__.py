"""Metrics of what a latent-variable model learnt: whether its rows look right, and what its latents mean."""

from pyrolatent.metrics.consistency import latent_fixing_score
from pyrolatent.metrics.disentanglement import Votes, factor_vae_score, mig, mutual_information
from pyrolatent.metrics.divergence import Decomposition, active_units, total_correlation
from pyrolatent.metrics.structure import Residuals, correlation_residuals, ks_complement, marginal_recovery
from pyrolatent.metrics.two_sample import TwoSample, classifier_two_sample

__all__ = [
    "Decomposition",
    "Residuals",
    "TwoSample",
    "Votes",
    "active_units",
    "classifier_two_sample",
    "correlation_residuals",
    "factor_vae_score",
    "ks_complement",
    "latent_fixing_score",
    "marginal_recovery",
    "mig",
    "mutual_information",
    "total_correlation",
]
