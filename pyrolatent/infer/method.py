"""What every method is: frozen settings with one `run`."""

import abc
from numbers import Integral, Real
from typing import ClassVar

from pyrolatent.errors import ArgumentError
from pyrolatent.result import Fit, Problem


class Method(abc.ABC):
    """Settings of an inference method."""

    uses_guide: ClassVar[bool] = False
    learns: ClassVar[bool] = False  # whether it fits learnable parameters

    @abc.abstractmethod
    def run(self, problem: Problem) -> Fit:
        """Fit `problem` and return the result; nothing is shared with other runs."""


def check_least(name: str, value: int | None, least: int) -> None:
    """Refuse a setting that is no whole number, or too small; None leaves it to the method.

    Raises:
        ArgumentError: `value` is no whole number, or below `least`.
    """
    if not isinstance(value, Integral | None):
        raise ArgumentError(f"{name} is no whole number", why=f"got {value!r}")
    if value is not None and value < least:
        raise ArgumentError(f"{name} is too small", why=f"got {value}", remedy=f"give at least {least}")


def check_number(name: str, value: float) -> None:
    """Refuse a setting that is no number, such as one read from text.

    Raises:
        ArgumentError: It is none.
    """
    if not isinstance(value, Real):
        raise ArgumentError(f"{name} is no number", why=f"got {value!r}")


def check_fraction(name: str, value: float) -> None:
    """Refuse a setting that must lie strictly between 0 and 1.

    Raises:
        ArgumentError: It does not.
    """
    check_number(name, value)
    if not 0 < value < 1:
        raise ArgumentError(f"{name} must lie between 0 and 1", why=f"got {value}")
