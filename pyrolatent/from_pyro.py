"""Runs of Pyro's own MCMC as ArviZ objects.

A finished `pyro.infer.MCMC` holds the draws of the continuous latent sites and little else.  Here its
model is run again at each draw for what can be read there: deterministic sites, draws of discrete
ones, the log joint density, each observation's log-probability and predictions.  The run becomes a
`Fit` like any other, so that names, dimensions and groups are those of `to_inference_data`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pyro
import torch
from pyro.infer import HMC, MCMC
from pyro.params.param_store import StateDict
from torch import Tensor, nn

from pyrolatent.capture.density import LogDensity, capture_density
from pyrolatent.capture.joint import evaluate
from pyrolatent.capture.ladder import map_points
from pyrolatent.capture.unconstrain import unconstrain
from pyrolatent.errors import ArgumentError, ModelError
from pyrolatent.export import check_groups, to_inference_data
from pyrolatent.fit import versions
from pyrolatent.pair import as_pair
from pyrolatent.result import Fit, Problem
from pyrolatent.seeds import seeded

LOG_JOINT = "log joint"


@final
@dataclass(frozen=True)
class PyroMCMC:
    """How Pyro sampled; stands for the method of the fit."""

    kernel: str
    num_chains: int
    num_warmup: int
    num_draws: int


def from_pyro(
    mcmc: MCMC, groups: Sequence[str] | None = None, max_draws: int | None = None, seed: int = 0
) -> Any:
    """Return a run of Pyro's MCMC as an ArviZ object.

    The groups are those of `to_inference_data`.  `sample_stats` holds `lp`, the log joint density of
    the unconstrained latents in nats; `diverging`; `acceptance_rate`, the share of its transitions
    that a chain accepted, the same at each draw; and for a single chain `step_size`.  Pyro keeps no
    more.  Chains come in the order in which Pyro numbered them.

    Args:
        mcmc: After `run`, with a kernel that was given a model.  The model is run again with the
            arguments of that run and the default dtype and `pyro.param`s of now.
        groups: The groups wanted, by name; by default all that can be made.
        max_draws: The most draws of all chains together, evenly spaced in each chain.
        seed: Of the predictive and prior draws.

    Returns:
        An `InferenceData`, or a `DataTree` from ArviZ 1 on.

    Raises:
        ArgumentError: This is no MCMC object or it has not run, a group has no such name, or
            `max_draws` is below the number of chains.
        ModelError: The kernel was given a potential function and no model, some latent sites were
            not kept, or the model cannot be run as a density.
    """
    check_groups(groups)
    check_has_run(mcmc)
    return to_inference_data(as_fit(mcmc, seed), groups, max_draws)


def check_has_run(mcmc: Any) -> None:
    """Refuse what holds no draws of a model."""
    if not isinstance(mcmc, MCMC):
        raise ArgumentError(
            "from_pyro takes a run of Pyro's MCMC",
            why=f"got {type(mcmc).__name__}",
            remedy="pass the pyro.infer.MCMC object",
        )
    if mcmc._args is None or mcmc._samples is None:
        raise ArgumentError("this MCMC has not run", remedy="call mcmc.run(...) first")
    if mcmc.kernel.model is None:
        raise ModelError(
            "the kernel has no model",
            where=type(mcmc.kernel).__name__,
            why="it was given a potential function, from which no site can be read",
            remedy="give the kernel the model, or build the ArviZ object from mcmc.get_samples()",
        )


def as_fit(mcmc: MCMC, seed: int) -> Fit:
    """Return the run as a fit."""
    draws = {name: value.detach() for name, value in mcmc.get_samples(group_by_chain=True).items()}
    device = next((value.device for value in draws.values()), torch.device("cpu"))
    pair, data = as_pair(with_arguments(mcmc)), named_arguments(mcmc)
    problem = Problem(pair, data, None, seed, torch.get_default_dtype(), device, False, False)
    with seeded(seed, "model"):
        density = capture_density(pair.model, data, seed=seed, dtype=problem.dtype, device=device)
        check_complete(draws, density)
        flat = unconstrain(density, {name: value.flatten(0, 1) for name, value in draws.items()})
        position = flat.unflatten(0, (mcmc.num_chains, mcmc.num_samples))
        replayed, lp = density.samples(position, seed), log_joint(density, position)
    samples = replayed | {name: value.cpu() for name, value in draws.items()}
    kernel = type(mcmc.kernel).__name__
    return Fit(
        problem=problem,
        method=PyroMCMC(kernel, mcmc.num_chains, mcmc.warmup_steps, mcmc.num_samples),
        sites=density.sites,
        samples=samples,
        sample_stats={"lp": lp, **sampler_stats(mcmc)},
        diagnostics={},
        warnings=(),
        info={
            "library": "pyro-ppl",
            "rung": density.rung,
            "reason": density.batched.reason,
            "versions": versions(),
        },
    )


def with_arguments(mcmc: MCMC) -> Callable[..., Any]:
    """Return the model with the arguments and the parameters of the run."""
    model, (args, kwargs) = mcmc.kernel.model, arguments(mcmc)
    state = pyro.get_param_store().get_state()

    def run(**data: Any) -> Any:
        store: StateDict = {"params": dict(state["params"]), "constraints": dict(state["constraints"])}
        with pyro.get_param_store().scope(store), pyro.poutine.block(hide_types=["param"]):
            return model(*args, **kwargs)

    return run


def arguments(mcmc: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the model was called with, by position and by name."""
    return mcmc._args, mcmc._kwargs


def named_arguments(mcmc: MCMC) -> dict[str, Any]:
    """Return what the model was called with, under the names of its parameters."""
    model = mcmc.kernel.model
    signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    args, kwargs = arguments(mcmc)
    bound = signature.bind(*args, **kwargs).arguments
    gathered = [n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD and n in bound]
    extra = {name: value for keyword in gathered for name, value in bound.pop(keyword).items()}
    return {**bound, **extra}


def check_complete(draws: Mapping[str, Tensor], density: LogDensity) -> None:
    """Refuse a run of which some latent sites are unknown: they would be drawn from their priors."""
    absent = [name for name in density.sites.latents if name not in draws]
    if absent:
        raise ModelError(
            "the run kept only some of the model's latent sites",
            where=f"sites {absent}",
            remedy="run MCMC without save_params",
        )


def log_joint(density: LogDensity, position: Tensor) -> Tensor:
    """Return the log joint density `(chain, draw)` in nats at `position (chain, draw, D)`."""

    def at(flat: Tensor) -> dict[str, Tensor]:
        return {LOG_JOINT: evaluate(density.model, density.data, density.sites, flat).total()}

    with density.context(), torch.no_grad():
        found = map_points(at, position.flatten(0, 1), density.rung)
    return found[LOG_JOINT].cpu().unflatten(0, position.shape[:2])


def sampler_stats(mcmc: MCMC) -> dict[str, Tensor]:
    """Return what the kernels recorded `(chain, draw)`, under ArviZ's names."""
    recorded = mcmc.diagnostics()
    shape = (mcmc.num_chains, mcmc.num_samples)
    stats = {}
    if "divergences" in recorded:
        stats["diverging"] = torch.zeros(shape, dtype=torch.bool)
        for chain, draws in by_chain(recorded["divergences"]):
            stats["diverging"][chain, draws] = True
    if "acceptance rate" in recorded:
        rates = [rate for _, rate in by_chain(recorded["acceptance rate"])]
        stats["acceptance_rate"] = torch.tensor(rates, dtype=torch.float64)[:, None].expand(shape)
    if mcmc.num_chains == 1 and isinstance(mcmc.kernel, HMC):  # of more, Pyro keeps the last one's, or none
        stats["step_size"] = torch.full(shape, float(mcmc.kernel.step_size), dtype=torch.float64)
    return stats


def by_chain(recorded: Mapping[str, Any]) -> list[tuple[int, Any]]:
    """Return chain number and entry in the order of chains; the keys are "chain 0", "chain 1", ..."""
    return sorted((int(key.split()[-1]), entry) for key, entry in recorded.items())
