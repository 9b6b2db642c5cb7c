"""Estimates of arms by likelihoods without a formula: one Newton step from what all rows say.

One step is as good as many where arms do not differ (van der Vaart 1998, "Asymptotic Statistics", theorem
5.45), and all that it needs of an arm is the sum of the derivatives of its rows.
"""

import math

import numpy as np

from pyrolatent.abtest.estimates import Array, Estimate, Estimates

LONGEST = 2.0  # step of a logarithm
# Log of a spread, in standard deviations: one at a single value has a likelihood without end.
SHORTEST = math.log(1e-3)


def of_overdispersed(outcomes: Array) -> Estimates:
    """Return what estimates the logs of the means of negative binomial outcomes.

    Derivatives are those of the log-likelihood by the concentration c, at the mean m that is most likely:
    sum of psi(y + c) - psi(c) + log(c / (c + m)), and sum of psi'(y + c) - psi'(c) + 1 / c - 1 / (c + m).
    """
    from scipy.special import polygamma, psi

    log_concentration = likely_concentration(outcomes)
    c = math.exp(log_concentration)
    terms = [np.ones_like(outcomes), outcomes, psi(outcomes + c) - psi(c), polygamma(1, outcomes + c)]

    def from_sums(sums: Array) -> Estimate:
        number, total, gradient, curvature = np.moveaxis(sums, -1, 0)
        mean = total / number
        slope = c * (gradient + number * np.log(c / (c + mean)))
        bend = slope + c**2 * (curvature + number * (1 / c - 1 / (c + mean) - polygamma(1, c)))
        step = np.where(bend < 0, -slope / bend, LONGEST * np.sign(slope)).clip(-LONGEST, LONGEST)
        return np.log(mean), 1 / total + np.exp(-log_concentration - step) / number

    return Estimates(np.stack(terms, 1), from_sums)


def likely_concentration(outcomes: Array) -> float:
    """Return the log of the concentration under which counts are most likely, given their mean."""
    from scipy.optimize import minimize_scalar
    from scipy.special import gammaln

    values, number = np.unique(outcomes, return_counts=True)
    mean = float(outcomes.mean())

    def loss(log: float) -> float:
        c = math.exp(log)
        spread = gammaln(values + c) - gammaln(c) + values * math.log(1 / (c + mean))
        return -float(number @ (spread + c * math.log(c / (c + mean))))

    return float(minimize_scalar(loss, bounds=(-10.0, 10.0), method="bounded").x)


def of_student(outcomes: Array) -> Estimates:
    """Return what estimates the locations of outcomes with outliers.

    Terms are 1 and the derivatives of the log density by location and log of spread: both first ones, and
    the second ones in the order of location twice, both, log of spread twice.
    """
    location, spread, freedom = likely_student(outcomes)
    r = (outcomes - location) / spread
    weight = (freedom + 1) / (freedom + r**2)
    bend = weight / (freedom + r**2)
    terms = [
        np.ones_like(r),
        weight * r / spread,
        weight * r**2 - 1,
        -bend * (freedom - r**2) / spread**2,
        -2 * freedom * bend * r / spread,
        -2 * freedom * bend * r**2,
    ]
    return Estimates(np.stack(terms, 1), of_location)


def of_location(sums: Array) -> Estimate:
    """Return the locations of arms, less that of all rows, by a Newton step for each."""
    _, *derivatives = np.moveaxis(sums, -1, 0)
    of_location, of_spread, twice, both, spread_twice = derivatives
    volume = twice * spread_twice - both**2
    volume = np.where((twice < 0) & (volume > 0), volume, np.nan)
    location = (both * of_spread - spread_twice * of_location) / volume
    log_spread = (both * of_location - twice * of_spread) / volume
    return location, -spread_twice / volume * np.exp(2 * log_spread.clip(-LONGEST, LONGEST))


def likely_student(outcomes: Array) -> tuple[float, float, float]:
    """Return location, spread and degrees of freedom, above 2, under which outcomes are most likely."""
    from scipy.optimize import minimize
    from scipy.special import gammaln

    def loss(at: Array) -> float:
        freedom = 2 + math.exp(at[2])
        squares = ((outcomes - at[0]) / math.exp(at[1])) ** 2
        constant = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - math.log(freedom) / 2 - at[1]
        return float((freedom + 1) / 2 * np.log1p(squares / freedom).mean() - constant)

    middle = float(np.median(outcomes))
    middling = float(np.median(np.abs(outcomes - middle))) or 1.0
    start = np.array([middle, math.log(middling), 1.0])
    location, log_spread, log_tails = minimize(
        loss, start, method="L-BFGS-B", bounds=[(None, None), (SHORTEST, None), (-10.0, 7.0)]
    ).x
    return float(location), math.exp(log_spread), 2 + math.exp(log_tails)
