"""Sends requests to hosts and says how each of them ended."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol

from tasks.core.dispatch import events
from tasks.core.dispatch.account import Ending
from tasks.core.dispatch.attempts import Live, Ticket
from tasks.core.dispatch.choose import Flight
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.work import RecordAttempt, Reply, Sent
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import AttemptOutcome, Measures, Purpose
from tasks.core.translate.answers import Answer
from tasks.core.translate.profiles import Prompting

_NO_MEASURES = Measures()

SETTLE_S = 0.25
"""How long a slot is left alone after a request was cancelled: the server has to notice first."""


class Endings(Protocol):
    """Who is told how requests end."""

    def answered(self, ticket: Ticket, live: Live, reply: Reply) -> None:
        """An answer came, whatever it is worth."""

    def failed(self, ticket: Ticket, live: Live, failure: RequestFailed) -> None:
        """None came; other requests for the same segment may still be out."""

    def freed(self, host: Host) -> None:
        """A slot of a host is free again."""


class Requests:
    """The requests that are out, each in a task of its own.

    Several may be out for one segment; the first answer counts, and whoever waits for it
    then cancels the others. Every request that does not become a reply goes to `record`.
    """

    def __init__(
        self,
        prompting: Prompting,
        endings: Endings,
        *,
        record: RecordAttempt,
        observe: events.Observer,
        now: Callable[[], datetime],
    ) -> None:
        self._prompting = prompting
        self._endings = endings
        self._record = record
        self._observe = observe
        self._now = now
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.flights: dict[int, Flight] = {}
        """What is out, as the decision what to send next sees it."""

    async def stop(self) -> None:
        """End all of them."""
        # More than the tickets have: whoever stopped asking does not wait for its requests.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(self, host: Host, ticket: Ticket, purpose: Purpose) -> None:
        """Send a segment to a host; its slot is taken at once."""
        started_at, work = time.monotonic(), ticket.work
        is_hedge = purpose is Purpose.HEDGE
        host.occupy(started_at, is_hedge=is_hedge)
        host.is_shielded |= work.tries.in_quarantine
        work.requests += 1
        self._observe(events.RequestSent(host.url))
        sent = Sent(
            work=work,
            host=host.url,
            ollama_version=host.version,
            attempt=work.requests,
            purpose=purpose,
            queue_wait_ns=time.monotonic_ns() - ticket.waiting_since_ns,
            started_at=self._now(),
        )
        live = Live(
            next(self._numbers), host, sent, started_at, host.in_flight, work.tries.in_quarantine
        )
        self._allow_hedge(ticket, allowed=False)
        self.flights[live.number] = Flight(
            ticket.key,
            host.url,
            work.segment.predicted_tokens,
            started_at,
            may_hedge=not is_hedge and not work.tries.in_quarantine,
            failed_on=work.failed_on,
        )
        ticket.live[live.number] = live
        live.task = asyncio.create_task(self._request(ticket, live))
        self._tasks.add(live.task)
        live.task.add_done_callback(partial(self._task_ended, ticket, live))

    def keep_from(self, ticket: Ticket) -> None:
        """Send no copy to where the segment failed meanwhile."""
        for number in ticket.live:
            flight = self.flights[number]
            self.flights[number] = replace(flight, failed_on=ticket.work.failed_on)

    def forget(self, key: int) -> None:
        """Nobody waits for a segment any more: send no copy of it."""
        for number, flight in self.flights.items():
            if flight.key == key:
                self.flights[number] = replace(flight, may_hedge=False)

    def interrupt(self, tickets: Iterable[Ticket], host: Host, failure: RequestFailed) -> None:
        """End what is out to a host that is no longer there: it counts as failed."""
        for ticket in tickets:
            for live in ticket.live.values():
                if live.host is host and not ticket.reply.done():
                    live.interruption = failure
                    live.cancel()

    async def _request(self, ticket: Ticket, live: Live) -> None:
        """One request, from here until its slot is free again."""
        ending, output_tokens, settle_s = Ending.CANCELLED, 0, 0.0
        live.has_begun = True
        try:
            answer = await self._chat(ticket, live)
        except RequestFailed as failure:
            ending, settle_s = Ending.FAILED, SETTLE_S if failure.kind is ErrorKind.TIMEOUT else 0.0
            self._failed(ticket, live, failure)
        except asyncio.CancelledError:
            ending, settle_s = _without_use(ticket), SETTLE_S
            self._cancelled(ticket, live)
            raise
        else:
            output_tokens = answer.measures.output_tokens
            if ticket.reply.done():
                ending = _without_use(ticket)
                self._cancelled(ticket, live, answer.measures)
            else:
                ending = Ending.ANSWERED
                self._answered(ticket, live, answer)
        finally:
            if settle_s:
                loop = asyncio.get_running_loop()
                loop.call_later(settle_s, self._release, live, ending, output_tokens)
            else:
                self._release(live, ending, output_tokens)

    async def _chat(self, ticket: Ticket, live: Live) -> Answer:
        host, segment, prompting = live.host, ticket.work.segment, self._prompting
        try:
            return await host.client.chat(
                prompting.model,
                prompting.messages(segment.text),
                prompting.options,
                prompting.profile.think,
                host.pace.deadline_s(segment.predicted_tokens),
            )
        except asyncio.CancelledError:
            if live.interruption is None:
                raise
            if task := asyncio.current_task():
                task.uncancel()
            raise live.interruption from None

    def _answered(self, ticket: Ticket, live: Live, answer: Answer) -> None:
        reply = Reply(live.sent, answer, _measured(live, answer.measures), self._now())
        self._out(ticket, live, answered=True)
        self._observe(events.RequestEnded(live.host.url, answer.measures.output_tokens))
        self._endings.answered(ticket, live, reply)

    def _failed(self, ticket: Ticket, live: Live, failure: RequestFailed) -> None:
        measures = _measured(live, Measures())
        self._record(live.sent.ended(AttemptOutcome.FAILED, self._now(), measures, error=failure))
        self._out(ticket, live)
        self._observe(events.RequestEnded(live.host.url, 0, failure.message))
        self._endings.failed(ticket, live, failure)

    def _cancelled(self, ticket: Ticket, live: Live, measures: Measures = _NO_MEASURES) -> None:
        """Nobody had a use for it, whether it was answered or not."""
        measured = _measured(live, measures)
        self._record(live.sent.ended(AttemptOutcome.CANCELLED, self._now(), measured))
        self._out(ticket, live)
        self._observe(events.RequestEnded(live.host.url, measures.output_tokens))

    def _out(self, ticket: Ticket, live: Live, *, answered: bool = False) -> None:
        """Nothing is to be expected of a request any more; without an answer, a copy may follow."""
        self.flights.pop(live.number, None)
        ticket.live.pop(live.number, None)
        self._allow_hedge(ticket, allowed=not answered and not ticket.reply.done())

    def _allow_hedge(self, ticket: Ticket, *, allowed: bool) -> None:
        for number in ticket.live:
            self.flights[number] = replace(self.flights[number], may_hedge=allowed)

    def _release(self, live: Live, ending: Ending, output_tokens: int) -> None:
        live.host.release(time.monotonic(), live.started_at, ending, output_tokens)
        if live.in_quarantine:
            live.host.is_shielded = False
        self._endings.freed(live.host)

    def _task_ended(self, ticket: Ticket, live: Live, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not live.has_begun:
            self._never_begun(ticket, live)
        elif not task.cancelled() and (bug := task.exception()):
            self._out(ticket, live)
            if not ticket.reply.done():
                ticket.reply.set_exception(bug)  # or the segment would wait for ever

    def _never_begun(self, ticket: Ticket, live: Live) -> None:
        """A request that was ended the moment it was sent, before it went out."""
        if live.interruption is None:
            ending = _without_use(ticket)
            self._cancelled(ticket, live)
        else:
            ending = Ending.FAILED
            self._failed(ticket, live, live.interruption)
        self._release(live, ending, 0)


def _without_use(ticket: Ticket) -> Ending:
    """How a request ended that nobody waited for any more."""
    was_answered = ticket.reply.done() and not ticket.reply.cancelled()
    return Ending.DUPLICATE if was_answered else Ending.CANCELLED


def _measured(live: Live, measures: Measures) -> Measures:
    wall_ns = round((time.monotonic() - live.started_at) * 1e9)
    return replace(measures, queue_wait_ns=live.sent.queue_wait_ns, request_wall_ns=wall_ns)
