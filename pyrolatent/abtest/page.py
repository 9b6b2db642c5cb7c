"""The result of a test as a page: what was done, and tables with as many digits as they bear."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pyrolatent.abtest.choices import Range
from pyrolatent.abtest.words import decimals_of, method_in_words, plain, probability, two_digits
from pyrolatent.models.abtest import ABTest
from pyrolatent.result import Fit

DECIDED = 0.95  # P(best) from which a test has a result

EXPLAINED = {
    "rows": "rows with the label of the arm",
    "mean": "mean outcome of the arm, with its 90 % interval from low to high",
    "sd": "standard deviation of outcomes in the arm, the median of draws",
    "share": "share of all rows that belong to the arm, those without a label included",
    "p_best": "probability that no other arm has a higher mean",
    "expected_loss": "what is given up by choosing the arm, in units of the outcome",
    "absolute": "mean of the arm less that of the control, with its 90 % interval",
    "relative": "the same as a share of the control's mean; a dash where that may be next to 0",
    "p_better": "probability that the arm has a higher mean than the control",
    "p_in_rope": "probability that the difference is as good as none",
    "t": "t, df and p are those of Welch's test on rows with label and outcome",
}

Texts = Mapping[str, Callable[[float], str]]


def page_of(result: Mapping[str, Any], picture: Any) -> str:
    """Return the page of a result, given by its attributes, with a figure."""
    import jinja2  # slow to import, as matplotlib is

    from pyrolatent.plots.figures import png_uri

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyrolatent"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    arms, lift, fit = result["arms"], result["lift"], result["fit"]
    return environment.get_template("abtest.html").render(
        result=result,
        control=plain(result["control"]),
        decided=is_decided(arms),
        facts=facts(fit, result["rope"], result["shares"]),
        arms=html_of(arms, texts_of_arms(arms)),
        lift=html_of(lift, texts_of_lift(lift)),
        explained=[(name, EXPLAINED[name]) for name in (*arms, *lift) if name in EXPLAINED],
        picture=png_uri(picture),
        version=fit.info["versions"]["pyrolatent"],
    )


def is_decided(arms: pd.DataFrame) -> bool:
    """Return whether an arm is the best with a high probability."""
    return "p_best" in arms and bool(arms["p_best"].max() >= DECIDED)


def facts(fit: Fit, rope: Range | None, shares: Mapping[Any, float] | None) -> list[tuple[str, str]]:
    """Return what was done: terms and texts."""
    pair: Any = fit.pair
    found = [
        ("Outcome", f"{pair.outcome}, family {pair.family!r}"),
        ("Method", method_in_words(fit)),
        ("Rows", rows_in_words(pair, fit.problem.frame)),
        ("Covariates", ", ".join(map(str, pair.covariates)) or "none"),
        ("Intervals", "90 %: from the 5 % to the 95 % quantile of draws"),
        ("As good as none", "no range was given" if rope is None else f"from {rope[0]:g} to {rope[1]:g}"),
    ]
    if pair.unlabelled:
        return found
    planned = "equal" if shares is None else ", ".join(f"{plain(k)}: {v:g}" for k, v in shares.items())
    return [*found, ("Planned shares", planned)]


def rows_in_words(pair: ABTest, table: pd.DataFrame | None) -> str:
    """Return how many rows were used, and what they have."""
    if table is None:
        return "unknown"
    outcome = table[pair.outcome].notna()
    if pair.unlabelled:
        return f"{len(table):,}, {int(outcome.sum()):,} with an outcome"
    label = table[pair.arms].notna()
    return (
        f"{len(table):,}: {int((outcome & label).sum()):,} with outcome and label, "
        f"{int((outcome & ~label).sum()):,} with an outcome alone, {int((~outcome & label).sum()):,} with a "
        f"label alone, {int((~outcome & ~label).sum()):,} with neither"
    )


def html_of(table: pd.DataFrame, texts: Texts) -> str:
    """Return a table of the page; a dash stands where a number is not finite."""
    shown = pd.DataFrame(
        {
            name: [texts[name](x) if np.isfinite(x) else "\u2013" for x in table[name]]
            for name in map(str, table)
        },
        index=[plain(name) for name in table.index],
    )
    return str(shown.to_html(border=0))


def texts_of_arms(arms: pd.DataFrame) -> Texts:
    """Return how numbers of each column are written."""
    measured = fixed(finest(arms["low"], arms["high"]))
    return {
        **dict.fromkeys(("mean", "low", "high", "sd"), measured),
        "rows": "{:,.0f}".format,
        "p_best": probability,
        "expected_loss": two_digits,
        "share": "{:.1%}".format,
    }


def texts_of_lift(lift: pd.DataFrame) -> Texts:
    """Return how numbers of each column are written."""
    measured = fixed(finest(lift["absolute_low"], lift["absolute_high"]), "+z")
    return {
        **dict.fromkeys(("absolute", "absolute_low", "absolute_high"), measured),
        **dict.fromkeys(("relative", "relative_low", "relative_high"), "{:+,.1%}".format),
        **dict.fromkeys(("p_better", "p_in_rope"), probability),
        "t": "{:.2f}".format,
        "df": "{:,.0f}".format,
        "p": "{:.2g}".format,
    }


def fixed(decimals: int, sign: str = "z") -> Callable[[float], str]:
    """Return what writes numbers with so many decimals."""
    return f"{{:{sign},.{decimals}f}}".format


def finest(low: pd.Series, high: pd.Series) -> int:
    """Return the decimals that the narrowest of some intervals bears."""
    return max(decimals_of(*ends) for ends in zip(low, high, strict=True))
