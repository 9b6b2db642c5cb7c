"""The command line.  What a command does is done by functions that Python users call as well.

Errors are one line that begins with `Error:`, weak results lines that begin with `Warning:`, both
on the error stream.  Modules that draw and export are imported by the commands that need them.
"""

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, final, get_args

import click
import pandas as pd

from pyrolatent.abtest.analysis import analyze
from pyrolatent.abtest.choices import Range
from pyrolatent.abtest.words import method_in_words, plain
from pyrolatent.ampute import MECHANISMS, ampute
from pyrolatent.declared import kinds_to_json, read_kinds
from pyrolatent.errors import ArgumentError, FitWarning, PyrolatentError
from pyrolatent.fit import fit
from pyrolatent.folders import output_folder, prepare_file, prepare_folder
from pyrolatent.impute import impute
from pyrolatent.infer.chains import extreme
from pyrolatent.infer.em import EM
from pyrolatent.infer.hmc import HMC
from pyrolatent.models.abtest import Family
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.ranks import process_group
from pyrolatent.result import Compile, Fit
from pyrolatent.schema import Schema, infer_schema, listing
from pyrolatent.store import load
from pyrolatent.tables import FORMATS, check_format, read_frame, write_frame

MODELS = {"mvn": BayesianMVN}
METHODS = {"auto": None, "em": EM(), "hmc": HMC()}
MOST_COLUMNS = 40  # listed on the screen


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """Turn errors and warnings of this package into lines; others are shown as ever."""
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, FitWarning):
            click.echo(f"Warning: {message}", err=True)
        else:
            others(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FitWarning)
        warnings.showwarning = show
        try:
            yield
        except PyrolatentError as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@final
class Commands(click.Group):
    """A group of commands with messages of one line."""

    def invoke(self, ctx: click.Context) -> Any:
        with one_line_each():
            return super().invoke(ctx)


PATH = click.Path(path_type=Path)
SEED = click.IntRange(min=0)
force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pyrolatent")
def main() -> None:
    """Fit latent-variable models to tables with holes, and complete the tables."""


@main.command("fit")
@click.argument("file", type=PATH)
@click.option("--model", type=click.Choice(list(MODELS)), default="mvn", show_default=True)
@click.option("--out", type=PATH, required=True, help="Folder to write; must be new or empty.")
@click.option("--schema", type=PATH, help="JSON file of kinds, where those inferred are wrong.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out; may be repeated.")
@click.option("--eta", default=1.0, show_default=True, help="LKJ prior: 1 is flat, more pulls to zero.")
@click.option("--standardise/--no-standardise", default=True, help="Priors hold for standardised columns.")
@click.option("--seed", type=SEED, help="For the same result again; by default a fresh one.")
@click.option("--chains", type=int, help="Chains; by default 64, or fewer for large tables.")
@click.option("--warmup", type=int, help="Warm-up iterations of each chain.")
@click.option("--draws", type=int, help="Draws kept of each chain.")
@click.option("--target-ess", type=int, help="Stop as soon as the effective sample size is this large.")
@click.option("--compile/--no-compile", default=None, help="By default decided from the planned work.")
@click.option("--checkpoint", type=PATH, help="Folder in which the run is kept, for --resume.")
@click.option("--checkpoint-every", type=int, help="Transitions between checkpoints; else 1/100 of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run that --checkpoint holds, if it holds one.")
@force_option
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
def fit_command(
    file: Path,
    model: str,
    out: Path,
    schema: Path | None,
    drop: tuple[str, ...],
    eta: float,
    standardise: bool,
    seed: int | None,
    chains: int | None,
    warmup: int | None,
    draws: int | None,
    target_ess: int | None,
    compile: bool | None,
    checkpoint: Path | None,
    checkpoint_every: int | None,
    resume: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Fit a model to the CSV or Parquet file FILE, holes and all.

    What every column holds is inferred and shown.  To correct it, write the kinds down with
    `pyrolatent schema FILE > schema.json`, change what is wrong, and pass --schema schema.json.

    The folder gets the fit (for `pyrolatent impute`), posterior.nc (for ArviZ), summary.csv and
    report.html.

    Started by torchrun, as in `torchrun --nproc-per-node=2 -m pyrolatent fit ...`, all processes share
    the chains, and the first one writes.
    """
    from pyrolatent.runs import write_run

    method = HMC(chains, warmup, draws, target_ess)
    check_kept(checkpoint, checkpoint_every, resume, out)
    kinds = read_kinds(schema) if schema else {}
    with process_group() as ranks:
        say = Printer(quiet or not ranks.first)
        if ranks.first:
            prepare_folder(out, force)
        frame = without(read_frame(file), drop)
        columns = infer_schema(frame, kinds={name: kind for name, kind in kinds.items() if name not in drop})
        pair = MODELS[model](columns, eta, standardise)
        say(columns_in_words(frame, columns))
        compiled: Compile = "auto" if compile is None else compile
        result = fit(
            pair, frame, method, seed=seed, compile=compiled, progress=not quiet,
            checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume,
        )  # fmt: skip
    if ranks.first:
        write_run(result, out, force=force)
    say(fit_in_words(result))
    say(f"Wrote {out}: open {out / 'report.html'} in a browser. {say.seconds}")


@main.command("abtest")
@click.argument("file", type=PATH)
@click.option("--outcome", required=True, metavar="COLUMN", help="What was measured; more is better.")
@click.option("--group", metavar="COLUMN", help="The labels of the arms; leave out if none is known.")
@click.option("--out", type=PATH, required=True, help="Folder to write; must be new or empty.")
@click.option("--family", type=click.Choice(get_args(Family)), default="normal", show_default=True)
@click.option(
    "--num-arms", type=click.IntRange(min=2), default=2, show_default=True, help="If no label is known."
)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="auto",
    show_default=True,
    help="auto is em, or hmc where an arm has few events.",
)
@click.option("--covariate", multiple=True, metavar="COLUMN", help="Moves all arms alike; may be repeated.")
@click.option(
    "--control", help="The arm to compare with; by default the one that is called so, or the first."
)
@click.option("--rope", help="Differences up to this, or from,to, are as good as none.")
@click.option("--shares", help="Those planned, as control=0.9,treatment=0.1; by default equal ones.")
@click.option("--seed", type=SEED, help="For the same result again; by default a fresh one.")
@force_option
def abtest_command(
    file: Path,
    outcome: str,
    group: str | None,
    out: Path,
    family: Family,
    num_arms: int,
    method: str,
    covariate: tuple[str, ...],
    control: str | None,
    rope: str | None,
    shares: str | None,
    seed: int | None,
    force: bool,
) -> None:
    """Say which arm of a test is better: the rows of the CSV or Parquet file FILE, holes and all.

    The folder gets arms.csv, lift.csv, report.html, posterior.nc (for ArviZ) and the fit.
    """
    from pyrolatent.runs import write_result

    say = Printer()
    prepare_folder(out, force)
    frame = read_frame(file)
    result = analyze(
        frame, outcome, group, method=METHODS[method], family=family, covariates=covariate,
        control=named(frame, group, control), rope=None if rope is None else ends_in(rope),
        shares=None if shares is None else shares_in(shares, frame, group), num_arms=num_arms, seed=seed,
    )  # fmt: skip
    write_result(result, out, force=force)
    say(result.sentence)
    say(f"By {method_in_words(result.fit)}.")
    say(f"Wrote {out}: open {out / 'report.html'} in a browser. {say.seconds}")


def named(frame: pd.DataFrame, group: str | None, control: str | None) -> Any:
    """Return the label that a word on the command line means: one that reads like it, of any type."""
    if control is None or group is None or group not in frame.columns:
        return control
    labels = frame[group].dropna().unique().tolist()
    return next((label for label in labels if control in (str(label), plain(label))), control)


def ends_in(rope: str) -> float | Range:
    """Return the range that `1` or `-1,2` on the command line means."""
    try:
        low, *high = (float(end) for end in rope.split(","))
    except ValueError:
        high = [0.0, 0.0]
    if len(high) > 1:
        remedy = "pass --rope 1 for -1 to 1, or --rope -1,2"
        raise ArgumentError("--rope is no range", why=f"got {rope!r}", remedy=remedy)
    return (low, high[0]) if high else low


def shares_in(shares: str, frame: pd.DataFrame, group: str | None) -> dict[Any, float]:
    """Return the planned shares that `control=0.9,treatment=0.1` on the command line means."""
    try:
        parts = [part.rsplit("=", 1) for part in shares.split(",")]
        return {named(frame, group, name): float(share) for name, share in parts}
    except ValueError as error:
        remedy = "pass --shares control=0.9,treatment=0.1"
        raise ArgumentError("--shares are no shares", why=f"got {shares!r}", remedy=remedy) from error


@main.command("schema")
@click.argument("file", type=PATH)
def schema_command(file: Path) -> None:
    """Print what every column of FILE is taken for, as JSON for `pyrolatent fit --schema`.

    Kinds are real, positive, unit (from 0 to 1), count, ordinal, binary and categorical; datetime,
    identifier and skip pass through.  Categories come in the order of their codes.  Columns left out
    of the file are inferred again.
    """
    click.echo(kinds_to_json(infer_schema(read_frame(file)).kinds))


@main.command("impute")
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder to write; must be new or empty.")
@click.option("--draws", default=20, show_default=True, help="Completed tables to write.")
@click.option("--data", type=PATH, help="Complete this file instead of the one that was fitted.")
@click.option("--format", "suffix", type=click.Choice(FORMATS), default="csv", show_default=True)
@click.option("--seed", type=SEED, help="By default that of the fit.")
@force_option
def impute_command(
    run: Path, out: Path, draws: int, data: Path | None, suffix: str, seed: int | None, force: bool
) -> None:
    """Complete the table of the fit in the folder RUN.

    The new folder gets imputed_01.csv, imputed_02.csv, ... (or .parquet) and cells.csv: mean,
    standard deviation and 90 % interval of every missing cell.
    """
    from pyrolatent.runs import write_completed

    say = Printer()
    if run.resolve().is_relative_to(out.resolve()):
        what, remedy = "the completed tables would replace the fit", "name another folder"
        raise ArgumentError(what, where=str(out), remedy=remedy)
    prepare_folder(out, force)
    check_format(f"imputed_01.{suffix}")
    result = load(run)
    completed = impute(result, read_frame(data) if data else None, draws, seed)
    with output_folder(out, force) as folder:
        number = write_completed(completed, folder, suffix)
    say(f"Wrote {number} completed tables and cells.csv to {out}. {say.seconds}")


@main.command("ampute")
@click.argument("file", type=PATH)
@click.option("--out", type=PATH, required=True, help="CSV or Parquet file to write.")
@click.option("--mechanism", type=click.Choice(MECHANISMS), default="mcar", show_default=True)
@click.option("--fraction", default=0.1, show_default=True, help="Probability that a cell is hidden.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Another seed hides other cells.")
@force_option
def ampute_command(file: Path, out: Path, mechanism: str, fraction: float, seed: int, force: bool) -> None:
    """Hide cells of the CSV or Parquet file FILE, to see how well they are recovered."""
    prepare_file(out, force)
    check_format(out)
    full = read_frame(file)
    holes = ampute(full, mechanism=mechanism, fraction=fraction, seed=seed)
    write_frame(holes, out)
    hidden = int(holes.isna().to_numpy().sum() - full.isna().to_numpy().sum())
    click.echo(f"Wrote {out}: {hidden:,} of {full.size:,} cells hidden.")


@main.command("demo")
@click.option("--out", type=PATH, default="out", show_default=True, help="Folder to write.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Another seed draws other rows.")
@force_option
def demo_command(out: Path, seed: int, force: bool) -> None:
    """Fit and complete a survey whose hidden cells are known, and compare.

    263 rows of a job-satisfaction survey are drawn, 10 % of the cells hidden, and a multivariate
    normal fitted.  The folder gets posterior.nc, report.html, 20 completed tables and more.
    """
    from pyrolatent.demo import demo

    say = Printer()
    found = demo(out, seed=seed, force=force)
    say(fit_in_words(found.fit))
    say(
        f"Mean absolute residual of the correlations, fitted minus true: {found.residual:.4f}; "
        f"of the plain pairwise ones: {found.plain_residual:.4f}."
    )
    say(f"90 % intervals hold {100 * found.coverage:.1f} % of the {found.num_hidden} hidden values.")
    say(f"Wrote {out}: open {out / 'report.html'} in a browser. {say.seconds}")


@final
class Printer:
    """Prints lines, unless told to be quiet, and knows the time since it was made."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.started = time.perf_counter()

    def __call__(self, text: str) -> None:
        if not self.quiet:
            click.echo(text)

    @property
    def seconds(self) -> str:
        return f"({time.perf_counter() - self.started:.1f} s)"


def check_kept(checkpoint: Path | None, every: int | None, resume: bool, out: Path) -> None:
    """Refuse options of a checkpoint without its folder, and one where the fit is to be written."""
    if checkpoint is None and (resume or every is not None):
        name = "--resume" if resume else "--checkpoint-every"
        raise ArgumentError(f"{name} needs a checkpoint", remedy="name its folder with --checkpoint")
    if checkpoint is not None and checkpoint.resolve().is_relative_to(out.resolve()):
        what, remedy = "the checkpoint would be in the way of the fit", "name another folder for --checkpoint"
        raise ArgumentError(what, where=str(out), remedy=remedy)


def without(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return the table without the columns of these names."""
    unknown = [name for name in names if name not in frame.columns]
    if unknown:
        why = f"the table has {listing(frame.columns.tolist())}"
        raise ArgumentError(f"no columns {listing(unknown)} to drop", why=why, remedy="correct --drop")
    return frame.drop(columns=list(names))


def columns_in_words(frame: pd.DataFrame, schema: Schema) -> str:
    """Return the table's size and the kind of each column."""
    missing = frame.isna().mean()
    width = max(len(str(column.name)) for column in schema.columns)
    lines = [
        f"  {column.name!s:<{width}}  {column.kind:<11}  {100 * missing[column.name]:5.1f} % missing"
        for column in schema.columns
    ]
    more = [f"  and {len(lines) - MOST_COLUMNS} more"] if len(lines) > MOST_COLUMNS else []
    return "\n".join([f"{len(frame):,} rows, {len(lines)} columns:", *lines[:MOST_COLUMNS], *more])


def fit_in_words(result: Fit) -> str:
    """Return how long the fit took and how well the chains agree."""
    sites = result.diagnostics
    _, rhat = extreme(sites, "rhat", largest=True)
    _, ess = extreme(sites, "ess", largest=False)
    chains, draws = next(iter(result.samples.values())).shape[:2]
    seconds = sum(result.info["seconds"].values())
    compiled = "compiled" if result.info["compiled"] else "not compiled"
    return (
        f"{chains} chains of {draws} draws in {seconds:.1f} s ({compiled}, seed {result.seed}). "
        f"Largest nested R-hat {rhat:.3f}, smallest effective sample size {ess:,.0f}."
    )
