"""Models of this package, one pair per file."""

from pyrolatent.models.mvn import BayesianMVN

__all__ = ["BayesianMVN"]
