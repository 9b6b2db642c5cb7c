"""What every method is: frozen settings with one `run`."""

import abc
from typing import ClassVar

from pyrolatent.result import Fit, Problem


class Method(abc.ABC):
    """Settings of an inference method."""

    uses_guide: ClassVar[bool] = False
    learns: ClassVar[bool] = False  # whether it fits learnable parameters

    @abc.abstractmethod
    def run(self, problem: Problem) -> Fit:
        """Fit `problem` and return the result; nothing is shared with other runs."""
