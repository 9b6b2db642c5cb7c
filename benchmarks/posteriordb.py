"""Fit posteriordb's five references and compare with the published posteriors.

Run as `python -m benchmarks.posteriordb`.  The largest error of a parameter must stay under 4
combined Monte Carlo standard errors, the ratios of standard deviations within 0.9 to 1.1.
"""

import argparse
import time

import torch

import pyrolatent
from benchmarks.record import append
from tests.agreement import Agreement, compare
from tests.user_models import REFERENCES, reference

ROW = "{:<12} {:>9.3f} {:>9.3f} {:>6.2f} {:>6.3f}  {}"


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    rows = [run(name, options.seed) for name in options.references]
    print(f"\nappended to {append('posteriordb', rows)}")
    if not all(row["holds"] for row in rows):
        raise SystemExit("a fit is off its reference")


def run(name: str, seed: int) -> dict[str, object]:
    """Fit one reference, print its table and return its row."""
    model, data = REFERENCES[name]
    start = time.perf_counter()
    fit = pyrolatent.fit(model, data(), pyrolatent.HMC(), seed=seed)
    seconds = time.perf_counter() - start
    agreements = compare(fit.samples, reference(name))
    print(f"\n{name}: rung {fit.rung}, {seconds:.1f} s")
    print_table(agreements)
    return {
        "reference": name,
        "seed": seed,
        "rung": fit.rung,
        "seconds": round(seconds, 2),
        "holds": all(agreement.holds for agreement in agreements),
        "parameters": {agreement.parameter: agreement._asdict() for agreement in agreements},
    }


def print_table(agreements: list[Agreement]) -> None:
    print(f"{'parameter':<12} {'mean':>9} {'sd':>9} {'MCSEs':>6} {'sd/ref':>6}")
    for a in agreements:
        print(ROW.format(a.parameter, a.mean, a.sd, a.errors, a.sd_ratio, "" if a.holds else "<- off"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", nargs="*", default=list(REFERENCES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
