"""Data of the cases as arrays, which every contender reads from one file."""

from collections.abc import Callable

import numpy as np

import pyrolatent as pyl
from benchmarks.peers.worker import Data
from tests.user_models import eight_schools_data, logistic_data

ROWS = 263
FRACTION = 0.1


def mvn() -> Data:
    """The survey of the multivariate normal, 263 complete rows of 12 columns."""
    return {"x": pyl.datasets.job_satisfaction(ROWS, seed=0).to_numpy()}


def mvn_missing() -> Data:
    """The same rows with 10 % of the cells hidden: 0, and False in the mask."""
    frame = pyl.ampute(pyl.datasets.job_satisfaction(ROWS, seed=0), fraction=FRACTION, seed=0)
    return {"x": frame.fillna(0.0).to_numpy(), "mask": frame.notna().to_numpy()}


def eight_schools() -> Data:
    return {name: values.numpy() for name, values in eight_schools_data().items()}


def radon() -> Data:
    """919 houses in 85 counties of very unequal sizes, as in the radon survey; drawn from the model."""
    random = np.random.default_rng(20)
    num_rows, num_groups = 919, 85
    share = random.dirichlet(np.full(num_groups, 0.8))
    group = np.concatenate([np.arange(num_groups), random.choice(num_groups, num_rows - num_groups, p=share)])
    uranium = 0.4 * random.standard_normal(num_groups)
    floor = (random.random(num_rows) < 0.17).astype(float)
    intercept = 1.5 + 0.7 * uranium + 0.16 * random.standard_normal(num_groups)
    y = intercept[group] - 0.65 * floor + 0.73 * random.standard_normal(num_rows)
    return {"y": y, "floor": floor, "uranium": uranium, "group": group}


def logistic() -> Data:
    return {name: values.numpy() for name, values in logistic_data().items()}


CASES: dict[str, Callable[[], Data]] = {
    "mvn": mvn, "mvn missing": mvn_missing, "eight schools": eight_schools, "radon": radon,
    "logistic": logistic,
}  # fmt: skip
