"""What a trained autoencoder says of a test: how far apart its arms are, and what if all were in one.

    fit = fit(models.VAE(infer_schema(frame, kinds={"group": "categorical"}), 2), frame, SVI(iwae(20)))
    latent_difference(fit, "group").p_value
    average_effect(fit, "sales", "group", "control", "treatment").interval

After the autoencoder part of S. Li, "Decoding latent variables: comparing Bayesian, EM, and VAE approaches"
(Towards AI, 2024).  Unlike there, rows belong to the arm that their label names, latents of separately
trained networks are never compared, a distance comes in units of the latents' own spread, with what it is
by chance, and outcomes that nobody saw come with intervals.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pyrolatent.abtest.choices import INTERVAL, Range
from pyrolatent.abtest.trial import CONTROLS
from pyrolatent.capture.bounds import guide_of, recorded, terms
from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.seen import seen_entries
from pyrolatent.column import Column
from pyrolatent.declared import Declared
from pyrolatent.errors import ArgumentError, DataError, FitWarning, ModelError
from pyrolatent.impute import nothing_masked
from pyrolatent.kinds import learn_column
from pyrolatent.latents import AtMeans, check_encodes, guide_means, latent_names, rows_to_encode, side_by_side
from pyrolatent.masked import Messages, completions
from pyrolatent.predict import check_num_draws, observes_matrix, with_data
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.schema import Schema, check_columns, listing
from pyrolatent.seeds import numpy_generator, seeded

NUM_DRAWS = 200  # of each outcome that nobody saw
NUM_BOOTSTRAP = 1_000
AT_ONCE = 2**22  # rows of bootstrap samples together
ROUNDING = 1e-9  # by which equal distances may differ
FAR = 3.0  # standard errors between an effect and the difference of means, from which that is worth a word

Array = NDArray[np.float64]
Weighted = Callable[[int], Array]  # B -> weights of rows in arms `(K, B, N)`


@final
@dataclass(frozen=True)
class LatentDifference:
    """How far apart the arms of a test are in the latents of their rows.

    Attributes:
        arms: By arm: `rows` with its label, `distance` from the control, and of each latent the `_mean`, the
            `_variance`, which is the variance of posterior means over rows plus the mean posterior variance
            of a row, and `_variance_of_means`, the former part of it.
        distance: The largest distance of an arm from the control, in pooled standard deviations.
        interval: Its 90 % interval (percentile bootstrap).  A distance is never below 0, so the interval does
            not say whether there is any.
        p_value: The share of random labels that give as large a distance.
        control: The arm that others are compared with.
        num_rows: Rows with a label, which are compared.
        num_unlabelled: Rows without one, which are left out.
        warnings: What makes it weaker than it looks, with what to do.
    """

    arms: pd.DataFrame
    distance: float
    interval: Range
    p_value: float
    control: Any
    num_rows: int
    num_unlabelled: int
    warnings: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class AverageEffect:
    """What an autoencoder expects of treating all rows instead of none.

    Attributes:
        effect: Mean of the expected outcomes under the treatment minus that under the control, in units of
            the outcome.
        interval: Its 90 % interval, by bootstrapping rows, and networks where there are several refits.
        means: Both expected outcomes, by arm.
        observed: The difference of the mean outcomes of rows with label and outcome; nan where there are
            fewer than two in an arm.
        num_rows: All rows, with a label or without.
        warnings: What makes it weaker than it looks, with what to do.
    """

    effect: float
    interval: Range
    means: pd.Series
    observed: float
    num_rows: int
    warnings: tuple[str, ...] = ()


def latent_difference(
    fit: Fit,
    group: str | int,
    frame: pd.DataFrame | None = None,
    *,
    control: Any = None,
    see_labels: bool = False,
    num_bootstrap: int = NUM_BOOTSTRAP,
    seed: int | None = None,
) -> LatentDifference:
    """Compare the latents of the arms of a test, as the encoder makes them from the rows.

    The distance of two arms is the Euclidean one of their mean latents, each latent in units of its standard
    deviation within arms (variance of the posterior means, pooled over arms, plus the mean posterior
    variance), so that the scale of latents does not matter, and latents that are not used add next to
    nothing.  For the interval rows are resampled within arms, for the p-value labels are permuted.

    An encoder that sees the labels makes latents that differ because it was told so; they are hidden from it
    therefore, as missing cells.  The network stays as it is: that other rows would have made another is in
    none of these numbers, and labels that it learnt from can make the p-value somewhat too small.  On rows
    that it has not seen, `frame`, the p-value is exact.

    Args:
        fit: A fit of an autoencoder to the table of the test.
        group: The column of the labels: binary or categorical, or one that the model does not see ("skip").
        frame: New rows with the table's columns; by default those of the fit.
        control: The arm that others are compared with; by default the one that is called so, else the first.
        see_labels: Whether the encoder sees the labels.  The p-value then has it see the random ones too.
        num_bootstrap: Bootstrap samples, and permutations.
        seed: By default that of the fit.

    Raises:
        ArgumentError: There is no such arm, or a number is not positive.
        DataError: The column cannot be used, or an arm has fewer than two labelled rows.
        ModelError: The fit is not to a table, or has no guide that makes latents of rows from rows.
    """
    check_count("num_bootstrap", num_bootstrap)
    table = table_of(fit, frame)
    column = labels_in(fit, group, table)
    chosen, seed = control_of(column, control), fit.seed if seed is None else seed
    known, labels = labelled(column, table[group])
    latents = latents_of(fit, group, table[known], column, see_labels)
    arms = described(latents, column, labels, chosen)
    random, farthest = numpy_generator(seed, "arm latents"), float(arms["distance"].max())
    again = distances(latents, chosen, num_bootstrap, resampled(random, labels))
    by_chance = distances(latents, chosen, num_bootstrap, permuted(random, labels))
    hidden = not see_labels and group in column_names(fit)
    return LatentDifference(
        arms,
        farthest,
        interval_of(again),
        p_value(farthest, by_chance),
        column.categories[chosen],
        len(labels),
        int((~known).sum()),
        said(never_hidden(fit, group, "label") if hidden else ()),
    )


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
        outcome of such a row lies with 90 % probability, in units of the outcome.  They do not cover what is
        not known of a single trained network.

    Raises:
        ArgumentError: There is no such arm, a number is not positive, or outcome and labels are one column.
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
    model fits.  Of one network the interval covers the choice of rows alone, and is far too narrow: fit
    with `SVI(num_refits=20)`, and it covers what refits on bootstrap samples of the rows differ by.

    An autoencoder is approximate, and what it has not learnt it expects to be alike in all arms: effects
    shrink towards 0, in simulations by 5 to 15 % after `iwae(20)` and by 20 to 90 % after `elbo()`.
    `observed`, the plain difference of means, needs no network; a test whose model is simple has a better
    one in `analyze`.

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
        ArgumentError: There is no such arm, a number is not positive, or outcome and labels are one column.
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
    effect, interval = float(effects.mean()), bootstrapped(effects, fit.seed if seed is None else seed)
    observed, error = observed_difference(table, outcome, group, arms)
    found = (*never_hidden(fit, outcome, "outcome"), *doubts_of(fit, effect, observed, error))
    return AverageEffect(effect, interval, means, observed, len(table), said(found))


# What is asked for


def check_count(name: str, number: int) -> None:
    """Refuse a number below one.

    Raises:
        ArgumentError: With the number.
    """
    if number < 1:
        raise ArgumentError(f"{name} must be positive", why=f"got {number}")


def table_of(fit: Fit, frame: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows to look at.

    Raises:
        ModelError: The fit is not to the rows of a table, or no guide makes latents from these.
        DataError: There are none, as after a fit was loaded without its data.
    """
    check_encodes(fit)
    if fit.problem.frame is None or not observes_matrix(fit, schema_of(fit)):
        raise ModelError(
            "arms are labels in a column of a table, and the fit is to something else",
            remedy="fit models.VAE(infer_schema(frame)) to the table of the test",
        )
    table = fit.problem.frame if frame is None else frame
    if table.empty:
        raise DataError("there are no rows", remedy="pass the table, frame=")
    return table


def schema_of(fit: Fit) -> Schema:
    """Return the schema of the fit's table, one without columns for a fit to tensors."""
    return Schema(()) if fit.schema is None else fit.schema


def column_names(fit: Fit) -> tuple[str | int, ...]:
    """Return the columns that the model sees."""
    return schema_of(fit).names


def column_in(fit: Fit, name: str | int) -> Column:
    """Return a column of the fit's table.

    Raises:
        DataError: There is none of that name.
    """
    columns = {column.name: column for column in schema_of(fit).columns}
    if name not in columns:
        why = f"it has {listing([*columns])}"
        raise DataError("the fit's table lacks the column", where=repr(name), why=why)
    return columns[name]


def labels_in(fit: Fit, group: str | int, table: pd.DataFrame | None = None) -> Column:
    """Return the column of the labels; of one that the model does not see, as `table` has it.

    Raises:
        DataError: It holds no labels, or all are the same.
    """
    column = column_in(fit, group)
    if column.kind == "skip" and table is not None:
        check_columns(table, [group])
        column = learn_column(table[group], Declared("categorical"), standardise=False)
    if column.kind not in ("binary", "categorical"):
        why = f"its kind is {column.kind!r}"
        declare = f'infer_schema(frame, kinds={{{group!r}: "categorical"}})'
        remedy = f"name the column that says who was treated how, or declare it: {declare}"
        raise DataError("the column holds no arms", where=f"column {group!r}", why=why, remedy=remedy)
    if len(column.categories) < 2:
        why, remedy = listing(column.categories), "pass rows of both arms"
        raise DataError(
            "there are not two different labels", where=f"column {group!r}", why=why, remedy=remedy
        )
    return column


def code_of(column: Column, arm: Any) -> int:
    """Return the code of an arm.

    Raises:
        ArgumentError: There is no such arm.
    """
    if arm not in column.categories:
        raise ArgumentError(f"there is no arm {arm!r}", why=f"the arms are {listing(column.categories)}")
    return column.categories.index(arm)


def control_of(column: Column, control: Any) -> int:
    """Return the code of the arm that others are compared with.

    Raises:
        ArgumentError: There is no such arm.
    """
    called = [code for code, name in enumerate(column.categories) if str(name).lower() in CONTROLS]
    return code_of(column, control) if control is not None else (called or [0])[0]


def labelled(column: Column, cells: pd.Series) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which rows have a label `(N,)`, and the codes of those that have.

    Raises:
        DataError: An arm has fewer than two rows, so that nothing varies in it.
    """
    codes = column.values(cells)
    known = ~np.isnan(codes)
    labels = codes[known].astype(np.int64)
    counts = np.bincount(labels, minlength=len(column.categories))
    few = {name: int(count) for name, count in zip(column.categories, counts, strict=True) if count < 2}
    if few:
        raise DataError(
            "an arm has fewer than two labelled rows",
            where=f"column {column.name!r}",
            why=", ".join(f"{name!r}: {count}" for name, count in list(few.items())[:5]),
            remedy="pass rows of all arms, or correct the labels",
        )
    return known, labels


# Latents of rows in arms


@final
@dataclass(frozen=True)
class Latents:
    """Latents of rows, as each of K labels would have them; all alike where labels are hidden.

    Attributes:
        means: Their posterior means `(K, N, L)`, or `(1, N, L)` where labels are hidden.
        variances: Their posterior variances, of the same shape.
        names: Of the L latents.
    """

    means: Array
    variances: Array
    names: Sequence[str]

    def moments(self, weights: Array) -> tuple[Array, Array, Array]:
        """Return means, variances of means and mean variances of arms, `(K, B, L)` each.

        Args:
            weights: How often each row counts in each arm `(K, B, N)`.
        """
        number = weights.sum(-1, keepdims=True)
        mean = weights @ self.means / number
        spread = (weights @ self.means**2 / number - mean**2) * number / (number - 1)
        return mean, spread.clip(0), weights @ self.variances / number

    def distances(self, weights: Array, control: int) -> Array:
        """Return the distance of each arm from the control `(K, B)`, given how rows count `(K, B, N)`."""
        mean, spread, within = self.moments(weights)
        freedom = weights.sum(-1, keepdims=True) - 1
        pooled = ((spread + within) * freedom).sum(0) / freedom.sum(0)
        squares = (mean - mean[control]) ** 2
        return np.sqrt(np.divide(squares, pooled, out=np.zeros_like(squares), where=pooled > 0).sum(-1))


def latents_of(fit: Fit, group: str | int, table: pd.DataFrame, column: Column, see_labels: bool) -> Latents:
    """Return the latents of labelled rows.

    Raises:
        ArgumentError: Labels are to be seen that the model does not see.
    """
    if see_labels and group not in column_names(fit):
        raise ArgumentError(
            "the encoder cannot see the labels", why=f"the model has no column {group!r}",
            remedy="leave see_labels out",
        )  # fmt: skip
    labels = column.categories if see_labels else (np.nan,)
    views = [posterior(fit, with_column(table, group, label)) for label in labels]
    means, variances = (np.stack([view[k] for view in views]) for k in (0, 1))
    return Latents(means, variances, views[0][2])


def posterior(fit: Fit, table: pd.DataFrame) -> tuple[Array, Array, list[str]]:
    """Return the guide's means and variances of the latents of rows `(N, L)`, and their names."""
    given = rows_to_encode(fit, table)
    with given.context(), AtMeans(given.sites.row_latents), seeded(given.seed, "encode"):
        sites = terms(recorded(guide_of(given.pair), given.data))
    found = {name: sites[name]["fn"] for name in given.sites.row_latents}
    means = {name: fn.mean for name, fn in found.items()}
    both = side_by_side(means), side_by_side({name: fn.variance for name, fn in found.items()})
    mean, variance = (value.detach().cpu().double().numpy() for value in both)
    return mean, variance, latent_names(means)


def with_column(table: pd.DataFrame, name: str | int, cell: Any) -> pd.DataFrame:
    """Return the table with all cells of a column alike, missing ones for nan."""
    changed = table.copy()
    changed[name] = cell
    return changed


def described(latents: Latents, column: Column, labels: NDArray[np.int64], control: int) -> pd.DataFrame:
    """Return what is known of each arm."""
    weights = one_hot(labels[None], len(column.categories))
    mean, spread, within = (values[:, 0] for values in latents.moments(weights))
    columns: dict[str, Any] = {"rows": np.bincount(labels)}
    columns["distance"] = latents.distances(weights, control)[:, 0]
    for k, name in enumerate(latents.names):
        columns[f"{name}_mean"] = mean[:, k]
        columns[f"{name}_variance"] = spread[:, k] + within[:, k]
        columns[f"{name}_variance_of_means"] = spread[:, k]
    return pd.DataFrame(columns, pd.Index(column.categories, name="arm"))


def distances(latents: Latents, control: int, number: int, weighted: Weighted) -> Array:
    """Return the largest distance from the control `(number,)`, of rows as `weighted` counts them."""
    sizes = parts(number, latents.means.shape[1])
    return np.concatenate([latents.distances(weighted(size), control).max(0) for size in sizes])


def parts(number: int, num_rows: int) -> Iterator[int]:
    """Yield numbers that add up to `number`, of samples of rows that are looked at together."""
    most = max(1, AT_ONCE // num_rows)
    for start in range(0, number, most):
        yield min(most, number - start)


def interval_of(values: Array) -> Range:
    """Return the 90 % interval of values `(B,)`."""
    low, high = np.quantile(values, INTERVAL)
    return float(low), float(high)


def p_value(observed: float, by_chance: Array) -> float:
    """Return how often chance `(B,)` gives as much; what is observed is one of the permutations.

    Phipson and Smyth (2010), Permutation p-values should never be zero.
    """
    as_large = by_chance >= observed * (1 - ROUNDING)
    return float((1 + as_large.sum()) / (1 + len(by_chance)))


def one_hot(labels: NDArray[np.int64], number: int) -> Array:
    """Return labels `(B, N)` as weights of rows in each of the arms `(K, B, N)`."""
    return np.stack([(labels == k).astype(float) for k in range(number)])


def permuted(random: np.random.Generator, labels: NDArray[np.int64]) -> Weighted:
    """Return what permutes labels `(N,)`."""
    number = int(labels.max()) + 1
    return lambda size: one_hot(random.permuted(np.tile(labels, (size, 1)), axis=1), number)


def resampled(random: np.random.Generator, labels: NDArray[np.int64]) -> Weighted:
    """Return what draws rows within each arm again, with replacement."""

    def weighted(size: int) -> Array:
        weights = one_hot(np.tile(labels, (size, 1)), int(labels.max()) + 1)
        for k, of_arm in enumerate(weights):
            rows = labels == k
            of_arm[:, rows] = row_counts(random, int(rows.sum()), size)
        return weights

    return weighted


def row_counts(random: np.random.Generator, num_rows: int, number: int) -> Array:
    """Return how often each of the rows is in bootstrap samples of them `(number, num_rows)`."""
    rows = random.integers(num_rows, size=(number, num_rows)) + num_rows * np.arange(number)[:, None]
    return np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape).astype(float)


# Outcomes that nobody saw


def outcomes_if(
    fit: Fit, outcome: str | int, group: str | int, arm: Any, table: pd.DataFrame, num_draws: int,
    seed: int | None,
) -> Array:  # fmt: skip
    """Return draws of each row's outcome if its arm were `arm` `(S, N)`, in units of the outcome."""
    check_num_draws(num_draws)
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


# What is weak


def never_hidden(fit: Fit, name: str | int, called: str) -> tuple[str, ...]:
    """Say that an encoder has to do without a cell that was never missing in its training."""
    mask = fit.data.get("mask")
    if mask is None or not len(mask) or not mask[:, column_names(fit).index(name)].all():
        return ()
    return (
        f"Every row of the fit has its {called}, so the encoder has not learnt to do without, and is rough "
        f"where it is hidden. Fit a table that lacks it in a third of the rows, chosen at random.",
    )


def doubts_of(fit: Fit, effect: float, observed: float, error: float) -> Iterator[str]:
    """Yield what makes an effect weaker than it looks."""
    if fit.num_refits == 1:
        yield (
            "The interval covers the choice of rows and not what one trained network does not know: it is "
            "too narrow. Fit with SVI(num_refits=20)."
        )
    if abs(effect - observed) > FAR * error:
        yield (
            f"The effect, {effect:.4g}, is far from the difference of the mean outcomes of the arms, "
            f"{observed:.4g} (standard error {error:.2g}): the network does not follow the outcome, or the "
            "arms are of different rows. Train it longer, by iwae(20)."
        )


def said(found: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is weak, said aloud."""
    for message in found:
        warnings.warn(message, FitWarning, stacklevel=3)
    return found
