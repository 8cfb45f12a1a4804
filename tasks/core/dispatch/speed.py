"""What a run learns about its hosts and its model: tokens a second, tokens per predicted token.

Both are ratios of sums whose old parts fade, so that long answers weigh more than short
ones and a host that slows down is seen to within a few answers.
"""

from __future__ import annotations

from dataclasses import dataclass

SPEED_FADES_TO = 0.85
"""What is left of a host's past at each answer: half of it after about four."""

LENGTH_FADES_TO = 0.98
"""The same for lengths, which belong to the model and the language: half after about 34."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one slot of a host is, from the answers that came back."""

    tokens: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens a second of one slot; None until an answer came."""
        return self.tokens / self.seconds if self.seconds > 0 and self.tokens > 0 else None

    def after(self, tokens: int, seconds: float) -> Speed:
        """The speed after one more answer of so many tokens, made in so many seconds."""
        if tokens <= 0 or seconds <= 0:
            return self
        fades_to = SPEED_FADES_TO
        return Speed(self.tokens * fades_to + tokens, self.seconds * fades_to + seconds)


@dataclass(frozen=True, slots=True)
class Length:
    """How long answers are compared with their prediction."""

    predicted: float = 0.0
    generated: float = 0.0

    @property
    def ratio(self) -> float:
        """Generated tokens per predicted token; 1 until an answer came."""
        return self.generated / self.predicted if self.predicted > 0 and self.generated > 0 else 1.0

    def after(self, predicted: int, generated: int) -> Length:
        """The ratio after one more answer."""
        fades_to = LENGTH_FADES_TO
        return Length(self.predicted * fades_to + predicted, self.generated * fades_to + generated)
