"""Models of papers, with settings that work: each recipe returns a pair and the method to fit it by.

    pair, method = recipes.masked_vae(frame)
    fit = fit(pair, frame, method)

Rows are a table, its schema, or `Images`.  Settings are those of ours that were measured
(docs/benchmarks.md), not the papers' own, which are for other data; change them as you would change any.
"""

import pandas as pd

from pyrolatent.images import Images
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.svi import SVI
from pyrolatent.models import VAE, BayesianMVN, MultiStageVAE
from pyrolatent.objectives import Objective, elbo, iwae, linear
from pyrolatent.pair import Pair
from pyrolatent.result import Fit
from pyrolatent.schema import Schema, infer_schema
from pyrolatent.total_correlation import tc_elbo

BATCH_SIZE, LEARNING_RATE = 256, 3e-3
NUM_SAMPLES = 20  # of the importance-weighted bound
WARM_UP = 0.2  # share of the steps over which beta rises

Rows = pd.DataFrame | Schema | Images


def mvn(table: pd.DataFrame | Schema) -> tuple[Pair, HMC]:
    """Return a multivariate normal with an LKJ prior on the correlations, and Hamiltonian Monte Carlo.

    Lewandowski, Kurowicka and Joe (2009).
    """
    return BayesianMVN(as_schema(table)), HMC()


def vae(rows: Rows, latent_dim: int = 10, num_steps: int = 4_000) -> tuple[Pair, SVI]:
    """Return a variational autoencoder and its bound: for complete rows.

    Kingma and Welling (2014), Auto-encoding variational Bayes.
    """
    return autoencoder(rows, latent_dim), training(elbo(), num_steps)


def masked_vae(rows: Rows, latent_dim: int = 10, num_steps: int = 4_000) -> tuple[Pair, SVI]:
    """Return a variational autoencoder and the importance-weighted bound: for rows with holes.

    Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of incomplete data.
    """
    return autoencoder(rows, latent_dim), training(iwae(NUM_SAMPLES), num_steps)


def beta_vae(rows: Rows, beta: float = 4.0, latent_dim: int = 10, num_steps: int = 4_000) -> tuple[Pair, SVI]:
    """Return a variational autoencoder and its bound with the divergence weighed by `beta`.

    Higgins et al. (2017), beta-VAE: learning basic visual concepts with a constrained framework.
    """
    return autoencoder(rows, latent_dim), training(elbo(beta), num_steps)


def beta_tcvae(
    rows: Rows, beta: float = 6.0, latent_dim: int = 10, num_steps: int = 4_000
) -> tuple[Pair, SVI]:
    """Return a variational autoencoder and its bound with the total correlation weighed by `beta`.

    `beta` rises from 1 over the first fifth of the steps.  Chen, Li, Grosse and Duvenaud (2018), Isolating
    sources of disentanglement in variational autoencoders.
    """
    rising = linear(1.0, beta, max(1, round(WARM_UP * num_steps)))
    return autoencoder(rows, latent_dim), training(tc_elbo(rising), num_steps)


def msvae(first: Fit, latent_dim: int | None = None, num_steps: int = 4_000) -> tuple[Pair, SVI]:
    """Return the second stage over a fitted autoencoder, of `beta_tcvae` most often, and its bound.

    Srivastava et al. (2020), Improving the reconstruction of disentangled representation learners via
    multi-stage modelling.
    """
    return MultiStageVAE(first, latent_dim), training(elbo(), num_steps)


def autoencoder(rows: Rows, latent_dim: int) -> VAE:
    """Return an autoencoder of a table, by its schema, or of images."""
    return VAE(rows if isinstance(rows, Images) else as_schema(rows), latent_dim)


def as_schema(table: pd.DataFrame | Schema) -> Schema:
    """Return the schema of a table."""
    return infer_schema(table) if isinstance(table, pd.DataFrame) else table


def training(objective: Objective, num_steps: int) -> SVI:
    """Return how networks are trained."""
    return SVI(objective, num_steps=num_steps, lr=LEARNING_RATE, batch_size=BATCH_SIZE)
