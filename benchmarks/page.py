"""docs/benchmarks.md, rendered from the rows that the benchmarks left: no figure on it is typed.

Run as `python -m benchmarks.page`.  Each section answers one of `benchmarks.questions`: its bar, what
was measured, whether that meets the bar, and the command that measures it.  The newest rows of a case
count; a section without rows says which command makes them.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.questions import QUESTIONS, Question, chains
from benchmarks.rows import UNKNOWN, Verdict, around, rows_of

TEMPLATES = Path(__file__).parent / "templates"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def rendered() -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [section(question) for question in QUESTIONS]
    return environment.get_template("benchmarks.md").render(sections=sections).rstrip("\n") + "\n"


def section(question: Question) -> dict[str, Any]:
    """Return a section as the template takes it."""
    found = question.read(rows_of(question.results))
    verdicts = [completed(verdict) for verdict in found.verdicts]
    counts = Counter(verdict.met for verdict in verdicts)
    return {
        "question": question,
        "anchor": anchor(question.title),
        "tables": found.tables,
        "verdicts": verdicts,
        "counts": [counts[met] or "" for met in ("yes", "when compiled", "**no**", UNKNOWN)],
        "around": around(found.rows) if found.rows else "",
    }


def completed(verdict: Verdict) -> Verdict:
    """Return the verdict, open where one of its sides was not measured."""
    if verdict.measured != UNKNOWN:
        return verdict
    return verdict._replace(measured="not measured", met=UNKNOWN)


def anchor(title: str) -> str:
    """Return the anchor that a heading gets where Markdown is shown."""
    kept = (letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return "".join(kept).replace(" ", "-")


def draw() -> None:
    """Draw the figures of the page."""
    for question in QUESTIONS:
        rows = question.read(rows_of(question.results)).rows
        if question.read is chains and rows:
            from benchmarks.scaling import plot

            plot(rows, PAGE.parent / question.image)


def main() -> None:
    PAGE.write_text(rendered(), encoding="utf-8")
    draw()
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
