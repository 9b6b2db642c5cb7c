"""Parts of a fit as plain dictionaries: its pair and its table of sites.

A pair of this package has one line in each of the three tables below.  Code is not written down,
so a fit of a user's function is loaded with the function passed again, or with a `MissingModel`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch

from pyrolatent.capture.sites import Site, SiteTable
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.pair import FunctionPair, Model, Pair, as_pair
from pyrolatent.plain import State
from pyrolatent.schema import Schema


def mvn_to_dict(pair: BayesianMVN) -> State:
    """Return the constructor's arguments."""
    return {"columns": pair.columns.to_dict(), "eta": pair.eta, "standardise": pair.standardise}


def mvn_from_dict(state: State) -> BayesianMVN:
    """Return the pair with these arguments."""
    return BayesianMVN(Schema.from_dict(state["columns"]), state["eta"], state["standardise"])


PAIRS: dict[str, type[Pair]] = {"BayesianMVN": BayesianMVN}
TO_DICT: dict[str, Callable[[Any], State]] = {"BayesianMVN": mvn_to_dict}
FROM_DICT: dict[str, Callable[[State], Pair]] = {"BayesianMVN": mvn_from_dict}

ROLES = ("latents", "observed", "deterministics")


@final
@dataclass(frozen=True)
class MissingModel(Pair):
    """The pair of a loaded fit whose model was not passed to `load`."""

    name: str
    columns: Schema | None

    @property
    def model(self) -> Model:
        raise ModelError(
            "the saved fit does not hold its model",
            why=f"{self.name} is code, which is not written down",
            remedy=f"load it with load(path, model={self.name})",
        )

    @property
    def guide(self) -> None:
        return None

    @property
    def schema(self) -> Schema | None:
        return self.columns


def model_name(pair: Pair) -> str:
    """Return what to call a model: the user's name for a function, else the class of the pair."""
    if isinstance(pair, MissingModel):
        return pair.name
    named = pair.function if isinstance(pair, FunctionPair) else type(pair)
    return str(getattr(named, "__name__", type(named).__name__))


def pair_to_dict(pair: Pair) -> State:
    """Return the pair's arguments if it is one of ours, else its name and schema."""
    name = model_name(pair)
    if PAIRS.get(name) is type(pair):
        return {"name": name, "arguments": TO_DICT[name](pair)}
    return {"name": name, "schema": pair.schema.to_dict() if pair.schema else None}


def pair_from_dict(state: State, model: Model | Pair | None) -> Pair:
    """Return the pair that was saved, made from `model` if it is not one of ours.

    Raises:
        ArgumentError: A model was given for a pair that is one of ours.
    """
    name, ours = state["name"], "arguments" in state
    if ours and model is not None:
        raise ArgumentError(f"this fit brings its own model, {name}", remedy="leave model out")
    if ours:
        return FROM_DICT[name](state["arguments"])
    if model is not None:
        return as_pair(model)
    return MissingModel(name, Schema.from_dict(state["schema"]) if state["schema"] else None)


def sites_to_dict(sites: SiteTable) -> State:
    """Return shapes, roles and plates; summaries of the data can be made again."""
    roles = (sites.latents, sites.observed, sites.deterministics)
    state: State = {
        role: [[site.name, list(site.shape), dict(site.plates)] for site in table.values()]
        for role, table in zip(ROLES, roles, strict=True)
    }
    layout = {name: list(shape) for name, shape in sites.layout.shapes.items()}
    rest = {"factors": list(sites.factors), "parameters": list(sites.parameters), "rows": sites.rows}
    return {"layout": layout, **state, **rest}


def sites_from_dict(state: State) -> SiteTable:
    """Return the table of sites that `sites_to_dict` described."""
    roles = {
        role: {name: Site(name, torch.Size(shape), plates) for name, shape, plates in state[role]}
        for role in ROLES
    }
    return SiteTable(
        layout=Layout({name: torch.Size(shape) for name, shape in state["layout"].items()}),
        **roles,
        factors=tuple(state["factors"]),
        parameters=tuple(state["parameters"]),
        rows=state["rows"],
        summaries={},
    )
