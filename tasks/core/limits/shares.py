"""Who should hold how many slots of one host: decisions about claims, without files.

Every run sees the same claims in the same order and the same clock, so every run comes to
the same shares by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

TURN_S = 10.0
"""How long a run keeps a slot that others need as much, before it is the next one's turn."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one run says about one host."""

    slots: int | None = None
    """How many the host has; None when the run does not know."""
    need: int = 0
    """How many it has work for."""
    held: int = 0
    is_alone: bool = False
    """Whether nobody else may begin to hold any."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The claims of all runs that are alive, in an order that is the same for each of them."""

    claims: tuple[Claim, ...]
    place: int
    """Which of them is ours."""

    @property
    def mine(self) -> Claim:
        """Our claim."""
        return self.claims[self.place]

    @property
    def others(self) -> tuple[Claim, ...]:
        """Every claim but ours."""
        return self.claims[: self.place] + self.claims[self.place + 1 :]

    def saying(self, mine: Claim) -> Standing:
        """The same with another claim of ours."""
        return Standing(
            (*self.claims[: self.place], mine, *self.claims[self.place + 1 :]), self.place
        )


def known_slots(claims: Iterable[Claim]) -> int | None:
    """The smallest number that is claimed; None when no run knows."""
    return min((claim.slots for claim in claims if claim.slots is not None), default=None)


def granted(standing: Standing, slots: int) -> int:
    """How many slots we hold after we asked for so many.

    Fewer than before only if fewer were asked for. More only as long as all runs together
    stay within the smallest number claimed, and nobody is alone with the host.
    """
    mine, others = standing.mine, standing.others
    limit = known_slots(standing.claims)
    if slots <= mine.held:
        return max(0, slots)
    if limit is None or any(other.is_alone for other in others):
        return mine.held
    free = limit - sum(other.held for other in others)
    return max(mine.held, min(slots, free))


def may_enter_alone(standing: Standing) -> bool:
    """Whether we need not wait for other runs to find out a host's slots.

    Where a live run knows the number, nothing is left to find out.
    """
    is_known = known_slots(standing.claims) is not None
    return is_known or not any(other.held for other in standing.others)


def fair_shares(claims: Sequence[Claim], now_s: float) -> list[int]:
    """How many slots each run should hold; together never more than the host has.

    Nobody gets less than another who needs as much, but for slots that cannot be divided
    evenly: they go round by the clock. What nobody needs stays with those who hold it.
    """
    slots = known_slots(claims) or 0
    turn = int(now_s // TURN_S)
    needed = _divide(slots, [claim.need for claim in claims], turn)
    unneeded = [max(0, claim.held - claim.need) for claim in claims]
    kept = _divide(slots - sum(needed), unneeded, turn)
    return [share + more for share, more in zip(needed, kept, strict=True)]


def _divide(slots: int, wants: Sequence[int], turn: int) -> list[int]:
    """Slots divided so that the smallest parts are as large as they can be."""
    level = _level(slots, wants)
    parts = [min(want, level) for want in wants]
    short = [place for place, want in enumerate(wants) if want > level]
    if short:
        for place in _in_turn(short, turn)[: slots - sum(parts)]:
            parts[place] += 1
    return parts


def _level(slots: int, wants: Sequence[int]) -> int:
    """The largest part that everybody who wants as much can have."""
    left = slots
    for waiting, want in zip(range(len(wants), 0, -1), sorted(wants), strict=True):
        if want > left // waiting:
            return left // waiting
        left -= want
    return max(wants, default=0)


def _in_turn(places: Sequence[int], turn: int) -> list[int]:
    """The same places, another one first in every turn; in a lap each is first once.

    Each lap has an order of its own: in one that stayed the same, requests as long as a
    whole lap would end in their own run's turn again and again, and others would starve.
    """
    lap, step = divmod(turn, len(places))
    order = sorted(places, key=lambda place: blake2b(b"%d %d" % (lap, place)).digest())
    return order[step:] + order[:step]
