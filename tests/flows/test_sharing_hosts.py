"""Runs that share hosts, and hosts that come and go, as users have them."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest

from deployments.local_ollama import Settings, local_server, local_servers
from deployments.local_ollama.process import ServerProcess
from tests.flows.harness import MODEL, Reports, french_texts, hosts, write_csv

SLOTS = 4
SLOW = Settings(slots=SLOTS, decode_rate=250.0, load_seconds=0.0, prefill_rate=0.0)


def command(reports: Reports, dataset: str, count: int, *more: object) -> list[object]:
    """The arguments of a run over so many reports."""
    first = 1000 * sum(map(ord, dataset))
    source = write_csv(reports.folder / f"{dataset}.csv", french_texts(count, first))
    root = reports.folder / f"root-{dataset}"
    return ["run", source, "--root", root, "--dataset", dataset, "--model", MODEL, *more]


def peaks(servers: Sequence[ServerProcess]) -> list[int]:
    """The most that each server had in flight."""
    return [server.stats()["peak_in_flight"] for server in servers]


@pytest.mark.parametrize("limits", ["local", "prefect"])
def test_two_runs_at_once_stay_within_the_slots(reports: Reports, limits: str) -> None:
    """Together two runs never have more in flight than a host has slots, and both finish."""
    with local_servers([SLOW, SLOW]) as servers:
        given = [*hosts(*(f"{server.url}={SLOTS}" for server in servers)), "--limits", limits]
        with (
            reports.start(*command(reports, "one", 60, *given)) as one,
            reports.start(*command(reports, "two", 60, *given)) as two,
        ):
            ended = [one.wait(), two.wait()]
        assert [each.code for each in ended] == [0, 0], "\n".join(each.said for each in ended)
        assert all("60 translated" in each.out for each in ended)
        assert peaks(servers) == [SLOTS, SLOTS]


def test_slots_of_a_killed_run_are_used_by_the_other(reports: Reports) -> None:
    """What a run held that was killed, the other one uses; a smaller number of slots holds."""
    with local_server(SLOW) as server:
        many = command(reports, "many", 150, *hosts(f"{server.url}=8"), "--limits", "local")
        rest = command(reports, "rest", 200, *hosts(f"{server.url}={SLOTS}"), "--limits", "local")
        with reports.start(*rest) as survivor:
            survivor.wait_until(lambda: server.stats()["answered"] > 0, "an answer")
            with reports.start(*many) as victim:
                victim.wait_for("is ready", 60)
                asked = server.stats()["received"]
                victim.wait_until(lambda: server.stats()["received"] > asked + 12, "more requests")
                victim.signal(signal.SIGKILL)
                victim.wait()
            killed_at = time.time()
            ended = survivor.wait()
        assert ended.code == 0, ended.said
        assert peaks([server]) == [SLOTS]
        after = [
            request
            for request in server.stats(requests=True)["requests"]
            if request["started_at"] > killed_at
        ]
        assert _most_at_once(after) == SLOTS


def test_hosts_join_and_leave_with_the_file(reports: Reports) -> None:
    """A host that is written into the file gets work; one that is taken out gets no more."""
    file = reports.folder / "hosts.txt"
    with local_servers([SLOW, SLOW]) as (first, second):
        file.write_text(f"{first.url}={SLOTS}  # the only one at first\n")
        arguments = command(reports, "ds", 120, "--hosts-file", file, "--limits", "local")
        with reports.start(*arguments) as run:
            run.wait_until(lambda: first.stats()["answered"] > 5, "answers of the first")
            file.write_text(f"{first.url}={SLOTS}\n{second.url}\n")
            run.wait_until(lambda: second.stats()["answered"] > 8, "answers of the second")
            file.write_text(f"{second.url}\n")
            run.wait_for(f"{first.url} is taken out of the run", 20)
            ended = run.wait()
        assert ended.code == 0, ended.said
        assert "120 translated" in ended.out
        assert f"{second.url} joins the run" in ended.out
        assert (
            f"{second.url} has {SLOTS} slots: that many requests were answered at once" in ended.out
        )
        assert peaks([first]) == [SLOTS]


def _most_at_once(requests: Sequence[dict[str, Any]]) -> int:
    ends = [(request["ended_at"] or time.time(), -1) for request in requests]
    steps = sorted([*ends, *((request["started_at"], 1) for request in requests)])
    level = most = 0
    for _, step in steps:
        level += step
        most = max(most, level)
    return most
