"""The baselines: a segment is bound to a host when it arrives.

So do balancers for open traffic. Only `pull`, which stands in `choose`, leaves a segment
unbound until a slot is free; these are here to be measured against.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tasks.core.dispatch.choose import HostView, Send
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.settings import PolicyName


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that a segment could be bound to."""

    url: str
    in_flight: int
    waiting: int
    """Segments already bound to it."""
    is_lost: bool = False


def bind(
    policy: PolicyName,
    hosts: Sequence[Candidate],
    turn: int,
    rng: random.Random,
    failed_on: frozenset[str] = frozenset(),
) -> str | None:
    """The host that a newly arrived segment is bound to; None leaves it to any host.

    `turn` counts the segments bound so far. Lost hosts are passed over while there is
    another, and so are those where the segment failed.
    """
    if policy == "pull":
        return None
    candidates = [host for host in hosts if not host.is_lost] or list(hosts)
    candidates = [host for host in candidates if host.url not in failed_on] or candidates
    if not candidates:
        return None
    if policy == "random":
        return rng.choice(candidates).url
    if policy == "round_robin":
        return candidates[turn % len(candidates)].url
    return min(candidates, key=lambda host: host.in_flight + host.waiting).url


def choose_bound(hosts: Sequence[HostView], queue: Queue) -> Send | None:
    """The longest segment that is bound to a host with a free slot, the least loaded host first."""
    free = sorted(
        (host for host in hosts if host.is_free), key=lambda host: host.in_flight / host.slots
    )
    for host in free:
        waiting = queue.longest(partial(_is_bound_to, host.url))
        if waiting is not None:
            return Send(waiting, host.url)
    return None


def _is_bound_to(url: str, waiting: Waiting) -> bool:
    return waiting.bound_to == url
