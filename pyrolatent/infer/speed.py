"""How fast a density runs: how many points side by side, compiled or not, and what slowed it down."""

from typing import Any

from pyrolatent.capture.compile import Graph, has_compiler, worth_compiling
from pyrolatent.capture.density import LogDensity
from pyrolatent.result import Compile

MAX_BYTES = 4 * 2**30  # of all chains' copies of the rows
COPIES = 16  # of an observed site that its density makes on the way


def default_chains(density: LogDensity) -> int:
    """64 in one graph, 4 on slower rungs, fewer where the rows of all chains would not fit."""
    if not density.batched.vectorised:
        return 4
    fitting = MAX_BYTES // (largest_site(density) * density.dtype.itemsize * COPIES)
    return next((chains for chains in (64, 16) if chains <= fitting), 4)


def largest_site(density: LogDensity) -> int:
    """Return how many numbers the largest site has, with all values of discrete ones."""
    sites = density.sites
    sizes = [site.shape.numel() for name, site in sites.observed.items() if name not in sites.summaries]
    return max(1, density.largest_table, *sizes)


def compiled(graph: Graph, compile: Compile, planned_evaluations: int) -> Graph:
    """Return the graph to run by inductor where that is wanted and possible, else as it is."""
    wanted = worth_compiling(graph, planned_evaluations) if compile == "auto" else compile
    return graph.compile() if wanted and has_compiler() else graph


def how_it_ran(density: LogDensity, graph: Graph | None) -> dict[str, Any]:
    """Return rung, size and compilation of a density, for the `info` of a fit."""
    return {
        "rung": density.rung,
        "reason": density.batched.reason,
        "num_ops": graph.num_ops if graph else None,
        "compiled": graph.ran_compiled if graph else False,
    }


def slowness(density: LogDensity, compile: Compile) -> tuple[str, ...]:
    """Return why a fit ran slower than it could have, each with what to do."""
    found = []
    if not density.batched.vectorised:
        found.append(
            f"The model ran at points one by one, which is slow ({density.batched.reason}). Write it without "
            "assignments into tensors and without Python control flow on latent values."
        )
    if compile is True and not has_compiler():
        found.append(
            "No C++ compiler was found, so the fit ran uncompiled. Install g++ or pass compile='auto'."
        )
    return tuple(found)
