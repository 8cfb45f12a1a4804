"""How long a request may take before it is taken for stalled.

Nothing here is a fixed timeout: a deadline follows from the predicted length of the
answer and from the pace that the host has shown.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOWEST_TOKENS_PER_S = 2.0
"""Assumed until a host has answered: a large model on a CPU still does as much."""

GRACE_S = 30.0
"""For what does not grow with length: prompt processing, other clients' requests."""

PATIENCE = 6.0
"""How many times its predicted time a request may take."""

SMOOTHING = 0.2


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of wall clock a host takes per predicted token, smoothed."""

    s_per_token: float | None = None

    def after(self, tokens: int, wall_s: float) -> Pace:
        """The pace after one more answer."""
        seen = wall_s / max(1, tokens)
        if self.s_per_token is None:
            return Pace(seen)
        return Pace(self.s_per_token + SMOOTHING * (seen - self.s_per_token))

    def deadline_s(self, tokens: int) -> float:
        """Seconds after which a request for an answer of so many tokens is stalled."""
        if self.s_per_token is None:
            return GRACE_S + tokens / SLOWEST_TOKENS_PER_S
        return GRACE_S + PATIENCE * tokens * self.s_per_token
