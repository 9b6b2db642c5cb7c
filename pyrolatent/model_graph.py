"""The sites of a model and what depends on what: as a table of text, and as a picture where that can be made.

One run tells each site's distribution, a second one, on tensors that carry the names of the sites
they came from, what it depends on.  Both run at a posterior draw, so improper priors are no obstacle.
The picture is Pyro's `render_model`; it needs the Python package `graphviz` and the program `dot`,
neither of which is required.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, final

import pyro
from pyro.infer.inspect import get_model_relations

from pyrolatent.capture.conditioned import Conditioned
from pyrolatent.capture.messages import WRAPPERS
from pyrolatent.capture.sites import Site
from pyrolatent.errors import PyrolatentError
from pyrolatent.observed import model_runs
from pyrolatent.result import Fit

MOST_DRAWN = 40  # sites of a graph that can be read


@final
@dataclass(frozen=True)
class SiteRow:
    """One site of a model.

    Attributes:
        name: Its name.
        role: "latent", "discrete", "deterministic", "observed", "factor" or "parameter".
        distribution: Its class without wrappers; empty where it has none or the model cannot run.
        shape: Of its value; None for factors and parameters.
        plates: Those it is in.
        parents: The sites it directly depends on; empty as well where that cannot be found.
    """

    name: str
    role: str
    distribution: str = ""
    shape: tuple[int, ...] | None = None
    plates: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()


def site_rows(fit: Fit) -> list[SiteRow]:
    """Return the sites of the model by role; of a fit without its model or data what is stored of them."""
    names, parents = distribution_names(fit), relations(fit)
    sites = fit.sites
    roles: dict[str, Mapping[str, Site]] = {
        "latent": sites.latents,
        "discrete": sites.discrete,
        "deterministic": sites.deterministics,
        "observed": sites.observed,
    }
    rows = [
        SiteRow(n, role, names.get(n, ""), tuple(s.shape), tuple(s.plates), parents.get(n, ()))
        for role, table in roles.items()
        for n, s in table.items()
    ]
    rest = {"factor": sites.factors, "parameter": sites.parameters}
    return rows + [SiteRow(n, role) for role, found in rest.items() for n in dict.fromkeys(found)]


def at_first_draw(fit: Fit) -> Callable[..., Any]:
    """Return the model with its latent sites at the first posterior draw."""
    first = {name: draws[0, 0].to(fit.problem.device) for name, draws in fit.samples.items()}

    def run(**data: Any) -> None:
        with Conditioned(first):
            fit.pair.model(**data)

    return run


def distribution_names(fit: Fit) -> dict[str, str]:
    """Return site -> name of its distribution; empty where the model cannot run."""
    try:
        with model_runs(fit, "posterior draws"), pyro.poutine.trace() as traced:
            at_first_draw(fit)(**fit.data)
    except PyrolatentError:
        return {}
    random = (*fit.sites.latents, *fit.sites.discrete, *fit.sites.observed)
    return {name: unwrapped(traced.trace.nodes[name]["fn"]) for name in random}


def unwrapped(fn: Any) -> str:
    """Return the class of a distribution behind `to_event`, `mask` and `expand`."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return type(fn).__name__


def relations(fit: Fit) -> dict[str, tuple[str, ...]]:
    """Return site -> the sites it directly depends on; empty where that cannot be found."""
    try:
        with model_runs(fit, "posterior draws"):
            found = get_model_relations(at_first_draw(fit), (), dict(fit.data), include_deterministic=True)
    except Exception:  # a model may refuse tensors that carry names in any way; it is still fitted
        return {}
    return {name: tuple(parents) for name, parents in found["sample_sample"].items()}


def drawn_graph(fit: Fit, num_sites: int) -> str | None:
    """Return the graph as SVG, or None where it cannot be drawn or has too many sites to be read."""
    if num_sites > MOST_DRAWN or find_spec("graphviz") is None or shutil.which("dot") is None:
        return None
    try:
        with model_runs(fit, "posterior draws"):
            graph = pyro.render_model(
                at_first_draw(fit), (), dict(fit.data), render_deterministic=True, render_distributions=False
            )
        return str(graph.pipe(format="svg", encoding="utf-8"))
    except Exception:  # of Pyro for plates that overlap, of `dot` for odd names: the table says it all
        return None
