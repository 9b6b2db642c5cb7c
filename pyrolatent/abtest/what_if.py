"""What a trained autoencoder expects of a test if all rows were in one arm.

    average_effect(fit, "sales", "group", "control", "treatment").effect

It conditions on the arm, which is what treating does where rows were assigned at random and the model fits.
Outcomes that nobody saw come with intervals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
import torch

from pyrolatent.abtest.asked import (
    Array,
    code_of,
    column_in,
    column_names,
    interval_of,
    labels_in,
    never_hidden,
    parts,
    row_counts,
    said,
    table_of,
    with_column,
)
from pyrolatent.abtest.choices import INTERVAL, Range
from pyrolatent.abtest.gaussian import normal_quantile
from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.seen import seen_entries
from pyrolatent.column import Column
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.impute import nothing_masked
from pyrolatent.infer.method import check_least
from pyrolatent.latents import guide_means
from pyrolatent.masked import Messages, completions
from pyrolatent.predict import with_data
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.schema import listing
from pyrolatent.seeds import numpy_generator

NUM_DRAWS = 200  # of each outcome that nobody saw
NUM_BOOTSTRAP = 1_000
FAR = 2.0  # standard errors of the difference of means, by which an effect of these rows is not off by chance


@final
@dataclass(frozen=True)
class AverageEffect:
    """What an autoencoder expects of treating all rows instead of none.

    Attributes:
        effect: Mean of the expected outcomes under the treatment minus that under the control, in units of
            the outcome.
        rows_interval: What 90 % of bootstrap samples of the rows, and of the networks where there are several
            refits, give.  It holds what is not known of the rows and not what networks have not learnt, so
            that it is no interval of the true effect.
        means: Both expected outcomes, by arm.
        observed: The difference of the mean outcomes of rows with label and outcome; nan where there are
            fewer than two in an arm.
        observed_interval: Its 90 % interval, from the variances in both arms.  In a randomised test it is one
            of the true effect.
        num_rows: All rows, with a label or without.
        warnings: What makes it weaker than it looks, with what to do.
    """

    effect: float
    rows_interval: Range
    means: pd.Series
    observed: float
    observed_interval: Range
    num_rows: int
    warnings: tuple[str, ...] = ()


def counterfactual(
    fit: Fit,
    outcome: str | int,
    group: str | int,
    arm: Any,
    frame: pd.DataFrame | None = None,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return the outcome that an autoencoder expects of each row if its arm were `arm`.

    The row's own outcome and label are put aside, its label is set to `arm`, and the outcome is drawn given
    that and what else is observed of the row, p(outcome | arm, covariates), latents by importance
    resampling as in `impute`.  This is conditioning: an autoencoder has no arrow from arm to outcome, and
    latents explain both.  It is what treating the row would do only where labels were given at random and
    the model fits.  Networks that learnt too little expect the same of all arms; `iwae(20)` follows the
    outcome far better than `elbo()`.

    Args:
        fit: A fit of an autoencoder to the table of the test.
        outcome: The column of the outcome: numbers, or truth values.
        group: The column of the labels, binary or categorical.
        arm: The label that all rows get.
        frame: New rows with the table's columns; by default those of the fit.
        num_draws: Draws of each outcome, at most those of the fit.
        seed: By default that of the fit.

    Returns:
        A line for each row, with the table's index: the `mean` outcome, and `low` to `high`, in which an
        outcome of such a row lies with 90 % probability according to the networks, in units of the outcome.
        They do not cover what is not known of a single trained network.

    Raises:
        ArgumentError: There is no fit or no such arm, a number is not positive, or outcome and labels are one
            column.
        DataError: A column cannot be used.
        ModelError: The fit is not to a table, has no guide that makes latents of rows from rows, or its
            model takes missing cells for observed ones.
    """
    table = table_of(fit, frame)
    draws = outcomes_if(fit, outcome, group, arm, table, num_draws, seed)
    said(never_hidden(fit, outcome, "outcome"))
    low, high = np.quantile(draws, INTERVAL, axis=0)
    return pd.DataFrame({"mean": draws.mean(0), "low": low, "high": high}, index=table.index)


def average_effect(
    fit: Fit,
    outcome: str | int,
    group: str | int,
    control: Any,
    treatment: Any,
    frame: pd.DataFrame | None = None,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int | None = None,
) -> AverageEffect:
    """Return what an autoencoder expects of treating all rows instead of none.

    The mean over rows of `counterfactual` under the treatment minus that under the control.  This is
    conditioning, and equals the effect of treating only in a test whose labels were given at random and whose
    model fits.  Of one network `rows_interval` covers the choice of rows alone, and is far too narrow: fit
    with `SVI(num_refits=20)`, and it covers what refits on bootstrap samples of the rows differ by.

    Labels and outcomes meet in the latents alone, and where these do not tell the arms apart sharply, the
    network expects outcomes to be alike in all arms: effects shrink towards 0, in simulations by 0 to 15 %
    after `iwae(20)` and by 10 to 90 % after `elbo()`, which pays for latents more than labels are worth.
    Refits shrink alike, so that no interval of them shows it.  `observed`, the plain difference of means,
    needs no network, and a warning says where the effect is more than two of its standard errors off.  A test
    whose model is simple has a better one in `analyze`.

    Args:
        fit: A fit of an autoencoder to the table of the test.
        outcome: The column of the outcome: numbers, or truth values.
        group: The column of the labels, binary or categorical.
        control: The label of the one arm.
        treatment: The label of the other.
        frame: New rows with the table's columns; by default those of the fit.
        num_draws: Draws of each outcome, at most those of the fit.
        seed: By default that of the fit.

    Raises:
        ArgumentError: There is no fit or no such arm, a number is not positive, or outcome and labels are one
            column.
        DataError: A column cannot be used.
        ModelError: The fit is not to a table, has no guide that makes latents of rows from rows, or its
            model takes missing cells for observed ones.
    """
    table, arms = table_of(fit, frame), (control, treatment)
    if control == treatment:
        raise ArgumentError("control and treatment are the same arm", why=f"got {control!r} twice")
    draws = [outcomes_if(fit, outcome, group, arm, table, num_draws, seed) for arm in arms]
    means = pd.Series([draw.mean() for draw in draws], pd.Index(arms, name="arm"), name=outcome)
    effects = by_refit(fit, draws[1] - draws[0])
    effect, rows_interval = float(effects.mean()), bootstrapped(effects, fit.seed if seed is None else seed)
    observed, error = observed_difference(table, outcome, group, arms)
    found = (*never_hidden(fit, outcome, "outcome"), *doubts_of(fit, effect, observed, error))
    return AverageEffect(
        effect, rows_interval, means, observed, around(observed, error), len(table), said(found)
    )


def outcomes_if(
    fit: Fit, outcome: str | int, group: str | int, arm: Any, table: pd.DataFrame, num_draws: int,
    seed: int | None,
) -> Array:  # fmt: skip
    """Return draws of each row's outcome if its arm were `arm` `(S, N)`, in units of the outcome."""
    check_least("num_draws", num_draws, 1)
    if outcome == group:
        remedy = "name different columns for outcome and labels"
        raise ArgumentError("a column has two parts in the test", where=f"column {outcome!r}", remedy=remedy)
    measured, column = outcome_in(fit, outcome), labels_in(fit, group)
    label = column.categories[code_of(column, arm)]
    moved = with_data(fit, with_column(with_column(table, group, label), outcome, np.nan))
    sites, place = hidden_at(moved, outcome), column_names(fit).index(outcome)
    runs = completions(moved, sites, fit.seed if seed is None else seed, num_draws)
    cells = [next(iter(run.values()))[..., place].cpu().double() for run in runs]
    values = measured.in_units(torch.cat(cells)).numpy()
    return np.array(measured.categories, float)[values.astype(int)] if measured.categories else values


def hidden_at(fit: Fit, outcome: str | int) -> Messages:
    """Return the site that holds the rows, at the means of their latents.

    Raises:
        ModelError: It takes missing outcomes for observed ones.
    """
    with fit.context():
        sites = observations(fit.pair.model, fit.data, guide_means(fit))
    seen = [seen_entries(message)[:, column_names(fit).index(outcome)] for message in sites.values()]
    if any(entries.any() for entries in seen):
        raise nothing_masked(f"column {outcome!r}, sites {[*sites]}")
    return sites


def outcome_in(fit: Fit, outcome: str | int) -> Column:
    """Return the column of the outcome.

    Raises:
        DataError: The model does not see it, or it is no number.
    """
    column = column_in(fit, outcome)
    numeric = all(isinstance(label, int | float) for label in column.categories)
    if outcome not in column_names(fit) or not numeric:
        why = f"labels {listing(column.categories, 5)}" if column.modelled else f"its kind is {column.kind!r}"
        remedy = "name a column of numbers or truth values"
        raise DataError("the outcome is no number", where=f"column {outcome!r}", why=why, remedy=remedy)
    return column


def by_refit(fit: Fit, draws: Array) -> Array:
    """Return the mean `(R, N)` of draws `(S, N)` of each refit."""
    refit = evenly_spaced(fit.num_draws, len(draws)).numpy() // (fit.num_draws // fit.num_refits)
    return np.stack([draws[refit == number].mean(0) for number in np.unique(refit)])


def bootstrapped(effects: Array, seed: int) -> Range:
    """Return the 90 % interval of the mean of effects `(R, N)` of rows, by resampling refits and rows."""
    random, (refits, rows) = numpy_generator(seed, "effects"), effects.shape
    counts = (row_counts(random, rows, size) for size in parts(NUM_BOOTSTRAP, rows))
    means = np.concatenate([count @ effects.T for count in counts]) / rows
    number = np.arange(NUM_BOOTSTRAP)
    return interval_of(means[number, number % refits])


def observed_difference(
    table: pd.DataFrame, outcome: str | int, group: str | int, arms: Sequence[Any]
) -> tuple[float, float]:
    """Return the difference of the mean outcomes of two arms and its standard error, nan where unknown."""
    if not {outcome, group} <= set(table.columns):
        return np.nan, np.nan
    labels = table[group].astype(object)
    known = [table.loc[labels == arm, outcome].dropna().astype(float) for arm in arms]
    if min(map(len, known)) < 2:
        return np.nan, np.nan
    error = np.sqrt(sum(values.var() / len(values) for values in known))
    return float(known[1].mean() - known[0].mean()), float(error)


def around(value: float, error: float) -> Range:
    """Return the 90 % interval of a value with a normal error."""
    low, high = value + error * normal_quantile(INTERVAL)
    return float(low), float(high)


def doubts_of(fit: Fit, effect: float, observed: float, error: float) -> Iterator[str]:
    """Yield what makes an effect weaker than it looks."""
    if fit.num_refits == 1:
        yield (
            "rows_interval covers the choice of rows and not what one trained network does not know: it is "
            "too narrow. Fit with SVI(num_refits=20)."
        )
    if abs(effect - observed) > FAR * error:
        yield (
            f"The effect, {effect:.4g}, is far from the difference of the mean outcomes of the arms, "
            f"{observed:.4g} (standard error {error:.2g}): the network does not follow the outcome, or "
            "rows without label or outcome differ. Train it longer, by iwae(20), or believe the difference."
        )
