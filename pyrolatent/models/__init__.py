"""Models of this package, one pair per file."""

from pyrolatent.models.abtest import ABTest
from pyrolatent.models.mixture import Mixture
from pyrolatent.models.msvae import MultiStageVAE
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.models.vae import VAE

__all__ = ["VAE", "ABTest", "BayesianMVN", "Mixture", "MultiStageVAE"]
