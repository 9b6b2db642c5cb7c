"""What in a graph changes from call to call, told while it is still being traced.

Changing are a graph's inputs, random draws and whatever is made of them.  All else is constant, and
Python may read it.  Dependence belongs to memory: what is written into a view is written into that
of which it is a view.
"""

import operator
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.utils._pytree import tree_leaves

from pyrolatent.capture.compile import SHAPE_ONLY, is_random

# The one argument whose values decide the shape, where others may be given too.
SETS_SHAPE = {torch.ops.aten.masked_select.default: 1, torch.ops.aten.bincount.default: 0}


@final
class Dependence:
    """Follows the graph that is being traced where this is made; outside of one, nothing changes."""

    def __init__(self) -> None:
        mode = get_proxy_mode()
        self.tracer = None if mode is None else mode.tracer
        self.last: fx.Node | None = None
        self.memory: dict[fx.Node, fx.Node] = {}  # operation -> the one that made its memory
        self.changing: set[fx.Node] = set()  # such memories

    def changes(self, value: Tensor) -> bool:
        """True where `value`, free of the wrappers of function transforms, is no constant."""
        if self.tracer is None:
            return False
        self.follow()
        slot = get_proxy_slot(value, self.tracer, None)
        return slot is not None and self.memory[slot.proxy.node] in self.changing

    def changing_shape(self) -> fx.Node | None:
        """Return an operation whose shape follows from values that change, if there is one."""
        if self.tracer is None:
            return None
        self.follow()
        return next((node for node in self.memory if self.any_changes(sets_shape(node))), None)

    def follow(self) -> None:
        """Take in what was traced since the last time."""
        for node in self.new_nodes():
            self.memory[node] = self.memory[node.all_input_nodes[0]] if is_view(node) else node
            made_here = node.op == "placeholder" or is_random(node)
            if made_here or (self.any_changes(node.all_input_nodes) and node.target not in SHAPE_ONLY):
                self.changing |= {self.memory[written] for written in (node, *writes_into(node))}

    def new_nodes(self) -> Iterator[fx.Node]:
        assert self.tracer is not None
        node = next(iter(self.tracer.graph.nodes)) if self.last is None else self.last.next
        while node.op != "root":
            self.last = node
            yield node
            node = node.next

    def any_changes(self, nodes: list[fx.Node]) -> bool:
        return any(self.memory[node] in self.changing for node in nodes)


def is_view(node: fx.Node) -> bool:
    """True for a result that shares the memory of its first argument."""
    if isinstance(node.target, torch._ops.OpOverload):
        arguments = node.target._schema.arguments
        return bool(arguments) and arguments[0].alias_info is not None and bool(node.all_input_nodes)
    return node.target is operator.getitem


def writes_into(node: fx.Node) -> list[fx.Node]:
    """Return the arguments that an operation writes into."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    found = []
    for place, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += nodes_in(node.args[place] if place < len(node.args) else node.kwargs.get(argument.name))
    return found


def sets_shape(node: fx.Node) -> list[fx.Node]:
    """Return the arguments whose values decide the shape of the result; mostly there is none."""
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return []
    if node.target is torch.ops.aten.index.Tensor:
        return [part for part in nodes_in(node.args[1]) if part.meta["val"].dtype is torch.bool]
    return nodes_in(node.args[SETS_SHAPE[node.target]]) if node.target in SETS_SHAPE else node.all_input_nodes


def nodes_in(argument: Any) -> list[fx.Node]:
    """Return the results of other operations in an argument."""
    return [part for part in tree_leaves(argument) if isinstance(part, fx.Node)]
