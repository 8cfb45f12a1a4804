from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch import events
from tasks.core.records import Status
from tasks.core.run.news import readable_seconds
from tasks.core.run.progress import HostProgress, Progress

A, B = "http://a:1", "http://b:1"

LOST = (
    "all hosts are lost (a is gone; b is gone); waiting 300 s for one to come back "
    "(--fleet-timeout)"
)


def started(planned: int = 100, tokens: int = 1000) -> Progress:
    """The progress of a run that began at second 1000, on two hosts."""
    return Progress(planned, tokens, {A: HostProgress(4), B: HostProgress(1)}, started_at=1000.0)


def done(progress: Progress, now: float, count: int = 1, status: Status = Status.OK) -> None:
    """So many reports of ten tokens end."""
    for _ in range(count):
        assert progress.take(events.ReportDone("r", status, 10), now) is None


def test_requests_are_counted_by_host() -> None:
    """A host's line shows what is in flight, was sent, failed and was generated."""
    progress = started()
    assert progress.take(events.RequestSent(A), 1001) is None
    progress.take(events.RequestSent(A), 1001)
    progress.take(events.RequestEnded(A, 30), 1002)
    assert progress.hosts[A] == HostProgress(4, "starting", 1, 2, 0, 30)
    progress.take(events.RequestEnded(A, 0, "reset"), 1003)
    assert progress.hosts[A] == HostProgress(4, "starting", 0, 2, 1, 30)
    assert progress.hosts[B] == HostProgress(1)


def test_reports_are_counted_by_status() -> None:
    """Every report that ends counts, and its tokens with it."""
    progress = started()
    done(progress, 1001, 3)
    done(progress, 1002, 2, Status.FAILED)
    assert (progress.done, progress.done_tokens) == (5, 50)
    assert progress.by_status == {Status.OK: 3, Status.FAILED: 2}


@pytest.mark.parametrize(
    ("event", "sentence", "state"),
    [
        (events.HostLoading(A), f"{A} is loading the model", "loading"),
        (events.HostUp(A, 4), f"{A} is ready (4 slots)", "up"),
        (events.HostUp(A, 1), f"{A} is ready (1 slot)", "up"),
        (
            events.HostDown(A, f"{A} cannot be reached", 1.6),
            f"{A} cannot be reached; it is down, and tried again in 2 s",
            "down",
        ),
        (events.HostLeft(A, "no model"), f"{A}: no model; it is left out", "left out"),
        (
            events.FleetDown(("a is gone", "b is gone"), 300.0),
            LOST,
            "starting",
        ),
        (events.FleetBack(A), f"{A} is back; the run goes on", "starting"),
    ],
)
def test_news_of_hosts(event: events.Event, sentence: str, state: str) -> None:
    """What happens to a host is told at once, in a sentence, and shows in its state."""
    progress = started()
    assert progress.take(event, 1001) == sentence
    assert progress.hosts[A].state == state


def test_the_rate_of_the_first_minute() -> None:
    """In its first minute a run's rate is that since its start."""
    progress = started()
    assert progress.rate(1000.0) == 0
    assert progress.seconds_left(1010.0) is None
    done(progress, 1005, 10)
    assert progress.rate(1010) == pytest.approx(1.0)
    assert progress.seconds_left(1010) == pytest.approx(90)


def test_the_rate_follows_what_happens() -> None:
    """Later the rate is that of the last minute: a change of pace shows within that time."""
    progress = started(10_000, 100_000)
    for second in range(100):
        done(progress, 1000 + second, 10)
    assert progress.rate(1100) == pytest.approx(10, rel=0.05)
    for second in range(100, 200):
        done(progress, 1000 + second)
    assert progress.rate(1200) == pytest.approx(1, rel=0.05)
    assert progress.seconds_left(1200) == pytest.approx(8900, rel=0.05)


def test_the_time_left_follows_the_work_not_the_reports() -> None:
    """Long reports come first: many short ones left do not make the end look far away."""
    progress = started(planned=1000, tokens=2000)
    progress.take(events.ReportDone("long", Status.OK, 1000), 1050)
    assert progress.seconds_left(1050) == pytest.approx(50)


def test_marks_do_not_pile_up() -> None:
    """What is remembered for the rate is bounded, however long the run and many the reports."""
    progress = started(10**6, 10**7)
    for step in range(3000):
        done(progress, 1000 + step / 4)
    assert len(progress._marks) < 70


def test_a_line() -> None:
    """All of it in one line: how far, how fast, how long, failures, hosts."""
    progress = started()
    done(progress, 1009, 9)
    done(progress, 1009, 1, Status.FAILED)
    progress.take(events.HostUp(A, 4), 1001)
    progress.take(events.RequestSent(A), 1001)
    progress.take(events.HostDown(B, "gone", 1), 1001)
    assert progress.line(1010) == (
        f"10/100 reports (10 %), 1.0 reports/s, 1 min 30 s left, 1 failed | {A} 1/4, {B} down"
    )


def test_a_line_at_the_start_and_at_the_end() -> None:
    """Without a rate, and with nothing left, no time is shown."""
    progress = started(planned=2, tokens=20)
    assert progress.line(1000) == f"0/2 reports (0 %), 0.0 reports/s | {A} starting, {B} starting"
    done(progress, 1010, 2)
    assert progress.line(1010).startswith("2/2 reports (100 %), 0.2 reports/s |")
    assert started(planned=0, tokens=0).line(1001).startswith("0/0 reports (0 %)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.7, "1 h 00 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_readable_seconds(seconds: float, text: str) -> None:
    """Durations for people have two units at most."""
    assert readable_seconds(seconds) == text


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=60))
def test_rates_are_never_negative(steps: list[tuple[float, int]]) -> None:
    """Whatever the pace, rates and times left are numbers from zero."""
    progress, now = started(400, 4000), 1000.0
    for pause, count in steps:
        now += pause
        done(progress, now, count)
        left = progress.seconds_left(now)
        assert progress.rate(now) >= 0
        assert left is None or left >= 0
