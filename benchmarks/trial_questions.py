"""How the rows of EM and of A/B tests are read for the page of benchmarks."""

from benchmarks.rows import Found, Row, Table, Verdict, at_most, figure, newest

EM_BARS = {"scikit-learn": 0.1, "article": 0.2}
EQUAL = 1e-6  # share by which log-likelihoods may differ
ANALYSIS_BAR = 5.0  # seconds
DECIDED, HELD = (0.044, 0.056), (0.89, 0.91)


def em(rows: list[Row]) -> Found:
    """Read an iteration of EM beside peers, memory of many rows, and the peak that starts find."""
    timed = newest([row for row in rows if row["case"] == "iterations"], "components")
    columns = ("components", "contender", "milliseconds an iteration", "ours / this", "log-likelihood apart")
    cells = [
        [str(row["components"]), name, figure(cost), figure(row["milliseconds"]["ours"] / cost),
         f"{row['log_likelihood_apart'][name]:.0e}"]
        for row in timed for name, cost in row["milliseconds"].items()
    ]  # fmt: skip
    verdicts = [
        at_most(f"{row['components']} components, {peer}", limit, {"": row["ratio"][peer]})
        for row in timed
        for peer, limit in EM_BARS.items()
    ]
    tables = [Table(columns, cells)] if timed else []
    others = newest([row for row in rows if row["case"] != "iterations"], "case")
    for row in others:
        if row["case"] == "memory":
            title = f"A whole fit of {row['rows']:,} rows ({row['rows_mib']} MiB)"
            line = [figure(row["before_mib"]), figure(row["peak_mib"]), figure(row["seconds"])]
            tables.append(Table(("MiB before", "peak MiB", "seconds"), [line], title))
        else:
            found = f"{row['found']} of {row['seeds']}"
            met = "yes" if row["found"] == row["seeds"] else "**no**"
            verdicts.append(Verdict("better peak of the article's file, masked", "every seed", found, met))
    return Found(tables, verdicts, [*timed, *others])


def tests(rows: list[Row]) -> Found:
    """Read how often tests without effect are decided, and the seconds of an analysis."""
    null = [row for row in rows if row["case"] == "null"]
    timed = newest([row for row in rows if row["case"] == "rows"], "unlabelled")
    tables, verdicts = [], []
    if null:
        number = sum(row["tests"] for row in null)
        decided, held = (sum(row[key] for row in null) / number for key in ("decided", "held"))
        columns = ("tests without effect", "P(better) above .975 either way", "90 % intervals that hold 0")
        tables.append(Table(columns, [[f"{number:,}", f"{decided:.2%}", f"{held:.2%}"]]))
        for what, value, (low, high) in (("decided", decided, DECIDED), ("hold 0", held, HELD)):
            met = "yes" if low <= value <= high else "**no**"
            verdicts.append(Verdict(what, f"{low:.1%} to {high:.1%}", f"{value:.2%}", met))
    for row in timed:
        seconds = sorted(row["seconds"])[len(row["seconds"]) // 2]
        what = f"analysis of {row['rows']:,} rows, {row['unlabelled']:.0%} without label"
        met = "yes" if seconds <= ANALYSIS_BAR else "**no**"
        verdicts.append(Verdict(what, f"<= {ANALYSIS_BAR:g} s", f"{figure(seconds)} s", met))
    return Found(tables, verdicts, [*null, *timed])
