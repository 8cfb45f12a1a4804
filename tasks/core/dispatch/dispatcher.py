"""Gives waiting segments to the hosts' free slots, until every one has its answer.

The decisions stand in `choose` (what goes where next), `policies` (the baselines), `retry`
(what becomes of a failed request), `health` (whether a host takes requests) and `pace` (how
long to wait); this module obeys them. One dispatcher lives on one event loop; nothing in it
is shared between threads.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from tasks.core.dispatch import events
from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.attempts import Live, Ticket
from tasks.core.dispatch.bringing_up import BringingUp
from tasks.core.dispatch.choose import Hedge, HostView, Send, State, choose
from tasks.core.dispatch.fleet import LISTEN_EVERY_S, Fleet
from tasks.core.dispatch.holdings import Holdings
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.learning import Learning
from tasks.core.dispatch.policies import Candidate, bind, choose_bound
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.dispatch.retry import GiveUp, Quarantine, RetryBudget, after_failure
from tasks.core.dispatch.sending import Requests
from tasks.core.dispatch.work import RecordAttempt, Reply, SegmentWork
from tasks.core.errors import FleetLost, RequestFailed
from tasks.core.limits.ledger import SlotLedger, Unlimited
from tasks.core.records import Purpose
from tasks.core.settings import PolicyName
from tasks.core.translate.profiles import Prompting

LOOK_AGAIN_EVERY_S = 0.5
"""What is overdue shows by the time alone, so the decision is taken again now and then."""


class Dispatcher:
    """One queue of segments in front of several hosts.

    `ask` returns the answer of whichever host got the segment. Failed requests are
    tried again on another host and handed to `record`; a host never has more requests
    in flight than this run holds of its slots. Use it as an async context manager.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        prompting: Prompting,
        model_digest: str | None,
        *,
        record: RecordAttempt,
        policy: PolicyName = "pull",
        hedge: bool = True,
        ledger: SlotLedger | None = None,
        tokens_ahead: int = 0,
        fleet_timeout_s: float = 300.0,
        load_timeout_s: float = 600.0,
        listen_every_s: float = LISTEN_EVERY_S,
        observe: events.Observer = events.ignore,
        rng: random.Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hosts = {host.url: host for host in hosts}
        self._policy = policy
        self._hedge = hedge
        self._ledger = ledger or Unlimited()
        self._tokens_ahead = tokens_ahead
        self._observe = observe
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._queue = Queue()
        self._tickets: dict[int, Ticket] = {}
        self._requests = Requests(prompting, self, record=record, observe=observe, now=now)
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._learning = Learning(observe)
        self._budget = RetryBudget()
        self._began_at: float | None = None
        self._is_tail = False
        self._looker: asyncio.Task[None] | None = None
        self._lost: FleetLost | None = None
        self._fleet = Fleet(
            BringingUp(
                prompting,
                model_digest,
                self._ledger,
                load_timeout_s=load_timeout_s,
                listen_every_s=listen_every_s,
                observe=observe,
                rng=self._rng,
                on_change=self._host_goes_on,
            ),
            fleet_timeout_s=fleet_timeout_s,
            listen_every_s=listen_every_s,
            observe=observe,
            rng=self._rng,
            on_change=self._host_changed,
            on_silence=lambda host, failure: self._requests.interrupt(
                self._tickets.values(), host, failure
            ),
            on_lost=self._give_up,
        )
        self._holdings = Holdings(self._ledger, self._need, self._fill, self._fleet.watch_ended)

    def __repr__(self) -> str:
        hosts = ", ".join(
            f"{host.url} {host.health.state} {host.in_flight}/{host.slots}"
            for host in self._hosts.values()
        )
        return f"<Dispatcher [{len(self._queue)} queued | {hosts}]>"

    async def __aenter__(self) -> Self:
        await self._ledger.__aenter__()
        for host in self._hosts.values():
            self._fleet.add(host)
        self._looker = asyncio.create_task(self._look_again())
        self._looker.add_done_callback(self._fleet.watch_ended)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.drain()
        for ticket in self._tickets.values():
            ticket.waiting = None
            ticket.reply.cancel()
        await self._requests.stop()
        if self._looker:
            self._looker.cancel()
        await self._fleet.stop()
        await self._holdings.stop()
        for host in self._hosts.values():
            await host.client.close()
        await self._ledger.__aexit__(exc_type, exc, traceback)

    def watch_ended(self, watch: asyncio.Task[None]) -> None:
        """Something that has to go on as long as the run has ended: say so, and end the run."""
        self._fleet.watch_ended(watch)

    def accounts(self) -> dict[str, HostAccount]:
        """What each host did up to now, by URL."""
        answered_at = [host.clock.last_answer_at or 0.0 for host in self._hosts.values()]
        # After the last answer the run has no use for slots: that is not idle time.
        now = time.monotonic() if self._tickets else max(answered_at, default=0.0)
        return {url: host.account(now) for url, host in self._hosts.items()}

    def add_host(self, host: Host) -> None:
        """Let a host take part from now on; one that was taken out comes back."""
        known = self._hosts.get(host.url)
        self._observe(events.HostJoined(host.url, host.slots))
        if known is not None:
            self._fleet.take_back(known)
            return
        host.joined_late = True
        self._hosts[host.url] = host
        if self._began_at is not None:
            host.clock.begin(self._began_at)
        self._fleet.add(host)

    def drain_host(self, url: str) -> None:
        """Take a host out of the run; what it has in flight is waited for."""
        if host := self._hosts.get(url):
            self._fleet.drain(host)

    def change_slots(self, url: str, slots: int | None) -> None:
        """A host has another number of slots from now on; None leaves it as it is."""
        host = self._hosts.get(url)
        if host and slots and slots != host.slots:
            host.found(slots)
            host.changed(time.monotonic())
            self._holdings.claim_again(host)

    def begun(self, tokens: int) -> None:
        """So much of the work that was announced as ahead is being asked for now."""
        self._tokens_ahead = max(0, self._tokens_ahead - tokens)

    def refused(self, reply: Reply) -> None:
        """An answer turned out not to be acceptable: the time it took is lost."""
        host = self._hosts[reply.sent.host]
        host.clock.refused(reply.measures.request_wall_ns / 1e9, reply.measures.output_tokens)

    async def ask(self, work: SegmentWork) -> Reply:
        """A host's answer to a segment; whether it is acceptable is not decided here.

        Raises `RequestFailed` when the segment is given up, and `FleetLost` when no
        host is left.
        """
        if self._lost:
            raise self._lost
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        ticket = Ticket(next(self._numbers), work, reply, time.monotonic_ns())
        self._tickets[ticket.key] = ticket
        try:
            self._enqueue(ticket)
            return await reply
        finally:
            del self._tickets[ticket.key]
            if ticket.waiting:
                self._queue.remove(ticket.waiting)
                ticket.waiting = None
            for live in ticket.live.values():
                live.cancel()

    # What waits, and what is sent next

    def _enqueue(self, ticket: Ticket) -> None:
        if ticket.reply.done() or ticket.key not in self._tickets or ticket.waiting:
            return
        work = ticket.work
        ticket.waiting = Waiting(
            ticket.key,
            work.segment.predicted_tokens,
            work.failed_on,
            self._bound_to(work),
            work.tries.in_quarantine,
        )
        self._queue.put(ticket.waiting)
        if self._is_tail:
            is_new = work.purpose is Purpose.TRANSLATE and not work.requests
            self._tail_ended(has_new_work=is_new)
        self._fill()

    def _bound_to(self, work: SegmentWork) -> str | None:
        if self._policy == "pull":
            return None
        candidates = [
            Candidate(url, host.in_flight, self._queue.bound[url], host.health.is_lost)
            for url, host in self._hosts.items()
        ]
        return bind(self._policy, candidates, next(self._turns), self._rng, work.failed_on)

    def _fill(self) -> None:
        """Send what can be sent: called whenever a slot, a host or a segment appears."""
        while (decision := self._decide()) is not None:
            match decision:
                case Send(waiting, url):
                    self._queue.remove(waiting)
                    ticket = self._tickets[waiting.key]
                    ticket.waiting = None
                    self._begin()
                    self._requests.send(self._hosts[url], ticket, ticket.work.purpose)
                case Hedge(key, url):
                    self._requests.send(self._hosts[url], self._tickets[key], Purpose.HEDGE)
        self._look_at_tail()

    def _decide(self) -> Send | Hedge | None:
        views = self._views()
        if not views:
            return None
        if self._policy == "pull":
            state = State(
                views,
                self._queue,
                self._requests.flights.values(),
                tokens_ahead=self._tokens_ahead,
                more_hosts=len(self._hosts) > len(views),
                hedge=self._hedge,
            )
            return choose(state, time.monotonic())
        return choose_bound(views, self._queue)

    def _views(self) -> list[HostView]:
        """The hosts that may get requests, if any has a slot free; speeds in predicted tokens."""
        hosts = self._hosts.values()
        for host in hosts:
            if host.in_flight < host.cap and not host.is_shielded:
                break
        else:
            if any(host.takes_requests for host in hosts):
                return []
            return [self._view(host, cap) for host in hosts if (cap := host.at_once(is_last=True))]
        return [self._view(host, host.cap) for host in hosts if host.cap]

    def _view(self, host: Host, cap: int) -> HostView:
        slots = min(cap, host.in_flight) if host.is_shielded else cap
        return HostView(host.url, slots, host.in_flight, self._learning.tokens_per_s(host))

    def _need(self, host: Host) -> int:
        """For how many slots of a host there is work, or will be once it is up."""
        if host.health.is_leaving:
            return host.in_flight
        if host.health.is_lost or host.wants_probe:
            return host.in_flight + host.wants_probe
        waiting = host.working_slots if self._tokens_ahead else len(self._queue)
        return min(host.working_slots, host.in_flight + waiting)

    def _look_at_tail(self) -> None:
        """Let the accounts know when nothing waits any more."""
        if self._is_tail or self._queue or self._tokens_ahead or self._began_at is None:
            return
        self._is_tail, now = True, time.monotonic()
        for host in self._hosts.values():
            host.clock.tail_began(now)

    def _tail_ended(self, *, has_new_work: bool) -> None:
        self._is_tail, now = False, time.monotonic()
        for host in self._hosts.values():
            host.clock.tail_ended(now, has_new_work=has_new_work)

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_EVERY_S)
            self._fill()

    def _begin(self) -> None:
        """The first request of the run is about to be sent: from here on all time counts."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            slots = sum(host.slots or 0 for host in self._hosts.values())
            self._budget = RetryBudget.of(slots, self._began_at)
            for host in self._hosts.values():
                host.clock.begin(self._began_at)

    # What follows from how a request ended

    def answered(self, ticket: Ticket, live: Live, reply: Reply) -> None:
        """Hand the answer over, if it is the first."""
        self._learning.take(live, ticket.work.segment.predicted_tokens, reply.measures)
        self._budget = self._budget.after_answer()
        if not ticket.reply.done():
            ticket.reply.set_result(reply)

    def failed(self, ticket: Ticket, live: Live, failure: RequestFailed) -> None:
        """Ask again, on another host if there is one, as long as that is of any use."""
        work, host, interrupted = ticket.work, live.host, live.interruption is not None
        work.tries = work.tries.after(failure.kind, host.url, interrupted=interrupted)
        if not interrupted:
            work.failed_on |= {host.url}
            self._requests.keep_from(ticket)
            self._fleet.request_failed(host, failure)
        if ticket.reply.done() or ticket.live:
            return  # answered before, or another copy is out
        decision = after_failure(
            failure.kind, work.tries, self._rng.random(), interrupted=interrupted
        )
        match decision:
            case GiveUp():
                ticket.reply.set_exception(failure)
            case Quarantine():
                work.tries = replace(work.tries, in_quarantine=True)
                broken = tuple(sorted(work.tries.broken))
                self._observe(events.Quarantined(work.segment.report_id, broken, failure.message))
                self._ask_again(ticket, 0.0)
            case _:
                self._ask_again(ticket, decision.delay_s + self._wait_for_budget(decision.delay_s))

    def freed(self, host: Host) -> None:
        """Use the slot for something else."""
        self._fleet.request_ended(host)
        self._fill()

    def _wait_for_budget(self, delay_s: float) -> float:
        """Seconds that a retry waits because too many were sent of late."""
        if not delay_s:
            return 0.0
        had = self._budget.saved > 0
        self._budget, wait_s = self._budget.spend(time.monotonic())
        if had and wait_s:
            self._observe(
                events.RetriesSlowed("more than a tenth of the requests fail; retries are slowed")
            )
        return wait_s

    def _ask_again(self, ticket: Ticket, delay_s: float) -> None:
        ticket.waiting_since_ns = time.monotonic_ns()
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self._enqueue, ticket)
        else:
            self._enqueue(ticket)

    def _host_goes_on(self, host: Host) -> None:
        """A host has come one step further on its way up."""
        self._fleet.changed(host)

    def _host_changed(self, host: Host) -> None:
        """Hold slots of a host that is there; give away what is bound to one that is lost."""
        if host.waits is not None and host.health.is_reached:
            self._holdings.start(host)
        self._holdings.look_again([host])
        if any(each.takes_requests for each in self._hosts.values()):
            for each in self._hosts.values():
                if each.health.is_lost:
                    self._unbind(each.url)
        self._fill()

    def _unbind(self, url: str) -> None:
        for waiting in [each for each in self._queue if each.bound_to == url]:
            self._queue.remove(waiting)
            ticket = self._tickets[waiting.key]
            ticket.waiting = None
            self._enqueue(ticket)

    def _give_up(self, error: FleetLost) -> None:
        self._lost = error
        self._queue.drain()
        for ticket in self._tickets.values():
            ticket.waiting = None
            if not ticket.reply.done():
                ticket.reply.set_exception(error)
