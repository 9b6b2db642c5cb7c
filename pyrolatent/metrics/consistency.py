"""Do encoder and decoder agree on what a latent is?

A score after that of the FactorVAE, without its factors: a latent is held still, the rows that follow
are encoded again, and the latent that now varies least should be the one that was held.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrolatent.capture.conditioned import observations
from pyrolatent.capture.messages import Message
from pyrolatent.capture.seen import seen_entries
from pyrolatent.draws import with_rows
from pyrolatent.errors import DataError, ModelError
from pyrolatent.infer.rows import split_rows
from pyrolatent.latents import (
    Data,
    Values,
    expected,
    guide_draws,
    rows_to_encode,
    side_by_side,
)
from pyrolatent.metrics.disentanglement import Votes, right_votes
from pyrolatent.objectives import check_positive
from pyrolatent.result import Fit
from pyrolatent.seeds import numpy_generator, seeded

STREAM = "latent fixing score"
MAX_ROWS = 20_000  # of several votes, decoded and encoded in one run
MAX_CELLS = 2**22  # of these rows

Numbers = NDArray[np.int64]


def latent_fixing_score(
    fit: Fit, data: Data | None = None, num_votes: int = 1_000, num_evaluation: int = 1_000, seed: int = 0
) -> Votes:
    """Return how often a latent that is held still is found again; about 1 / L by chance.

    It tells how well the encoder undoes the decoder, latent by latent, and nothing of disentanglement:
    latents that mix all factors score 1 where each comes back as it was.  It is what a thesis on the
    beta-TCVAE reports as its FactorVAE metric, and no number to put beside a `factor_vae_score`.

    A vote: rows are encoded, by one draw of the guide each.  A latent, picked at random, gets the value in
    all rows that it has in one of them, picked at random.  The rows are decoded: cells are what
    `reconstruct` returns, means, and of labels and levels the most probable one; holes stay as they are.
    They are encoded again, by new draws, and the latent whose variance is the smallest part of what it was
    has the vote.  Majorities of votes say which latent each stands for, and are scored on further votes.
    All latents take part, those that the decoder ignores too.

    A vote decodes and encodes all rows: pass fewer in `data` where that takes long.

    Args:
        fit: A fit of a model whose guide makes the latents of rows from the rows.
        data: N rows as the fit takes them, a table or a dictionary; by default its own.
        num_votes: Votes to learn from.
        num_evaluation: Votes to score.
        seed: Of draws and votes.

    Raises:
        ArgumentError: A number of votes is not positive.
        DataError: There is one row.
        ModelError: No guide makes latents of rows from the rows, or what the model observes is no argument
            of it.
    """
    check_positive("num_votes", num_votes)
    check_positive("num_evaluation", num_evaluation)
    given = rows_to_encode(fit, data)
    latents = guide_draws(given, seed)
    num_rows, num_latents = side_by_side(latents).shape
    if num_rows < 2:
        raise DataError("the variance of a latent needs several rows", why="got one")
    random, total = numpy_generator(seed, STREAM), num_votes + num_evaluation
    fixed, source = random.integers(num_latents, size=total), random.integers(num_rows, size=total)
    steadiest = votes(given, latents, fixed, source, seed)
    tables = np.zeros((2, num_latents, num_latents), dtype=np.int64)
    np.add.at(tables, (np.repeat([0, 1], [num_votes, num_evaluation]), steadiest, fixed), 1)
    return right_votes(*tables)


def votes(fit: Fit, latents: Values, fixed: Numbers, source: Numbers, seed: int) -> Numbers:
    """Return the latents that vary least `(V,)` where latents `fixed (V,)` are as in rows `source (V,)`."""
    flat, arguments, found = side_by_side(latents), observed_arguments(fit, latents), []
    cells = sum(fit.data[name][0].numel() for name in arguments.values())
    size = max(1, min(MAX_ROWS, MAX_CELLS // cells) // len(flat))
    for start in range(0, len(fixed), size):
        held, rows = (torch.from_numpy(part[start : start + size]) for part in (fixed, source))
        moved = with_latents_held(flat, held.to(flat.device), rows.to(flat.device))
        repeated = with_rows(fit, len(flat), torch.arange(len(flat)).repeat(len(held)))
        again = decoded_rows(repeated, arguments, apart(moved.flatten(0, 1), latents), seed)
        encoded = side_by_side(guide_draws(again, seed, STREAM, start)).view(moved.shape)
        part = encoded.var(1) / flat.var(0)
        found.append(part.nan_to_num(torch.inf, torch.inf).argmin(1).cpu().numpy())  # 0 / 0 never votes
    return np.concatenate(found)


def with_latents_held(flat: Tensor, held: Tensor, source: Tensor) -> Tensor:
    """Return latents `(V, N, L)`: `flat (N, L)` with those `held (V,)` as they are in rows `source (V,)`."""
    moved = flat.repeat(len(held), 1, 1)
    moved[torch.arange(len(held), device=flat.device), :, held] = flat[source, held][:, None]
    return moved


def apart(flat: Tensor, like: Values) -> Values:
    """Return columns `(M, L)` as latents `(M, *event)`, the inverse of `side_by_side`."""
    parts = flat.split([value[0].numel() for value in like.values()], 1)
    return {n: part.reshape(-1, *v.shape[1:]) for (n, v), part in zip(like.items(), parts, strict=True)}


def observed_arguments(fit: Fit, latents: Values) -> dict[str, str]:
    """Return the argument of the model that each observed site is.

    Raises:
        ModelError: A site is none of them.
    """
    rows = split_rows(fit.data, len(next(iter(latents.values())))).rows
    with fit.context(), seeded(fit.seed, STREAM):
        messages = observations(fit.pair.model, fit.data, latents)
    found = {}
    for site, message in messages.items():
        value = message["value"]
        same = [name for name, entry in rows.items() if entry is value]
        same = same or [name for name, entry in rows.items() if same_numbers(entry, value)]
        if not same:
            raise ModelError(
                "what the model observes is no argument of it, so it cannot be encoded anew",
                where=f"site {site!r}",
                remedy="observe an argument of the model as it is",
            )
        found[site] = same[0]
    return found


def same_numbers(first: Tensor, second: Tensor) -> bool:
    """True for tensors with the same numbers in the same order, in whatever shape and dtype."""
    return torch.equal(first.flatten().double(), second.flatten().double())


def decoded_rows(fit: Fit, arguments: dict[str, str], latents: Values, seed: int) -> Fit:
    """Return the fit with observed cells as the model expects them, given the latents of rows."""
    with fit.context(), seeded(seed, STREAM):
        messages = observations(fit.pair.model, fit.data, latents)
        cells = {name: expected_cells(messages[site]) for site, name in arguments.items()}
    entries = {name: as_entry(value, fit.data[name]) for name, value in cells.items()}
    return replace(fit, problem=replace(fit.problem, data={**fit.data, **entries}))


def expected_cells(message: Message) -> Tensor:
    """Return what the model expects of a site, and where cells are missing what was there."""
    return torch.where(seen_entries(message), expected(message), message["value"])


def as_entry(cells: Tensor, entry: Tensor) -> Tensor:
    """Return the cells of a site in the shape and dtype of the argument that it observes."""
    whole = cells if entry.is_floating_point() else cells.round()
    return whole.reshape(entry.shape).to(entry)
