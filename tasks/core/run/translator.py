"""Translates reports: splits, asks, judges, asks again within bounds, joins.

Faults of hosts are the dispatcher's; what is decided here is what to do about an
answer that came and is not acceptable.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.retry import delay_s
from tasks.core.dispatch.work import Reply, SegmentWork
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.records import (
    Attempt,
    Measures,
    PlannedReport,
    Purpose,
    ReportOutcome,
    Segment,
    Status,
)
from tasks.core.storage.journal import JournalWriter
from tasks.core.translate import segments
from tasks.core.translate.answers import Refusal, judge
from tasks.core.translate.profiles import Prompting
from tasks.core.translate.reuse_key import Recipe

T = TypeVar("T")

MOST_ANSWERS = 3
"""Unacceptable answers after which a segment is given up."""

MOST_HALVINGS = 3
"""How often a segment whose answer was cut is split: a model that never stops by itself
would else be asked for every few words of a report."""

SHORTEST_TO_SPLIT = 80
"""Characters; a shorter segment whose answer was cut is asked again as it is."""

_TOO_LONG = frozenset({ErrorKind.CUT, ErrorKind.CONTEXT_OVERFLOW})


@dataclass(slots=True)
class _ReportWork:
    """What was done for one report so far."""

    report: PlannedReport
    numbers: Iterator[int]
    """Numbers for further segments."""
    requests: int = 0
    segment_count: int = 0
    accepted: list[Attempt] = field(default_factory=list)


class Translator:
    """Turns planned reports into outcomes, each durable in the journal when it counts.

    `already_accepted` holds segments that earlier, unfinished runs got, by reuse key:
    they are not asked for again.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: JournalWriter,
        prompting: Prompting,
        recipe: Recipe,
        *,
        already_accepted: Mapping[str, Attempt],
        observe: events.Observer = events.ignore,
        rng: random.Random | None = None,
    ) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._dispatcher = dispatcher
        self._journal = journal
        self._prompting = prompting
        self._recipe = recipe
        self._already_accepted = already_accepted
        self._accepted_here: dict[tuple[str, str], Attempt] = {}
        """Not to be paid for again when a shard is tried once more."""
        self._observe = observe
        self._budget = segments.char_budget(prompting.num_ctx, prompting.prompt_chars)
        self._begun: set[str] = set()
        self._done: set[str] = set()

    async def translate(self, reports: Sequence[PlannedReport]) -> None:
        """Translate reports, or record why not; those done before are passed over.

        Raises `FleetLost` and `StorageError`; the reports that are not done by then are
        left, and nothing is sent before what was not stored the last time is stored.
        """
        await self._journal.settle()
        todo = [report for report in reports if report.report_id not in self._done]
        await _all_or_none(map(self._finish, todo))

    async def _finish(self, report: PlannedReport) -> None:
        tokens = segments.predicted_tokens(report.source_text)
        if report.report_id not in self._begun:
            self._begun.add(report.report_id)
            self._dispatcher.begun(tokens)
        outcome = await self._outcome(report)
        await self._journal.write(outcome)
        self._done.add(report.report_id)
        self._observe(events.ReportDone(report.report_id, outcome.status, tokens))

    async def _outcome(self, report: PlannedReport) -> ReportOutcome:
        text = report.source_text
        if segments.has_nothing_to_translate(text):
            return ReportOutcome(report.report_id, Status.PASSED, text, 0, 0, Measures())
        work = _ReportWork(report, numbers=itertools.count())
        try:
            translation = await self._translated(work, text, self._budget, MOST_HALVINGS)
        except RequestFailed as failure:
            return _failed(work, failure)
        return _succeeded(work, translation)

    async def _translated(
        self, work: _ReportWork, text: str, budget_chars: int, halvings: int
    ) -> str:
        """A text's translation, from as many segments as it takes."""
        unit = self._prompting.profile.unit
        parts = segments.split(text, budget_chars, self._prompting.source_lang, unit)
        if len(parts.pieces) == 1:
            return parts.joined([await self._piece(work, parts.pieces[0].text, halvings)])
        # All of them, also when one fails: what is accepted is there for the next run.
        answers = await asyncio.gather(
            *(self._piece(work, piece.text, halvings) for piece in parts.pieces),
            return_exceptions=True,
        )
        translations = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            translations.append(answer)
        return parts.joined(translations)

    async def _piece(self, work: _ReportWork, text: str, halvings: int) -> str:
        if segments.has_nothing_to_translate(text):
            return text
        work.segment_count += 1
        segment = Segment(
            report_id=work.report.report_id,
            index=next(work.numbers),
            text=text,
            reuse_key=self._recipe.reuse_key(text),
            predicted_tokens=segments.predicted_tokens(text),
        )
        here = segment.report_id, segment.reuse_key
        before = self._accepted_here.get(here) or self._already_accepted.get(segment.reuse_key)
        if before is not None and before.text is not None:
            work.accepted.append(before)
            return before.text
        return await self._asked(work, segment, halvings)

    async def _asked(self, work: _ReportWork, segment: Segment, halvings: int) -> str:
        """A segment's translation: asked for until it is acceptable, or split once more."""
        asking = SegmentWork(segment)
        for answers in range(MOST_ANSWERS):
            if answers:
                await asyncio.sleep(delay_s(answers, self._rng.random()))
            try:
                translation = await self._ask_once(work, asking)
            except RequestFailed as failure:
                if failure.kind in _TOO_LONG and len(segment.text) >= SHORTEST_TO_SPLIT:
                    if not halvings:
                        raise
                    work.segment_count -= 1
                    half = len(segment.text) // 2
                    return await self._translated(work, segment.text, half, halvings - 1)
                if not isinstance(failure, _Refused):
                    raise
                last = failure
            else:
                return translation
            asking.purpose = Purpose.REPAIR
        raise last

    async def _ask_once(self, work: _ReportWork, asking: SegmentWork) -> str:
        sent_before = asking.requests
        try:
            reply = await self._dispatcher.ask(asking)
        finally:
            work.requests += asking.requests - sent_before
        verdict = judge(reply.answer)
        if isinstance(verdict, Refusal):
            asking.failed_on |= {reply.sent.host}
            self._dispatcher.refused(reply)
            raise self._refused(reply, verdict)
        attempt = reply.accepted(verdict)
        self._accepted_here[attempt.report_id, attempt.reuse_key] = attempt
        await self._journal.write(attempt)
        work.accepted.append(attempt)
        return verdict

    def _refused(self, reply: Reply, refusal: Refusal) -> RequestFailed:
        error = _Refused(refusal.kind, f"{reply.sent.host}: {refusal.reason}")
        self._journal.note(reply.refused(error))
        return error


async def _all_or_none(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; at the first error the others are stopped."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Refused(RequestFailed):
    """An answer came and was not acceptable."""


def _succeeded(work: _ReportWork, translation: str) -> ReportOutcome:
    accepted = work.accepted
    return ReportOutcome(
        report_id=work.report.report_id,
        status=Status.OK,
        translated_text=translation,
        segment_count=work.segment_count,
        attempts=work.requests,
        measures=total([attempt.measures for attempt in accepted]),
        host=_only({attempt.host for attempt in accepted}),
        ollama_version=_only({attempt.ollama_version for attempt in accepted}),
        done_reason=_only({attempt.done_reason for attempt in accepted}),
        started_at=min((attempt.started_at for attempt in accepted), default=None),
        finished_at=max((attempt.finished_at for attempt in accepted), default=None),
    )


def _failed(work: _ReportWork, failure: RequestFailed) -> ReportOutcome:
    return ReportOutcome(
        report_id=work.report.report_id,
        status=Status.FAILED,
        translated_text=None,
        segment_count=work.segment_count,
        attempts=work.requests,
        measures=total([attempt.measures for attempt in work.accepted]),
        error_kind=failure.kind,
        error=failure.message,
    )


def total(measures: Iterable[Measures]) -> Measures:
    """Measures added up, field by field."""
    every = list(measures)
    return Measures(
        **{item.name: sum(getattr(one, item.name) for one in every) for item in fields(Measures)}
    )


def _only(values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None
