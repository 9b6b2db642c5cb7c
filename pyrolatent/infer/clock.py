"""Where the time of a run went."""

import time
from typing import final


@final
class Clock:
    """Seconds of each stage of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count the time since the last lap to `stage`."""
        now = time.perf_counter()
        self.seconds[stage], self.last = now - self.last, now
