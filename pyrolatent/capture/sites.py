"""The table of a model's sites, read from one validated run.

The run happens at random unconstrained values, never at a prior draw, so that improper priors
work.  Supports are not part of the table: they may depend on other sites and are read again at
each evaluation (`SuppliedSites`).  Discrete latent sites have random values in it; later runs sum
over all of them (`enumeration`).
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions.transforms import Transform

from pyrolatent.capture.messages import (
    DATA_PLATE,
    Message,
    batch_dims,
    check_new_name,
    in_data_plate,
    is_deterministic,
    is_enumerable,
    is_factor,
    is_latent,
    is_observation,
    sum_all,
)
from pyrolatent.capture.supports import check_in_plates, check_support, transform_of, values_of
from pyrolatent.capture.vector import Layout
from pyrolatent.distributions import as_row_distribution
from pyrolatent.errors import ModelError

START_RADIUS = 1.0


@dataclass(frozen=True)
class Site:
    """One site: its shape and the axis of each plate in it."""

    name: str
    shape: torch.Size
    plates: Mapping[str, int]  # plate -> axis of `shape`


@dataclass(frozen=True)
class SiteTable:
    """All sites of a model, by role."""

    layout: Layout  # the unconstrained latents in one flat vector
    latents: Mapping[str, Site]
    observed: Mapping[str, Site]
    deterministics: Mapping[str, Site]
    factors: tuple[str, ...]
    parameters: tuple[str, ...]
    rows: int | None  # size of plate "data"
    summaries: Mapping[str, Any] = field(repr=False)  # observed site -> RowDistribution summary
    discrete: Mapping[str, Site] = field(default_factory=dict)  # latents that are summed out
    max_plate_nesting: int = 0  # dimensions of batches; values of discrete sites lie to their left

    @property
    def row_latents(self) -> list[str]:
        """Latents that each row of the data has of its own."""
        return [name for name, site in self.latents.items() if DATA_PLATE in site.plates]


class SuppliedSites(Messenger):
    """Gives each latent site the value that its support, as it is now, makes of a free number.

    Discrete sites have no free numbers, and get one of their values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_jacobians: dict[str, Tensor] = {}  # `(*batch)` of each site

    @property
    def log_jacobian(self) -> Tensor | float:
        """The log-determinant `()` of the map from all free numbers to all values."""
        return sum((sum_all(part) for part in self.log_jacobians.values()), start=0.0)

    @abstractmethod
    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        """Return the unconstrained value of site `name`, whose constrained shape is `shape`."""

    def discrete_value(self, message: Message) -> Tensor:
        """Return the value of a discrete site, the first one unless there is reason for another."""
        first = torch.zeros(message["fn"].batch_shape, dtype=torch.long)
        return values_of(message)[first]

    def _pyro_sample(self, message: Message) -> None:
        if not is_latent(message):
            return
        message["done"] = True
        if is_enumerable(message):
            message["value"] = self.discrete_value(message)
            return
        transform = transform_of(message)
        free = self.free_value(message["name"], transform, message["fn"].shape())
        message["value"] = transform(free)
        self.log_jacobians[message["name"]] = transform.log_abs_det_jacobian(free, message["value"])


def random_start(shape: Sequence[int], random: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
    """Return free numbers at which a run or a chain may begin, uniform around 0."""
    uniform = torch.rand(shape, generator=random, dtype=dtype, device=random.device)
    return START_RADIUS * (2 * uniform - 1)


@final
class SiteRecorder(SuppliedSites):
    """Supplies random starts and records every site that passes."""

    def __init__(self, random: torch.Generator) -> None:
        super().__init__()
        self.random = random
        self.free: dict[str, Tensor] = {}
        self.messages: dict[str, Message] = {}
        self.parameters: list[str] = []

    def free_value(self, name: str, transform: Transform, shape: torch.Size) -> Tensor:
        self.free[name] = random_start(transform.inverse_shape(shape), self.random)
        return self.free[name]

    def discrete_value(self, message: Message) -> Tensor:
        check_in_plates(message)
        values, shape, random = values_of(message), message["fn"].batch_shape, self.random
        return values[torch.randint(len(values), shape, generator=random, device=random.device)]

    def _pyro_post_sample(self, message: Message) -> None:
        if site_is_subsample(message):
            check_no_subsample(message)
            return
        if is_observation(message) and not any(is_enumerable(other) for other in self.messages.values()):
            check_support(message)  # else it may fit other values of a discrete site: `check_enumerable` sees
        check_new_name(message, self.messages)
        self.messages[message["name"]] = message.copy()

    def _pyro_post_param(self, message: Message) -> None:
        self.parameters.append(message["name"])


def read_sites(model: Callable[..., Any], data: Mapping[str, Any], random: torch.Generator) -> SiteTable:
    """Run `model(**data)` twice, eagerly, and return its table of sites.

    Raises:
        ModelError: A latent site has no support, or a discrete one no finite list of values, two
            sites share a name, a plate subsamples, or the sites differ from run to run.
        DataError: An observed value lies outside its site's support.
    """
    runs = []
    for _ in range(2):
        with SiteRecorder(random) as recorder:
            model(**data)
        runs.append(recorder.messages)
    messages = runs[0]
    check_same_sites(*runs)
    roles = {name: role(name, message, recorder) for name, message in messages.items()}
    sites = {name: describe(message) for name, message in messages.items()}
    fixed = {name for name in messages if same_value(*(run[name]["value"] for run in runs))}
    return SiteTable(
        layout=Layout({name: value.shape for name, value in recorder.free.items()}),
        latents={name: sites[name] for name in recorder.free},
        observed={name: sites[name] for name in sites if roles[name] == "observed"},
        deterministics={name: sites[name] for name in sites if roles[name] == "deterministic"},
        factors=tuple(name for name in sites if roles[name] == "factor"),
        parameters=tuple(recorder.parameters),
        rows=data_rows(messages),
        summaries=summarise({name: message for name, message in messages.items() if name in fixed}),
        discrete={name: sites[name] for name in sites if roles[name] == "discrete"},
        max_plate_nesting=batch_dims(messages),
    )


def same_value(first: Any, second: Any) -> bool:
    """True for a value that does not depend on the latents."""
    return isinstance(first, Tensor) and isinstance(second, Tensor) and torch.equal(first, second)


def role(name: str, message: Message, recorder: SiteRecorder) -> str:
    """Return what the site is to a method."""
    if name in recorder.free:
        return "latent"
    if is_enumerable(message):
        return "discrete"
    if is_factor(message):
        return "factor"
    return "deterministic" if is_deterministic(message) or not message["is_observed"] else "observed"


def describe(message: Message) -> Site:
    """Return the site's shape and which of its axes are plates."""
    shape = message["value"].shape if isinstance(message["value"], Tensor) else torch.Size()
    event_dim = (
        message["fn"].event_dim
        if message["fn"].event_dim < len(shape) or not is_deterministic(message)
        else 0
    )
    axes = {
        frame.name: len(shape) - event_dim + frame.dim
        for frame in message["cond_indep_stack"]
        if frame.dim is not None
    }
    sizes = {frame.name: frame.size for frame in message["cond_indep_stack"]}
    fits = {name: axis for name, axis in axes.items() if axis >= 0 and shape[axis] == sizes[name]}
    return Site(message["name"], shape, fits)


def data_rows(messages: Mapping[str, Message]) -> int | None:
    """Return the size of the data plate, if there is one."""
    frames = (frame for message in messages.values() for frame in message["cond_indep_stack"])
    return next((frame.size for frame in frames if frame.name == DATA_PLATE), None)


def summarise(messages: Mapping[str, Message]) -> dict[str, Any]:
    """Summarise, once per fit, the observed sites whose rows need only their sum."""
    summaries = {}
    for name, message in messages.items():
        if sums_over_rows(message) and (rows := as_row_distribution(message["fn"], len(message["value"]))):
            summaries[name] = rows.summarise(message["value"])
    return summaries


def sums_over_rows(message: Message) -> bool:
    """True for an observed site with rows that all carry one scale and no mask of a handler."""
    has_rows = isinstance(message["value"], Tensor) and message["value"].ndim > 0
    plain = message["is_observed"] and in_data_plate(message) and message["mask"] is None
    return has_rows and plain and isinstance(message["scale"], float | int)


def check_same_sites(first: Mapping[str, Message], second: Mapping[str, Message]) -> None:
    """Refuse a model whose sites come and go."""
    if first.keys() != second.keys():
        raise ModelError(
            "the sites of the model differ from run to run",
            where=f"sites {sorted(first.keys() ^ second.keys())}",
            why="which sites there are depends on random or latent values",
            remedy="sample the same sites every time",
        )


def check_no_subsample(message: Message) -> None:
    """Refuse a plate whose rows differ from run to run."""
    size, subsample_size = message["fn"].size, message["fn"].subsample_size
    if subsample_size is not None and subsample_size < size:
        raise ModelError(
            "a plate draws its own subsample",
            where=f"plate {message['name']!r}",
            why=f"{subsample_size} of {size} rows at random make the density differ from call to call",
            remedy="drop subsample_size",
        )
