"""Graphs run by inductor: C++ on a processor, Triton in a CUDA graph on a GPU.

The code is kept in the user's cache folder, where every later process finds it, unless
TORCHINDUCTOR_CACHE_DIR names another.  It can be wrong (torch 2.13 lost part of the gradient of a hidden
Markov model with 1,271 operations), so its first results are compared with the graph's own.

It is made before the first evaluation and not in the background: compiled and plain code differ in
their last bits, so a change from one to the other at a time that a clock sets would give other draws
in every run, and at a fixed evaluation the fit would wait there as long as it does at the start,
except on machines with a core to spare.
"""

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import torch
from platformdirs import user_cache_path
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from pyrolatent.seeds import forked

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def options(device_type: str) -> dict[str, Any]:
    """Return inductor's options for graphs on one type of device."""
    common = {"fallback_random": True, "size_asserts": False}  # `Compiled` compares the shapes itself
    if device_type == "cuda":
        return common | {"triton.cudagraphs": True}
    # The processor says which vectors it has; trying them out would double the time to compile.
    return common | {"cpp.vec_isa_ok": True}


@final
class Compiled:
    """A graph as inductor's code, made at the first call.

    Shapes never change, so inductor is called without the guards of `torch.compile`, which cost 30
    microseconds a call; strides are made the same.  What is left to draw inside is drawn as the graph
    itself would.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.code: Callable[..., Any] | None = None
        self.shapes: list[torch.Size] = []

    def __call__(self, *inputs: Tensor) -> Any:
        contiguous = [part.contiguous() for part in inputs]
        if self.code is None:
            return self.first_call(contiguous)
        if [part.shape for part in contiguous] != self.shapes:
            raise ValueError(f"a graph compiled at shapes {self.shapes} was called at others")
        return self.code(*contiguous)

    def first_call(self, inputs: list[Tensor]) -> Any:
        """Compile for the shapes and the device of `inputs`, and run; wrong code is not used again."""
        with forked():
            expected = self.module(*inputs)
        self.code, self.shapes = inductor_code(self.module, inputs), [part.shape for part in inputs]
        found = self.code(*inputs)
        if agree(found, expected):
            return found
        self.code = self.module
        return expected

    @property
    def refused(self) -> bool:
        """True once the code was found to give other numbers than the graph, which runs in its place."""
        return self.code is self.module


def inductor_code(module: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Return what inductor makes of `module` for the shapes and the device of `inputs`."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    device_type = inputs[0].device.type
    same = fx.GraphModule(module, copy.deepcopy(module.graph))
    described = TracingContext(FakeTensorMode(shape_env=ShapeEnv()))  # without it nothing is kept
    with cache_folder(), tracing(described):
        code = torch._inductor.compile(same, list(inputs), options=options(device_type))
    return replayed(code) if device_type == "cuda" else code


def agree(found: Any, expected: Any) -> bool:
    """True where all numbers are equal up to half of their digits, beside the largest of a tensor."""
    return all(map(close, tree_leaves(found), tree_leaves(expected)))


def close(found: Tensor, expected: Tensor) -> bool:
    """Compare two tensors, of which NaN and infinities stand in the same places."""
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    part = torch.finfo(expected.dtype).eps ** 0.5
    largest = expected[expected.isfinite()].abs().amax().item() if expected.isfinite().any() else 0.0
    return torch.allclose(found, expected, rtol=0.0, atol=part * largest, equal_nan=True)


def replayed(code: Callable[..., Any]) -> Callable[..., Any]:
    """Return `code`, which replays a CUDA graph, with results that its next replay leaves alone."""

    def run(*inputs: Tensor) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return tree_map_only(Tensor, Tensor.clone, code(*inputs))

    return run


@contextlib.contextmanager
def cache_folder() -> Iterator[None]:
    """Let inductor keep its files where the user wants them; the environment is put back afterwards.

    A folder that cannot be written to, or with a space in its name, which the compiler's command does
    not survive, leaves inductor its own default, in the temporary folder.
    """
    named = os.environ.get(CACHE_VARIABLE)
    folder = Path(named) if named else user_cache_path("pyrolatent", appauthor=False) / "inductor"
    os.environ.pop(CACHE_VARIABLE, None)
    if " " not in str(folder) and writable(folder):
        os.environ[CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(CACHE_VARIABLE, None)
        if named is not None:
            os.environ[CACHE_VARIABLE] = named


def writable(folder: Path) -> bool:
    """True where a file can be made in `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
