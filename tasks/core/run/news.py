"""What happens to the hosts of a run, in a sentence each."""

from __future__ import annotations

from tasks.core.dispatch import events


def news_of(event: events.Event) -> str | None:
    """The sentence that tells an event, or None when it is nothing to tell at once."""
    news: str | None
    match event:
        case events.HostLoading(url):
            news = f"{url} is loading the model"
        case events.HostUp(url, slots):
            news = f"{url} is ready ({_slots(slots)})"
        case events.HostSuspect(url, reason):
            news = f"{_about(url, reason)}; it has to prove itself"
        case events.HostDown(url, reason, retry_in_s, again):
            told = f"{_about(url, reason)}; it is down, and tried again in {retry_in_s:.0f} s"
            news = None if again else told
        case events.FleetDown(reasons, timeout_s):
            news = (
                f"all hosts are lost ({'; '.join(reasons)}); "
                f"waiting {timeout_s:.0f} s for one to come back (--fleet-timeout)"
            )
        case events.FleetBack(url):
            news = f"{url} is back; the run goes on"
        case events.Quarantined(report_id, hosts, reason):
            news = (
                f"report {report_id} broke the answers of {', '.join(hosts)} ({reason}); "
                "it is tried once more at the end"
            )
        case events.RetriesSlowed(sentence) | events.Noticed(sentence):
            news = sentence
        case _:
            news = _about_taking_part(event)
    return news


def _about_taking_part(event: events.Event) -> str | None:
    news: str | None
    match event:
        case events.HostJoined(url):
            news = f"{url} joins the run"
        case events.HostDraining(url, in_flight):
            news = f"{url} is taken out of the run; {_are_waited_for(in_flight)}"
        case events.HostLeft(url, reason):
            news = (
                f"{_about(url, reason)}; it is left out" if reason else f"{url} is out of the run"
            )
        case events.SlotsFound(url, slots, by_burst):
            how = (
                "that many requests were answered at once" if by_burst else "its runs share so many"
            )
            news = f"{url} has {_slots(slots)}: {how}"
        case events.SlotsChanged(url, used, slots, reason, again):
            told = f"{url}: {used} of {_slots(slots)} used from now on: {reason}"
            news = None if again else told
        case _:
            news = None
    return news


def _about(url: str, reason: str) -> str:
    """The reason with the host it is about, which most of them name."""
    return reason if reason.startswith(url) else f"{url}: {reason}"


def _are_waited_for(requests: int) -> str:
    match requests:
        case 0:
            return "nothing is in flight there"
        case 1:
            return "1 request is waited for"
        case _:
            return f"{requests} requests are waited for"


def _slots(number: int) -> str:
    return f"{number} slot" if number == 1 else f"{number} slots"


def readable_seconds(seconds: float) -> str:
    """A duration for people: `4 s`, `2 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes in an hour
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
