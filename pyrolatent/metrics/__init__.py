"""Metrics of what a latent-variable model learnt: whether its rows look right, and what its latents mean."""

from pyrolatent.metrics.disentanglement import Votes, factor_vae_score, mig, mutual_information
from pyrolatent.metrics.structure import Residuals, correlation_residuals, ks_complement

__all__ = [
    "Residuals",
    "Votes",
    "correlation_residuals",
    "factor_vae_score",
    "ks_complement",
    "mig",
    "mutual_information",
]
