"""Probabilistic programming on Pyro and PyTorch for incomplete tables and user models.

`fit(model, data)` is the one verb; what can be done with its result are functions.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def _collection_paused() -> Iterator[None]:
    """Hold back the garbage collector, which would look through all of torch several times over."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


with _collection_paused():
    from pyrolatent import abtest, datasets, metrics, models, recipes
    from pyrolatent.ampute import ampute
    from pyrolatent.column import Column
    from pyrolatent.columnwise import ColumnwiseDistribution
    from pyrolatent.declared import read_kinds
    from pyrolatent.distributions import IncompleteMVN
    from pyrolatent.errors import (
        ArgumentError,
        DataError,
        FitWarning,
        ModelError,
        PyrolatentError,
        StoreError,
    )
    from pyrolatent.exponential import fit_weighted
    from pyrolatent.export import to_inference_data
    from pyrolatent.fill import fill_means
    from pyrolatent.fit import fit
    from pyrolatent.from_pyro import from_pyro
    from pyrolatent.images import Images, as_images
    from pyrolatent.imputations import Imputations
    from pyrolatent.impute import impute
    from pyrolatent.infer.em import EM
    from pyrolatent.infer.hmc import HMC
    from pyrolatent.infer.importance import ImportanceSampling
    from pyrolatent.infer.laplace import Laplace
    from pyrolatent.infer.nuts import NUTS
    from pyrolatent.infer.svi import SVI
    from pyrolatent.latents import encode, generate, reconstruct, score, traverse
    from pyrolatent.mixups import mixup
    from pyrolatent.objectives import elbo, iwae, linear
    from pyrolatent.pair import Pair, as_pair
    from pyrolatent.pooling import pool
    from pyrolatent.predict import predict
    from pyrolatent.result import Fit
    from pyrolatent.schema import Schema, infer_schema
    from pyrolatent.store import load, save
    from pyrolatent.summary import summary
    from pyrolatent.tables import read_frame, write_frame
    from pyrolatent.total_correlation import tc_elbo

__all__ = [
    "EM",
    "HMC",
    "NUTS",
    "SVI",
    "ArgumentError",
    "Column",
    "ColumnwiseDistribution",
    "DataError",
    "Fit",
    "FitWarning",
    "Images",
    "ImportanceSampling",
    "Imputations",
    "IncompleteMVN",
    "Laplace",
    "ModelError",
    "Pair",
    "PyrolatentError",
    "Schema",
    "StoreError",
    "abtest",
    "ampute",
    "as_images",
    "as_pair",
    "datasets",
    "elbo",
    "encode",
    "fill_means",
    "fit",
    "fit_weighted",
    "from_pyro",
    "generate",
    "impute",
    "infer_schema",
    "iwae",
    "linear",
    "load",
    "metrics",
    "mixup",
    "models",
    "pool",
    "predict",
    "read_frame",
    "read_kinds",
    "recipes",
    "reconstruct",
    "save",
    "score",
    "summary",
    "tc_elbo",
    "to_inference_data",
    "traverse",
    "write_frame",
]
