"""One shape for everything that goes wrong: what, where, why, what to do.

Errors are raised before work starts.  Weak results are not errors: they arrive as
`FitWarning` and in `fit.warnings`.
"""


class PyrolatentError(Exception):
    """Base of all errors of this package.

    Args:
        what: What is wrong, one clause.
        where: The file, column, row or site it concerns.
        why: The values seen, or the reason the thing cannot work.
        remedy: What the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        self.what, self.where, self.why, self.remedy = what, where, why, remedy
        super().__init__(compose(what, where=where, why=why, remedy=remedy))


class DataError(PyrolatentError, ValueError):
    """A table or a tensor that cannot be used as it is."""


class ModelError(PyrolatentError, ValueError):
    """A model, guide or pair that cannot be fitted as it is."""


class ArgumentError(PyrolatentError, ValueError):
    """A setting with no meaning, or one that contradicts another."""


class StoreError(PyrolatentError, OSError):
    """A file or folder that cannot be read or written."""


class FitWarning(UserWarning):
    """A result that is weaker than it looks, with what to do about it."""


def compose(what: str, *, where: str = "", why: str = "", remedy: str = "") -> str:
    """Return `where: what: why. remedy.`, leaving out the empty parts."""
    head = ": ".join(part for part in (where, what, why) if part)
    return ". ".join(part.rstrip(".") for part in (head, remedy) if part) + "."
