"""A test of several arms whose labels, or outcomes, are partly unknown.

Each row belongs to one of K arms, a discrete site, and has an outcome whose distribution differs by arm.
A label is a reading of the arm without error, so rows without one say as much of the arms as their
outcomes do, and a row without outcome says how large its arm is.  Covariates move outcomes alike in all
arms (regression adjustment; with the outcome before the test as covariate, what CUPED does).

Priors are on the scale of the data, which the schema knows: weak by default (`Priors`).  Where no label is
known at all, arms have no names and come in the order of their locations.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyrolatent.column import Column
from pyrolatent.errors import ArgumentError, DataError
from pyrolatent.ordered import Ordered
from pyrolatent.pair import Model, Pair
from pyrolatent.revenue import ZeroInflatedLogNormal
from pyrolatent.schema import Schema, listing

Family = Literal["normal", "student", "lognormal", "bernoulli", "poisson", "negative_binomial", "revenue"]

KINDS: Mapping[str, str] = {
    "normal": "real",
    "student": "real",
    "lognormal": "positive",
    "bernoulli": "binary",
    "poisson": "count",
    "negative_binomial": "count",
    "revenue": "real",
}
OWN_UNITS = ("poisson", "negative_binomial", "revenue")  # outcomes that are not standardised
ADDED = ("normal", "student")  # outcomes to which covariates add
OF_ARMS = ("mean", "sd", "share", "location", "spread", "probability", "rate", "log_rate", "concentration")
TOGETHER = ("bernoulli", "revenue")  # of which rows without labels do not tell arms apart
CENTRED = ("real", "positive", "unit", "count", "ordinal")  # kinds whose codes are 0 on average

LIKE_POISSON = 1e6  # a concentration whose counts are Poisson's; beyond, log-gammas are rounding

Latents = dict[str, Tensor]


@final
@dataclass(frozen=True)
class Priors:
    """How wide the priors are, in units of the data.

    Attributes:
        location: Standard deviation of a location, in standard deviations of the outcome or of its log.
        spread: Standard deviation of the log of a spread, in the same units.
        share: Both parameters of the beta distribution of a probability.
        rate: Standard deviation of the log of a rate, around that of all rows.
        slope: Standard deviation of a slope, in standard deviations of outcome and covariate.

    Raises:
        ArgumentError: One is not positive and finite.
    """

    location: float = 10.0
    spread: float = 2.0
    share: float = 1.0
    rate: float = 2.0
    slope: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ArgumentError(f"the prior of a {name} must have a width", why=f"got {value}")


@final
@dataclass(frozen=True)
class ABTest(Pair):
    """Outcomes of the rows of a table, by arm.

    Sites in the table's units: `mean (K,)`, the mean outcome of each arm, `sd (K,)` its standard deviation
    (of normal and Student's outcomes given covariates), and `share (K,)`, the share of each arm.  Discrete
    site `arm (N,)`, observed sites `label (N,)` and `outcome (N,)`.

    Args:
        columns: The schema of the table, from `infer_schema`, with the outcome of the kind that its family
            asks for (`KINDS`) and the arms declared "categorical".
        outcome: The column of the outcome.
        arms: The column of the labels; or the number of arms where no label is known.
        family: "normal", "student", "lognormal", "bernoulli", "poisson", "negative_binomial" or "revenue",
            which is zero or log-normal.  Each arm has parameters of its own.
        covariates: Columns that move the outcome alike in all arms, of kinds that are standardised, so that 0
            is an average row (`CENTRED`): one of zeros and ones is declared "real".
        priors: How wide the priors are.

    Raises:
        ArgumentError: The family is unknown, `arms` is neither text nor a whole number from 2 on, or
            `covariates` are no tuple.
        DataError: A column is absent or of the wrong kind, or arms without labels cannot be told apart.
    """

    columns: Schema
    outcome: str
    arms: str | int
    family: Family = "normal"
    covariates: tuple[str, ...] = ()
    priors: Priors = Priors()

    def __post_init__(self) -> None:
        check_family(self.family)
        check_settings(self)
        if self.unlabelled and self.family in TOGETHER:
            why = "a mixture of such outcomes is one of the same family"
            raise DataError(
                f"arms without labels cannot be told apart by {self.family} outcomes", why=why,
                remedy="label some rows",
            )  # fmt: skip
        check_columns(self)

    @property
    def unlabelled(self) -> bool:
        """Whether no label is known."""
        return not isinstance(self.arms, str)

    @property
    def num_arms(self) -> int:
        """K."""
        return len(self.arm_names)

    @property
    def arm_names(self) -> list[Any]:
        """What arms are called: by their labels, or by their place in the order."""
        if isinstance(self.arms, str):
            return list(column_of(self.columns, self.arms).categories)
        return [f"arm {number}" for number in range(1, self.arms + 1)]

    @property
    def first_axes(self) -> Mapping[str, tuple[str, Sequence[Hashable]]]:
        arms = dict.fromkeys(OF_ARMS, ("arms", self.arm_names))
        return {**arms, "slope": ("covariates", self.covariates)}

    @property
    def schema(self) -> Schema:
        outcome = column_of(self.columns, self.outcome)
        if self.family in OWN_UNITS:
            outcome = replace(outcome, location=0.0, scale=1.0)
        labels = [column_of(self.columns, self.arms)] if isinstance(self.arms, str) else []
        return Schema((outcome, *labels, *(column_of(self.columns, name) for name in self.covariates)))

    @property
    def model(self) -> Model:
        return self.generate

    @property
    def guide(self) -> None:
        return None

    def generate(self, x: Tensor, mask: Tensor) -> None:
        """The generative program for `x (N, D)`, observed where `mask (N, D)` is True."""
        latents, share = self.draw_latents(), pyro.sample("share", dist.Dirichlet(torch.ones(self.num_arms)))
        moved = self.moved_by(x)
        self.record(latents, moved)
        with pyro.plate("data", len(x)):
            arm = pyro.sample("arm", dist.Categorical(share))
            if not self.unlabelled:
                told = dist.Categorical(torch.eye(self.num_arms)[arm])
                pyro.sample("label", told.mask(mask[:, 1]), obs=x[:, 1].long())
            own = {name: value[arm] if value.ndim else value for name, value in latents.items()}
            pyro.sample("outcome", self.distribution(own, moved).mask(mask[:, 0]), obs=x[:, 0])

    def draw_latents(self) -> Latents:
        """Draw what each arm has of its own `(K,)`, and what all share `()`."""
        found = {}
        if self.family in ("bernoulli", "revenue"):
            found["probability"] = self.each("probability", dist.Beta(self.priors.share, self.priors.share))
        if self.family in ("poisson", "negative_binomial"):
            found["rate"] = self.draw_rate()
        if self.family == "negative_binomial":
            found["concentration"] = self.each("concentration", dist.LogNormal(0.0, 2.0))
        if self.family in ("normal", "student", "lognormal", "revenue"):
            centre, unit = self.of_logs()
            found["location"] = self.in_order("location", dist.Normal(centre, unit * self.priors.location))
            found["spread"] = self.each("spread", dist.LogNormal(math.log(unit), self.priors.spread))
        if self.family == "student":
            found["tails"] = pyro.sample("tails", dist.Gamma(2.0, 0.1))
        return found

    def each(self, name: str, prior: Distribution) -> Tensor:
        """Draw independent values `(K,)`, one for each arm."""
        return pyro.sample(name, prior.expand([self.num_arms]).to_event(1))

    def in_order(self, name: str, prior: Distribution) -> Tensor:
        """Draw the same, in order where arms have no names."""
        return pyro.sample(name, Ordered(prior, self.num_arms)) if self.unlabelled else self.each(name, prior)

    def draw_rate(self) -> Tensor:
        """Draw the rate of each arm `(K,)`, around that of all rows."""
        centre = math.log(max(column_of(self.columns, self.outcome).location, 1e-3))
        if self.unlabelled:
            return self.in_order("log_rate", dist.Normal(centre, self.priors.rate)).exp()
        return self.each("rate", dist.LogNormal(centre, self.priors.rate))

    def of_logs(self) -> tuple[float, float]:
        """Return centre and unit of the locations: those of standardised outcomes, or of logs of amounts."""
        if self.family != "revenue":
            return 0.0, 1.0
        return math.log(max(column_of(self.columns, self.outcome).location, 1e-3)), 1.0

    def moved_by(self, x: Tensor) -> Tensor:
        """Return what covariates add to outcomes, or to their log or log-odds `(N,)`; `()` without any."""
        if not self.covariates:
            return torch.zeros(())
        size = len(self.covariates)
        slope = pyro.sample("slope", dist.Normal(torch.zeros(size), self.priors.slope).to_event(1))
        return x[:, -size:] @ slope

    def distribution(self, own: Latents, moved: Tensor) -> Any:
        """Return the distribution of outcomes from the latents of their arms."""
        plain = not self.covariates  # so that parameters are the latents themselves
        match self.family:
            case "bernoulli" if plain:
                return dist.Bernoulli(own["probability"])
            case "bernoulli":
                return dist.Bernoulli(logits=torch.logit(own["probability"]) + moved)
            case "poisson":
                return dist.Poisson(own["rate"] if plain else own["rate"] * moved.exp())
            case "negative_binomial":
                rate = own["rate"] if plain else own["rate"] * moved.exp()
                concentration = own["concentration"].clamp(max=LIKE_POISSON)
                return dist.GammaPoisson(concentration, concentration / rate)
            case "revenue":
                location = own["location"] if plain else own["location"] + moved
                return ZeroInflatedLogNormal(own["probability"], location, own["spread"])
        location = own["location"] if plain else own["location"] + moved
        if self.family == "student":
            return dist.StudentT(2 + own["tails"], location, own["spread"])  # so that it has a variance
        return dist.Normal(location, own["spread"])

    def record(self, latents: Latents, moved: Tensor) -> None:
        """Record mean and standard deviation of each arm's outcomes, in the table's units.

        With covariates they are those of an arm that has all rows.  Where covariates add to the outcomes that
        is an average row, at which they are 0 as they are standardised, and `sd` is that of outcomes given
        covariates.
        """
        mean, sd = self.moments(self.distribution(latents, torch.zeros(())))
        if self.covariates and self.family == "bernoulli":
            mean = (torch.logit(latents["probability"])[:, None] + moved).sigmoid().mean(1)
            sd = (mean * (1 - mean)).sqrt()
        elif self.covariates and self.family not in ADDED:
            mean, sd = self.over_rows(mean, sd, moved)
        pyro.deterministic("mean", mean)
        pyro.deterministic("sd", sd)

    def over_rows(self, mean: Tensor, sd: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation `(K,)` of all rows, from those where covariates are 0.

        Covariates multiply outcomes by a factor F of the row.  A part of the variance of a count, as large as
        its mean, goes with F, and all else with F squared.
        """
        unit = column_of(self.columns, self.outcome).scale if self.family == "lognormal" else 1.0
        factor = (unit * moved).exp()
        noise = mean if KINDS[self.family] == "count" else torch.zeros(())
        square = noise * factor.mean() + (sd.square() - noise + mean.square()) * factor.square().mean()
        mean = mean * factor.mean()
        return mean, (square - mean.square()).sqrt()

    def moments(self, outcomes: Any) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of outcomes in the table's units."""
        if self.family in (*OWN_UNITS, "bernoulli"):
            return outcomes.mean, outcomes.variance.sqrt()
        column, sd = column_of(self.columns, self.outcome), outcomes.scale
        if self.family == "student":
            sd = sd * (outcomes.df / (outcomes.df - 2)).sqrt()  # torch's picks cells, which is never captured
        if self.family == "lognormal":
            scaled = dist.LogNormal(column.location + column.scale * outcomes.loc, column.scale * sd)
            return scaled.mean, scaled.stddev
        return column.location + column.scale * outcomes.loc, column.scale * sd


def column_of(columns: Schema, name: str | int) -> Column:
    """Return the column of this name."""
    return next(column for column in columns.columns if column.name == name)


def check_family(family: str) -> None:
    """Refuse a family that there is not.

    Raises:
        ArgumentError: With those that there are.
    """
    if family not in get_args(Family):
        why, remedy = f"got {family!r}", f"choose one of {', '.join(get_args(Family))}"
        raise ArgumentError("the family is unknown", why=why, remedy=remedy)


def check_settings(pair: ABTest) -> None:
    """Refuse arms that are neither a column nor a number, and covariates that are no tuple.

    Raises:
        ArgumentError: With what they are.
    """
    number = isinstance(pair.arms, int) and not isinstance(pair.arms, bool)
    if not isinstance(pair.arms, str) and not number:
        remedy = "pass the name of the column of the labels, or a number such as 2 where no label is known"
        raise ArgumentError("arms are no column and no whole number", why=f"got {pair.arms!r}", remedy=remedy)
    if not isinstance(pair.arms, str) and pair.arms < 2:
        raise ArgumentError("a test has two arms or more", why=f"got {pair.arms!r}")
    if not isinstance(pair.covariates, tuple):
        remedy = "pass a tuple of names of columns"
        raise ArgumentError("covariates are no tuple", why=f"got {pair.covariates!r}", remedy=remedy)


def check_columns(pair: ABTest) -> None:
    """Refuse columns that are absent, or of a kind that the model has no use for.

    Raises:
        DataError: With the column, and how to declare it.
    """
    named = [pair.outcome, *pair.covariates] + ([pair.arms] if isinstance(pair.arms, str) else [])
    known = {column.name: column for column in pair.columns.columns}
    absent = [name for name in named if name not in known]
    if absent:
        raise DataError(
            "the table lacks columns of the test", where=listing(absent), why=f"it has {listing([*known])}"
        )
    wanted = KINDS[pair.family]
    check_kind(known[pair.outcome], (wanted,), f"{pair.family} outcomes are {wanted}")
    if isinstance(pair.arms, str):
        check_kind(known[pair.arms], ("categorical", "binary"), "labels of arms are categorical")
    for name in pair.covariates:
        check_covariate(known[name])
    if pair.family == "revenue" and known[pair.outcome].lower < 0:
        raise DataError(
            "revenue below 0", where=f"column {pair.outcome!r}", remedy='use family "normal" or "student"'
        )


def check_kind(column: Column, kinds: tuple[str, ...], why: str) -> None:
    """Refuse a column of another kind."""
    if column.kind not in kinds:
        raise DataError(
            f"a column of kind {column.kind!r} where the test needs another",
            where=f"column {column.name!r}",
            why=why,
            remedy=f"declare it: infer_schema(frame, kinds={{{column.name!r}: {kinds[0]!r}}})",
        )


def check_covariate(column: Column) -> None:
    """Refuse a covariate whose codes are not standardised, so that 0 is no average row.

    Raises:
        DataError: With what to do instead.
    """
    if column.kind in CENTRED:
        return
    remedy = f'make numbers of it with .astype(float), and declare it: kinds={{{column.name!r}: "real"}}'
    if column.kind == "datetime":
        remedy = "pass a number of days instead"
    elif column.labelled:
        remedy = f'{as_dummies(column.name)}, and declare these "real"'
    raise DataError(
        f"a covariate of kind {column.kind!r}", where=f"column {column.name!r}",
        why="covariates are numbers that are standardised, so that 0 is an average row", remedy=remedy,
    )  # fmt: skip


def as_dummies(name: str | int) -> str:
    """Return how to make covariates of labels."""
    dummies = f"pandas.get_dummies(frame[{name!r}], drop_first=True, dtype=float)"
    return f"pass a column of 0 and 1 for each level but one instead, as {dummies} makes them"
