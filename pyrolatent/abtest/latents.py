"""How far apart the arms of a test are in the latents of a trained autoencoder.

    fit = fit(models.VAE(infer_schema(frame, kinds={"group": "categorical"}), 2), frame, SVI(iwae(20)))
    latent_difference(fit, "group").p_value

After the autoencoder part of S. Li, "Decoding latent variables: comparing Bayesian, EM, and VAE approaches"
(Towards AI, 2024).  Unlike there, rows belong to the arm that their label names, latents of separately
trained networks are never compared, and a distance comes in units of the latents' own spread, with what it
is by chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyrolatent.abtest.asked import (
    Array,
    column_names,
    control_of,
    interval_of,
    labelled,
    labels_in,
    never_hidden,
    parts,
    row_counts,
    said,
    table_of,
    with_column,
)
from pyrolatent.abtest.choices import Range
from pyrolatent.capture.bounds import guide_of, recorded, terms
from pyrolatent.column import Column
from pyrolatent.errors import ArgumentError
from pyrolatent.infer.method import check_least
from pyrolatent.latents import AtMeans, latent_names, rows_to_encode, side_by_side
from pyrolatent.result import Fit
from pyrolatent.seeds import numpy_generator, seeded

NUM_BOOTSTRAP = 1_000
ROUNDING = 1e-9  # by which equal distances may differ
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
        ArgumentError: There is no fit, no such arm, or a number is not positive.
        DataError: The column cannot be used, or an arm has fewer than two labelled rows.
        ModelError: The fit is not to a table, or has no guide that makes latents of rows from rows.
    """
    check_least("num_bootstrap", num_bootstrap, 1)
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
