"""Counts where the slot time of a host goes, from one change to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tasks.core.dispatch.account import FEWEST_TOKENS, Ending, HostAccount


@dataclass(slots=True)
class SlotClock:
    """One host's account in the making, told of each change when it happens.

    `now` is monotonic seconds and does not go back. Nothing is counted before `begin`. What
    is told of a request takes the same few steps however many there were.
    """

    slots: int = 0
    """What the host has, or had last; given at first, what it is thought to have."""
    probes_in_flight: int = 0
    last_answer_at: float | None = None
    _at: float = -math.inf
    """Everything is counted up to then."""
    _began_at: float | None = None
    _first_slots: int | None = None
    _slots_now: int = 0
    _usable: int = 0
    _is_tail: bool = False
    _up_since: float | None = None
    _up: list[tuple[float, float]] = field(default_factory=list)
    _in_flight: int = 0
    _requests: int = 0
    _failures: int = 0
    _hedges: int = 0
    _reloads: int = 0
    _reloaded_at: float = -math.inf
    """When the latest of them was heard of."""
    _peak_in_flight: int = 0
    _output_tokens: int = 0
    _useful_tokens: int = 0
    _fastest_tokens_per_s: float = 0.0
    _busy_wall_s: float = 0.0
    _useful_s: float = 0.0
    _lost_s: float = 0.0
    _duplicated_s: float = 0.0
    _starts_s: float = 0.0
    """When the requests in flight began to count, summed; from `_began_at`."""
    _idle_start_s: float = 0.0
    _idle_middle_s: float = 0.0
    _idle_tail_s: float = 0.0
    _limit_wait_s: float = 0.0
    _loading_wall_s: float = 0.0
    _down_s: float = 0.0

    @property
    def in_flight(self) -> int:
        """Requests and probes that occupy a slot now."""
        return self._in_flight + self.probes_in_flight

    def begin(self, now: float) -> None:
        """The run is about to send its first request, to this host or another."""
        self._advance(now)
        self._began_at = now
        self._up.clear()
        if self._up_since is not None:
            self._up_since = now

    def limit_changed(self, now: float, slots: int, usable: int) -> None:
        """The host has so many slots, of which this run holds `usable`.

        `slots` is 0 while the host takes no requests.
        """
        usable = min(usable, slots)
        if (slots, usable) == (self._slots_now, self._usable):
            return
        self._advance(now)
        if slots:
            self.slots = slots
            if self._first_slots is None:
                self._first_slots = slots
            if self._up_since is None:
                self._up_since = now
        elif self._up_since is not None:
            self._up.append((self._up_since, now))
            self._up_since = None
        self._slots_now, self._usable = slots, usable

    def tail_began(self, now: float) -> None:
        """Nothing waits any more, for any host."""
        self._advance(now)
        self._is_tail = True

    def tail_ended(self, now: float, *, has_new_work: bool = False) -> None:
        """A segment waits again.

        One that was sent before, and is to be sent again, leaves the tail so far a tail. New
        work shows that there has been none yet: the run was not given its work in time.
        """
        self._advance(now)
        self._is_tail = False
        if has_new_work:
            self._idle_middle_s += self._idle_tail_s
            self._idle_tail_s = 0.0

    def reloaded(self, now: float, sent_at: float) -> None:
        """A request that was sent then had to wait for the model: one of several, perhaps."""
        if sent_at >= self._reloaded_at:
            self._reloads += 1
            self._reloaded_at = now

    def probe_started(self) -> None:
        """A slot is taken to find something out; its time goes on to count as if it were free."""
        self.probes_in_flight += 1

    def probe_ended(self) -> None:
        """That slot is free again."""
        self.probes_in_flight -= 1

    def request_started(self, now: float, *, is_hedge: bool = False) -> None:
        """A request is sent; whoever sends it keeps `now` for `request_ended`."""
        self._advance(now)
        self._requests += 1
        self._hedges += is_hedge
        if self._began_at is not None:
            self._starts_s += now - self._began_at
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)

    def request_ended(
        self, now: float, started_at: float, ending: Ending, output_tokens: int = 0
    ) -> None:
        """A request that was started at `started_at` has left its slot."""
        self._advance(now)
        self._in_flight -= 1
        self._output_tokens += output_tokens
        begun = now if self._began_at is None else self._began_at
        counts_from = max(begun, started_at)
        self._starts_s -= counts_from - begun
        service_s = now - counts_from
        if ending is Ending.ANSWERED:
            self._answered(now, service_s, output_tokens)
        elif ending is Ending.DUPLICATE:
            self._duplicated_s += service_s
        else:
            self._lost_s += service_s
            self._failures += ending is Ending.FAILED

    def refused(self, service_s: float, output_tokens: int) -> None:
        """An answer that took `service_s` turned out not to be acceptable: it is lost."""
        self._useful_s -= service_s
        self._useful_tokens -= output_tokens
        self._lost_s += service_s

    def account(self, now: float) -> HostAccount:
        """What the host did up to `now`, or up to the last change if that was later."""
        self._advance(now)
        begun = self._at if self._began_at is None else self._began_at
        until_s, up = self._at - begun, self._up_from(begun)
        return HostAccount(
            slots=self.slots,
            requests=self._requests,
            failures=self._failures,
            output_tokens=self._output_tokens,
            busy_seconds=round(self._busy_wall_s, 3),
            peak_in_flight=self._peak_in_flight,
            usable=self._usable,
            busy_slot_seconds=round(self._useful_s, 3),
            lost_slot_seconds=round(self._lost_s, 3),
            duplicated_slot_seconds=round(self._duplicated_s, 3),
            open_slot_seconds=round(self._in_flight * until_s - self._starts_s, 3),
            idle_start_slot_seconds=round(self._idle_start_s, 3),
            idle_middle_slot_seconds=round(self._idle_middle_s, 3),
            idle_tail_slot_seconds=round(self._idle_tail_s, 3),
            limit_wait_slot_seconds=round(self._limit_wait_s, 3),
            loading_slot_seconds=round(self._loading_wall_s * (self._first_slots or 0), 3),
            down_slot_seconds=round(self._down_s, 3),
            reloads=self._reloads,
            hedges=self._hedges,
            tokens_per_second=_rate(self._useful_tokens, self._useful_s),
            fastest_tokens_per_second=round(self._fastest_tokens_per_s, 3),
            up_seconds=round(sum((until_s if to is None else to) - from_ for from_, to in up), 3),
            last_answer_seconds=round(max(0.0, (self.last_answer_at or begun) - begun), 3),
            up=up,
        )

    def _advance(self, now: float) -> None:
        """Count the time since the last change, during which nothing changed."""
        elapsed_s = now - self._at
        if elapsed_s <= 0:
            return
        self._at = now
        if self._began_at is None:
            return
        if self._in_flight:
            self._busy_wall_s += elapsed_s
        if not self._slots_now:
            self._count_not_up(elapsed_s)
        elif (free := self._slots_now - self._in_flight) > 0:
            self._count_free(free, elapsed_s)

    def _count_free(self, free: int, elapsed_s: float) -> None:
        if self._is_tail:
            self._idle_tail_s += free * elapsed_s
            return
        withheld = min(free, self._slots_now - self._usable)
        self._limit_wait_s += withheld * elapsed_s
        if self._requests:
            self._idle_middle_s += (free - withheld) * elapsed_s
        else:
            self._idle_start_s += (free - withheld) * elapsed_s

    def _count_not_up(self, elapsed_s: float) -> None:
        if self._first_slots is None:
            self._loading_wall_s += elapsed_s
        else:
            self._down_s += max(0, self.slots - self._in_flight) * elapsed_s

    def _answered(self, now: float, service_s: float, output_tokens: int) -> None:
        self.last_answer_at = now
        self._useful_s += service_s
        self._useful_tokens += output_tokens
        if output_tokens >= FEWEST_TOKENS and service_s > 0:
            tokens_per_s = output_tokens / service_s
            self._fastest_tokens_per_s = max(self._fastest_tokens_per_s, tokens_per_s)
        if not self._slots_now and self._up:
            # Whatever it was taken for, it worked until now; a bound on what it could have
            # done that leaves this time out would be none.
            self._up[-1] = (self._up[-1][0], now)

    def _up_from(self, begun: float) -> tuple[tuple[float, float | None], ...]:
        if self._began_at is None:
            return ()
        ended = [(round(from_ - begun, 3), round(to - begun, 3)) for from_, to in self._up]
        lasting = [] if self._up_since is None else [(round(self._up_since - begun, 3), None)]
        return (*ended, *lasting)


def _rate(tokens: int, seconds: float) -> float:
    return round(tokens / seconds, 3) if seconds > 0 else 0.0
