"""Data sets: a survey that is drawn, and public ones, read from a folder of the user's own.

Nothing is downloaded.  The environment variable PYROLATENT_DATA names the folder, and what is read from
it must be what was published: same data, same numbers.
"""

from pyrolatent.datasets.faces import celeba, celeba_attributes
from pyrolatent.datasets.handwriting import mnist, mnist_small
from pyrolatent.datasets.public_tables import table, targets
from pyrolatent.datasets.survey import job_satisfaction, job_satisfaction_correlation

__all__ = [
    "celeba",
    "celeba_attributes",
    "job_satisfaction",
    "job_satisfaction_correlation",
    "mnist",
    "mnist_small",
    "table",
    "targets",
]
