"""Draws of discrete sites given everything else, and a check that a model can be enumerated.

Once the discrete sites are summed out, samplers never see them.  They are drawn afterwards, one joint
draw for each draw of the continuous latents, from their exact conditional distribution given those
and the data: sums forward, draws backward, as `infer_discrete` of Pyro at temperature 1.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyrolatent.capture.elimination import draw_back, eliminate, pick, right_aligned
from pyrolatent.capture.enumeration import factor_graph, sites_in_sum, variable_of
from pyrolatent.capture.ladder import close
from pyrolatent.capture.messages import Message, is_observation
from pyrolatent.capture.sites import Site
from pyrolatent.capture.supports import check_support, values_of
from pyrolatent.errors import ModelError, PyrolatentError

ASSIGNMENTS = 2  # at which a model with all values at once is compared with plain runs

BROADCAST = (
    "index tables with Vindex(table)[..., z], count dimensions from the right, declare independent cells "
    "with pyro.plate, and write torch.where(z == 1, a, b) instead of if"
)

Messages = Mapping[str, Message]
Values = Mapping[str, Tensor]


def uniform_numbers(sites: Mapping[str, Site], num_draws: int, random: torch.Generator) -> dict[str, Tensor]:
    """Return what `draw_sites` needs for each of `num_draws` draws `(S, *site)`.

    Numbers of one draw follow each other in the stream, so on the CPU it may be read in pieces.
    """
    sizes = [site.shape.numel() for site in sites.values()]
    numbers = torch.rand((num_draws, sum(sizes)), generator=random, device=random.device).split(sizes, 1)
    return {
        name: part.reshape(num_draws, *site.shape)
        for (name, site), part in zip(sites.items(), numbers, strict=True)
    }


def draw_sites(messages: Messages, sites: Mapping[str, Site], uniforms: Values) -> dict[str, Tensor]:
    """Return one joint draw of the enumerated sites of a run, whole numbers `(*site)`.

    Args:
        messages: All sites of the run within `enumerating`.
        sites: The discrete ones.
        uniforms: For each a uniform random number a cell `(*site)`; of an event the first counts.
    """
    factors, variables = factor_graph(sites_in_sum(messages))
    _, steps = eliminate(factors.values(), variables)
    noise = {variable_of(messages[n]): first_of_event(u, messages[n]) for n, u in uniforms.items()}
    positions = draw_back(steps, noise)
    return {
        name: values_of(messages[name])[positions[variable_of(messages[name])]].reshape(site.shape).long()
        for name, site in sites.items()
    }


def first_of_event(cells: Tensor, message: Message) -> Tensor:
    """Return one number for each event of a site `(*batch)`."""
    return cells[(..., *(0,) * message["fn"].event_dim)]


def check_enumerable(
    run: Callable[[Values], Messages], sites: Mapping[str, Site], random: torch.Generator
) -> int:
    """Refuse a model whose code does not broadcast over the values of its discrete sites.

    Such code may run and be wrong, so all sites are compared with those of plain runs in which
    discrete sites have random values.

    Args:
        run: Returns the sites of a run at one point, given values of the discrete sites, or with
            all values at once given none.
        sites: The discrete sites.
        random: Picks values.

    Returns:
        The size of the largest table of log-probabilities, in numbers.
    """
    enumerated = all_values(run, sites)
    factors, variables = factor_graph(enumerated)
    eliminate(factors.values(), variables)
    lists = {name: values_of(enumerated[name]) for name in sites}
    for _ in range(ASSIGNMENTS):
        positions = {n: random_positions(enumerated[n], lists[n], sites[n], random) for n in sites}
        chosen = {variable_of(enumerated[name]): position for name, position in positions.items()}
        plain, _ = factor_graph(run({n: lists[n][position] for n, position in positions.items()}))
        for name, factor in factors.items():
            known = {dim: chosen[variable] for variable, dim in factor.dims.items()}
            check_equal(name, pick(factor.log_prob, known), plain[name].log_prob)
    return max(factor.log_prob.numel() for factor in factors.values())


def all_values(run: Callable[[Values], Messages], sites: Mapping[str, Site]) -> Messages:
    """Return the sites of a run with all values at once."""
    try:
        enumerated = run({})
    except PyrolatentError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        raise ModelError(
            "the model fails when its discrete sites take all their values at once",
            where=f"sites {list(sites)}",
            why=str(error),
            remedy=BROADCAST,
        ) from error
    for message in enumerated.values():
        if is_observation(message):
            check_support(message, alternatives=message["infer"]["_dim_to_id"])
    return enumerated


def random_positions(message: Message, values: Tensor, site: Site, random: torch.Generator) -> Tensor:
    """Return a random position in the list of values for each cell of a site `(*batch)`."""
    batch = site.shape[: len(site.shape) - message["fn"].event_dim]
    return torch.randint(len(values), batch, generator=random, device=random.device)


def check_equal(name: str, at_once: Tensor, plain: Tensor) -> None:
    """Refuse a site whose log-probability at some values is another when all values come at once."""
    if at_once.numel() != plain.numel() or not close(right_aligned(at_once, plain.ndim), plain):
        raise ModelError(
            "the code of the model does not broadcast over the values of its discrete sites",
            where=f"site {name!r}",
            why="with all values at once its log-probability is not that of each value",
            remedy=BROADCAST,
        )
