"""Results of benchmarks as JSON lines, each with the versions and the machine it was measured on."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "pyro-ppl", "pyrolatent", "numpy")


def environment() -> dict[str, Any]:
    """Return date, versions, processor, cores and threads of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def append(benchmark: str, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Append one line for each row to `results/<benchmark>.jsonl` and return that path."""
    RESULTS.mkdir(exist_ok=True)
    path, around = RESULTS / f"{benchmark}.jsonl", environment()
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({**row, **around}) + "\n" for row in rows)
    return path


def processor() -> str:
    """Return the processor's name, or its architecture where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
