from __future__ import annotations

import signal
import time

import pytest

from flows.interrupts import SAME_INTERRUPTION_S, Interrupted


def test_signals_that_come_together_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first interrupts, what follows within a second does not, and a later one does again."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interrupted = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        interrupted(signal.SIGINT, None)
    for _ in range(3):
        now += 0.9 * SAME_INTERRUPTION_S
        interrupted(signal.SIGTERM, None)
    now += 1.1 * SAME_INTERRUPTION_S
    with pytest.raises(KeyboardInterrupt):
        interrupted(signal.SIGINT, None)
