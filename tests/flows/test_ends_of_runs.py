"""How runs end that do not simply succeed: exit codes, what is kept, and how to go on."""

from __future__ import annotations

import hashlib
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import polars as pl
import pytest

from deployments.local_ollama import ServerProcess, Settings, local_servers
from tests.flows.harness import MODEL, Command, Reports, french_texts, hosts, write_csv

TEXTS = french_texts(100)
SLOTS = 3
SLOW = Settings(slots=SLOTS, decode_rate=250.0, load_seconds=0.0)
PROBE_SHA256 = hashlib.sha256(b".").hexdigest()
"""Of the text by which a host proves itself."""
QUICK = Settings(slots=SLOTS).instant()
NAMED_WITHIN_S = 30.0  # the promise of the command


def closed_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def given(reports: Reports, *more: object) -> list[object]:
    """The command that translates 100 reports as dataset `d`."""
    source = reports.folder / "in.csv"
    if not source.exists():
        write_csv(source, TEXTS)
    return ["run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL, *more]


def on(servers: Sequence[ServerProcess]) -> list[str]:
    """Options that name these servers with all their slots."""
    return hosts(*(f"{server.url}={server.settings.slots}" for server in servers))


def answered(servers: Sequence[ServerProcess]) -> int:
    """Answers that these servers gave to reports: a host that proves itself answers none."""
    return sum(
        request["outcome"] == "answered" and request["sha256"] != PROBE_SHA256
        for server in servers
        for request in server.stats(requests=True)["requests"]
    )


def wait_for_the_middle(command: Command, servers: Sequence[ServerProcess]) -> None:
    """Wait until a fifth of the reports is translated."""
    command.wait_until(lambda: answered(servers) >= len(TEXTS) // 5, "a fifth is translated")


def assert_all_translated_once(reports: Reports) -> None:
    """Every report has one row, with a translation."""
    rows = reports.table("translations", "d")
    assert sorted(rows["source_text"]) == sorted(TEXTS)
    assert set(rows["status"]) == {"ok"}


def assert_published_what_was_done(reports: Reports, record: dict[str, Any]) -> int:
    """What a run that did not finish says it did is published; returns how much it was."""
    done = int(record["translated"])
    assert record["finished_at"] is not None
    assert record["failed"] == 0
    assert record["unfinished"] == len(TEXTS) - done
    assert reports.table("translations", "d").height == done
    assert len(TEXTS) // 5 - 2 * SLOTS <= done < len(TEXTS)
    return done


def assert_goes_on(reports: Reports, done: int) -> None:
    """The same command again, on healthy hosts, asks for what is missing and nothing else."""
    with local_servers([QUICK, QUICK]) as servers:
        ended = reports(*given(reports), *on(servers))
        assert ended.code == 0, ended.said
        record = reports.runs()[-1]
        asked = sum(host["requests"] for host in record["hosts"].values())
        assert asked == sum(server.stats()["received"] for server in servers)
    assert record["unchanged"] == done
    assert record["translated"] == len(TEXTS) - done
    assert_all_translated_once(reports)
    assert_paid_once(reports, asked)


def assert_paid_once(reports: Reports, asked: int) -> None:
    """Over all runs each report has one accepted answer; the last run asked for `asked`."""
    accepted = reports.table("attempts", "d").filter(pl.col("outcome") == "accepted")
    assert accepted.height == accepted["report_id"].n_unique() == len(TEXTS)
    last = reports.runs()[-1]["run_id"]
    assert accepted.filter(pl.col("run_id") == last).height == asked


def test_unreachable_hosts_are_named_at_once(reports: Reports) -> None:
    """When no host answers at the start each is named within 30 s, and the exit code is 1."""
    urls = [f"http://127.0.0.1:{port}" for port in closed_ports(2)]
    ended = reports(*given(reports), *hosts(*urls))
    assert ended.code == 1, ended.said
    assert ended.seconds < NAMED_WITHIN_S
    assert ended.err.startswith("reports: no host can be reached")
    assert ended.err.count("\n") == 1
    for url in urls:
        assert url in ended.err
    [record] = reports.runs()
    assert record["state"] == "failed"
    assert f"reports: {record['error']}\n" == ended.err
    assert reports.flow_run(record)["state"]["type"] == "FAILED"


def test_fleet_lost_in_the_middle(reports: Reports) -> None:
    """All hosts die: said within 30 s, exit 1, a failed flow run, the work kept, then resumed."""
    with local_servers([SLOW, SLOW]) as servers:
        arguments = [*given(reports, "--fleet-timeout", 2), *on(servers)]
        with reports.start(*arguments) as command:
            wait_for_the_middle(command, servers)
            for server in servers:
                server.kill()
            command.wait_for("all hosts are lost", NAMED_WITHIN_S)
            ended = command.wait()
    assert ended.code == 1, ended.said
    for server in servers:
        assert f"{server.url} cannot be reached" in ended.err
    assert "What is finished is kept" in ended.err
    assert ended.err.count("\n") == 1
    [record] = reports.runs()
    assert record["state"] == "failed"
    assert "all hosts were lost" in record["error"]
    flow_run = reports.flow_run(record)
    assert flow_run["state"]["type"] == "FAILED"
    assert "all hosts were lost" in flow_run["state"]["message"]
    done = assert_published_what_was_done(reports, record)
    assert_goes_on(reports, done)


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]],
    ids=["interrupted twice at once", "asked to end"],
)
def test_interrupted_run_keeps_its_work(
    reports: Reports, signals: Sequence[signal.Signals]
) -> None:
    """A signal ends a run with 130, its work published; the same command goes on from there."""
    with local_servers([SLOW, SLOW]) as servers:
        with reports.start(*given(reports), *on(servers)) as command:
            wait_for_the_middle(command, servers)
            for number in signals:
                command.signal(number)
                time.sleep(0.003)
            ended = command.wait()
        assert [server.stats()["in_flight"] for server in servers] == [0, 0]
    assert ended.code == 130, ended.said
    assert ended.err.endswith(
        "reports: interrupted; what is finished is kept, give the same command again to go on\n"
    )
    assert "Traceback" not in ended.said
    [record] = reports.runs()
    assert record["state"] == "interrupted"
    assert reports.flow_run(record)["state"]["type"] in {"CRASHED", "CANCELLED"}
    done = assert_published_what_was_done(reports, record)
    assert_goes_on(reports, done)


def test_killed_run_is_taken_over(reports: Reports) -> None:
    """A run whose process is killed has published nothing; the next one pays for none again."""
    with (
        local_servers([SLOW, SLOW]) as servers,
        reports.start(*given(reports), *on(servers)) as command,
    ):
        wait_for_the_middle(command, servers)
        command.signal(signal.SIGKILL)
        assert command.wait().code == -signal.SIGKILL
    [record] = reports.runs()
    assert record["state"] == "running"
    with local_servers([QUICK, QUICK]) as servers:
        ended = reports(*given(reports), *on(servers))
        assert ended.code == 0, ended.said
        asked = sum(server.stats()["received"] for server in servers)
    dead, record = reports.runs()
    assert (dead["state"], record["state"]) == ("abandoned", "completed")
    assert record["unchanged"] >= len(TEXTS) // 5 - 2 * SLOTS
    assert_all_translated_once(reports)
    assert_paid_once(reports, asked)


def test_reports_that_keep_failing_are_rows(reports: Reports) -> None:
    """Some reports fail: exit 3, rows that say why, and the next run tries these again."""
    faults: list[dict[str, Any]] = [
        {"kind": "empty", "contains": "R-0003"},
        {"kind": "status", "status": 400, "body": "no such thing", "contains": "R-0011"},
        {"kind": "status", "status": 500, "contains": "R-0042"},
    ]
    with local_servers([QUICK, QUICK], faults=faults) as servers:
        arguments = [*given(reports), *on(servers)]
        ended = reports(*arguments)
        assert ended.code == 3, ended.said
        [record] = reports.runs()
        assert record["state"] == "completed_with_failures"
        assert (record["translated"], record["failed"]) == (97, 3)
        assert "100 reports: 97 translated, 3 failed" in ended.out
        rows = reports.table("translations", "d")
        assert sorted(rows["source_text"]) == sorted(TEXTS)
        failed = rows.filter(pl.col("status") == "failed").sort("source_row")
        assert failed["source_row"].to_list() == [4, 12, 43]
        assert failed["error_kind"].to_list() == ["empty", "bad_request", "server_error"]
        assert failed["error"].null_count() == 0
        assert "no such thing" in failed["error"][1]
        assert failed["translated_text"].null_count() == 3
        # Once on each host and once in quarantine; on one host again while the other is not there.
        of_empty, of_bad_request, of_server_error = failed["attempts"].to_list()
        assert (of_empty, of_bad_request) == (3, 1)
        assert 3 <= of_server_error <= 5
        flow_run = reports.flow_run(record)
        assert flow_run["state"]["type"] == "COMPLETED"
        assert flow_run["state"]["name"] == "CompletedWithFailures"
        assert "3 of 100 reports failed" in flow_run["state"]["message"]
        tried = reports.table("attempts", "d").filter(pl.col("outcome") != "accepted")
        failures = sum(host["failures"] for host in record["hosts"].values())
        assert failures == of_bad_request + of_server_error
        assert tried.height == of_empty + failures
        assert answered(servers) == 97 + 3

        for server in servers:
            server.clear_faults()
            server.reset_stats()
        ended = reports(*arguments)
        assert ended.code == 0, ended.said
        assert answered(servers) == 3
    assert_all_translated_once(reports)


def test_broken_answers_are_retried_elsewhere(reports: Reports) -> None:
    """Resets, 503s, cut and unfinished answers cost attempts and no report."""
    spoilt: list[tuple[str, dict[str, Any]]] = [
        ("R-0020", {"kind": "reset"}),
        ("R-0021", {"kind": "status", "status": 503}),
        ("R-0022", {"kind": "status", "status": 502}),
        ("R-0023", {"kind": "not_done"}),
        ("R-0024", {"kind": "truncated_json"}),
        ("R-0025", {"kind": "html"}),
        ("R-0026", {"kind": "length"}),
    ]
    faults = [{**fault, "contains": report, "times": 1} for report, fault in spoilt]
    with local_servers([QUICK, QUICK], faults=faults) as servers:
        ended = reports(*given(reports), *on(servers))
        assert ended.code == 0, ended.said
    assert_all_translated_once(reports)
    attempts = reports.table("attempts", "d")
    assert attempts.select("run_id", "report_id", "segment", "attempt").is_unique().all()
    attempts = attempts.filter(pl.col("outcome") != "accepted")
    kinds = set(attempts["error_kind"])
    assert kinds == {"reset", "busy", "server_error", "not_done", "invalid_answer", "cut"}
