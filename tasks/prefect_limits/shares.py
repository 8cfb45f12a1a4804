"""What to hold of a host's slots, by what a Prefect server says of the host: decisions only.

A server's limits tell numbers, not who is behind them. Three numbers are enough to be fair:
how many slots others hold, how many runs there are, and how many of them wait, that is hold
less than an even part of what they need. While nobody waits, a run takes what is free. When
others wait, it goes down to its even part; what cannot be divided evenly goes round in turns.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

TURN_S = 20.0
"""About how long a run keeps a slot beyond its even part while others wait."""
REST_S = 5.0
"""How long it then leaves such slots to others: they look every 2 s."""
MOST_BLOCKS = 8
"""Into how many blocks a host's slots are divided, but for small ones that serve as change.

Each is a lease of its own, to be renewed by a call of its own.
"""


def limit_name(url: str) -> str:
    """The name of the limit on a host's slots: readable, of no other host, allowed by Prefect."""
    parts = urlsplit(url)
    readable = re.sub(r"[^a-z0-9]+", "-", f"{parts.netloc}{parts.path}".lower()).strip("-")
    return f"ollama-{readable[:60]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server said of a host when it was asked last."""

    limit: int
    others_held: int
    others: int = 0
    """Other runs that use the host."""
    others_wait: int = 0
    """How many of these hold less than their even part, and want it."""
    is_by_hand: bool = False
    """The limit is a number that no run has set."""
    is_used_up: bool = False
    """Slots were denied since: others were faster."""

    @property
    def even_part(self) -> tuple[int, int]:
        """How many slots each run can have, and how many are left then."""
        return divmod(self.limit, self.others + 1)

    def free(self, held: int) -> int:
        """Slots that nobody holds when this run holds so many."""
        return 0 if self.is_used_up else max(0, self.limit - self.others_held - held)


@dataclass(frozen=True, slots=True)
class Turn:
    """How long this run may keep a slot that cannot be divided evenly."""

    runs: int = 1
    """How many there were at the last decision, this one included."""
    ends_at: float | None = None
    """None while the run holds no more than its even part."""
    gives_way_since: float | None = None
    """From when its turn is over until it holds its even part: requests have to end first."""
    rests_until: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has a right to its even part only."""
        return self.gives_way_since is not None or self.rests_until is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a run should do about a host."""

    share: int
    """Slots that it should hold now."""
    due: int
    """Slots that it has a right to: with fewer, it waits."""
    turn: Turn


def decide(
    seen: Seen, turn: Turn, *, claim: int | None, need: int, held: int, now_s: float, draw: float
) -> Decision:
    """What a run that needs and holds so many slots should hold now.

    Never more than the limit, nor than the run claims that the host has, nor than is free.
    `draw` is a random number from 0 to 1: runs that started together do not stay in step.
    """
    most = seen.limit if claim is None else min(claim, seen.limit)
    available = held + seen.free(held)
    if seen.others == 0:
        share = min(max(need, held), most, max(0, seen.limit - seen.others_held))
        return Decision(min(share, available), min(need, most), Turn())
    turn = _next_turn(turn, seen, held, now_s, draw)
    even, left = seen.even_part
    due = min(need, most, even + (1 if left and not turn.is_over else 0))
    is_crowded = seen.others_wait > 0 or seen.others_held + held > seen.limit
    return Decision(min(due if is_crowded else min(need, most), available), due, turn)


def _next_turn(turn: Turn, seen: Seen, held: int, now_s: float, draw: float) -> Turn:
    (even, left), runs = seen.even_part, seen.others + 1
    if held <= even:
        return Turn(runs, rests_until=_rest(turn, runs, left, now_s))
    ends_at = now_s + TURN_S * (0.75 + 0.5 * draw) if turn.ends_at is None else turn.ends_at
    was_long_enough = now_s >= ends_at and seen.others_wait > 0
    # Newcomers need not wait for the end of a turn, where each run can have a slot.
    has_newcomer = runs > turn.runs and even > 0
    since = turn.gives_way_since
    if since is None and (was_long_enough or has_newcomer):
        since = now_s
    return Turn(runs, ends_at, since, turn.rests_until)


def _rest(turn: Turn, runs: int, left: int, now_s: float) -> float | None:
    """Until when a run rests that holds no more than its even part.

    The turns of the others are taken to be as long as its own; its next comes after theirs.
    """
    if turn.gives_way_since is not None:
        turn_s = TURN_S + now_s - turn.gives_way_since
        return now_s + REST_S + 0.9 * turn_s * (runs / max(1, left) - 1)
    return None if turn.rests_until is None or now_s >= turn.rests_until else turn.rests_until


def number_to_set(seen: Seen, claim: int | None) -> int | None:
    """What the limit should be, by this run's own claim; None when it should stay.

    The smaller number of runs that are there counts; who is alone sets its own. A number set
    by hand stays.
    """
    if claim is None or seen.is_by_hand or claim == seen.limit:
        return None
    nobody_else = seen.others == 0 and seen.others_held == 0
    return claim if claim < seen.limit or nobody_else else None


def blocks(slots: int, limit: int) -> list[int]:
    """So many slots in blocks, each for a lease of its own.

    Small ones come first, so that what remains can be any number.
    """
    largest, size, sizes = max(1, math.ceil(limit / MOST_BLOCKS)), 1, []
    while slots > 0:
        sizes.append(min(size, slots))
        slots -= size
        size = min(2 * size, largest)
    return sizes


def to_give_back(sizes: Iterable[int], surplus: int) -> list[int]:
    """Which blocks, by their place, to give back: of the surplus and no more."""
    chosen = []
    for place, size in sorted(enumerate(sizes), key=lambda block: -block[1]):
        if size <= surplus:
            chosen.append(place)
            surplus -= size
    return chosen
