"""Gives waiting segments to the hosts' free slots, until every one has its answer.

The decisions stand in `policies` (who gets what), `retry` (what becomes of a failed
request), `health` (whether a host takes requests) and `pace` (how long to wait); this
module obeys them. One dispatcher lives on one event loop; nothing in it is shared
between threads.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

from tasks.core.dispatch import events
from tasks.core.dispatch.fleet import LISTEN_EVERY_S, Fleet
from tasks.core.dispatch.host import Host, HostAccount
from tasks.core.dispatch.policies import Queue, Waiting, bind, next_host
from tasks.core.dispatch.retry import GiveUp, after_failure, counts_as_failure
from tasks.core.dispatch.work import RecordAttempt, Reply, SegmentWork, Sent
from tasks.core.errors import FleetLost, RequestFailed
from tasks.core.records import AttemptOutcome, Measures
from tasks.core.settings import PolicyName
from tasks.core.translate.answers import Answer
from tasks.core.translate.profiles import Prompting


@dataclass(eq=False, slots=True)
class Ticket:
    """A segment that waits for its answer."""

    key: int
    work: SegmentWork
    reply: asyncio.Future[Reply]
    waiting_since_ns: int
    attempt: asyncio.Task[None] | None = None
    sent_to: str | None = None
    interruption: RequestFailed | None = None
    """Why the attempt was ended from outside."""


class Dispatcher:
    """One queue of segments in front of several hosts.

    `ask` returns the answer of whichever host got the segment. Failed requests are
    tried again on another host and handed to `record`; a host never has more requests
    in flight than slots. Use it as an async context manager.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        prompting: Prompting,
        model_digest: str,
        *,
        record: RecordAttempt,
        policy: PolicyName = "pull",
        fleet_timeout_s: float = 300.0,
        load_timeout_s: float = 600.0,
        listen_every_s: float = LISTEN_EVERY_S,
        observe: events.Observer = events.ignore,
        rng: random.Random | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._hosts = {host.url: host for host in hosts}
        self._prompting = prompting
        self._record = record
        self._policy = policy
        self._observe = observe
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._now = now
        self._queue = Queue()
        self._tickets: dict[int, Ticket] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._keys = itertools.count()
        self._turns = itertools.count()
        self._fleet = Fleet(
            hosts,
            prompting,
            model_digest,
            fleet_timeout_s=fleet_timeout_s,
            load_timeout_s=load_timeout_s,
            listen_every_s=listen_every_s,
            observe=observe,
            rng=self._rng,
            on_change=self._hosts_changed,
            on_silence=self._interrupt,
            on_lost=self._give_up,
        )
        self._lost: FleetLost | None = None

    def __repr__(self) -> str:
        hosts = ", ".join(
            f"{host.url} {host.health.state} {host.in_flight}/{host.slots}"
            for host in self._hosts.values()
        )
        return f"<Dispatcher [{len(self._queue)} queued | {hosts}]>"

    async def __aenter__(self) -> Self:
        self._fleet.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._queue.drain()
        for ticket in self._tickets.values():
            ticket.reply.cancel()
        # More than the tickets have: whoever stopped asking does not wait for its attempt.
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        await self._fleet.stop()
        for host in self._hosts.values():
            await host.client.close()

    def accounts(self) -> dict[str, HostAccount]:
        """What each host did up to now, by URL."""
        now = time.monotonic()
        return {url: host.account(now) for url, host in self._hosts.items()}

    async def ask(self, work: SegmentWork) -> Reply:
        """A host's answer to a segment; whether it is acceptable is not decided here.

        Raises `RequestFailed` when the segment is given up, and `FleetLost` when no
        host is left.
        """
        if self._lost:
            raise self._lost
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        ticket = Ticket(next(self._keys), work, reply, time.monotonic_ns())
        self._tickets[ticket.key] = ticket
        try:
            self._enqueue(ticket)
            return await reply
        finally:
            del self._tickets[ticket.key]
            if ticket.attempt:
                ticket.attempt.cancel()

    def _enqueue(self, ticket: Ticket) -> None:
        if ticket.reply.done():
            return
        work = ticket.work
        views = [host.view(self._queue.bound_to(url)) for url, host in self._hosts.items()]
        bound_to = bind(self._policy, views, next(self._turns), self._rng, work.failed_on)
        self._queue.put(
            Waiting(ticket.key, work.segment.predicted_tokens, bound_to, work.failed_on)
        )
        self._fill()

    def _hosts_changed(self) -> None:
        """Give what is bound to lost hosts to those that take requests, if there are any."""
        if any(host.takes_requests for host in self._hosts.values()):
            for host in self._hosts.values():
                if host.health.is_lost:
                    for waiting in filter(self._still_wanted, self._queue.unbind(host.url)):
                        self._enqueue(self._tickets[waiting.key])
        self._fill()

    def _fill(self) -> None:
        """Send what can be sent: called whenever a slot, a host or a segment appears."""
        while self._send_one():
            pass

    def _send_one(self) -> bool:
        up = frozenset(url for url, host in self._hosts.items() if host.takes_requests)
        for url in next_host(host.view(0) for host in self._hosts.values()):
            waiting = self._queue.take(url, up - {url})
            while waiting is not None and not self._still_wanted(waiting):
                waiting = self._queue.take(url, up - {url})
            if waiting is not None:
                self._send(self._hosts[url], self._tickets[waiting.key])
                return True
        return False

    def _still_wanted(self, waiting: Waiting) -> bool:
        ticket = self._tickets.get(waiting.key)
        return ticket is not None and not ticket.reply.done()

    def _send(self, host: Host, ticket: Ticket) -> None:
        host.occupy(time.monotonic())
        host.requests += 1
        ticket.work.requests += 1
        self._observe(events.RequestSent(host.url))
        sent = Sent(
            work=ticket.work,
            host=host.url,
            ollama_version=host.version,
            attempt=ticket.work.requests,
            purpose=ticket.work.purpose,
            queue_wait_ns=time.monotonic_ns() - ticket.waiting_since_ns,
            started_at=self._now(),
        )
        ticket.sent_to, ticket.interruption = host.url, None
        ticket.attempt = asyncio.create_task(self._attempt(host, ticket, sent))
        self._attempts.add(ticket.attempt)
        ticket.attempt.add_done_callback(partial(self._attempt_ended, ticket))

    async def _attempt(self, host: Host, ticket: Ticket, sent: Sent) -> None:
        start_ns = time.monotonic_ns()

        def measured(measures: Measures) -> Measures:
            wall_ns = time.monotonic_ns() - start_ns
            return replace(measures, queue_wait_ns=sent.queue_wait_ns, request_wall_ns=wall_ns)

        try:
            answer = await self._chat(host, ticket)
        except RequestFailed as failure:
            self._record(
                sent.ended(AttemptOutcome.FAILED, self._now(), measured(Measures()), error=failure)
            )
            ticket.attempt = None
            self._after_failure(host, ticket, failure)
        except asyncio.CancelledError:
            self._record(sent.ended(AttemptOutcome.CANCELLED, self._now(), measured(Measures())))
            raise
        else:
            reply = Reply(sent, answer, measured(answer.measures), self._now())
            ticket.attempt = None
            self._after_answer(host, ticket, reply)
        finally:
            host.release(time.monotonic())
            self._fill()

    async def _chat(self, host: Host, ticket: Ticket) -> Answer:
        segment, prompting = ticket.work.segment, self._prompting
        try:
            return await host.client.chat(
                prompting.model,
                prompting.messages(segment.text),
                prompting.options,
                prompting.profile.think,
                host.pace.deadline_s(segment.predicted_tokens),
            )
        except asyncio.CancelledError:
            if ticket.interruption is None:
                raise
            failure, ticket.interruption = ticket.interruption, None
            if task := asyncio.current_task():
                task.uncancel()
            raise failure from None

    def _interrupt(self, host: Host, failure: RequestFailed) -> None:
        """End what is in flight to a host that is no longer there; others get it."""
        for ticket in self._tickets.values():
            if ticket.attempt and ticket.sent_to == host.url:
                ticket.interruption = failure
                ticket.attempt.cancel()

    def _attempt_ended(self, ticket: Ticket, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        if attempt.cancelled() or ticket.reply.done():
            return
        if bug := attempt.exception():
            ticket.reply.set_exception(bug)  # or the segment would wait for ever

    def _after_answer(self, host: Host, ticket: Ticket, reply: Reply) -> None:
        measures = reply.measures
        host.heard_at = time.monotonic()
        host.health = host.health.answered()
        host.pace = host.pace.after(
            ticket.work.segment.predicted_tokens, measures.request_wall_ns / 1e9
        )
        host.output_tokens += measures.output_tokens
        self._observe(events.RequestEnded(host.url, measures.output_tokens))
        if not ticket.reply.done():
            ticket.reply.set_result(reply)

    def _after_failure(self, host: Host, ticket: Ticket, failure: RequestFailed) -> None:
        work = ticket.work
        work.failed_on |= {host.url}
        if counts_as_failure(failure.kind):
            work.failures += 1
        else:
            work.busy += 1
        host.failures += 1
        self._observe(events.RequestEnded(host.url, 0, failure.message))
        self._fleet.request_failed(host, failure)
        if ticket.reply.done():
            return
        decision = after_failure(failure.kind, work.failures, work.busy, self._rng.random())
        if isinstance(decision, GiveUp):
            ticket.reply.set_exception(failure)
        else:
            ticket.waiting_since_ns = time.monotonic_ns()
            asyncio.get_running_loop().call_later(decision.delay_s, self._enqueue, ticket)

    def _give_up(self, error: FleetLost) -> None:
        self._lost = error
        self._queue.drain()
        for ticket in self._tickets.values():
            if not ticket.reply.done():
                ticket.reply.set_exception(error)
