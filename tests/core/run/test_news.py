from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from tasks.core.dispatch import events
from tasks.core.records import Status
from tasks.core.run.news import news_of

A, B = "http://a:1", "http://b:1"

EVERY_KIND: tuple[type[events.Event], ...] = get_args(events.Event)
COUNTED = (events.RequestSent, events.RequestEnded, events.ReportDone)
"""They come by the thousand, and show in the progress."""


def of_kind(kind: type[events.Event]) -> tuple[events.Event, list[str]]:
    """An event whose every text is another one, and these texts."""
    texts: list[str] = []

    def text_of(name: str) -> str:
        texts.append(f"<{name} {len(texts)}>")
        return texts[-1]

    def value_of(name: str, hint: Any) -> object:
        if hint == tuple[str, ...]:
            return (text_of(name), text_of(name))
        if hint in (str, str | None):
            return text_of(name)
        return {bool: False, int: 3, int | None: None, float: 40.0, Status: Status.OK}[hint]

    values: dict[str, Any] = {
        name: value_of(name, hint) for name, hint in get_type_hints(kind).items()
    }
    return kind(**values), texts


@pytest.mark.parametrize("kind", [kind for kind in EVERY_KIND if kind not in COUNTED])
def test_every_event_is_told_whole(kind: type[events.Event]) -> None:
    """Which host or report it is, and why, is in the sentence, in one line and each thing once."""
    event, texts = of_kind(kind)
    news = news_of(event)
    assert news
    assert [news.count(text) for text in texts] == [1] * len(texts)
    assert news == " ".join(news.split())
    assert "None" not in news


@pytest.mark.parametrize("kind", COUNTED)
def test_what_is_counted_is_not_told(kind: type[events.Event]) -> None:
    """A request or a report is no news by itself, not even one that failed."""
    event, _ = of_kind(kind)
    assert news_of(event) is None


@pytest.mark.parametrize(
    "event",
    [
        events.HostDown(A, f"{A} cannot be reached", 8.0, again=True),
        events.SlotsChanged(A, 3, 4, "requests wait on the server", again=True),
    ],
)
def test_what_was_told_before_is_not_told_again(event: events.Event) -> None:
    """What goes on as it was shows in the progress alone."""
    assert news_of(event) is None


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            events.HostSuspect(A, "requests time out"),
            f"{A}: requests time out; it has to prove itself",
        ),
        (events.HostJoined(A, 4), f"{A} joins the run"),
        (events.HostJoined(A, None), f"{A} joins the run"),
        (
            events.HostSuspect(A, f"{A} gave no answer within 9 s"),
            f"{A} gave no answer within 9 s; it has to prove itself",
        ),
        (events.HostLeft(A, ""), f"{A} is out of the run"),
        (
            events.HostDraining(A, 0),
            f"{A} is taken out of the run; nothing is in flight there",
        ),
        (events.HostDraining(A, 1), f"{A} is taken out of the run; 1 request is waited for"),
        (
            events.HostDraining(A, 3),
            f"{A} is taken out of the run; 3 requests are waited for",
        ),
        (
            events.SlotsFound(A, 4, by_burst=True),
            f"{A} has 4 slots: that many requests were answered at once",
        ),
        (events.SlotsFound(A, 1, by_burst=False), f"{A} has 1 slot: its runs share so many"),
        (
            events.SlotsChanged(A, 1, 4, "requests wait on the server"),
            f"{A}: 1 of 4 slots used from now on: requests wait on the server",
        ),
        (
            events.SlotsChanged(A, 4, 4, "requests wait no longer"),
            f"{A}: 4 of 4 slots used from now on: requests wait no longer",
        ),
        (
            events.Quarantined("r-7", (A, B), f"{B} answered 500: no"),
            (
                f"report r-7 broke the answers of {A}, {B} ({B} answered 500: no); "
                "it is tried once more at the end"
            ),
        ),
        (events.RetriesSlowed("too much fails"), "too much fails"),
        (events.Noticed("a [bold] word, as it is"), "a [bold] word, as it is"),
    ],
)
def test_sentences(event: events.Event, sentence: str) -> None:
    """What users read when hosts come, go and change, and when requests go wrong.

    The sentences about hosts that are up or lost stand with the progress.
    """
    assert news_of(event) == sentence
