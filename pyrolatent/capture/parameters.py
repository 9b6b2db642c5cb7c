"""Everything a pair learns, as one flat vector of unconstrained numbers.

What Pyro would train is what its parameter store holds after one run of guide and model: each
`pyro.param`, each parameter of an autoguide, of a `PyroModule` and of a module handed to
`pyro.module`.  These tensors, united by identity, are the leaves.  To run the pair at other values
no tensor is changed: while `Parameters.at` is entered, each leaf is replaced by its slice of the
flat vector wherever it enters a torch function.  One vector makes an optimiser's step, a checkpoint
and a sum over processes one line each.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, final

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.params.param_store import StateDict
from torch import Tensor, nn
from torch.distributions import transform_to
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from pyrolatent.capture.context import model_context
from pyrolatent.capture.sites import SiteRecorder
from pyrolatent.capture.vector import Layout, stacked
from pyrolatent.errors import ModelError
from pyrolatent.pair import Model
from pyrolatent.seeds import generator, seeded

REQUIRES_GRAD = Tensor.requires_grad.__get__  # type: ignore[attr-defined]
# What Pyro calls when it registers a parameter: the store must hold the leaf itself.
IDENTITY_OF_A_LEAF = {Tensor.contiguous, Tensor.requires_grad_, REQUIRES_GRAD}


@final
class Substituted(TorchFunctionMode):
    """Puts other tensors in the place of some, wherever these enter a torch function."""

    def __init__(self, substitutes: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.substitutes = substitutes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func != REQUIRES_GRAD:  # by which Pyro tells what is learnt
            args, kwargs = replaced(self.current, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def current(self, tensor: Tensor) -> Tensor:
        return self.substitutes.get(id(tensor), tensor)


@final
@dataclass(frozen=True)
class Parameters:
    """The learnable parameters of a pair.

    Attributes:
        layout: Name -> shape in a flat unconstrained vector `(P,)`; a tensor with two names has one.
        initial: The vector at which the pair was found.
        of_module: Names of those that belong to a network and not to a `pyro.param`.
    """

    layout: Layout
    initial: Tensor = field(repr=False)
    of_module: frozenset[str]
    store: StateDict = field(repr=False)
    constants: Sequence[tuple[Tensor, Tensor]] = field(repr=False)  # of modules, and what stands for them

    @contextlib.contextmanager
    def at(self, flat: Tensor) -> Iterator[None]:
        """Run Pyro code with every parameter at its place in `flat (P,)`.

        Raises:
            ModelError: The code makes a parameter that it did not have when the parameters were read.
        """
        leaves = self.store["params"]
        substitutes = {id(leaves[name]): part for name, part in self.layout.unpack(flat).items()}
        substitutes |= {id(own): cast(value, flat.dtype, flat.device) for own, value in self.constants}
        state: StateDict = {"params": dict(leaves), "constraints": dict(self.store["constraints"])}
        with pyro.get_param_store().scope(state), Substituted(substitutes):
            yield
        check_known(set(state["params"]) - set(leaves))

    def constrained(self, flat: Tensor) -> dict[str, Tensor]:
        """Return each parameter `(*shape)` as the user wrote it, at `flat (P,)`."""
        constraints = self.store["constraints"]
        return {n: transform_to(constraints[n])(part) for n, part in self.layout.unpack(flat).items()}

    def learnt(self, flats: Tensor) -> dict[str, Tensor]:
        """Return the same of all refits `(R, P)`, stacked `(R, *shape)` if there are several."""
        refits = [self.constrained(flat) for flat in flats]
        return stacked(refits) if len(refits) > 1 else refits[0]

    def starting_at(self, values: Mapping[str, Tensor]) -> "Parameters":
        """Return the same parameters with `initial` at the constrained `values` of an earlier fit.

        Raises:
            ModelError: The earlier fit learnt other parameters.
        """
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        expected = {name: tuple(value.shape) for name, value in self.constrained(self.initial).items()}
        if shapes != expected:
            raise ModelError(
                "the fit to start from learnt other parameters",
                why=f"it has {shapes}, this one {expected}",
                remedy="start from a fit of the same model and guide, with one refit",
            )
        constraints = self.store["constraints"]
        free = {n: transform_to(constraints[n]).inv(v.to(self.initial)) for n, v in values.items()}
        return replace(self, initial=self.layout.pack(free))

    def bound(self, program: Model, flat: Tensor) -> Callable[..., Any]:
        """Return `program` with its parameters fixed at `flat (P,)`, for methods that know of none."""

        def fixed(**data: Any) -> Any:
            with self.at(flat), pyro.poutine.block(hide_types=["param"]):
                return program(**data)

        return fixed


def find_parameters(
    programs: Sequence[Model],
    data: Mapping[str, Any],
    *,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Parameters:
    """Run each of `programs` once as `program(**data)` and return what they learn.

    Raises:
        ModelError: A module changes its buffers when it runs, as BatchNorm does.
    """
    modules = SeenModules(dtype, device)
    scope: StateDict = {"params": {}, "constraints": {}}
    random = generator(seed, "sites", device=device)
    with (
        seeded(seed, "initial parameters"),
        model_context(dtype, device),
        pyro.get_param_store().scope(scope),
        modules,
        torch.no_grad(),
    ):
        for program in programs:
            with SiteRecorder(random):  # no prior draw, so that improper priors work
                program(**data)
    modules.check_unchanged()
    leaves = {name: leaf for name, leaf in scope["params"].items()}
    first_names = {id(leaf): name for name, leaf in reversed(leaves.items())}
    names = [name for name, leaf in leaves.items() if first_names[id(leaf)] == name]
    layout = Layout({name: leaves[name].shape for name in names})
    tensors = {name: leaves[name].detach().to(dtype=dtype, device=device) for name in names}
    initial = layout.pack(tensors) if names else torch.zeros(0, dtype=dtype, device=device)
    of_module = frozenset(name for name in names if id(leaves[name]) in modules.parameters)
    return Parameters(layout, initial, of_module, scope, modules.constants(leaves))


def check_known(new: Set[str]) -> None:
    """Refuse parameters that appear late: nothing would learn them."""
    if new:
        raise ModelError(
            "a parameter appears that was not there in the first run",
            where=f"parameters {sorted(new)}",
            why="it is made in a branch that the first run did not take",
            remedy="call pyro.param for all parameters before the branch",
        )


@final
class SeenModules(TorchFunctionMode):
    """Runs modules of any dtype and device in those of the fit, and watches whether they have a memory."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.dtype, self.device = dtype, device
        self.buffers: dict[int, tuple[str, Tensor, Tensor, Tensor]] = {}  # name, itself, in use, before
        self.weights: dict[int, tuple[Tensor, Tensor]] = {}  # itself, in use
        self.parameters: set[int] = set()

    def __enter__(self) -> "SeenModules":
        self.handle = nn.modules.module.register_module_forward_pre_hook(self.before)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in IDENTITY_OF_A_LEAF:
            args, kwargs = replaced(self.current, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def current(self, tensor: Tensor) -> Tensor:
        if id(tensor) in self.buffers:
            return self.buffers[id(tensor)][2]
        if not isinstance(tensor, nn.Parameter):
            return tensor
        return self.weights.setdefault(id(tensor), (tensor, cast(tensor, self.dtype, self.device)))[1]

    def before(self, module: nn.Module, inputs: Any) -> None:
        if not isinstance(module, AutoGuide):  # those it is called with, by functional_call its own or not
            self.parameters |= {id(parameter) for parameter in module.parameters()}
        for name, buffer in module.named_buffers(recurse=False):
            if id(buffer) not in self.buffers:
                used = cast(buffer, self.dtype, self.device)
                self.buffers[id(buffer)] = f"{type(module).__name__}.{name}", buffer, used, used.clone()

    def constants(self, leaves: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return buffers and weights that are none of the `leaves`, and what stands for them in the fit."""
        learnt = {id(leaf) for leaf in leaves.values()}
        frozen = [pair for key, pair in self.weights.items() if key not in learnt]
        return [(buffer, used) for _, buffer, used, _ in self.buffers.values()] + frozen

    def check_unchanged(self) -> None:
        """Refuse modules with a memory: captured, it would be frozen, and the user's module changed."""
        changed = [name for name, _, used, before in self.buffers.values() if not torch.equal(used, before)]
        for _, _, used, before in self.buffers.values():
            used.copy_(before)
        if changed:
            raise ModelError(
                "a module changes its buffers when it runs",
                where=f"{sorted(set(changed))}",
                why="running statistics, as BatchNorm's, depend on the order of evaluations",
                remedy="use LayerNorm or GroupNorm, or put the module into evaluation mode with .eval()",
            )


def replaced(current: Callable[[Tensor], Tensor], arguments: Any) -> Any:
    """Return the arguments of a torch function with others in the place of tensors."""
    # a torch.Size must stay one: torch.empty(()) and torch.empty(torch.Size([])) differ for some functions
    return tree_map_only(Tensor, current, arguments, is_leaf=lambda part: isinstance(part, torch.Size))


def cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of a module in the dtype and on the device of a fit."""
    return tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
