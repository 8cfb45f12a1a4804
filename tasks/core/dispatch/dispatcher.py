"""Gives waiting segments to the hosts' free slots, until every one has its answer.

The decisions stand in `choose` (what goes where next), `policies` (the baselines), `retry`
(what becomes of a failed request), `health` (whether a host takes requests) and `pace` (how
long to wait); they are obeyed here and in the modules that this one puts together. One
dispatcher lives on one event loop; nothing in it is shared between threads.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from tasks.core.dispatch import events
from tasks.core.dispatch.account import HostAccount
from tasks.core.dispatch.attempts import Live, Ticket
from tasks.core.dispatch.binding import Binding
from tasks.core.dispatch.bringing_up import BringingUp
from tasks.core.dispatch.choose import Hedge, Send, State, choose
from tasks.core.dispatch.fleet import LISTEN_EVERY_S, Fleet
from tasks.core.dispatch.holdings import Holdings
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.learning import Learning
from tasks.core.dispatch.policies import choose_bound
from tasks.core.dispatch.queue import Queue, Waiting
from tasks.core.dispatch.retrying import Retrying
from tasks.core.dispatch.run_clock import RunClock
from tasks.core.dispatch.sending import Requests
from tasks.core.dispatch.views import views
from tasks.core.dispatch.work import RecordAttempt, Reply, SegmentWork
from tasks.core.errors import RequestFailed, RunError
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
        self._clock = RunClock(self._hosts)
        self._policy = policy
        self._hedge = hedge
        self._ledger = ledger or Unlimited()
        self._tokens_ahead = tokens_ahead
        self._observe = observe
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._queue = Queue()
        self._binding = Binding(policy, self._hosts, self._queue, self._rng)
        self._tickets: dict[int, Ticket] = {}
        self._requests = Requests(prompting, self, record=record, observe=observe, now=now)
        self._numbers = itertools.count()
        self._learning = Learning(observe)
        self._retrying = Retrying(observe, self._rng)
        self._ended: RunError | None = None
        """Why nothing is sent any more."""
        self._entered = AsyncExitStack()
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
        async with AsyncExitStack() as entered:
            await entered.enter_async_context(self._ledger)
            entered.push_async_callback(self._close_clients)
            entered.push_async_callback(self._holdings.stop)
            entered.push_async_callback(self._fleet.stop)
            entered.push_async_callback(self._requests.stop)
            entered.callback(self._leave)
            for host in self._hosts.values():
                self._fleet.add(host)
            looker = asyncio.create_task(self._look_again())
            looker.add_done_callback(self._fleet.watch_ended)
            entered.callback(looker.cancel)
            self._entered = entered.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._entered.__aexit__(exc_type, exc, traceback)

    async def _close_clients(self) -> None:
        for host in self._hosts.values():
            await host.client.close()

    def watch_ended(self, watch: asyncio.Task[None]) -> None:
        """Something that has to go on as long as the run has ended: say so, and end the run."""
        self._fleet.watch_ended(watch)

    def accounts(self) -> dict[str, HostAccount]:
        """What each host did up to now, by URL."""
        return self._clock.accounts(is_over=not self._tickets)

    def add_host(self, host: Host) -> None:
        """Let a host take part from now on; one that was taken out comes back."""
        known = self._hosts.get(host.url)
        self._observe(events.HostJoined(host.url, host.slots))
        if known is not None:
            self.change_slots(host.url, host.slots)
            self._fleet.take_back(known)
            return
        host.joined_late = True
        self._hosts[host.url] = host
        self._clock.joined(host)
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
            self._observe(
                events.SlotsChanged(url, slots, slots, "its number of slots is another one now")
            )
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

        Raises `RequestFailed` when the segment is given up, `FleetLost` when no host is
        left, and `RunError` when the run ended otherwise.
        """
        if self._ended:
            raise self._ended
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
            self._requests.forget(ticket.key)
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
            self._binding.host_for(work),
            work.tries.in_quarantine,
        )
        self._queue.put(ticket.waiting)
        is_new = work.purpose is Purpose.TRANSLATE and not work.requests
        self._clock.something_waits(is_new=is_new)
        self._fill()

    def _fill(self) -> None:
        """Send what can be sent: called whenever a slot, a host or a segment appears."""
        while (decision := self._decide()) is not None:
            match decision:
                case Send(waiting, url):
                    self._queue.remove(waiting)
                    ticket = self._tickets[waiting.key]
                    ticket.waiting = None
                    if not ticket.reply.done():  # else who asked has given up this moment
                        self._begin()
                        self._requests.send(self._hosts[url], ticket, ticket.work.purpose)
                case Hedge(key, url):
                    ticket = self._tickets[key]
                    if ticket.reply.done():
                        self._requests.forget(key)
                    else:
                        self._requests.send(self._hosts[url], ticket, Purpose.HEDGE)
        if not self._queue and not self._tokens_ahead:
            self._clock.nothing_waits()

    def _decide(self) -> Send | Hedge | None:
        if self._ended:
            return None
        hosts = views(self._hosts.values(), self._learning.tokens_per_s)
        if not hosts:
            return None
        if self._policy != "pull":
            return choose_bound(hosts, self._queue)
        state = State(
            hosts,
            self._queue,
            self._requests.flights.values(),
            tokens_ahead=self._tokens_ahead,
            more_hosts=len(self._hosts) > len(hosts),
            hedge=self._hedge,
        )
        return choose(state, time.monotonic())

    def _need(self, host: Host) -> int:
        """For how many slots of a host there is work, or will be once it is up."""
        return host.needed(None if self._tokens_ahead else len(self._queue))

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_EVERY_S)
            self._fill()

    def _begin(self) -> None:
        """The first request of the run is about to be sent: from here on all time counts."""
        if not self._clock.has_begun:
            now = time.monotonic()
            slots = sum(host.slots or 0 for host in self._hosts.values())
            self._retrying.begin(slots, now)
            self._clock.begin(now)

    # What follows from how a request ended

    def answered(self, ticket: Ticket, live: Live, reply: Reply) -> None:
        """Hand the answer over, if it is the first."""
        self._learning.take(live, ticket.work.segment.predicted_tokens, reply.measures)
        self._retrying.answered()
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
        delay_s = self._retrying.delay_s(work, failure, interrupted=interrupted)
        if delay_s is None:
            ticket.reply.set_exception(failure)
        else:
            self._ask_again(ticket, delay_s)

    def freed(self, host: Host) -> None:
        """Use the slot for something else."""
        self._fleet.request_ended(host)
        self._fill()

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
        for waiting in self._binding.misplaced():
            self._queue.remove(waiting)
            ticket = self._tickets[waiting.key]
            ticket.waiting = None
            self._enqueue(ticket)
        self._fill()

    def _give_up(self, error: RunError) -> None:
        """Let everybody who waits know why the run cannot go on."""
        self._end(error)
        for ticket in self._tickets.values():
            if not ticket.reply.done():
                ticket.reply.set_exception(error)

    def _leave(self) -> None:
        """Wait for nothing any more."""
        self._end(RunError("the run is over"))
        for ticket in self._tickets.values():
            ticket.reply.cancel()

    def _end(self, error: RunError) -> None:
        """Send nothing any more."""
        self._ended = self._ended or error
        self._queue.drain()
        for ticket in self._tickets.values():
            ticket.waiting = None
