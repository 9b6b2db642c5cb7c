"""The options of benchmarks whose cases are scored on seeds."""

import argparse
from collections.abc import Iterable


def cases_and_seeds(doc: str, cases: Iterable[str]) -> argparse.Namespace:
    """Return the options of a benchmark of `cases` whose docstring is `doc`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(cases), help=", ".join(cases))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    return parser.parse_args()
