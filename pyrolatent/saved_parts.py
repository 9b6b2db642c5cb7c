"""Parts of a fit as plain dictionaries: its pair, its method and its table of sites.

A pair of this package has one line in each of the three tables below.  Code is not written down,
so a fit of a user's function is loaded with the function passed again, or with a `MissingModel`; a
setting that is a user's function comes back as its name.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, final

import torch
from torch import Tensor

from pyrolatent.capture.parameters import find_parameters
from pyrolatent.capture.sites import Site, SiteTable
from pyrolatent.capture.vector import Layout
from pyrolatent.errors import ArgumentError, DataError, ModelError
from pyrolatent.images import Images
from pyrolatent.infer.em import EM
from pyrolatent.infer.guides import is_amortised
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.nuts import NUTS
from pyrolatent.infer.svi import SVI
from pyrolatent.models.abtest import ABTest, Priors
from pyrolatent.models.mixture import Mixture
from pyrolatent.models.msvae import MultiStageVAE
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.models.vae import VAE
from pyrolatent.nn import Rows
from pyrolatent.objectives import ELBO, IWAE, LinearSchedule
from pyrolatent.pair import FittedPair, FunctionPair, Model, Pair, as_pair
from pyrolatent.plain import State, from_plain, to_plain
from pyrolatent.result import Fit
from pyrolatent.schema import Schema
from pyrolatent.total_correlation import TCELBO

Tensors = Mapping[str, Tensor]


def mvn_to_dict(pair: BayesianMVN) -> State:
    """Return the constructor's arguments."""
    return {"columns": pair.columns.to_dict(), "eta": pair.eta, "standardise": pair.standardise}


def mvn_from_dict(state: State, learnt: Tensors) -> BayesianMVN:
    """Return the pair with these arguments."""
    return BayesianMVN(Schema.from_dict(state["columns"]), state["eta"], state["standardise"])


def vae_to_dict(pair: VAE) -> State:
    """Return the constructor's arguments."""
    hidden = list(pair.hidden)
    rest = {"heavy_tails": pair.heavy_tails, "encoder": pair.encoder}
    return {"rows": rows_to_dict(pair.rows), "latent_dim": pair.latent_dim, "hidden": hidden, **rest}


def vae_from_dict(state: State, learnt: Tensors) -> VAE:
    """Return the pair with these arguments."""
    return VAE(**{**state, "rows": rows_from_dict(state["rows"]), "hidden": tuple(state["hidden"])})


def msvae_to_dict(pair: MultiStageVAE) -> State:
    """Return the constructor's arguments, without what the first stage learnt."""
    first = pair_to_dict(pair.first.pair)
    return {"first": first, "latent_dim": pair.latent_dim, "hidden": list(pair.hidden)}


def msvae_from_dict(state: State, learnt: Tensors) -> MultiStageVAE:
    """Return the pair with these arguments and a first stage that has learnt this."""
    first = pair_from_dict(state["first"], None, {})
    params = {key.removeprefix("first/"): value for key, value in learnt.items()}
    return MultiStageVAE(FittedPair(first, params), state["latent_dim"], tuple(state["hidden"]))


def abtest_to_dict(pair: ABTest) -> State:
    """Return the constructor's arguments."""
    rest = {"outcome": pair.outcome, "arms": pair.arms, "family": pair.family}
    covariates, priors = list(pair.covariates), asdict(pair.priors)
    return {"columns": pair.columns.to_dict(), **rest, "covariates": covariates, "priors": priors}


def abtest_from_dict(state: State, learnt: Tensors) -> ABTest:
    """Return the pair with these arguments."""
    parts = {"columns": Schema.from_dict(state["columns"]), "covariates": tuple(state["covariates"])}
    return ABTest(**{**state, **parts, "priors": Priors(**state["priors"])})


def mixture_to_dict(pair: Mixture) -> State:
    """Return the constructor's arguments."""
    return {"columns": pair.columns.to_dict(), "num_components": pair.num_components}


def mixture_from_dict(state: State, learnt: Tensors) -> Mixture:
    """Return the pair with these arguments."""
    return Mixture(Schema.from_dict(state["columns"]), state["num_components"])


def rows_to_dict(rows: Rows) -> State:
    """Return what the rows of an autoencoder are."""
    return {"images": asdict(rows)} if isinstance(rows, Images) else {"table": rows.to_dict()}


def rows_from_dict(state: State) -> Rows:
    """Return what `rows_to_dict` described."""
    if "table" in state:
        return Schema.from_dict(state["table"])
    return Images(tuple(state["images"]["shape"]), state["images"]["pixels"])


PAIRS: dict[str, type[Pair]] = {
    "ABTest": ABTest,
    "BayesianMVN": BayesianMVN,
    "Mixture": Mixture,
    "VAE": VAE,
    "MultiStageVAE": MultiStageVAE,
}
TO_DICT: dict[str, Callable[[Any], State]] = {
    "BayesianMVN": mvn_to_dict,
    "VAE": vae_to_dict,
    "MultiStageVAE": msvae_to_dict,
    "ABTest": abtest_to_dict,
    "Mixture": mixture_to_dict,
}
FROM_DICT: dict[str, Callable[[State, Tensors], Pair]] = {
    "BayesianMVN": mvn_from_dict,
    "VAE": vae_from_dict,
    "MultiStageVAE": msvae_from_dict,
    "ABTest": abtest_from_dict,
    "Mixture": mixture_from_dict,
}

ROLES = ("latents", "observed", "deterministics", "discrete")


@final
class MissingData(Mapping[str, Any]):
    """The data of a fit that was saved without them."""

    def __getitem__(self, name: str) -> Any:
        raise self.error()

    def __iter__(self) -> Iterator[str]:
        raise self.error()

    def __len__(self) -> int:
        raise self.error()

    def error(self) -> DataError:
        """Return the error of every use."""
        remedy = "pass data to the verb, as in impute(fit, frame), or save with include_data=True"
        return DataError("the fit was saved without its data", remedy=remedy)


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
    name = str(getattr(named, "__name__", type(named).__name__))
    return f"{type(named.__self__).__name__}.{name}" if inspect.ismethod(named) else name


SETTINGS: dict[str, type[Any]] = {cls.__name__: cls for cls in (ELBO, IWAE, TCELBO, LinearSchedule)}
METHODS: dict[str, type[Any]] = {
    cls.__name__: cls for cls in (HMC, NUTS, SVI, EM, Laplace, ImportanceSampling)
}


def method_to_dict(method: Any) -> State:
    """Return a method, or an object among its settings, by name with its settings."""
    settings = {f.name: setting_to_plain(getattr(method, f.name)) for f in fields(method)}
    return {"name": type(method).__name__, "settings": settings}


def method_from_dict(state: State) -> Any:
    """Return the object that `method_to_dict` described."""
    settings = {name: setting_from_plain(value) for name, value in state["settings"].items()}
    return {**METHODS, **SETTINGS}[state["name"]](**settings)


@final
class MissingFunction(str):
    """The name of a user's function among the settings of a loaded fit."""

    def __call__(self, *inputs: Any) -> Any:
        raise ModelError(
            "the saved fit does not hold this function",
            where=str(self),
            why="it is code, which is not written down",
            remedy="make the method anew with it",
        )


def setting_to_plain(value: Any) -> Any:
    """Return a number as it is, one of our objects by its settings, a class or function by its name."""
    if type(value) in SETTINGS.values():
        return method_to_dict(value)
    if isinstance(value, functools.partial):
        plain = setting_to_plain(value.func)
        known = torch_optimizer(plain["called"]) is not None
        return {**plain, "keywords": to_plain(value.keywords, "method")} if known else plain
    return {"called": full_name(value)} if callable(value) else value


def setting_from_plain(value: Any) -> Any:
    """Return the setting; of functions only the optimisers of torch come back as more than a name."""
    if not isinstance(value, dict):
        return value
    if "called" not in value:
        return method_from_dict(value)
    known = torch_optimizer(value["called"])
    if known is not None and "keywords" in value:
        return functools.partial(known, **from_plain(value["keywords"]))
    return known or MissingFunction(value["called"])


def full_name(called: Any) -> str:
    """Return the name of a class or function with its module; of another object, that of its class."""
    if isinstance(called, MissingFunction):
        return str(called)
    return f"{called.__module__}.{getattr(called, '__qualname__', type(called).__qualname__)}"


def torch_optimizer(name: str) -> type[torch.optim.Optimizer] | None:
    """Return the optimiser of torch with this full name, if it is one."""
    module, _, own = name.rpartition(".")
    found = getattr(torch.optim, own, None) if module.startswith("torch.optim") else None
    return found if isinstance(found, type) else None


def pair_to_dict(pair: Pair) -> State:
    """Return the pair's arguments if it is one of ours, else its name and schema."""
    name = model_name(pair)
    if PAIRS.get(name) is type(pair):
        return {"name": name, "arguments": TO_DICT[name](pair)}
    return {"name": name, "schema": pair.schema.to_dict() if pair.schema else None}


def pair_from_dict(state: State, model: Model | Pair | None, learnt: Tensors) -> Pair:
    """Return the pair that was saved, made from `model` if it is not one of ours.

    Args:
        state: What `pair_to_dict` returned.
        model: Of the user.
        learnt: Parameters `NAME/PARAMETER` of the fitted pairs that it stands on.

    Raises:
        ArgumentError: A model was given for a pair that is one of ours.
    """
    name, ours = state["name"], "arguments" in state
    schema = Schema.from_dict(state["schema"]) if state.get("schema") else None
    if ours and model is not None:
        raise ArgumentError(f"this fit brings its own model, {name}", remedy="leave model out")
    if ours:
        return FROM_DICT[name](state["arguments"], learnt)
    if model is not None:
        return model if isinstance(model, Pair) else as_pair(model, schema=schema)
    return MissingModel(name, schema)


def with_parameters(fit: Fit) -> Fit:
    """Return a loaded fit with the learnt parameters that its model, and its guide if it was given, have.

    Raises:
        ModelError: The model has other parameters than the one that was fitted.
    """
    pair, problem = fit.pair, fit.problem
    if "parameters" not in fit.info or isinstance(pair, MissingModel):
        return fit
    guide = pair.guide if is_amortised(pair) else None
    found = find_parameters(
        [program for program in (guide, pair.model) if program is not None],
        fit.data,
        seed=problem.seed,
        dtype=problem.dtype,
        device=problem.device,
    )
    saved = layout_from_dict(fit.info["parameters"])
    if any(saved.shapes.get(name) != shape for name, shape in found.layout.shapes.items()):
        why = f"it learns {dict(found.layout.shapes)}, the saved fit {dict(saved.shapes)}"
        remedy = "pass the function as it was when it was fitted, or fit again"
        raise ModelError("the model is not the one that was fitted", why=why, remedy=remedy)
    if not found.layout.size:
        return fit
    flats = fit.state["parameters"].to(problem.device)
    packed = torch.stack([found.layout.pack(saved.unpack(flat)) for flat in flats])
    info = {**fit.info, "parameters": layout_to_dict(found.layout)}
    return replace(fit, parameters=found, guide=guide, info=info, state={**fit.state, "parameters": packed})


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
