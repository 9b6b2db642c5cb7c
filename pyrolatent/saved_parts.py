"""Parts of a fit as plain dictionaries: its pair, its method and its table of sites.

A pair of this package has one line in each of the three tables below.  Code is not written down,
so a fit of a user's function is loaded with the function passed again, or with a `MissingModel`; a
setting that is a user's function comes back as its name.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, final

import torch

from pyrolatent.capture.sites import Site, SiteTable
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.svi import SVI
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.objectives import ELBO, IWAE, LinearSchedule
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

ROLES = ("latents", "observed", "deterministics", "discrete")


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


SETTINGS: dict[str, type[Any]] = {cls.__name__: cls for cls in (ELBO, IWAE, LinearSchedule)}
METHODS: dict[str, type[Any]] = {cls.__name__: cls for cls in (HMC, SVI, Laplace, ImportanceSampling)}


def method_to_dict(method: Any) -> State:
    """Return a method, or an object among its settings, by name with its settings."""
    settings = {f.name: setting_to_plain(getattr(method, f.name)) for f in fields(method)}
    return {"name": type(method).__name__, "settings": settings}


def method_from_dict(state: State) -> Any:
    """Return the object that `method_to_dict` described."""
    settings = {name: setting_from_plain(value) for name, value in state["settings"].items()}
    return {**METHODS, **SETTINGS}[state["name"]](**settings)


def setting_to_plain(value: Any) -> Any:
    """Return a number as it is, one of our objects by its settings, a class or function by its name."""
    if type(value) in SETTINGS.values():
        return method_to_dict(value)
    return {"called": f"{value.__module__}.{value.__qualname__}"} if callable(value) else value


def setting_from_plain(value: Any) -> Any:
    """Return the setting; of functions only the optimisers of torch come back as more than a name."""
    if isinstance(value, dict) and "called" in value:
        module, _, name = value["called"].rpartition(".")
        known = module.startswith("torch.optim") and isinstance(getattr(torch.optim, name, None), type)
        return getattr(torch.optim, name) if known else value["called"]
    return method_from_dict(value) if isinstance(value, dict) else value


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
    schema = Schema.from_dict(state["schema"]) if state.get("schema") else None
    if ours and model is not None:
        raise ArgumentError(f"this fit brings its own model, {name}", remedy="leave model out")
    if ours:
        return FROM_DICT[name](state["arguments"])
    if model is not None:
        return model if isinstance(model, Pair) else as_pair(model, schema=schema)
    return MissingModel(name, schema)


def layout_to_dict(layout: Layout) -> State:
    """Return the shape of each named part of a flat vector."""
    return {name: list(shape) for name, shape in layout.shapes.items()}


def layout_from_dict(state: State) -> Layout:
    """Return the layout that `layout_to_dict` described."""
    return Layout({name: torch.Size(shape) for name, shape in state.items()})


def sites_to_dict(sites: SiteTable) -> State:
    """Return shapes, roles and plates; summaries of the data can be made again."""
    roles = (sites.latents, sites.observed, sites.deterministics, sites.discrete)
    state: State = {
        role: [[site.name, list(site.shape), dict(site.plates)] for site in table.values()]
        for role, table in zip(ROLES, roles, strict=True)
    }
    rest: State = {"factors": list(sites.factors), "parameters": list(sites.parameters), "rows": sites.rows}
    rest["max_plate_nesting"] = sites.max_plate_nesting
    return {"layout": layout_to_dict(sites.layout), **state, **rest}


def sites_from_dict(state: State) -> SiteTable:
    """Return the table of sites that `sites_to_dict` described."""
    roles = {
        role: {name: Site(name, torch.Size(shape), plates) for name, shape, plates in state[role]}
        for role in ROLES
    }
    return SiteTable(
        layout=layout_from_dict(state["layout"]),
        **roles,
        factors=tuple(state["factors"]),
        parameters=tuple(state["parameters"]),
        rows=state["rows"],
        summaries={},
        max_plate_nesting=state["max_plate_nesting"],
    )
