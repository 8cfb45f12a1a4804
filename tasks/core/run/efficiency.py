"""How good a run was: the time it took against the least that its hosts could have taken.

Work is counted in output tokens of accepted answers, time in seconds from the first request
sent to the last accepted answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from typing import NamedTuple, Self

from tasks.core.dispatch.account import HostAccount


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a host can do."""

    slots: int
    tokens_per_s: float
    """Of one slot when all are busy."""
    fastest_tokens_per_s: float = 0.0
    """Of a request that has the host to itself; never less than `tokens_per_s`."""
    up: Sequence[tuple[float, float | None]] = ((0.0, None),)
    """From when until when it takes requests, in seconds and in order; None: from then on."""

    @classmethod
    def of(cls, account: HostAccount) -> Self:
        """What a host showed that it can do.

        Its speed is that of its useful answers, in whatever company they were: at least that
        of a full host, so a bound that follows from it is rather too low.
        """
        return cls(
            slots=max(account.slots, account.peak_in_flight),
            tokens_per_s=account.tokens_per_second,
            fastest_tokens_per_s=account.fastest_tokens_per_second,
            up=account.up,
        )


def lower_bound_s(work_tokens: Sequence[int], hosts: Sequence[Capacity]) -> float:
    """Seconds that no schedule of these answers on these hosts can do with less than.

    The larger of two bounds: all hosts work with all their slots whenever they are up; and

        max over j of (sum of the j largest answers) / (sum of the j fastest slots' speeds),

    as each answer has one slot at a time (Horvath, Lam and Sethi 1977: on uniform machines,
    with preemption, the larger of the two is attained). A slot's speed is here that of a
    request alone on its host. 0 without work, infinite when the hosts cannot do it at all.
    """
    work = [tokens for tokens in work_tokens if tokens > 0]
    able = [host for host in hosts if host.slots > 0 and host.tokens_per_s > 0]
    if not work:
        return 0.0
    return max(_all_at_work_s(sum(work), able), _longest_answers_s(work, able))


def _all_at_work_s(tokens: int, hosts: Sequence[Capacity]) -> float:
    """When the hosts have done the work if no slot is idle while its host is up."""
    changes = sorted(_ups_and_downs(hosts))
    up: set[int] = set()
    left, at_s, speed = float(tokens), 0.0, 0.0
    for change_s, is_up, index in changes:
        done = speed * (change_s - at_s)
        if done >= left:
            break
        left, at_s = left - done, change_s
        (up.add if is_up else up.discard)(index)
        # Added up anew: adding and subtracting would leave a rest where no host is up.
        speed = sum(hosts[host].slots * hosts[host].tokens_per_s for host in sorted(up))
    return at_s + left / speed if speed else math.inf


def _ups_and_downs(hosts: Sequence[Capacity]) -> Iterable[tuple[float, bool, int]]:
    """When which host comes up (True) or goes down."""
    for index, host in enumerate(hosts):
        for from_s, to_s in host.up:
            if to_s is None:
                yield from_s, True, index
            elif from_s < to_s:
                yield from_s, True, index
                yield to_s, False, index


def _longest_answers_s(work: Sequence[int], hosts: Sequence[Capacity]) -> float:
    speeds = sorted(
        chain.from_iterable(
            repeat(max(host.fastest_tokens_per_s, host.tokens_per_s), host.slots) for host in hosts
        ),
        reverse=True,
    )
    longest = heapq.nlargest(len(speeds), work)
    sums = zip(accumulate(longest), accumulate(speeds), strict=False)
    return max((tokens / speed for tokens, speed in sums), default=math.inf)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """A run's time and the least that it could have been."""

    makespan_s: float
    """From the first request sent to the last useful answer."""
    lower_bound_s: float | None
    """None where nothing was translated."""
    efficiency: float | None
    """`lower_bound_s` ÷ `makespan_s`, from 0 to 1; None where nothing was translated."""

    @classmethod
    def of(cls, work_tokens: Sequence[int], accounts: Iterable[HostAccount]) -> Self:
        """Of a run whose accepted answers had so many output tokens each.

        Hosts without a useful answer have shown no speed, and the bound leaves them out.
        """
        every = list(accounts)
        makespan_s = max((account.last_answer_seconds for account in every), default=0.0)
        bound_s = lower_bound_s(work_tokens, [Capacity.of(account) for account in every])
        if not (makespan_s > 0 and 0 < bound_s < math.inf):
            return cls(makespan_s, None, None)
        return cls(makespan_s, round(bound_s, 3), round(min(1.0, bound_s / makespan_s), 4))


LEFT_TO_OTHERS = "left to others"


class TimeShare(NamedTuple):
    """A part of the slot time of a run's hosts."""

    what: str
    slot_seconds: float
    share: float
    """Of all slot time, from 0 to 1."""


_PARTS: tuple[tuple[str, Callable[[HostAccount], float]], ...] = (
    ("useful answers", lambda host: host.busy_slot_seconds),
    ("failed, refused or cancelled requests", lambda host: host.lost_slot_seconds),
    ("duplicates", lambda host: host.duplicated_slot_seconds),
    ("requests cut off by the end", lambda host: host.open_slot_seconds),
    ("idle before a host's first request", lambda host: host.idle_start_slot_seconds),
    ("idle while reports waited", lambda host: host.idle_middle_slot_seconds),
    ("idle when no report waited any more", lambda host: host.idle_tail_slot_seconds),
    (LEFT_TO_OTHERS, lambda host: host.limit_wait_slot_seconds),
    ("host not up yet", lambda host: host.loading_slot_seconds),
    ("host down, or out of the run", lambda host: host.down_slot_seconds),
)


def where_the_time_went(hosts: Iterable[HostAccount]) -> list[TimeShare]:
    """The parts of the hosts' slot time that are not 0; their shares add up to 1."""
    every = list(hosts)
    parts = [(what, sum(map(part, every))) for what, part in _PARTS]
    total_s = sum(slot_s for _, slot_s in parts)
    return [TimeShare(what, round(s, 3), s / total_s) for what, s in parts if s > 0]
