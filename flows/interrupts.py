"""What a signal that asks the command to end does."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType

SAME_INTERRUPTION_S = 1.0


class Interrupted:
    """Raises `KeyboardInterrupt` for a signal, and once where several come together.

    A process that is killed with its group, or by `timeout`, gets the same signal twice; and the
    second must not break off what the first began to put in order.
    """

    def __init__(self) -> None:
        self._at = -math.inf

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        now = time.monotonic()
        is_same, self._at = now - self._at < SAME_INTERRUPTION_S, now
        if not is_same:
            raise KeyboardInterrupt


def listen() -> None:
    """Let this process be interrupted, by Ctrl-C and by being asked to end."""
    interrupted = Interrupted()
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
