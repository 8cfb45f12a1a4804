"""What answers teach: how fast a host is, how long answers get, how many slots it really has."""

from __future__ import annotations

import time

from tasks.core.dispatch import events
from tasks.core.dispatch.attempts import Live
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.speed import Length
from tasks.core.records import Measures

RELOAD_S = 0.5
"""An answer whose `load_duration` is longer had to wait for a load."""


class Learning:
    """Takes in the measures of every answer of a run."""

    def __init__(self, observe: events.Observer) -> None:
        self._observe = observe
        self._told: dict[str, int] = {}
        """Slots that were told to be used of a host."""
        self.length = Length()
        """Of the answers compared with their prediction: that of the model, on any host."""

    def tokens_per_s(self, host: Host) -> float | None:
        """Predicted tokens that a slot of a host gets through in a second, once it has answered."""
        speed = host.speed.tokens_per_s
        return speed and speed / self.length.ratio

    def take(self, live: Live, predicted_tokens: int, measures: Measures) -> None:
        """Learn from the answer to a request."""
        host = live.host
        host.heard_at = now = time.monotonic()
        before = host.health
        host.health = before.answered()
        if host.health.at_once != before.at_once:  # it is led slowly, and one step further
            host.changed(now)
        host.pace = host.pace.after(predicted_tokens, measures.request_wall_ns / 1e9)
        service_ns = measures.prompt_eval_duration_ns + measures.eval_duration_ns
        service_s = (service_ns or measures.request_wall_ns) / 1e9
        host.speed = host.speed.after(measures.output_tokens, service_s)
        self.length = self.length.after(predicted_tokens, measures.output_tokens)
        if measures.load_duration_ns > RELOAD_S * 1e9:
            host.clock.reloaded(now, live.started_at)
        self._follow_waits(live, max(0, measures.server_wait_ns) / 1e9, service_s)

    def _follow_waits(self, live: Live, wait_s: float, service_s: float) -> None:
        """Use fewer slots while requests wait on the server, and more again when they do not."""
        host = live.host
        if host.waits is None or host.slots is None:
            return
        before = host.waits.limit
        host.waits = host.waits.after(wait_s, service_s, live.in_flight)
        used = host.waits.limit
        if used != before:
            host.changed(time.monotonic())
            reason = (
                "requests wait on the server: others use it, or it has fewer slots"
                if used < before
                else "requests wait no longer"
            )
            told = self._told.get(host.url)
            again = told is not None and abs(used - told) <= 1
            if not again:
                self._told[host.url] = used
            self._observe(events.SlotsChanged(host.url, used, host.slots, reason, again))
