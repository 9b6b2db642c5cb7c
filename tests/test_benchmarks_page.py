"""The page of benchmarks says what the rows say: nothing else, nothing more."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import page, record
from benchmarks.questions import QUESTIONS
from benchmarks.rows import Verdict, at_least, at_most, figure

RUN = {
    "date": "2026-01-02T03:04:05+00:00",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "processor": "Abacus",
    "cores": 2,
    "threads": 1,
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    return tmp_path


def write(results: Path, name: str, *rows) -> None:
    (results / f"{name}.jsonl").write_text("".join(json.dumps(RUN | row) + "\n" for row in rows))


def sampler(contender, rate, case="mvn", **more):
    return {
        "case": case, "contender": contender, "draws": [64, 150], "ess": 5_000.0, "rhat": None, "mcse": 1.5,
        "cpu_seconds": 2.0, "seconds": 1.0, "ess_per_cpu_second": rate, "rounds": [rate, 2 * rate],
        "compile_seconds": {"cold": 4.0, "warm": 0.5}, "peak_mib": 300.0,
        "peer_versions": {"python": "3.11.7"}, **more,
    }  # fmt: skip


def verdicts(title: str) -> dict[str, tuple[str, str]]:
    """Return what was measured and whether it meets the bar, by what the bar is about."""
    section = next(page.section(question) for question in QUESTIONS if question.title.startswith(title))
    return {verdict.what: (verdict.measured, verdict.met) for verdict in section["verdicts"]}


def test_the_page_in_the_repository_is_what_its_rows_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.rendered(), "run `python -m benchmarks.page`"


def test_images_of_the_page_are_there():
    for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.rendered()):
        assert (page.PAGE.parent / image).is_file(), image


def test_links_within_the_page_lead_somewhere():
    text = page.rendered()
    headings = {page.anchor(line[3:]) for line in text.splitlines() if line.startswith("## ")}
    links = set(re.findall(r"\(#([^)]*)\)", text))
    assert links == headings
    assert "multivariate-normal-10--missing" in links  # as GitHub drops the sign between two blanks


def test_without_rows_each_section_names_its_command(results):
    text = page.rendered()
    for question in QUESTIONS:
        assert f"Measured by `{question.command}`" in text
    assert text.count("**Not measured.**") == len(QUESTIONS)


def test_a_bar_is_met_missed_met_when_compiled_or_open():
    ratios = {"ours": 3.0, "ours compiled": 9.0}
    assert at_least("a", 3, ratios) == Verdict("a", ">= 3x", "3.00x (ours), 9.00x (ours compiled)", "yes")
    assert at_least("a", 3.01, ratios).met == "when compiled"
    assert at_least("a", 9.01, ratios).met == "**no**"
    assert at_most("a", 3, ratios).met == "yes"
    assert at_most("a", 2.99, ratios).met == "**no**"
    assert page.completed(at_least("a", 3, {"": float("nan")})) == Verdict("a", ">= 3x", "not measured", "-")


def test_samplers_are_held_to_the_best_mode_of_each_library(results):
    write(
        results, "samplers", sampler("ours", 1_600.0), sampler("ours compiled", 4_000.0),
        sampler("NumPyro vectorized", 100.0), sampler("NumPyro sequential", 200.0), sampler("nutpie", 400.0),
        sampler("Pyro", 10.0), sampler("Pyro jit", 100.0), sampler("PyMC", 3.0),
    )  # fmt: skip
    assert verdicts("Multivariate normal, 263") == {
        "mvn, NumPyro": ("8.00x (ours), 20.0x (ours compiled)", "yes"),
        "mvn, nutpie": ("4.00x (ours), 10.0x (ours compiled)", "when compiled"),
        "mvn, BlackJAX": ("not measured", "-"),
        "mvn, Pyro": ("16.0x (ours), 40.0x (ours compiled)", "**no**"),
    }


def test_only_the_last_run_of_a_case_counts(results):
    old = RUN | sampler("nutpie", 1.0) | {"date": "2025-01-01T00:00:00+00:00"}
    write(results, "samplers", old, sampler("ours", 10.0), sampler("NumPyro sequential", 1.0))
    found = verdicts("Multivariate normal, 263")
    assert found["mvn, nutpie"] == ("not measured", "-")
    assert found["mvn, NumPyro"] == ("10.0x (ours)", "yes")


def test_a_peer_too_weak_does_not_count_from_cold(results):
    def timed(name, wall, enough=True):
        return sampler(
            name, 1.0, cold_wall=wall, cold_enough=enough, warm_wall=1.0, warm_enough=True, cold_draws=75
        )

    rows = [
        timed("ours", 16.0),
        timed("ours compiled", 4.9),
        timed("nutpie", 1.0, False),
        timed("PyMC", 20.0),
    ]
    write(results, "samplers", *rows)
    assert verdicts("The same, from the call") == {
        "fastest peer: PyMC, 20.0 s": (
            "16.0 s = 0.800x (ours), 4.90 s = 0.245x (ours compiled)",
            "when compiled",
        )
    }


def test_rows_of_equally_many_patterns_are_compared(results):
    def gradient(table, rows, patterns, cost):
        return {"who": "ours", "table": table, "rows": rows, "patterns": patterns, "setup_seconds": 1.0,
                "setup_mib": 1.0, "microseconds": {"1": cost}}  # fmt: skip

    write(
        results, "scaling_gradient",
        gradient("complete", 10, 1, 100.0), gradient("complete", 1_000, 1, 119.0),
        gradient("holes", 10, 5, 10.0), gradient("holes", 1_000, 400, 1_000.0),
        gradient("masks", 10, 7, 10.0), gradient("masks", 1_000, 7, 12.1),
    )  # fmt: skip
    assert verdicts("Gradients") == {
        "ours, complete, 1,000 rows : 10, at 1": ("1.19x", "yes"),
        "ours, masks, 1,000 rows : 10, at 1": ("1.21x", "**no**"),
    }


def test_what_never_compiles_counts_for_both_caches(results):
    def one(mode, cache, seconds):
        return {"case": "a long", "mode": mode, "cache": cache, "seconds": seconds, "cpu_seconds": seconds,
                "compiled": mode != "never"}  # fmt: skip

    rows = [one("never", "any", 10.0), one("always", "cold", 30.0), one("always", "warm", 1.0),
            one("auto", "cold", 15.0)]  # fmt: skip
    write(results, "compiling", *rows)
    assert verdicts("Compiling") == {}
    write(results, "compiling", *rows, one("auto", "warm", 7.0))
    assert verdicts("Compiling")["1 fits, seconds"] == ("1.10x", "yes")  # 22 of 20, the better of 20 and 31


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (12.34, "12.3"), (0.1264, "0.126"), (None, "-")]
)
def test_figures_have_three_digits_or_so(value, text):
    assert figure(value) == text


def score(model, seed, case="factors", **scores):
    return {"case": case, "model": model, "seed": seed, "kl": [1.0, 0.0], "mig": 0.2, **scores}


def test_latents_are_held_to_the_means_of_scored_seeds(results):
    write(
        results, "disentanglement",
        *(score("VAE", seed, factor_vae_score=0.8) for seed in range(5)),
        *(score("beta-TCVAE, beta 4", seed, factor_vae_score=0.8 + seed / 10, mig=0.1) for seed in range(5)),
        score("beta-TCVAE, beta 4", 100, factor_vae_score=0.0),  # settings were chosen on it
    )  # fmt: skip
    assert verdicts("Latents and known factors") == {
        "beta-TCVAE, FactorVAE score": ("1.000", "yes"),
        "beta-TCVAE, MIG": ("0.100", "**no**"),
    }


def test_clients_are_held_to_the_published_figures(results):
    rows = [
        score("beta 2", seed, "credit", latent_fixing_score=0.8 + seed / 100, mig=0.04) for seed in range(5)
    ]
    write(results, "disentanglement", *rows, score("untrained", 0, "credit", latent_fixing_score=0.2))
    assert verdicts("Latents of credit-card") == {
        "beta 2, latent-fixing score": ("0.820", "yes"),
        "beta 2, MIG": ("0.040", "yes"),
    }


def test_a_second_stage_is_held_to_the_error_of_the_first(results):
    row = {
        "case": "digits", "held_out_errors": [0.2, 0.12], "train_ratio": 0.4, "held_out_ratio": 0.6,
        "kl_c": [1.0], "kl_z": [2.0], "active": [True, False], "same_c": True,
    }  # fmt: skip
    write(results, "stages", *({**row, "seed": seed} for seed in range(2)))
    assert verdicts("What a second stage adds") == {
        "digits, rows that were learnt from": ("0.400x", "yes"),
        "digits, held out": ("0.600x", "**no**"),
    }


def test_a_deep_step_is_held_to_its_products(results):
    cost = {"products": 10.0, "thesis": 40.0, "ours": 14.0, "ours compiled": 12.0}
    every = {name: [value, value] for name, value in cost.items()}
    write(results, "deep", {"case": "deep", "milliseconds": cost, "all_milliseconds": every})
    assert verdicts("A training step of a deep") == {
        "products": ("1.40x, 1.20x (compiled)", "when compiled"),
    }
