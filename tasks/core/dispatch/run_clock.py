"""When a run began to send and whether it is in its tail: what all hosts' accounts go by."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.host import Host


class RunClock:
    """Tells the clocks of all hosts what happens to the run as a whole.

    `hosts` is the dispatcher's own mapping: a host that is added to it is told by `joined`.
    """

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._began_at: float | None = None
        self._is_tail = False

    @property
    def has_begun(self) -> bool:
        """Whether a request was sent."""
        return self._began_at is not None

    def begin(self, now: float) -> None:
        """The first request of the run is about to be sent: from here on all time counts."""
        self._began_at = now
        for host in self._hosts.values():
            host.clock.begin(now)

    def joined(self, host: Host) -> None:
        """A host takes part from now on; its time counts from the run's beginning."""
        if self._began_at is not None:
            host.clock.begin(self._began_at)
        if self._is_tail:
            host.clock.tail_began(time.monotonic())

    def nothing_waits(self) -> None:
        """Every segment there is was sent, and no others are to come."""
        if self._is_tail or self._began_at is None:
            return
        self._is_tail, now = True, time.monotonic()
        for host in self._hosts.values():
            host.clock.tail_began(now)

    def something_waits(self, *, is_new: bool) -> None:
        """A segment waits; a new one shows that what looked like the tail was none."""
        if not self._is_tail:
            return
        self._is_tail, now = False, time.monotonic()
        for host in self._hosts.values():
            host.clock.tail_ended(now, has_new_work=is_new)

    def accounts(self, *, is_over: bool) -> dict[str, HostAccount]:
        """What each host did up to now, by URL.

        After the last answer of a run that is over it has no use for slots: that is not
        idle time.
        """
        answered_at = [host.clock.last_answer_at or 0.0 for host in self._hosts.values()]
        until = max(answered_at, default=0.0) if is_over else time.monotonic()
        return {url: host.account(until) for url, host in self._hosts.items()}
