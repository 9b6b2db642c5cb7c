"""Components put in the order that a site asks for.

A likelihood does not know the order of exchangeable components, and EM that kept to it would get stuck where
two of them have to swap.  So it climbs without, and here its components are given their places in the end.
"""

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent.infer.em_steps import MixtureSteps
from pyrolatent.infer.maximisation import plain
from pyrolatent.infer.shared_rows import natural_parameters

ROUNDS = 2  # of formulas, whose scales depend on locations


def in_order(steps: MixtureSteps, latents: Tensor) -> Tensor:
    """Return latents `(R,)` of the same mixture, with the components of an ordered site in their order."""
    for name, support in steps.formulas.supports.items():
        if plain(support) is constraints.ordered_vector:
            picked = cells_picked(steps, name)
            if picked is not None:
                latents = permuted(steps, latents, latents[picked].argsort())
    return latents


def cells_picked(steps: MixtureSteps, name: str) -> Tensor | None:
    """Return which cell of a site each value of the discrete sites picks `(C,)`; None if not each its own."""
    layout = steps.latents.layout
    own = layout.unpack(torch.arange(layout.size))[name].flatten()
    for part, block in zip(steps.rows.parts, steps.rows.blocks, strict=True):
        for source in part.sources:
            columns = source.index[block.cells.mT] if source.index.ndim == 1 else ()
            for picked in columns:
                if len(picked) == len(own) and torch.equal(picked.sort().values, own):
                    return picked
    return None


def permuted(steps: MixtureSteps, latents: Tensor, order: Tensor) -> Tensor:
    """Return latents `(R,)` of the same mixture, whose component c is what component `order[c]` was."""
    if torch.equal(order, torch.arange(len(order))):
        return latents
    natural = natural_parameters(steps.rows.parts, latents[None])
    shares = steps.rows.shares(steps.rows.coefficients(natural)[0])[order][None]
    moved = latents[None]
    for _ in range(ROUNDS):
        moved = steps.from_shares(moved, shares)
    return moved[0]
