"""A pair: a Pyro model and, where a method needs one, its guide.

Model and guide take the same keyword arguments, the entries of the data dictionary, and agree in
their site names.  A plain function is wrapped into a pair by `as_pair`; models of this package are
pairs whose sites are written over the columns of a `Schema`.
"""

import abc
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

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

    @property
    def stands_on(self) -> "Mapping[str, Fitted]":
        """Fitted pairs that this one is made of, by name: saved with it, and not learnt again."""
        return {}

    @property
    def first_axes(self) -> Mapping[str, tuple[str, Sequence[Hashable]]]:
        """Site -> the dimension that its first axis is, and the labels of that, where they have names."""
        return {}


class Fitted(Protocol):
    """A pair and what it learnt, as a fit is."""

    @property
    def pair(self) -> Pair:
        """The pair that was fitted."""

    @property
    def params(self) -> Mapping[str, Tensor]:
        """Its learnt parameters, constrained."""


@final
@dataclass(frozen=True, eq=False)
class FittedPair:
    """The same without data and samples."""

    pair: Pair
    params: Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class FunctionPair(Pair):
    """A user's functions as a pair, and the columns of the table that they were given, if any."""

    function: Model
    guide_function: Model | None = None
    columns: Schema | None = None

    @property
    def model(self) -> Model:
        return self.function

    @property
    def guide(self) -> Model | None:
        return self.guide_function

    @property
    def schema(self) -> Schema | None:
        return self.columns


def as_pair(model: Model | Pair, guide: Model | None = None, schema: Schema | None = None) -> Pair:
    """Return `model` if it is a pair, else wrap the function (and its guide) into one.

    Args:
        model: A Pyro model function, or a pair.
        guide: The guide of a function.
        schema: The columns of the table that a function will be given, where some are of another
            kind than `infer_schema` would take them for.

    Raises:
        ModelError: `model` is neither a pair nor callable, or a pair was given a second guide or
            another schema.
    """
    if isinstance(model, Pair):
        given = {"guide": guide, "schema": schema}
        second = next((name for name, value in given.items() if value is not None), None)
        if second is not None:
            raise ModelError(
                f"this pair brings its own {second}", why=type(model).__name__, remedy=f"leave {second} out"
            )
        return model
    if not callable(model):
        raise ModelError(
            "the model is not a function",
            why=f"got {type(model).__name__}",
            remedy="pass a Pyro model function or a pair such as pyrolatent.models.BayesianMVN(schema)",
        )
    return FunctionPair(model, guide, schema)


def arguments_of(model: Model) -> list[inspect.Parameter]:
    """Return the arguments that a model takes, in order."""
    program = model.forward if isinstance(model, torch.nn.Module) else model
    return list(inspect.signature(program).parameters.values())


def check_arguments(pair: Pair, data: Mapping[str, Any]) -> None:
    """Check that `data` names exactly the arguments that the model takes, and its guide.

    Raises:
        ModelError: An argument without default is missing, or an entry fits no argument.
    """
    check_takes("model", pair.model, data)
    guide = pair.guide
    made = guide.func if isinstance(guide, functools.partial) else guide
    if guide is not None and not isinstance(made, type):  # a class of autoguides takes the model
        check_takes("guide", guide, data)


def check_takes(role: str, program: Model, data: Mapping[str, Any]) -> None:
    """Check that `data` names exactly the arguments of the model or the guide.

    Raises:
        ModelError: An argument without default is missing, or an entry fits no argument.
    """
    parameters = arguments_of(program)
    if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
        raise ModelError(
            f"the {role} has positional-only arguments", remedy=f"name them: it is called as {role}(**data)"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in data]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [] if takes_any else [name for name in data if name not in {p.name for p in named}]
    if missing or unknown:
        raise ModelError(
            f"the {role}'s arguments and the data do not match",
            why=f"missing in the data: {missing}; unknown to the {role}: {unknown}; "
            f"the {role} takes {[p.name for p in named]}; the data hold {list(data)}",
            remedy="rename or add the entries",
        )
