"""A pair: a Pyro model and, where a method needs one, its guide.

Model and guide take the same keyword arguments, the entries of the data dictionary, and agree in
their site names.  A plain function is wrapped into a pair by `as_pair`; models of this package are
pairs whose sites are written over the columns of a `Schema`.
"""

import abc
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from pyrolatent.errors import ModelError
from pyrolatent.schema import Schema

Model = Callable[..., Any]


class Pair(abc.ABC):
    """A Pyro model with its guide and, when it models a table, the schema of its columns."""

    @property
    @abc.abstractmethod
    def model(self) -> Model:
        """The generative program, called as `model(**data)`."""

    @property
    @abc.abstractmethod
    def guide(self) -> Model | None:
        """The approximate posterior with the same arguments, or None for methods without one."""

    @property
    @abc.abstractmethod
    def schema(self) -> Schema | None:
        """The columns of the table behind `x` and `mask`, or None for a pair on plain tensors."""


@final
@dataclass(frozen=True)
class FunctionPair(Pair):
    """A user's functions as a pair."""

    function: Model
    guide_function: Model | None = None

    @property
    def model(self) -> Model:
        return self.function

    @property
    def guide(self) -> Model | None:
        return self.guide_function

    @property
    def schema(self) -> None:
        return None


def as_pair(model: Model | Pair, guide: Model | None = None) -> Pair:
    """Return `model` if it is a pair, else wrap the function (and its guide) into one.

    Raises:
        ModelError: `model` is neither a pair nor callable, or a pair was given a second guide.
    """
    if isinstance(model, Pair):
        if guide is not None:
            raise ModelError(
                "this pair brings its own guide", why=type(model).__name__, remedy="leave guide out"
            )
        return model
    if not callable(model):
        raise ModelError(
            "the model is not a function",
            why=f"got {type(model).__name__}",
            remedy="pass a Pyro model function or a pair such as pyrolatent.models.BayesianMVN(schema)",
        )
    return FunctionPair(model, guide)


def check_arguments(pair: Pair, data: Mapping[str, Any]) -> None:
    """Check that `data` names exactly the arguments that the model takes.

    Raises:
        ModelError: An argument without default is missing, or an entry fits no argument.
    """
    program = pair.model.forward if isinstance(pair.model, torch.nn.Module) else pair.model
    parameters = inspect.signature(program).parameters.values()
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise ModelError(
            "the model has positional-only arguments", remedy="name them: it is called as model(**data)"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in data]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [] if takes_any else [name for name in data if name not in {p.name for p in named}]
    if missing or unknown:
        raise ModelError(
            "the model's arguments and the data do not match",
            why=f"missing in the data: {missing}; unknown to the model: {unknown}; "
            f"the model takes {[p.name for p in named]}; the data hold {list(data)}",
            remedy="rename or add the entries",
        )
