"""Noise as an input of captured graphs.

A graph traced from code that draws random numbers holds the drawing operations.  Those that depend
on no input, the base noise of reparameterised sites and of dropout, are taken out of it and drawn
beforehand, in the order of the program.  So a captured function gives the numbers that its Python
would under the same `torch.manual_seed`, whatever compiles it, and it is deterministic: `vmap` runs
it at many noises at once.  The first operation that draws given other values (a Gamma's shape) stays
where it is, and so do all after it: taken out, they would be drawn before it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, fx
from torch.func import vmap

from pyrolatent.capture.compile import Graph, calls, capture, is_random
from pyrolatent.capture.vector import stacked
from pyrolatent.seeds import forked

Source = tuple[Callable[..., Tensor], tuple[Any, ...], dict[str, Any]]


@final
@dataclass(frozen=True)
class NoisyGraph:
    """A captured function of `inputs` and of noise that `draw` makes: `graph(*inputs, *draw())`."""

    graph: Graph
    sources: tuple[Source, ...]

    def __call__(self, *inputs: Tensor) -> Any:
        """Run with fresh noise from torch's own stream."""
        return self.graph(*inputs, *self.draw())

    def draw(self) -> list[Tensor]:
        """Return one set of noise, in the order in which the program drew it."""
        return [function(*args, **kwargs) for function, args, kwargs in self.sources]

    def draw_many(self, number: int) -> list[Tensor]:
        """Return `number` sets of noise, each stacked `(number, ...)`."""
        return stacked([self.draw() for _ in range(number)])

    @property
    def deterministic(self) -> bool:
        """True where no operation of the graph draws anything itself."""
        return not any(is_random(node) for node in calls(self.graph.module))

    def mapped(self, shared: tuple[bool, ...], *examples: Tensor) -> Graph:
        """Return the graph over a leading axis of all noise and of every input that is not `shared`.

        `examples` are inputs and noise as the result takes them.
        """
        axes = tuple(None if same else 0 for same in shared) + (0,) * len(self.sources)
        return capture(vmap(self.graph.module, in_dims=axes, randomness="different"), *examples)


def capture_noisy(function: Callable[..., Any], *examples: Tensor) -> NoisyGraph:
    """Trace `function`, which may draw random numbers, at the shapes of `examples`."""
    graph = capture(function, *examples)
    sources = lift(graph.module)
    return NoisyGraph(Graph(graph.module, graph.module, compiled=False), tuple(sources))


def cuts(part: NoisyGraph, whole: NoisyGraph, number: int) -> tuple[list[int | None] | None, str]:
    """Return how the noise of `whole` is cut into `number` parts, each the noise of `part`.

    Returns:
        The dimension along which each source is cut, None for one that all parts share; or None and
        the reason, where the two do not draw alike.
    """
    if not (part.deterministic and whole.deterministic):
        return None, "it is drawn from what is learnt or computed"
    if [shapeless(source) for source in part.sources] != [shapeless(source) for source in whole.sources]:
        return None, "a batch draws in another way than its parts"
    dims: list[int | None] = []
    for small, large in zip(shapes(part), shapes(whole), strict=True):
        differing = [dim for dim, (a, b) in enumerate(zip(small, large, strict=True)) if a != b]
        if len(differing) > 1 or any(number * small[dim] != large[dim] for dim in differing):
            return None, "its shape does not follow the rows"
        dims.append(differing[0] if differing else None)
    return dims, ""


def shapes(noisy: NoisyGraph) -> list[torch.Size]:
    """Return the shape of each noise; torch's own stream stays where it was."""
    with forked():
        return [drawn.shape for drawn in noisy.draw()]


def shapeless(source: Source) -> Any:
    """Return what is drawn apart from its shape; sizes and filled tensors have the place of a shape."""
    function, args, kwargs = source

    def plain(value: Any) -> Any:
        return "shape" if isinstance(value, Tensor | list | tuple) else value

    return function, [plain(value) for value in args], {name: plain(value) for name, value in kwargs.items()}


def lift(module: fx.GraphModule) -> list[Source]:
    """Turn the first drawing operations, of constants, into inputs of `module`; return what draws them."""
    sources: list[Source] = []
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    for node in list(calls(module)):
        if not is_random(node):
            continue
        if any(source.op != "get_attr" for source in node.all_input_nodes):
            break
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda kept: getattr(module, str(kept.target))
        )
        sources.append((cast(Any, node.target), cast(Any, args), cast(Any, kwargs)))
        with module.graph.inserting_after(last):
            last = module.graph.placeholder(f"noise_{len(sources)}")
        last.meta = dict(node.meta)
        node.replace_all_uses_with(last)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return sources
