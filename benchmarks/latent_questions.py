"""The questions of the page of benchmarks about latents: what they stand for, add, and cost."""

from collections.abc import Iterable

from benchmarks.rows import Found, Row, Table, Verdict, at_most, figure, last_run, newest, spread

FIXING_BAR, GAP_BAR = 0.811, 0.038
STAGES_BAR = 0.5
PRODUCTS_BAR = 1.25
SEEDS = range(5)
# Burda, Grosse and Salakhutdinov (2016), table 1: one stochastic layer, 60,000 binarised training images.
FULL_MNIST = {"VAE": -86.76, "IWAE, 50 particles": -84.78}


def scored(rows: Iterable[Row], *keys: str) -> list[Row]:
    """Return the newest rows of the seeds that are scored."""
    return newest((row for row in rows if row["seed"] in SEEDS), *keys, "seed")


def mean(rows: list[Row], key: str) -> float:
    """Return the mean over seeds, NaN without rows."""
    return sum(row[key] for row in rows) / len(rows) if rows else float("nan")


def by_model(rows: list[Row], case: str) -> dict[str, list[Row]]:
    """Return the rows of each model of a case."""
    mine = [row for row in scored(rows, "case", "model") if row["case"] == case]
    names = dict.fromkeys(row["model"] for row in mine)
    return {name: [row for row in mine if row["model"] == name] for name in names}


def score_table(models: dict[str, list[Row]], score: str, title: str) -> Table:
    """Return the mean of a score and of the MIG for each model, with what every seed gave."""
    columns = ("model", title, "every seed", "MIG", "every seed", "KL of latents, seed 0 (nats)")
    cells = [
        [
            name,
            figure(mean(rows, score)),
            ", ".join(figure(row[score]) for row in rows),
            f"{mean(rows, 'mig'):.3f}",
            ", ".join(f"{row['mig']:.3f}" for row in rows),
            ", ".join(f"{nats:.1f}" for nats in rows[0]["kl"]),
        ]
        for name, rows in models.items()
    ]
    return Table(columns, cells)


def factors(rows: list[Row]) -> Found:
    """Read whether the beta-TCVAE is ahead of the VAE on known factors."""
    models = by_model(rows, "factors")
    if len(models) < 2:
        return Found([], [], [])
    plain, apart = (models[name] for name in sorted(models, key=lambda name: name != "VAE"))
    verdicts = [
        Verdict(
            f"beta-TCVAE, {what}",
            f"> {mean(plain, key):.3f}, the VAE's",
            f"{mean(apart, key):.3f}",
            "yes" if mean(apart, key) > mean(plain, key) else "**no**",
        )
        for key, what in (("factor_vae_score", "FactorVAE score"), ("mig", "MIG"))
    ]
    return Found([score_table(models, "factor_vae_score", "FactorVAE score")], verdicts, plain + apart)


def credit(rows: list[Row]) -> Found:
    """Read the scores of the thesis' architecture on the clients."""
    models = by_model(rows, "credit")
    if not models:
        return Found([], [], [])
    ours = models["beta 2"]
    bars = (("latent_fixing_score", "latent-fixing score", FIXING_BAR), ("mig", "MIG", GAP_BAR))
    verdicts = [
        Verdict(
            f"beta 2, {what}",
            f">= {bar:g}",
            f"{mean(ours, key):.3f}",
            "yes" if mean(ours, key) >= bar else "**no**",
        )
        for key, what, bar in bars
    ]
    table = score_table(models, "latent_fixing_score", "latent-fixing score")
    return Found([table], verdicts, [row for group in models.values() for row in group])


def stages(rows: list[Row]) -> Found:
    """Read the errors of both stages."""
    mine = scored(rows, "case")
    columns = (
        "case", "seed", "error of stage one", "of both", "ratio", "held out", "KL of c (nats)",
        "KL of z (nats)", "active latents", "c unchanged", "MIG before and after",
    )  # fmt: skip
    cells = [
        [
            row["case"], str(row["seed"]), *(figure(e) for e in row["held_out_errors"]),
            figure(row["train_ratio"]), figure(row["held_out_ratio"]), f"{sum(row['kl_c']):.1f}",
            f"{sum(row['kl_z']):.1f}", f"{sum(row['active'])} of {len(row['active'])}",
            "yes" if row["same_c"] else "no",
            f"{row['mig_first']:.3f}, {row['mig_c']:.3f}" if "mig_c" in row else "-",
        ]
        for row in mine
    ]  # fmt: skip
    cases = {
        name: [row for row in mine if row["case"] == name] for name in dict.fromkeys(r["case"] for r in mine)
    }
    verdicts = [
        at_most(f"{name}, {what}", STAGES_BAR, {"": mean(group, key)})
        for name, group in cases.items()
        for key, what in (("train_ratio", "rows that were learnt from"), ("held_out_ratio", "held out"))
    ]
    return Found([Table(columns, cells)], verdicts, mine) if mine else Found([], [], [])


def images(rows: list[Row]) -> Found:
    """Read log p(x) of held-out images beside published figures."""
    mine = scored(rows, "case")
    if not mine:
        return Found([], [], [])
    columns = ("model, data", "log p(x) (nats)", "every seed")
    cells = [
        [
            "ours, 2,000 training images, 500 held out",
            f"{mean(mine, 'held_out'):.1f}",
            ", ".join(f"{row['held_out']:.1f} (standard error {row['standard_error']:.1f})" for row in mine),
        ],
        ["the same, images that were learnt from", f"{mean(mine, 'train'):.1f}", "-"],
        *(
            [f"{name}, 60,000 training images, all 10,000 of the test set (published)", f"{nats:.2f}", "-"]
            for name, nats in FULL_MNIST.items()
        ),
    ]
    return Found([Table(columns, cells)], [], mine)


def deep(rows: list[Row]) -> Found:
    """Read milliseconds of a step in those of its matrix products."""
    mine = last_run(rows, "case", "deep") if rows else []
    if not mine:
        return Found([], [], [])
    cost, every = mine[-1]["milliseconds"], mine[-1]["all_milliseconds"]
    columns = ("contender", "milliseconds a step", "spread", "of the products", "ours / this")
    cells = [
        [
            name,
            figure(value),
            spread(every[name]),
            figure(value / cost["products"]),
            figure(cost["ours"] / value),
        ]
        for name, value in cost.items()
    ]
    ratios = {"": cost["ours"] / cost["products"], "compiled": cost["ours compiled"] / cost["products"]}
    return Found([Table(columns, cells)], [at_most("products", PRODUCTS_BAR, ratios)], mine)
