"""Components put in the order that a site asks for.

A likelihood does not know the order of exchangeable components, and EM that kept to it would get stuck where
two of them have to swap.  So it climbs without, and here its components are given their places in the end.
"""

import torch
from pyro.distributions import constraints
from torch import Tensor

from pyrolatent.capture.sites import random_start
from pyrolatent.infer.em_steps import MixtureSteps
from pyrolatent.infer.maximisation import plain

POINTS = 3  # at which components are exchanged to see whether the likelihood stays


def ordered_sites(steps: MixtureSteps) -> list[str]:
    """Return the names of the sites that ask for an order."""
    supports = steps.formulas.supports
    return [name for name, support in supports.items() if plain(support) is constraints.ordered_vector]


def is_exchangeable(steps: MixtureSteps, random: torch.Generator) -> bool:
    """True where the components of every ordered site can be exchanged without a change of the likelihood."""
    position = random_start((POINTS, steps.latents.density.dim), random)
    for name in ordered_sites(steps):
        picked = cells_picked(steps, name)
        if picked is None:
            return False
        latents = steps.latents.of_positions(position)
        moved = torch.stack([permuted(steps, row, torch.arange(len(picked)).roll(1)) for row in latents])
        if not torch.allclose(steps.expected_sums(latents)[0], steps.expected_sums(moved)[0]):
            return False
    return True


def in_order(steps: MixtureSteps, latents: Tensor) -> Tensor:
    """Return latents `(R,)` of the same mixture, with the components of an ordered site in their order."""
    for name in ordered_sites(steps):
        if (picked := cells_picked(steps, name)) is not None:
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
    origin = torch.arange(len(latents))
    for part, block in zip(steps.rows.parts, steps.rows.blocks, strict=True):
        for source in part.sources:
            cells = source.index[block.cells]  # (C, d), of vectors (C, d, L)
            if block.fixed is not None and source.index.ndim > 1:  # of a share, that of the own value
                cells = cells[:, 0].gather(1, block.fixed.argmax(1, keepdim=True))
            here, there = cells.flatten(), cells[order].flatten()
            latent = (here < len(latents)) & (there < len(latents))
            origin[here[latent]] = there[latent]
    return latents[origin]
