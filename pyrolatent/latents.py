"""Latents of rows, and rows from latents: encode, generate, reconstruct, traverse, score.

They are for models in which each row has latents of its own that the guide makes from the row, as in
an autoencoder, ours or a user's; `generate` is for every model.  Rows of a table come back as a table,
in its units and dtypes; rows of tensors as tensors, images among them.  Of several refits `generate` takes
all, the others the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import pandas as pd
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrolatent.capture.bounds import guide_of, recorded, terms
from pyrolatent.capture.conditioned import Conditioned, observations
from pyrolatent.capture.messages import DATA_PLATE, WRAPPERS, Message
from pyrolatent.capture.supports import check_support
from pyrolatent.columnwise import ColumnwiseDistribution
from pyrolatent.draws import log_evidence, with_rows
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.fit import fit as fit_again
from pyrolatent.infer.guides import is_amortised
from pyrolatent.infer.method import Method, check_least
from pyrolatent.observed import observed_sites
from pyrolatent.predict import observes_matrix, with_data
from pyrolatent.result import Fit, evenly_spaced
from pyrolatent.seeds import generator, seeded
from pyrolatent.univariate import typical

Data = Mapping[str, Any] | pd.DataFrame
Values = dict[str, Tensor]
Rows = dict[str, Tensor] | pd.DataFrame

GLOBAL_DRAWS = 200  # of what all rows share, each of which makes as many rows
AT_ONCE = 20_000  # rows generated in one run of the model


def encode(
    fit: Fit,
    data: Data | None = None,
    method: Method | None = None,
    *,
    sample: bool = False,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return the posterior means of the latents of rows, or one draw of them.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows.
        data: Rows as the fit takes them, a table or a dictionary; by default its own.
        method: Samples the latents given what was learnt, as `HMC()` does, for their means; by default
            these are the guide's.
        sample: Whether to return one draw of the guide, q(z | x), for each row instead of its means.
        seed: Of what is drawn; by default that of the fit.

    Returns:
        A line for each row `(N, L)`, with the table's index; a column for each latent, `z[0]`, `z[1]`, ...

    Raises:
        ArgumentError: A sample is asked for, and a method too.
        ModelError: The model has no latents of rows, or no guide that makes them from rows.
        DataError: The rows do not fit the model.
    """
    if sample and method is not None:
        raise ArgumentError(
            "a sample is drawn from the guide, and means are what a method finds",
            why=f"got sample=True and method={method}",
            remedy="leave one of them out",
        )
    given = rows_to_encode(fit, data)
    seed = fit.seed if seed is None else seed
    if method is None:
        found = guide_draws(given, seed) if sample else guide_means(given)
    else:
        rows = given.data if given.problem.frame is None else given.problem.frame
        sampled = fit_again(
            fit.pair,
            rows,
            method,
            start=fit,
            seed=seed,
            dtype=torch.float64,
            progress=fit.problem.progress,
        )
        found = {name: sampled.samples[name].mean((0, 1)) for name in fit.sites.row_latents}
    index = None if given.problem.frame is None else given.problem.frame.index
    return pd.DataFrame(side_by_side(found).cpu().double().numpy(), index, latent_names(found))


def generate(fit: Fit, n: int, seed: int | None = None) -> Rows:
    """Draw new rows from the model with what was learnt.

    Latents of rows come from their priors, what all rows share from its posterior; inputs of a model that
    are no observations are those of rows of the fit, picked at random.

    Args:
        fit: A fit.
        n: The number of rows.
        seed: By default the seed of the fit.

    Returns:
        A table of n rows for a fit to a table; else observed site -> `(n, ...)`, on the host.

    Raises:
        ArgumentError: `n` is not positive.
        ModelError: The model has no rows.
    """
    if n < 1:
        raise ArgumentError("the number of rows must be positive", why=f"got {n}")
    if not fit.sites.rows:
        raise ModelError("the model has no rows", remedy='observe them in pyro.plate("data", ...)')
    seed = fit.seed if seed is None else seed
    shared = {name: value for name, value in fit.flat_samples().items() if name not in row_sites(fit)}
    count = min(n, GLOBAL_DRAWS, fit.num_draws) if shared else fit.num_refits
    keep = evenly_spaced(fit.num_draws, count)
    random, parts = generator(seed, "rows to generate"), []
    for number, draw in enumerate(keep.tolist()):
        of_draw = n * (number + 1) // count - n * number // count
        values = {name: value[draw].to(fit.problem.device) for name, value in shared.items()}
        refit = draw * fit.num_refits // fit.num_draws
        for start in range(0, of_draw, AT_ONCE):
            index = torch.randint(fit.sites.rows, (min(AT_ONCE, of_draw - start),), generator=random)
            with fit.context(refit), seeded(seed, "generate", number, start):
                parts.append(new_rows(fit, values, index))
    made = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return as_rows(fit, made, pd.RangeIndex(n))


def reconstruct(fit: Fit, data: Data | None = None) -> Rows:
    """Return rows as the model sees them: what it expects of their cells, given their latents' means.

    Cells are means, of positive columns and proportions those of their logs and log-odds, and of labels and
    levels the most probable one.

    Raises:
        ModelError: The model has no latents of rows, or no guide that makes them from rows.
        DataError: The rows do not fit the model.
    """
    given = rows_to_encode(fit, data)
    frame = given.problem.frame
    return as_rows(given, decoded(given, guide_means(given)), None if frame is None else frame.index)


def traverse(fit: Fit, row: Data, latent: str | int, values: Sequence[float]) -> Rows:
    """Return what becomes of a row while one of its latents takes `values`, all others at their means.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows.
        row: One row as the fit takes it: a table, or a dictionary.
        latent: The latent as `encode` names it, or the number of its column there.
        values: The values it takes.

    Returns:
        The reconstructed rows, one for each of `values`, which index a table.

    Raises:
        ArgumentError: There is more than one row, or no such latent.
    """
    given = rows_to_encode(fit, row)
    means = guide_means(given)
    flat, names = side_by_side(means), latent_names(means)
    if len(flat) != 1:
        raise ArgumentError("traverse takes one row", why=f"got {len(flat)}")
    if latent not in names and latent not in range(len(names)):
        raise ArgumentError("there is no such latent", why=f"got {latent!r}", remedy=f"choose one of {names}")
    column = names.index(latent) if isinstance(latent, str) else latent
    repeated = with_rows(given, 1, torch.zeros(len(values), dtype=torch.long))
    flat = flat.repeat(len(values), 1)
    flat[:, column] = torch.as_tensor(list(values)).to(flat)
    parts = flat.split([value[0].numel() for value in means.values()], 1)
    moved = {n: part.reshape(-1, *v.shape[1:]) for (n, v), part in zip(means.items(), parts, strict=True)}
    return as_rows(repeated, decoded(repeated, moved), pd.Index(list(values), name=names[column]))


def score(fit: Fit, data: Data | None = None, num_draws: int = 1_000, seed: int | None = None) -> pd.Series:
    """Return log p(observed cells) of each row, in nats and in the table's units.

    By importance sampling with the guide as the proposal (Burda, Grosse and Salakhutdinov, 2016, eq. 8):
    from below, and closer with more draws.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows.
        data: Rows as the fit takes them; by default its own.
        num_draws: Draws of the guide for each row.
        seed: By default the seed of the fit.

    Returns:
        A number for each row, `(N,)`, with the table's index.

    Raises:
        ArgumentError: `num_draws` is not positive.
        ModelError: The model has no latents of rows, or no guide that makes them from rows.
    """
    check_least("num_draws", num_draws, 1)
    given = rows_to_encode(fit, data)
    with torch.no_grad(), seeded(fit.seed if seed is None else seed, "score"):
        found = log_evidence(given, num_draws)
    zeros = torch.zeros_like(found)[None]
    units = sum(site.density_in_units(zeros)[0] for site in observed_sites(given).values())
    index = None if given.problem.frame is None else given.problem.frame.index
    return pd.Series((found + units).cpu().double().numpy(), index, name="log_prob")


def rows_to_encode(fit: Fit, data: Data | None) -> Fit:
    """Return the fit with these rows, by default its own.

    Raises:
        ModelError: The model has no latents of rows, or no guide that makes them from rows.
        DataError: The rows do not fit the model, or a cell lies outside of its distribution's support.
    """
    given = with_data(fit, data)
    check_encodes(given)
    if data is not None:
        with given.context():
            for message in observations(given.pair.model, given.data, guide_means(given)).values():
                check_support(message)
    return given


def check_encodes(fit: Fit) -> None:
    """Refuse a model whose guide does not make the latents of rows.

    Raises:
        ModelError: With the reason.
    """
    if not fit.sites.row_latents:
        raise ModelError(
            "the model has no latents of rows", remedy='sample one for each row in pyro.plate("data", ...)'
        )
    if fit.parameters is None or not is_amortised(fit.pair):
        raise ModelError(
            "no guide makes the latents of rows from the rows",
            where=f"sites {fit.sites.row_latents}",
            remedy="pass guide= a function of the rows to fit(), with a method that learns",
        )


def guide_means(fit: Fit) -> Values:
    """Return the guide's means of the latents of rows, `(N, *event)` each, at the means of those before."""
    with AtMeans(fit.sites.row_latents):
        return guide_draws(fit, fit.seed)


@final
class AtMeans(Messenger):
    """Sets the sites with these names to their means."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, message: Message) -> None:
        if message["name"] in self.names:
            message["value"] = message["fn"].mean
            message["done"] = True


def guide_draws(fit: Fit, seed: int, *stream: str | int) -> Values:
    """Return one draw of the guide for each row, `(N, *event)` of each latent."""
    guide = guide_of(fit.pair)
    with fit.context(), seeded(seed, "encode", *stream):
        sites = terms(recorded(guide, fit.data))
        return {name: sites[name]["value"] for name in fit.sites.row_latents}


def side_by_side(latents: Values) -> Tensor:
    """Return latents `(N, *event)` as columns `(N, L)`."""
    return torch.cat([value.reshape(len(value), -1) for value in latents.values()], 1)


def latent_names(latents: Values) -> list[str]:
    """Return the names of these columns."""
    return [f"{name}[{k}]" for name, value in latents.items() for k in range(value[0].numel())]


def row_sites(fit: Fit) -> set[str]:
    """Return the sites of which each row has its own."""
    sites = {**fit.sites.latents, **fit.sites.discrete, **fit.sites.deterministics}
    return {name for name, site in sites.items() if DATA_PLATE in site.plates}


def new_rows(fit: Fit, values: Values, index: Tensor) -> Values:
    """Return observed sites drawn anew, given what all rows share, for inputs of the rows at `index`."""
    with Conditioned(values, redraw=True) as run:
        fit.pair.model(**with_rows(fit, fit.sites.rows or 0, index).data)
    return {name: message["value"].cpu() for name, message in run.observations().items()}


def decoded(fit: Fit, latents: Values) -> Values:
    """Return what the model expects of its observed sites, given the latents of rows."""
    with fit.context():
        messages = observations(fit.pair.model, fit.data, latents)
        return {name: expected(message).cpu() for name, message in messages.items()}


def expected(message: Message) -> Tensor:
    """Return the mean of a site, of labels and levels the most probable one."""
    fn: Any = message["fn"]
    if isinstance(fn, ColumnwiseDistribution):
        return fn.expected()
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return typical(fn).expand(message["value"].shape)


def as_rows(fit: Fit, values: Values, index: pd.Index | None) -> Rows:
    """Return the cells of a table as one, all else as it is."""
    schema = fit.schema
    if schema is None or index is None or len(values) != 1 or not observes_matrix(fit, schema):
        return values
    return schema.decode(next(iter(values.values())), index)
