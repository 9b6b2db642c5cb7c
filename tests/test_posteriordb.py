"""Users' models against posteriordb's published posteriors, end to end."""

import pytest

import pyrolatent
from tests.agreement import compare
from tests.user_models import REFERENCES, reference


# Short runs may warn about what they are: agreement is what is tested.
@pytest.mark.filterwarnings("ignore::pyrolatent.errors.FitWarning")
@pytest.mark.parametrize(
    ("num_draws", "seed"),
    [(400, 1), *(pytest.param(2_000, seed, marks=pytest.mark.verify) for seed in (2, 3))],
)
@pytest.mark.parametrize("name", REFERENCES)
def test_fit_agrees_with_the_published_posterior(name: str, num_draws: int, seed: int) -> None:
    model, data = REFERENCES[name]
    fit = pyrolatent.fit(model, data(), pyrolatent.HMC(num_draws=num_draws), seed=seed, progress=False)
    # 4 MCSE: one parameter in 16,000 fails by chance.  An sd from n effective draws errs by about
    # 1 / sqrt(2 n): 10 % is 4 standard errors at n = 800, and 64 chains give thousands.
    wrong = [agreement for agreement in compare(fit.samples, reference(name)) if not agreement.holds]
    assert not wrong
