"""Where the time of a run went."""

import time
from typing import Any, final


@final
class Clock:
    """Seconds of each stage of a run, on the clock and of all processors."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.last = time.perf_counter(), time.process_time()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to `stage`."""
        now = time.perf_counter(), time.process_time()
        self.seconds[stage], self.cpu_seconds[stage] = (b - a for a, b in zip(self.last, now, strict=True))
        self.last = now

    @property
    def info(self) -> dict[str, Any]:
        """Both, for the `info` of a fit."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
