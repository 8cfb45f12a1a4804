"""How long a request may take before it is taken for stalled.

Nothing here is a fixed timeout: a deadline follows from the predicted length of the
answer and from the pace that the host has shown.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOWEST_TOKENS_PER_S = 2.0
"""Assumed until a host has answered: a large model on a CPU still does as much."""

FIRST_GRACE_S = 30.0
"""For what does not grow with length, until a host has answered."""

GRACE_S = 10.0
"""The same afterwards: prompt processing, other clients' requests."""

PATIENCE = 5.0
"""How many times its predicted time a request may take."""

SMOOTHING = 0.2
LONGEST_FADES_TO = 0.98
LONGEST_PROBE_S = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of wall clock a host takes per predicted token, smoothed."""

    s_per_token: float | None = None
    longest_s: float = 0.0
    """The longest request of late."""

    def after(self, tokens: int, wall_s: float) -> Pace:
        """The pace after one more answer."""
        seen = wall_s / max(1, tokens)
        longest_s = max(wall_s, self.longest_s * LONGEST_FADES_TO)
        if self.s_per_token is None:
            return Pace(seen, longest_s)
        return Pace(self.s_per_token + SMOOTHING * (seen - self.s_per_token), longest_s)

    def deadline_s(self, tokens: int) -> float:
        """Seconds after which a request for an answer of so many tokens is stalled."""
        if self.s_per_token is None:
            return FIRST_GRACE_S + tokens / SLOWEST_TOKENS_PER_S
        return GRACE_S + PATIENCE * tokens * self.s_per_token

    def probe_deadline_s(self) -> float:
        """Seconds that a host has to generate one token; other clients may be before us."""
        if self.s_per_token is None:
            return LONGEST_PROBE_S
        return min(LONGEST_PROBE_S, GRACE_S / 2 + 2 * self.longest_s)
