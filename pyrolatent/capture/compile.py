"""Captured graphs: traced, cleaned up and, where it pays, compiled.

A function of tensors is recorded by `make_fx` as a flat graph of tensor operations.  The clean-up
changes no bit of the result: it evaluates once what does not depend on the inputs, merges common
subexpressions and drops what nobody reads.  Graphs hold no Python of the model any more, so they
run anywhere, compiled by inductor or not.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, final

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture.inductor import Compiled

# Measured on a dozen graphs in C++, in CPU-seconds; the cost is the mean of an empty and a full cache.
SECONDS_PER_OP = 2.2e-6  # what running an operation from Python costs, and compiling saves
SECONDS_PER_BYTE = 4e-11  # what writing a result costs, and fusing operations saves
SECONDS_TO_COMPILE = 4.0
SECONDS_TO_COMPILE_OP = 0.02
MAX_COMPILED_OPS = 2_000
MAX_COMPARED = 2**16  # numbers in a constant up to which its equals are looked for

# Their result depends on the shape of their input only.
SHAPE_ONLY = {
    torch.ops.aten.empty_like.default,  # which dropout fills with random bits
    torch.ops.aten.zeros_like.default,
    torch.ops.aten.ones_like.default,
    torch.ops.aten.full_like.default,
    torch.ops.aten.new_zeros.default,
    torch.ops.aten.new_ones.default,
    torch.ops.aten.new_full.default,
}
# Without autograd around the graph, or at an unchanged shape, they return their input.
NO_EFFECT = {
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.lift_fresh_copy.default,
}
RESHAPE = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.expand.default}


@final
@dataclass(frozen=True)
class Graph:
    """A captured function: call it with tensors of the shapes it was captured with."""

    module: fx.GraphModule
    run: Callable[..., Any]
    compiled: bool

    @property
    def num_ops(self) -> int:
        return sum(node.op == "call_function" for node in self.module.graph.nodes)

    @property
    def num_bytes(self) -> int:
        """Bytes of all results on the way."""
        results = (node.meta.get("val") for node in self.module.graph.nodes if node.op == "call_function")
        return sum(part.numel() * part.itemsize for part in results if isinstance(part, Tensor))

    def __call__(self, *inputs: Tensor) -> Any:
        if self.compiled:
            return self.run(*inputs)
        with torch._C.DisableTorchFunction():  # a default device doubles the time of each operation
            return self.run(*inputs)

    @property
    def ran_compiled(self) -> bool:
        """True where inductor's code ran, and gave the numbers that the graph gives."""
        return isinstance(self.run, Compiled) and not self.run.refused

    def compile(self) -> "Graph":
        """Return the same graph run by inductor; it compiles at its first call."""
        return Graph(self.module, Compiled(self.module), True)


def capture(function: Callable[..., Any], *examples: Tensor) -> Graph:
    """Trace `function` at the shapes of `examples` into a cleaned-up graph."""

    def traced(*inputs: Tensor) -> Any:  # make_fx would count the `self` of a method
        return function(*inputs)

    module = trace(traced, *examples)
    if any(mutates(node) for node in calls(module)):
        module = trace(without_mutations(module), *examples)
    if not any(mutates(node) for node in calls(module)):
        clean_up(module)
    return Graph(module, module, False)


def without_mutations(module: fx.GraphModule) -> Callable[..., Any]:
    """Return the graph as a function that writes into no tensor, be it made from constants alone."""
    constants = dict(module.named_buffers())

    def pure(held: dict[str, Tensor], *inputs: Tensor) -> Any:
        return functional_call(module, held, inputs)

    return partial(functionalize(pure, remove="mutations"), constants)


def trace(function: Callable[..., Any], *examples: Tensor) -> fx.GraphModule:
    """Record `function` at `examples`; one mode that describes all shapes saves a third of the time."""
    with tracing(TracingContext(FakeTensorMode())):
        return make_fx(function)(*examples)


def has_compiler() -> bool:
    """True where inductor finds a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def worth_compiling(graph: Graph, planned_evaluations: int) -> bool:
    """Decide from the graph's size and the planned work only: one seed, one result.

    Whether the cache holds the code already is not looked at, so the cost is the mean of both cases.
    """
    saved = graph.num_ops * SECONDS_PER_OP + graph.num_bytes * SECONDS_PER_BYTE
    cost = SECONDS_TO_COMPILE + graph.num_ops * SECONDS_TO_COMPILE_OP
    return graph.num_ops <= MAX_COMPILED_OPS and planned_evaluations * saved > cost and has_compiler()


def calls(module: fx.GraphModule) -> Iterator[fx.Node]:
    """Return the operations, as a list's iterator, so that the graph may change underneath."""
    return (node for node in list(module.graph.nodes) if node.op == "call_function")


def mutates(node: fx.Node) -> bool:
    """True for an operation that writes into one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def is_random(node: fx.Node) -> bool:
    """True for an operation that draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def clean_up(module: fx.GraphModule) -> None:
    """Shrink a graph without mutations in place; its results stay the same bit for bit."""
    fold_constants(module)
    skip_no_effect(module)
    merge_common(module)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def skip_no_effect(module: fx.GraphModule) -> None:
    """Remove operations that return their input."""
    for node in calls(module):
        if (source := unchanged_input(module, node)) is not None:
            node.replace_all_uses_with(source)
            module.graph.erase_node(node)


def unchanged_input(module: fx.GraphModule, node: fx.Node) -> Any:
    """Return the input that `node` merely passes on, if it does."""
    sources = node.all_input_nodes
    if node.target in NO_EFFECT:
        return sources[0]
    if node.target in RESHAPE and same_type(sources[0], node):
        return sources[0]
    if node.target is torch.ops.aten.pow.Tensor_Scalar and node.args[1] == 1 and same_type(sources[0], node):
        return sources[0]
    if node.target is torch.ops.aten.mul.Tensor and len(sources) == 2:
        left, right = node.args
        factors = [(left, right), (right, left)]
        return next((x for x, one in factors if is_ones(module, one) and same_type(x, node)), None)
    return None


def same_type(source: Any, node: fx.Node) -> bool:
    """True where two nodes hold tensors of one shape and dtype."""
    before, after = source.meta["val"], node.meta["val"]
    return bool(before.shape == after.shape and before.dtype == after.dtype)


def is_ones(module: fx.GraphModule, node: Any) -> bool:
    """True for a constant whose every entry is 1."""
    return node.op == "get_attr" and bool((getattr(module, node.target) == 1).all())


def fold_constants(module: fx.GraphModule) -> None:
    """Evaluate once every operation that does not depend on the inputs."""
    values: dict[fx.Node, Any] = {}
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            values[node] = getattr(module, node.target)
        elif node.op == "call_function" and not is_random(node):
            fold(module, node, values)
    for index, (node, value) in enumerate(list(values.items())):
        if node.op == "call_function" and isinstance(value, Tensor):
            hold_constant(module, node, f"folded_{index}", value)


def fold(module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> None:
    """Evaluate `node` into `values` if everything it needs is known."""
    inputs, operation = node.all_input_nodes, cast(Callable[..., Any], node.target)
    if operation in SHAPE_ONLY and isinstance(node.meta.get("val"), Tensor):
        like = node.meta["val"]
        shape = inputs[0].meta["val"].shape
        empty = torch.empty(shape, dtype=like.dtype, device=like.device)
        values[node] = operation(empty, *node.args[1:], **node.kwargs)
    elif all(source in values for source in inputs):
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        values[node] = operation(*args, **kwargs)


def hold_constant(module: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    """Replace `node` by a buffer that holds its value."""
    module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        held = module.graph.get_attr(name)
    held.meta = dict(node.meta)
    node.replace_all_uses_with(held)
    module.graph.erase_node(node)


def merge_common(module: fx.GraphModule) -> None:
    """Compute equal expressions once."""
    seen: dict[Any, fx.Node] = {}
    for node in list(module.graph.nodes):
        if node.op not in ("call_function", "get_attr") or is_random(node):
            continue
        key = constant_key(module, node) or (node.target, freeze(node.args), freeze(node.kwargs))
        if key in seen:
            node.replace_all_uses_with(seen[key])
            module.graph.erase_node(node)
        else:
            seen[key] = node


def constant_key(module: fx.GraphModule, node: fx.Node) -> Any:
    """Return what equal constants of moderate size share bit for bit, or None for another node."""
    held = getattr(module, str(node.target)) if node.op == "get_attr" else None
    if not isinstance(held, Tensor) or isinstance(held, FakeTensor) or held.numel() > MAX_COMPARED:
        return None
    # A tensor of one entry may be contiguous with strides of 0, and cannot be seen as bytes.
    plain = held.detach().cpu().clone(memory_format=torch.contiguous_format)
    bits = plain.flatten().view(torch.uint8).numpy().tobytes()
    return held.dtype, held.device, held.shape, held.stride(), bits


def freeze(argument: Any) -> Any:
    """Return a hashable form in which 1, 1.0 and True stay apart."""
    if isinstance(argument, list | tuple):
        return tuple(freeze(item) for item in argument)
    if isinstance(argument, dict):
        return tuple((name, freeze(item)) for name, item in argument.items())
    return (type(argument), argument)
