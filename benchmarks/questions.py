"""The questions of the page of benchmarks: the bar of each, its command, and how its rows are read.

A bar holds ours against peers in their best mode, in rows of one run.  What is `ours` decides by
itself whether to compile; `ours compiled` always does.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

from benchmarks import latent_questions, trial_questions
from benchmarks.rows import (
    UNKNOWN,
    Found,
    Row,
    Table,
    Verdict,
    at_least,
    at_most,
    figure,
    figures,
    last_run,
    met,
    newest,
    ratio,
    spread,
)

OURS = ("ours", "ours compiled")
NOTHING = Found([], [], [])

MVN_BARS = {"NumPyro": 8, "nutpie": 5, "BlackJAX": 2, "Pyro": 80}
HOLES_BARS = {"nutpie": 1.5, "NumPyro": 4, "PyMC": 4}
OTHER_BARS = {"NumPyro": 2, "Pyro": 30}
USER_BAR = 0.7
COLD_BAR, COLD_SECONDS = 0.4, 5
ESSAY_BARS = {32: 0.35, 256: 0.6, 2_048: 0.8}
PYRO_STEP_BARS = {32: 0.1}
AUTOGUIDE_BAR = 0.15
ROWS_BAR = 1.2
CHAINS_BAR = (4, 64, 1_024)
AUTO_BAR = 1.1
CORRELATION_BARS = {"complete": (0.012, 0.045), "holes": (0.015, 0.05)}  # mean, largest


class Question(NamedTuple):
    """A section of the page."""

    title: str
    bar: str
    command: str
    results: str
    read: Callable[[list[Row]], Found]
    image: str = ""


# Samplers


SAMPLER_COLUMNS = (
    "contender", "chains x draws", "ESS", "R-hat", "CPU-s", "seconds", "ESS / CPU-s", "spread", "x ours",
    "x ours compiled", "compile cold, warm (s)", "peak MiB", "MCSEs",
)  # fmt: skip


def rates(rows: list[Row]) -> dict[str, float]:
    return {row["contender"]: row["ess_per_cpu_second"] for row in rows}


def best(found: Mapping[str, float], library: str) -> float | None:
    """Return the rate of a library's best mode."""
    return max((rate for name, rate in found.items() if name.split()[0] == library), default=None)


def sampler_cells(row: Row, found: Mapping[str, float]) -> list[str]:
    own = row["ess_per_cpu_second"]
    return [
        row["contender"],
        " x ".join(f"{size:,}" for size in row["draws"]),
        figure(row["ess"]),
        UNKNOWN if row["rhat"] is None else f"{row['rhat']:.3f}",
        *figures(row, "cpu_seconds", "seconds", "ess_per_cpu_second"),
        spread(row["rounds"]),
        *(figure(ratio(found.get(name), own)) for name in OURS),
        ", ".join(figures(row["compile_seconds"], "cold", "warm")),
        *figures(row, "peak_mib", "mcse"),
    ]


def samplers(cases: Collection[str], bars: Mapping[str, float]) -> Callable[[list[Row]], Found]:
    """Return what reads cases of the samplers: our rate in those of libraries, each in its best mode."""

    def read(rows: list[Row]) -> Found:
        found = Found([], [], [])
        for case in cases if any(row["case"] in cases for row in rows) else ():
            mine = last_run(rows, "case", case)
            own = rates(mine)
            if mine:
                rounds = max(len(row["rounds"]) for row in mine)
                title = f"{case}; rounds, each with a seed of its own: {rounds}"
                found.tables.append(Table(SAMPLER_COLUMNS, [sampler_cells(row, own) for row in mine], title))
                found.rows.extend(mine)
            for library, limit in bars.items():
                ratios = {name: ratio(own.get(name), best(own, library)) for name in OURS}
                found.verdicts.append(at_least(f"{case}, {library}", limit, ratios))
        return found

    return read


def users(rows: list[Row]) -> Found:
    """Read the rate of a user's model in that of ours."""
    mine = last_run(rows, "case", "mvn")
    own = rates(mine)
    pairs = {"user's model": "ours", "user's model compiled": "ours compiled"}
    shares = {user: ratio(own.get(user), own.get(name)) for user, name in pairs.items()}
    columns = ("contender", "ESS / CPU-s", "of ours")
    cells = [[user, figure(own[user]), figure(share)] for user, share in shares.items() if user in own]
    verdicts = [at_least(user, USER_BAR, {"": share}) for user, share in shares.items()]
    return Found([Table(columns, cells)], verdicts, mine) if cells else NOTHING


def from_cold(rows: list[Row]) -> Found:
    """Read the seconds from the call to enough draws, caches emptied."""
    timed = last_run([row for row in rows if "cold_wall" in row], "case", "mvn")
    if not timed:
        return NOTHING
    seconds = {row["contender"]: row["cold_wall"] for row in timed if row["cold_enough"]}
    peers = {name: s for name, s in seconds.items() if name.split()[0] not in ("ours", "user's")}
    fastest = min(peers, key=peers.__getitem__, default="")
    shares = {name: ratio(seconds.get(name), peers.get(fastest)) for name in OURS}
    fine = [name for name in OURS if shares[name] <= COLD_BAR or seconds.get(name, 1e9) <= COLD_SECONDS]
    measured = ", ".join(
        f"{figure(seconds[name])} s = {figure(shares[name])}x ({name})" for name in OURS if name in seconds
    )
    what = f"fastest peer: {fastest}, {figure(peers.get(fastest))} s" if peers else "no peer"
    bar = f"<= {COLD_BAR}x or <= {COLD_SECONDS} s"
    columns = ("contender", "draws a chain", "seconds, caches empty", "seconds, caches filled")
    cells = [
        [row["contender"], f"{row['cold_draws']:,}", *(wall(row, cache) for cache in ("cold", "warm"))]
        for row in timed
    ]
    return Found([Table(columns, cells)], [Verdict(what, bar, measured or UNKNOWN, met(fine, OURS))], timed)


def wall(row: Row, cache: str) -> str:
    return figure(row[f"{cache}_wall"]) + ("" if row[f"{cache}_enough"] else " (too weak)")


# Variational inference


def vae(rows: list[Row]) -> Found:
    """Read microseconds of a training step at each batch size."""
    rows = sorted(newest(rows, "batch_size"), key=lambda row: row["batch_size"])
    columns = ("batch", "contender", "microseconds a step", "spread", "ours / this")
    cells = [
        [f"{row['batch_size']:,}", name, figure(cost), spread(row["all_microseconds"][name]),
         figure(row["microseconds"]["ours"] / cost)]
        for row in rows for name, cost in row["microseconds"].items()
    ]  # fmt: skip
    costs = {row["batch_size"]: row["microseconds"] for row in rows}
    bars = [(size, "essay", limit) for size, limit in ESSAY_BARS.items()]
    bars += [(size, "essay compiled", 1.0) for size in ESSAY_BARS]
    bars += [(size, "pyro", limit) for size, limit in PYRO_STEP_BARS.items()]
    verdicts = [
        at_most(f"batch {size:,}, {peer}", limit, {"": ratio(cost.get("ours"), cost.get(peer))})
        for size, peer, limit in bars
        for cost in [costs.get(size, {})]
    ]
    return Found([Table(columns, cells)], verdicts, rows) if rows else NOTHING


AUTOGUIDE_COLUMNS = (
    "contender", "ELBO at the end", "steps", "microseconds a step", "seconds", "spread", "CPU-s", "setup (s)",
    "first setup (s)", "compiled",
)  # fmt: skip


def autoguide(rows: list[Row]) -> Found:
    """Read seconds until a common ELBO is reached."""
    found = Found([], [], [])
    for guide in dict.fromkeys(row["guide"] for row in rows):
        mine = last_run(rows, "guide", guide)
        one = mine[0]
        title = (f"{guide}; {one['num_steps']:,} steps, learning rate {one['lr']}, seeds {one['seeds']}, "
                 f"to an ELBO of {one['level']:,.2f}")  # fmt: skip
        found.tables.append(Table(AUTOGUIDE_COLUMNS, [autoguide_cells(row) for row in mine], title))
        found.rows.extend(mine)
        for unit, name_of_unit in (("seconds", "seconds"), ("cpu_seconds", "CPU-seconds")):
            cost = {row["contender"]: row[unit] for row in mine}
            peer = min((value for name, value in cost.items() if name.startswith("Pyro")), default=None)
            ratios = {name: ratio(cost.get(name), peer) for name in OURS}
            found.verdicts.append(at_most(f"{guide}, {name_of_unit}", AUTOGUIDE_BAR, ratios))
    return found


def autoguide_cells(row: Row) -> list[str]:
    return [
        row["contender"],
        f"{row['elbo']:,.2f}",
        f"{row['steps']:,.0f}",
        *figures(row, "microseconds", "seconds"),
        spread(row["rounds"]),
        *figures(row, "cpu_seconds", "setup_seconds", "first_setup_seconds"),
        "yes" if row["compiled"] else "no",
    ]


# Scaling


def gradients(rows: list[Row]) -> Found:
    """Read what a gradient costs with more rows; tables of equally many patterns must cost the same."""
    rows = newest(rows, "who", "table", "rows")
    columns = (
        "model", "table", "rows", "patterns", "microseconds at 1 point", "at 64", "setup (s)", "setup (MiB)",
    )  # fmt: skip
    cells = [
        [row["who"], row["table"], f"{row['rows']:,}", f"{row['patterns']:,}",
         *(figure(row["microseconds"].get(count)) for count in ("1", "64")),
         *figures(row, "setup_seconds", "setup_mib")]
        for row in rows
    ]  # fmt: skip
    verdicts = []
    for kind in dict.fromkeys((row["who"], row["patterns"]) for row in rows):
        same = [row for row in rows if (row["who"], row["patterns"]) == kind]
        few, *_, many = sorted([same[0], *same], key=lambda row: row["rows"])
        for count, cost in many["microseconds"].items() if many["rows"] > few["rows"] else ():
            what = f"{kind[0]}, {many['table']}, {many['rows']:,} rows : {few['rows']:,}, at {count}"
            verdicts.append(at_most(what, ROWS_BAR, {"": ratio(cost, few["microseconds"].get(count))}))
    return Found([Table(columns, cells)], verdicts, rows) if rows else NOTHING


def chains(rows: list[Row]) -> Found:
    """Read what a leapfrog step costs a chain; the cost must fall with their number."""
    rows = newest(rows, "model", "compiled")
    numbers = sorted({int(number) for row in rows for number in row["microseconds"]})
    columns = ("microseconds a chain and step", "dimensions", *(f"{number:,} chains" for number in numbers))
    cells, verdicts = [], []
    for row in rows:
        name, cost = row["model"] + (", compiled" if row["compiled"] else ""), row["microseconds"]
        cells.append([name, f"{row['dim']:,}", *(figure(cost.get(str(number))) for number in numbers)])
        judging = [cost[str(number)] for number in CHAINS_BAR if str(number) in cost]
        falls = len(judging) == len(CHAINS_BAR) and all(more < few for few, more in pairwise(judging))
        measured = ", ".join(map(figure, judging)) + " us"
        verdicts.append(Verdict(name, "falling", measured, "yes" if falls else "**no**"))
    return Found([Table(columns, cells)], verdicts, rows) if rows else NOTHING


MEMORY_FIGURES = ("peak_mib", "kept_mib", "rest_mib", "seconds")


def memory(rows: list[Row]) -> Found:
    """Read peak memory with the default draws and with ten times as many."""
    rows = newest(rows, "model", "draws")
    columns = ("model", "draws", "peak MiB", "kept draws (MiB)", "peak without them (MiB)", "seconds")
    cells = [[row["model"], f"{row['draws']} x the default", *figures(row, *MEMORY_FIGURES)] for row in rows]
    return Found([Table(columns, cells)], [], rows) if rows else NOTHING


def metrics(rows: list[Row]) -> Found:
    """Read where a dense metric pays."""
    rows = newest(rows, "target", "dim", "metric")
    rate = {(row["target"], row["dim"], row["metric"]): row["ess_per_cpu_second"] for row in rows}
    columns = ("target", "dimensions", "ESS / CPU-s, dense", "diagonal", "dense / diagonal")
    cells = []
    for target, dim in dict.fromkeys((row["target"], row["dim"]) for row in rows):
        dense, diagonal = (rate.get((target, dim, metric)) for metric in ("dense", "diagonal"))
        cells.append([target, f"{dim:,}", figure(dense), figure(diagonal), figure(ratio(dense, diagonal))])
    return Found([Table(columns, cells)], [], rows) if rows else NOTHING


# Autoencoders


RESIDUALS = ("mean", "max", "plain_mean", "plain_max", "filled_mean", "filled_max")


def correlations(rows: list[Row]) -> Found:
    """Read residuals of the correlations of generated rows, and their means over seeds."""
    rows = newest(rows, "case", "seed")
    columns = (
        "table", "seed", "mean", "largest", "of the rows: mean", "largest", "holes filled: mean", "largest",
        "seconds",
    )  # fmt: skip
    cells, verdicts = [], []
    for case, bars in CORRELATION_BARS.items():
        mine = [row for row in rows if row["case"] == case]
        for row in mine:
            residuals = [f"{row[name]:.4f}" for name in RESIDUALS]
            cells.append([case, str(row["seed"]), *residuals, figure(row["seconds"])])
        for name, bar in zip(("mean", "max"), bars, strict=True) if mine else ():
            average = sum(row[name] for row in mine) / len(mine)
            kept = "yes" if average <= bar else "**no**"
            verdicts.append(Verdict(f"{case}, {name} residual", f"<= {bar}", f"{average:.4f}", kept))
    return Found([Table(columns, cells)], verdicts, rows) if rows else NOTHING


# Compiling


RUNS = (("never", "any"), ("always", "cold"), ("always", "warm"), ("auto", "cold"), ("auto", "warm"))

Runs = Mapping[tuple[str, str, str], Row]


def compiling(rows: list[Row]) -> Found:
    """Read seconds of fits compiled, not compiled and by themselves, over both states of the caches."""
    rows = newest(rows, "case", "mode", "cache")
    runs = {(row["case"], row["mode"], row["cache"]): row for row in rows}
    cases = list(dict.fromkeys(row["case"] for row in rows))
    columns = ("seconds of", *(f"{mode}, {cache}".removesuffix(", any") for mode, cache in RUNS), "compiled")
    cells = [
        [case, *(figure(runs.get((case, *run), {}).get("seconds")) for run in RUNS), chosen(runs, case)]
        for case in cases
    ]
    whole = [case for case in cases if all((case, *run) in runs for run in RUNS)]
    units = {"seconds": "seconds", "cpu_seconds": "CPU-seconds"} if whole else {}
    verdicts = [
        at_most(f"{len(whole)} fits, {name}", AUTO_BAR, {"": total(runs, whole, unit)})
        for unit, name in units.items()
    ]
    return Found([Table(columns, cells)], verdicts, rows) if rows else NOTHING


def chosen(runs: Runs, case: str) -> str:
    """Return whether a fit that decided by itself was compiled."""
    row = runs.get((case, "auto", "warm"))
    return UNKNOWN if row is None else "yes" if row["compiled"] else "no"


def total(runs: Runs, cases: list[str], unit: str) -> float:
    """Return the sum of `auto` over the better of the others; what never compiles counts for both caches."""
    sums = {"never": 0.0, "always": 0.0, "auto": 0.0}
    for case in cases:
        for mode, cache in RUNS:
            sums[mode] += runs[case, mode, cache][unit] * (2 if mode == "never" else 1)
    return sums["auto"] / min(sums["never"], sums["always"])


# All


def bar_of(bars: Mapping[str, float]) -> str:
    return "ESS per CPU-second at least " + ", ".join(f"{limit:g}x {name}'s" for name, limit in bars.items())


QUESTIONS = (
    Question(
        "Multivariate normal, 263 x 12, complete", bar_of(MVN_BARS),
        "python -m benchmarks.samplers mvn", "samplers", samplers(["mvn"], MVN_BARS),
    ),
    Question(
        "The same written by a user in plain Pyro", f"ESS per CPU-second at least {USER_BAR}x our own's",
        "python -m benchmarks.samplers mvn", "samplers", users,
    ),
    Question(
        "The same, from the call to enough draws",
        "wall time to nested R-hat < 1.01 and an ESS of 1,000, caches emptied, at most "
        f"{COLD_BAR}x the fastest peer's or {COLD_SECONDS} s",
        "python -m benchmarks.samplers mvn", "samplers", from_cold,
    ),
    Question(
        "Multivariate normal, 10 % missing", bar_of(HOLES_BARS),
        'python -m benchmarks.samplers "mvn missing"', "samplers", samplers(["mvn missing"], HOLES_BARS),
    ),
    Question(
        "Hierarchies and regressions", bar_of(OTHER_BARS),
        'python -m benchmarks.samplers "eight schools" radon logistic', "samplers",
        samplers(["eight schools", "radon", "logistic"], OTHER_BARS),
    ),
    Question(
        "A training step of a VAE",
        "at most " + ", ".join(f"{limit}x at {size:,}" for size, limit in ESSAY_BARS.items())
        + " of the essay's loop, never slower than that loop compiled, at most "
        + ", ".join(f"{limit}x Pyro's SVI at {size:,}" for size, limit in PYRO_STEP_BARS.items()),
        "python -m benchmarks.svi", "svi", vae,
    ),
    Question(
        "Correlations that a VAE recovers",
        "mean and largest residual of 66, averages over seeds: "
        + "; ".join(f"{case} at most {mean} and {most}" for case, (mean, most) in CORRELATION_BARS.items()),
        "python -m benchmarks.correlations", "correlations", correlations,
    ),
    Question(
        "Latents and known factors", "the beta-TCVAE ahead of the VAE on both scores, means over seeds",
        "python -m benchmarks.disentanglement factors", "disentanglement", latent_questions.factors,
    ),
    Question(
        "Latents of credit-card clients",
        f"5 latents, beta 2, means over seeds: latent-fixing score at least {latent_questions.FIXING_BAR}, "
        f"MIG of means at least {latent_questions.GAP_BAR}, both published of a thesis",
        "python -m benchmarks.disentanglement credit", "disentanglement", latent_questions.credit,
    ),
    Question(
        "What a second stage adds",
        f"mean squared error from sampled latents at most {latent_questions.STAGES_BAR}x that of stage one, "
        "means over seeds; metrics of c as before",
        "python -m benchmarks.stages", "stages", latent_questions.stages,
    ),
    Question(
        "Held-out digits", "none: the data are a thirtieth of those of the published figures",
        "python -m benchmarks.images", "images", latent_questions.images,
    ),
    Question(
        "A training step of a deep beta-TCVAE",
        f"at most {latent_questions.PRODUCTS_BAR}x the matrix products of the step alone",
        "python -m benchmarks.deep", "deep", latent_questions.deep,
    ),
    Question(
        "SVI with an autoguide on the multivariate normal",
        f"the same ELBO in at most {AUTOGUIDE_BAR}x Pyro's time",
        "python -m benchmarks.autoguide", "autoguide", autoguide,
    ),
    Question(
        "Gradients with many rows",
        f"10,000,000 complete rows at most {ROWS_BAR}x 1,000; "
        "with holes the cost grows with distinct patterns only",
        "python -m benchmarks.scaling gradient", "scaling_gradient", gradients,
    ),
    Question(
        "Many chains",
        "the cost of a chain and step falls: " + ", ".join(f"{n:,}" for n in CHAINS_BAR) + " chains",
        "python -m benchmarks.scaling chains", "scaling_chains", chains, "images/chains.png",
    ),
    Question(
        "Memory", "recorded; flat on the device with ten times the draws",
        "python -m benchmarks.scaling memory", "scaling_memory", memory,
    ),
    Question(
        "EM of a million rows",
        "an iteration at most "
        + ", ".join(f"{limit}x {peer}'s" for peer, limit in trial_questions.EM_BARS.items())
        + "; log-likelihoods equal; bounded memory",
        "python -m benchmarks.em", "em", trial_questions.em,
    ),
    Question(
        "A/B tests",
        "of 10,000 tests without effect 4.4 to 5.6 % are decided, and 89 to 91 % of 90 % intervals hold 0; "
        f"a million rows in {trial_questions.ANALYSIS_BAR:g} s",
        "python -m benchmarks.abtests", "abtests", trial_questions.tests,
    ),
    Question(
        "Compiling by itself", f'`compile="auto"` takes at most {AUTO_BAR}x the better of always and never',
        "python -m benchmarks.compiling", "compiling", compiling,
    ),
    Question(
        "Dense or diagonal metric", "none; it decides up to which dimension `HMC` has a dense one",
        "python -m benchmarks.metrics", "metrics", metrics,
    ),
)  # fmt: skip
