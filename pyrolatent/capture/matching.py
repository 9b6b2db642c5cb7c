"""Do the sites of a guide match those of its model?"""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from pyrolatent.capture.messages import Message, is_auxiliary, is_delta, is_enumerable
from pyrolatent.errors import ModelError

Messages = Mapping[str, Message]


def check_match(guide: Messages, model: Messages) -> None:
    """Refuse a guide that does not draw just the latent sites of the model, in their shapes.

    Sites of the guide marked `infer={"is_auxiliary": True}` do not count, nor do deterministics,
    which both mappings lack.  Discrete sites of the model that can be summed out may be left out.

    Raises:
        ModelError: Sites are missing, unknown, observed by the model, or of another shape.
    """
    drawn = [name for name, message in guide.items() if not is_auxiliary(message)]
    latent = [name for name, message in model.items() if is_open(message)]
    check_not_observed(drawn, model)
    missing = [name for name in latent if name not in drawn and not is_enumerable(model[name])]
    unknown = [name for name in drawn if name not in latent]
    if missing or unknown:
        raise ModelError(
            "the sites of the guide do not match those of the model",
            where=f"sites {missing + unknown}",
            why=f"the model's latent sites are {latent}, the guide draws {drawn}",
            remedy="draw each latent site of the model in the guide, by the same name; mark helpers of the "
            "guide with infer={'is_auxiliary': True}",
        )
    for name in drawn:
        check_shapes(name, guide[name]["fn"], model[name]["fn"])


def is_open(message: Message) -> bool:
    """True for a latent site, also after its value was set; a Delta fixes its own."""
    return not message["is_observed"] and not is_delta(message["fn"])


def check_not_observed(drawn: list[str], model: Messages) -> None:
    """Refuse a guide that draws what the model observes."""
    twice = [name for name in drawn if name in model and model[name]["is_observed"]]
    if twice:
        raise ModelError(
            "the guide samples what the model observes",
            where=f"sites {twice}",
            why="these have data",
            remedy="leave them out of the guide",
        )


def check_shapes(name: str, guide: Any, model: Any) -> None:
    """Refuse a site whose batch or event dimensions differ between guide and model."""
    pairs = zip_longest(reversed(guide.batch_shape), reversed(model.batch_shape), fillvalue=1)
    if guide.event_shape != model.event_shape or any(a != b for a, b in pairs):
        raise ModelError(
            "guide and model disagree in the shape of a site",
            where=f"site {name!r}",
            why=f"the guide draws {describe(guide)}, the model has {describe(model)}",
            remedy="use the same plates and the same to_event in both",
        )


def describe(fn: Any) -> str:
    """Return shapes as text."""
    return f"batch shape {tuple(fn.batch_shape)} with event shape {tuple(fn.event_shape)}"
