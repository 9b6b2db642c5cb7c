"""Ctrl-C between two steps: what a step changes is never left half changed."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, final


@final
class Interrupt:
    """Whether the user has asked to stop; who asks twice is heard at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def interruptible(wanted: bool) -> Iterator[Interrupt]:
    """Note Ctrl-C within the block, if `wanted`, instead of raising `KeyboardInterrupt` somewhere in it.

    Only the main thread is ever interrupted, and a handler that the user has set stays in its place.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not (wanted and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
