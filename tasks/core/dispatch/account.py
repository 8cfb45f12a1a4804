"""Where the slot time of a host goes during a run.

A slot-second is one slot for one second. The count begins with the first request that the
run sends to any host. From then on, for each host and at any moment,

    integral of max(slots, requests in flight)
        = useful + lost + duplicated + open                 requests, from start to end
        + idle at the start, in the middle and in the tail  slots that this run held
        + limit wait                                        slots that others used
        + loading + down                                    the host took no requests

where a host that takes no requests counts with the slots that it had last, or that it had
first while it was not up yet. A request goes on to count when its host goes down meanwhile,
and then stands for one of these slots; so it does when the host gets fewer slots than it has
requests in flight, and then stands for a slot more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FEWEST_TOKENS = 20
"""A shorter answer says little about how fast a host is."""


class Ending(Enum):
    """How a request ended, as far as its slot is concerned."""

    ANSWERED = "answered"  # useful, unless `refused` is said later
    FAILED = "failed"  # lost
    CANCELLED = "cancelled"  # lost: of a fault, or because nobody waits for it any more
    DUPLICATE = "duplicate"  # another request for the same segment was answered before


@dataclass(frozen=True, slots=True)
class HostAccount:
    """What a host did in a run; all seconds and speeds rounded to 3 digits."""

    slots: int
    """The number it had last, or was thought to have while that was not known."""
    requests: int = 0
    failures: int = 0
    output_tokens: int = 0
    """Of all answers, the refused ones and duplicates included."""
    busy_seconds: float = 0.0
    """Time with at least one request in flight."""
    peak_in_flight: int = 0
    usable: int = 0
    """Slots that this run might use last: those it held, less what others seemed to use."""
    busy_slot_seconds: float = 0.0
    """Of useful answers."""
    lost_slot_seconds: float = 0.0
    """Of requests that failed, were refused or were cancelled."""
    duplicated_slot_seconds: float = 0.0
    """Of requests whose segment another request had answered before."""
    open_slot_seconds: float = 0.0
    """Of requests that were in flight at the end of the account."""
    idle_start_slot_seconds: float = 0.0
    """Before the host's first request, while something waited."""
    idle_middle_slot_seconds: float = 0.0
    idle_tail_slot_seconds: float = 0.0
    """While nothing waited and nothing new came any more."""
    limit_wait_slot_seconds: float = 0.0
    """Slots that were free for all that this run did, but not usable, while something waited."""
    loading_slot_seconds: float = 0.0
    """Before the host was up; 0 when it never was, as its slots are not known then."""
    down_slot_seconds: float = 0.0
    """While the host, having been up, took no requests."""
    reloads: int = 0
    """How often the host had to load the model again while requests waited for it."""
    hedges: int = 0
    """Requests sent while another for the same segment was in flight."""
    tokens_per_second: float = 0.0
    """Of one slot: output tokens of useful answers ÷ `busy_slot_seconds`."""
    fastest_tokens_per_second: float = 0.0
    """Of the fastest useful answer of at least `FEWEST_TOKENS`."""
    up_seconds: float = 0.0
    """Sum of `up`."""
    last_answer_seconds: float = 0.0
    """When the last useful answer came, in seconds from the run's first request."""
    up: tuple[tuple[float, float | None], ...] = ()
    """From when until when it was up, in seconds from the run's first request; null: to the end."""
