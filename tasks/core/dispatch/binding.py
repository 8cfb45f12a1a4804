"""Binds segments to hosts as they come, for the policies that do not wait for a free slot."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

from tasks.core.dispatch.host import Host
from tasks.core.dispatch.policies import Candidate, bind
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.dispatch.work import SegmentWork
from tasks.core.settings import PolicyName


class Binding:
    """What is bound to which host; with the policy "pull" nothing is."""

    def __init__(
        self, policy: PolicyName, hosts: Mapping[str, Host], queue: Queue, rng: random.Random
    ) -> None:
        self._policy = policy
        self._hosts = hosts
        self._queue = queue
        self._rng = rng
        self._turns = itertools.count()

    def host_for(self, work: SegmentWork) -> str | None:
        """The host that a segment has to wait for; None where any will do."""
        if self._policy == "pull":
            return None
        candidates = [
            Candidate(url, host.in_flight, self._queue.bound[url], host.health.is_lost)
            for url, host in self._hosts.items()
        ]
        return bind(self._policy, candidates, next(self._turns), self._rng, work.failed_on)

    def misplaced(self) -> list[Waiting]:
        """What waits for a host that is lost while another takes requests."""
        if not any(host.takes_requests for host in self._hosts.values()):
            return []
        lost = {url for url, host in self._hosts.items() if host.health.is_lost}
        return [waiting for waiting in self._queue if waiting.bound_to in lost]
