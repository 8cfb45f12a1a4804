from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from deployments.local_ollama import Settings
from tasks.core.dispatch import events
from tasks.core.dispatch.dispatcher import Dispatcher
from tasks.core.dispatch.work import Reply, SegmentWork, Sent
from tasks.core.errors import ErrorKind, FleetLost, RequestFailed, StorageError
from tasks.core.records import (
    Attempt,
    AttemptOutcome,
    Measures,
    PlannedReport,
    Purpose,
    ReportOutcome,
    Status,
)
from tasks.core.run.translator import MOST_ANSWERS, SHORTEST_TO_SPLIT, Translator, total
from tasks.core.storage.journal import JournalContent, JournalWriter, read_journal
from tasks.core.storage.store import Store
from tasks.core.translate.answers import Answer
from tasks.core.translate.profiles import Prompting
from tasks.core.translate.reuse_key import Recipe
from tasks.core.translate.segments import predicted_tokens
from tests.fakes import (
    NOW,
    NoJitter,
    an_attempt,
    digest_of,
    dispatching,
    prompting,
    serving,
    times_asked_in_all,
)

RUN_ID = "run"
HOSTS = ("http://a:1", "http://b:1")
MEASURES = Measures(1, 2, 3, 4, 50, 6, 7, 8)
Respond = Callable[[SegmentWork], str | Answer | RequestFailed]


def whole(text: str, done_reason: str | None = "stop", *, done: bool = True) -> Answer:
    """An answer with this text."""
    return Answer(text, done, done_reason, MEASURES)


def upper(work: SegmentWork) -> str:
    """A translation that is the text in capitals."""
    return work.segment.text.upper()


@dataclass
class TurnTaking:
    """A dispatcher that works: it asks a function and takes hosts where nothing failed yet."""

    respond: Respond = upper
    asked: list[str] = field(default_factory=list)
    purposes: list[Purpose] = field(default_factory=list)
    begun_tokens: list[int] = field(default_factory=list)
    refused_texts: list[str] = field(default_factory=list)

    def begun(self, tokens: int) -> None:
        """Count what is no longer ahead."""
        self.begun_tokens.append(tokens)

    def refused(self, reply: Reply) -> None:
        """Count an answer that was not acceptable."""
        self.refused_texts.append(reply.sent.work.segment.text)

    async def ask(self, work: SegmentWork) -> Reply:
        """The function's answer, from the first host where the segment has not failed."""
        work.requests += 1
        self.asked.append(work.segment.text)
        self.purposes.append(work.purpose)
        host = next((host for host in HOSTS if host not in work.failed_on), HOSTS[0])
        started_at = NOW + timedelta(seconds=len(self.asked))
        sent = Sent(work, host, "0.33.0", work.requests, work.purpose, 3, started_at)
        answer = self.respond(work)
        if isinstance(answer, RequestFailed):
            raise answer
        if isinstance(answer, str):
            answer = whole(answer)
        return Reply(sent, answer, answer.measures, started_at + timedelta(seconds=0.5))


@dataclass
class Bench:
    """A translator in front of a dispatcher, with a journal in a folder."""

    store: Store
    dispatcher: TurnTaking
    told: list[events.Event] = field(default_factory=list)

    async def translate(
        self,
        *texts: str,
        bound: Prompting | None = None,
        accepted: dict[str, Attempt] | None = None,
        times: int = 1,
    ) -> JournalContent:
        """Translate these texts as reports r0, r1 …; the journal afterwards."""
        bound = bound or prompting()
        reports = [PlannedReport(f"r{n}", text, f"key{n}") for n, text in enumerate(texts)]
        async with JournalWriter(self.store, RUN_ID, "w") as journal:
            translator = Translator(
                cast("Dispatcher", self.dispatcher),
                journal,
                bound,
                Recipe.of(bound, "d"),
                already_accepted=accepted or {},
                observe=self.told.append,
                rng=NoJitter(),
            )
            for _ in range(times):
                await translator.translate(reports)
        return read_journal(self.store, RUN_ID)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A translator whose dispatcher answers in capitals."""
    return Bench(Store(tmp_path), TurnTaking())


def in_turn(*answers: str | Answer | RequestFailed) -> Respond:
    """These answers, one after the other."""
    left: Iterator[str | Answer | RequestFailed] = iter(answers)
    return lambda _work: next(left)


def paragraphs(count: int, length: int = 60) -> str:
    """A text of so many paragraphs, with whitespace around and between."""
    return " \n" + "\n\n  ".join(f"p{number} " + "x" * length for number in range(count)) + "\n"


async def test_a_short_report(bench: Bench) -> None:
    """A report that fits is one request, and its outcome holds all of that request."""
    content = await bench.translate("\tLe rein\n")
    assert bench.dispatcher.asked == ["Le rein"]
    outcome = content.outcomes["r0"]
    assert outcome == ReportOutcome(
        report_id="r0",
        status=Status.OK,
        translated_text="\tLE REIN\n",
        segment_count=1,
        attempts=1,
        measures=MEASURES,
        host=HOSTS[0],
        ollama_version="0.33.0",
        done_reason="stop",
        started_at=NOW + timedelta(seconds=1),
        finished_at=NOW + timedelta(seconds=1.5),
    )
    (attempt,) = content.attempts
    assert (attempt.outcome, attempt.text) == (AttemptOutcome.ACCEPTED, "LE REIN")
    assert attempt.reuse_key == Recipe.of(prompting(), "d").reuse_key("Le rein")
    assert bench.told == [events.ReportDone("r0", Status.OK, 3)]


async def test_a_long_report(bench: Bench) -> None:
    """A report that does not fit is split, joined with its own whitespace and summed up."""
    text = paragraphs(12, 200)
    content = await bench.translate(text, bound=prompting(num_ctx=700))
    count = len(bench.dispatcher.asked)
    assert count > 2
    outcome = content.outcomes["r0"]
    assert outcome.translated_text == text.upper()
    assert (outcome.segment_count, outcome.attempts) == (count, count)
    assert outcome.measures == total([MEASURES] * count)
    assert outcome.measures.eval_duration_ns == 8 * count
    assert outcome.started_at == NOW + timedelta(seconds=1)
    assert outcome.finished_at == NOW + timedelta(seconds=count + 0.5)
    assert sorted(attempt.segment for attempt in content.attempts) == list(range(count))


async def test_several_hosts(bench: Bench) -> None:
    """A report whose segments came from several hosts names none."""
    answers = deque([whole("")])
    bench.dispatcher.respond = lambda work: answers.pop() if answers else upper(work)
    content = await bench.translate(paragraphs(12, 200), bound=prompting(num_ctx=700))
    assert content.outcomes["r0"].status is Status.OK
    assert content.outcomes["r0"].host is None
    accepted = [one for one in content.attempts if one.outcome is AttemptOutcome.ACCEPTED]
    assert {attempt.host for attempt in accepted} == set(HOSTS)


@pytest.mark.parametrize("text", ["", " \n", "12,5 / 3", "---"])
async def test_nothing_to_translate(bench: Bench, text: str) -> None:
    """A report without a letter is passed as it is, without a request."""
    content = await bench.translate(text)
    assert bench.dispatcher.asked == []
    assert content.outcomes["r0"] == ReportOutcome("r0", Status.PASSED, text, 0, 0, Measures())


async def test_a_piece_with_nothing_to_translate(bench: Bench) -> None:
    """Of a long report only pieces with words are sent; the others stand as they were."""
    text = "Le rein " + "x" * 200 + "\n\n" + "1 2 3 4 5 " * 40 + "\n\nLe foie " + "y" * 200
    content = await bench.translate(text, bound=prompting(num_ctx=480))
    outcome = content.outcomes["r0"]
    assert outcome.translated_text == text.upper()
    assert all(any(letter.isalpha() for letter in asked) for asked in bench.dispatcher.asked)
    assert outcome.segment_count == len(bench.dispatcher.asked)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (whole(""), ErrorKind.EMPTY),
        (whole("<think>hm</think>"), ErrorKind.EMPTY),
        (whole("LE R", None, done=False), ErrorKind.NOT_DONE),
        (whole("LE R", "length"), ErrorKind.CUT),
    ],
)
async def test_a_bad_answer_is_asked_for_again(bench: Bench, bad: Answer, kind: ErrorKind) -> None:
    """An answer that is no translation is recorded and asked for again on another host."""
    bench.dispatcher.respond = in_turn(bad, "LE REIN")
    content = await bench.translate("Le rein")
    assert bench.dispatcher.purposes == [Purpose.TRANSLATE, Purpose.REPAIR]
    assert bench.dispatcher.refused_texts == ["Le rein"]
    assert bench.dispatcher.begun_tokens == [predicted_tokens("Le rein")]
    refused, accepted = sorted(content.attempts, key=lambda attempt: attempt.attempt)
    assert (refused.outcome, refused.error_kind, refused.text) == (
        AttemptOutcome.REFUSED,
        kind,
        None,
    )
    assert (refused.host, accepted.host) == HOSTS
    outcome = content.outcomes["r0"]
    assert (outcome.status, outcome.translated_text) == (Status.OK, "LE REIN")
    assert (outcome.attempts, outcome.segment_count, outcome.host) == (2, 1, HOSTS[1])
    assert outcome.measures == MEASURES


async def test_bad_answers_are_bounded(bench: Bench) -> None:
    """After MOST_ANSWERS bad answers the report has failed, with the kind of the last."""
    bench.dispatcher.respond = lambda _work: whole("")
    content = await bench.translate("Le rein")
    assert len(bench.dispatcher.asked) == MOST_ANSWERS == 3
    outcome = content.outcomes["r0"]
    assert (outcome.status, outcome.translated_text) == (Status.FAILED, None)
    assert (outcome.error_kind, outcome.attempts) == (ErrorKind.EMPTY, 3)
    assert outcome.error is not None
    assert outcome.error.endswith("the answer holds no text")
    assert [attempt.outcome for attempt in content.attempts] == [AttemptOutcome.REFUSED] * 3


async def test_a_cut_answer_is_split_and_never_accepted(bench: Bench) -> None:
    """A long segment whose answer was cut is asked for in halves; the cut text is nowhere."""
    text = paragraphs(4)

    def respond(work: SegmentWork) -> Answer:
        done_reason = "length" if len(work.segment.text) > 150 else "stop"
        return whole(work.segment.text.upper(), done_reason)

    bench.dispatcher.respond = respond
    content = await bench.translate(text)
    outcome = content.outcomes["r0"]
    assert outcome.translated_text == text.upper()
    assert bench.dispatcher.asked[0] == text.strip()
    assert (outcome.segment_count, outcome.attempts) == (2, 3)
    assert outcome.measures == total([MEASURES] * 2)
    by_outcome = Counter(attempt.outcome for attempt in content.attempts)
    assert by_outcome == {AttemptOutcome.REFUSED: 1, AttemptOutcome.ACCEPTED: 2}
    assert len({attempt.segment for attempt in content.attempts}) == 3


async def test_splitting_ends(bench: Bench) -> None:
    """A text whose answers are always cut is split while that helps, then failed."""
    text = "x" * (4 * SHORTEST_TO_SPLIT)
    bench.dispatcher.respond = lambda _work: whole("X", "length")
    content = await bench.translate(text)
    lengths = Counter(map(len, bench.dispatcher.asked))
    assert lengths == {320: 1, 160: 2, 80: 4, 40: 8 * MOST_ANSWERS}
    outcome = content.outcomes["r0"]
    assert (outcome.status, outcome.error_kind) == (Status.FAILED, ErrorKind.CUT)
    assert outcome.attempts == sum(lengths.values())


async def test_a_prompt_that_overflows_is_split(bench: Bench) -> None:
    """A segment that a host refuses as too long goes out in smaller ones."""
    text = paragraphs(4)
    overflow = RequestFailed(ErrorKind.CONTEXT_OVERFLOW, "http://a:1 answered 400: too long")
    bench.dispatcher.respond = lambda work: (
        overflow if len(work.segment.text) > 150 else upper(work)
    )
    content = await bench.translate(text)
    assert content.outcomes["r0"].translated_text == text.upper()
    assert (content.outcomes["r0"].segment_count, content.outcomes["r0"].attempts) == (2, 3)


async def test_a_short_prompt_that_overflows(bench: Bench) -> None:
    """A text too short to split that does not fit has failed, after one request."""
    overflow = RequestFailed(ErrorKind.CONTEXT_OVERFLOW, "http://a:1 answered 400: too long")
    bench.dispatcher.respond = lambda _work: overflow
    content = await bench.translate("Le rein")
    assert len(bench.dispatcher.asked) == 1
    assert content.outcomes["r0"].error_kind == ErrorKind.CONTEXT_OVERFLOW


async def test_a_request_that_failed_for_good(bench: Bench) -> None:
    """What the dispatcher gave up becomes a failed report with its kind and message."""
    error = RequestFailed(ErrorKind.SERVER_ERROR, "http://a:1 answered 500: no")
    bench.dispatcher.respond = lambda work: error if "cursed" in work.segment.text else upper(work)
    content = await bench.translate("cursed", "Le rein")
    outcome = content.outcomes["r0"]
    assert (outcome.status, outcome.error_kind) == (Status.FAILED, ErrorKind.SERVER_ERROR)
    assert (outcome.error, outcome.attempts) == (error.message, 1)
    assert content.outcomes["r1"].status is Status.OK
    assert [type(event) for event in bench.told] == [events.ReportDone] * 2


async def test_a_report_of_which_one_piece_fails(bench: Bench) -> None:
    """A report with a piece that failed has failed; what its other pieces cost is recorded."""
    error = RequestFailed(ErrorKind.SERVER_ERROR, "no")
    bench.dispatcher.respond = lambda work: error if "p0" in work.segment.text else upper(work)
    content = await bench.translate(paragraphs(6, 200), bound=prompting(num_ctx=480))
    accepted = [one for one in content.attempts if one.outcome is AttemptOutcome.ACCEPTED]
    outcome = content.outcomes["r0"]
    assert outcome.status is Status.FAILED
    assert outcome.translated_text is None
    assert outcome.measures == total([MEASURES] * len(accepted))
    assert outcome.attempts == len(accepted) + 1 > 2


async def test_already_accepted_segments_are_not_asked_for(bench: Bench) -> None:
    """A segment that an unfinished run got is taken from there; only the others are sent."""
    text = paragraphs(12, 200)
    bound = prompting(num_ctx=700)
    first = await bench.translate(text, bound=bound)
    kept = first.attempts[0]
    sent_before = len(bench.dispatcher.asked)
    before = {kept.reuse_key: kept}
    content = await bench.translate(text, bound=bound, accepted=before)
    asked_again = bench.dispatcher.asked[sent_before:]
    assert len(asked_again) == sent_before - 1
    assert kept.text is not None
    assert kept.text not in {asked.upper() for asked in asked_again}
    outcome = content.outcomes["r0"]
    assert outcome.translated_text == text.upper()
    assert (outcome.segment_count, outcome.attempts) == (sent_before, sent_before - 1)
    assert outcome.measures == first.outcomes["r0"].measures


async def test_a_report_that_is_all_accepted_already(bench: Bench) -> None:
    """A report whose only segment is known needs no request and has that answer's numbers."""
    recipe = Recipe.of(prompting(), "d")
    known = an_attempt("The kidney", reuse_key=recipe.reuse_key("Le rein"))
    content = await bench.translate(" Le rein", accepted={known.reuse_key: known})
    assert bench.dispatcher.asked == []
    outcome = content.outcomes["r0"]
    assert (outcome.translated_text, outcome.attempts) == (" The kidney", 0)
    assert (outcome.host, outcome.started_at) == (known.host, known.started_at)


async def test_done_reports_are_passed_over(bench: Bench) -> None:
    """A shard that is tried again pays only for the reports it has not finished."""
    await bench.translate("Le rein", "Le foie", times=3)
    assert Counter(bench.dispatcher.asked) == {"Le rein": 1, "Le foie": 1}
    assert len(bench.told) == 2


@pytest.mark.parametrize("error", [FleetLost("all gone"), StorageError("disk full")])
async def test_errors_of_the_run_stop_the_other_reports(bench: Bench, error: Exception) -> None:
    """What ends the run is raised at once, and nothing more is asked for the shard."""

    def respond(work: SegmentWork) -> str:
        if "cursed" in work.segment.text:
            raise error
        return upper(work)

    bench.dispatcher.respond = respond
    with pytest.raises(type(error)):
        await bench.translate("cursed", *[f"Le rein {number}" for number in range(20)])
    asked = len(bench.dispatcher.asked)
    assert read_journal(bench.store, RUN_ID).outcomes.get("r0") is None
    await asyncio.sleep(0.05)
    assert len(bench.dispatcher.asked) == asked


async def test_an_outcome_counts_when_it_is_durable(bench: Bench, tmp_path: Path) -> None:
    """A report whose outcome cannot be written is not done, and nobody is told it is."""

    class FullDisk(Store):
        def append_log(self, key: str) -> Any:
            log = super().append_log(key)

            def fail(_data: bytes) -> None:
                raise StorageError("cannot write: No space left on device")

            log.append = fail  # type: ignore[method-assign]
            return log

    bench.store = FullDisk(tmp_path)
    with pytest.raises(StorageError):
        await bench.translate("Le rein")
    assert bench.told == []


def test_totals() -> None:
    """Measures add up field by field, and nothing adds up to nothing."""
    assert total([]) == Measures()
    assert total([MEASURES, Measures(output_tokens=5)]) == Measures(1, 7, 3, 4, 50, 6, 7, 8)


async def through_servers(
    store: Store, texts: Sequence[str], faults: dict[int, list[dict[str, Any]]], num_ctx: int = 4096
) -> tuple[JournalContent, Counter[str]]:
    """Translate texts by two real servers; the journal and what they were asked for."""
    bound = prompting(num_ctx)
    instant = Settings(slots=2).instant()
    async with (
        serving(instant, instant, faults=faults) as servers,
        JournalWriter(store, RUN_ID, "w") as journal,
        dispatching(
            [(server.url, 2) for server in servers],
            digest_of(servers[0]),
            bound=bound,
            rng=NoJitter(),
        ) as run,
    ):
        run.dispatcher._record = journal.note
        translator = Translator(
            run.dispatcher,
            journal,
            bound,
            Recipe.of(bound, digest_of(servers[0])),
            already_accepted={},
            rng=random.Random(1),
        )
        reports = [PlannedReport(f"r{n}", text, f"key{n}") for n, text in enumerate(texts)]
        await translator.translate(reports)
        asked = times_asked_in_all(servers)
    return read_journal(store, RUN_ID), asked


async def test_bad_answers_of_a_real_server(tmp_path: Path) -> None:
    """Each first answer of one server is bad: every report is asked for once more at most."""
    faults = {0: [{"kind": "not_done", "per_text": True, "times": 1}]}
    texts = [f"Le patient {number}" for number in range(12)]
    content, asked = await through_servers(Store(tmp_path), texts, faults)
    statuses = {outcome.status for outcome in content.outcomes.values()}
    assert statuses == {Status.OK}
    refused = [one for one in content.attempts if one.outcome is AttemptOutcome.REFUSED]
    assert refused
    assert asked == Counter(texts) + Counter(texts[int(one.report_id[1:])] for one in refused)
    assert all(content.outcomes[f"r{n}"].attempts == asked[text] for n, text in enumerate(texts))


async def test_a_real_server_cuts(tmp_path: Path) -> None:
    """A server that stops at half of a long answer gets the text again in smaller pieces."""
    text = "Le patient va bien.\n" * 20
    faults = {number: [{"kind": "length", "per_text": True, "times": 1}] for number in (0, 1)}
    content, asked = await through_servers(Store(tmp_path), [text], faults)
    outcome = content.outcomes["r0"]
    assert outcome.status is Status.OK
    assert outcome.translated_text is not None
    assert outcome.translated_text.count("The patient") == 20
    assert outcome.translated_text.count("\n") == 20
    assert outcome.attempts == asked.total()
    assert outcome.segment_count > 1


async def test_a_real_context_that_is_too_small(tmp_path: Path) -> None:
    """A prompt that a server finds too long is split until it fits."""
    # Digits cost the server as many tokens as letters, the prompt takes most of the context.
    text = "Le patient " * 60
    content, _ = await through_servers(Store(tmp_path), [text.strip()], {}, num_ctx=256)
    outcome = content.outcomes["r0"]
    assert outcome.status is Status.OK
    assert outcome.translated_text == ("The patient " * 60).strip()
    assert outcome.segment_count > 3
