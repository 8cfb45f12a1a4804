"""Runs of every kind: hosts that die or load slowly, limits, policies, datasets that grow."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import polars as pl
import pytest

from deployments.local_ollama import Settings, local_server, local_servers
from tests.flows.harness import (
    CHECKOUT,
    MODEL,
    REPORTS,
    Reports,
    csv_of,
    french_texts,
    hosts,
    write_csv,
)

QUICK = Settings(slots=3).instant()


def test_host_killed_in_the_middle_costs_no_report(reports: Reports) -> None:
    """One of two hosts dies with requests in flight: every report is translated all the same."""
    texts = french_texts(60)
    source = write_csv(reports.folder / "in.csv", texts)
    slow = Settings(slots=3, decode_rate=300.0, load_seconds=0.0)
    with local_servers([slow, slow]) as (survivor, victim):
        arguments = ["run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL]
        arguments += hosts(f"{survivor.url}=3", f"{victim.url}=3")
        with reports.start(*arguments) as command:
            command.wait_until(lambda: victim.stats()["answered"] >= 10, "ten answers")
            assert victim.stats()["in_flight"] > 0
            victim.kill()
            ended = command.wait()
        assert survivor.stats()["peak_in_flight"] == 3
    assert ended.code == 0, ended.said
    assert re.search(rf"{victim.url} [^;]+; it is down", ended.out)
    rows = reports.table("translations", "d")
    assert sorted(rows["source_text"]) == sorted(texts)
    assert set(rows["status"]) == {"ok"}
    assert set(rows["host"]) == {survivor.url, victim.url}
    [record] = reports.runs()
    assert record["hosts"][victim.url]["failures"] > 0


def test_host_that_is_loading_is_not_down(reports: Reports) -> None:
    """Hosts that take longer to load than the fleet timeout are waited for, and said to load."""
    source = write_csv(reports.folder / "in.csv", french_texts(8))
    slow = Settings(slots=2, load_seconds=4.0, decode_rate=0.0, prefill_rate=0.0)
    with local_servers([slow, slow]) as servers:
        ended = reports(
            "run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL,
            *hosts(*(server.url for server in servers)), "--fleet-timeout", 1,
        )  # fmt: skip
        assert [server.stats()["loads"] for server in servers] == [1, 1]
    assert ended.code == 0, ended.said
    assert ended.out.count("is loading the model") == 2
    assert "down" not in ended.out
    assert "lost" not in ended.out
    [record] = reports.runs()
    assert record["translated"] == 8
    assert record["wall_seconds"] > 4
    assert sum(host["failures"] for host in record["hosts"].values()) == 0


def test_host_that_is_away_at_the_start_is_named(reports: Reports) -> None:
    """One of two hosts is not there: the run says so, and goes on with the other."""
    source = write_csv(reports.folder / "in.csv", french_texts(8))
    with local_servers([QUICK, QUICK]) as (there, away):
        away.kill()
        ended = reports(
            "run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL,
            *hosts(there.url, away.url),
        )  # fmt: skip
    assert ended.code == 0, ended.said
    assert (
        f"{away.url} cannot be reached (Connection refused); it is tried again during the run"
        in ended.out
    )
    [record] = reports.runs()
    assert record["hosts"][there.url]["requests"] == record["translated"] == 8
    assert record["hosts"][away.url]["requests"] == 0


def test_limit_takes_some_and_the_next_run_the_next(reports: Reports) -> None:
    """`--limit` translates so many of the missing, on as many slots as are found."""
    texts = french_texts(20)
    source = write_csv(reports.folder / "in.csv", texts)
    with local_server(Settings(slots=4, decode_rate=200.0, load_seconds=0.0)) as server:
        arguments = ["run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL]
        arguments += [*hosts(server.url), "--limit", "7"]
        for done in (7, 14, 20):
            ended = reports(*arguments)
            assert ended.code == 0, ended.said
            rows = reports.table("translations", "d").sort("source_row")
            assert rows["source_text"].to_list() == texts[:done]
            record = reports.runs()[-1]
            assert record["translated"] == min(7, done - record["unchanged"])
            assert record["beyond_limit"] == 20 - done
            assert record["reports"] == done
            assert record["hosts"][server.url]["slots"] == 4
            assert ("left by --limit" in ended.out) == (done < 20)


@pytest.mark.parametrize("policy", ["random", "round_robin", "least_connections"])
def test_every_policy_completes(reports: Reports, policy: str) -> None:
    """The baselines translate every report, too, and never overdraw a host."""
    texts = french_texts(20)
    source = write_csv(reports.folder / "in.csv", texts)
    quick = Settings(decode_rate=2000.0, load_seconds=0.0)
    with local_servers([quick, quick]) as servers:
        ended = reports(
            "run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL,
            *hosts(f"{servers[0].url}=2", f"{servers[1].url}=1"), "--policy", policy,
        )  # fmt: skip
        assert ended.code == 0, ended.said
        counters = [server.stats() for server in servers]
    assert counters[0]["peak_in_flight"] <= 2
    assert counters[1]["peak_in_flight"] <= 1
    assert sum(counted["received"] for counted in counters) == len(texts)
    assert sorted(reports.table("translations", "d")["source_text"]) == sorted(texts)
    [record] = reports.runs()
    assert record["policy"] == policy


def test_ingest_then_translate_and_grow(reports: Reports) -> None:
    """Ingesting and translating apart does the same; a further source adds to the dataset."""
    first, second = french_texts(12), french_texts(9, first=500)
    given = ["--root", reports.root, "--dataset", "d"]
    ended = reports("ingest", write_csv(reports.folder / "a.csv", first), *given)
    assert ended.code == 0, ended.said
    assert "12 reports" in ended.out
    assert reports.runs() == []
    assert not (reports.root / "translations").exists()
    with local_server(QUICK) as server:
        options = [*given, *hosts(f"{server.url}=3"), "--model", MODEL]
        ended = reports("translate", *options)
        assert ended.code == 0, ended.said
        [record] = reports.runs()
        assert (record["rows_in"], record["translated"]) == (12, 12)
        assert reports.flow_run(record)["name"] == "d to en"

        other = write_csv(reports.folder / "b.csv", second, first=500)
        ended = reports("run", other, *options)
        assert ended.code == 0, ended.said
        record = reports.runs()[-1]
        assert (record["rows_in"], record["translated"], record["unchanged"]) == (9, 9, 0)
        assert server.stats()["received"] == 12 + 9
    rows = reports.table("translations", "d")
    assert sorted(rows["source_text"]) == sorted(first + second)
    by_file = dict(rows.group_by("source_file").len().iter_rows())
    assert by_file == {"a.csv": 12, "b.csv": 9}


ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "utf-16")


def test_transcoded_source_gives_the_same_texts(reports: Reports) -> None:
    """A file in UTF-8, with and without mark, cp1252 or UTF-16 gives the same texts and cells."""
    texts = french_texts(60)
    sources = [
        write_csv(reports.folder / f"{encoding}.csv", texts, encoding=encoding)
        for encoding in ENCODINGS
    ]
    ended = reports("ingest", *sources, "--root", reports.root, "--dataset", "d")
    assert ended.code == 0, ended.said
    rows = reports.table("reports", "d").sort("source_row")
    for encoding in ENCODINGS:
        of_file = rows.filter(pl.col("source_file") == f"{encoding}.csv")
        assert of_file["source_text"].to_list() == texts
        assert of_file["site"].to_list() == [f"Gare d'Évry {n % 7}" for n in range(len(texts))]
    assert rows.height == len(ENCODINGS) * len(texts)


def test_long_report_is_split_and_put_together(reports: Reports) -> None:
    """A report that does not fit the context takes several requests and keeps its line breaks."""
    paragraph = "La vitesse est limitée et la voie reste fermée. " * 12
    text = "\n\n".join(f"{number}. {paragraph.strip()}" for number in range(8))
    source = reports.folder / "long.csv"
    source.write_text(csv_of([text, "Rapport court."]), encoding="utf-8")
    with local_server(QUICK) as server:
        ended = reports(
            "run", source, "--root", reports.root, "--dataset", "d", "--model", MODEL,
            *hosts(f"{server.url}=3"), "--num-ctx", 512,
        )  # fmt: skip
        assert ended.code == 0, ended.said
        received = server.stats()["received"]
    [long, short] = reports.table("translations", "d").sort("source_row").to_dicts()
    assert long["segment_count"] > 3
    assert received == long["attempts"] + short["attempts"]
    assert long["segment_count"] == long["attempts"]
    assert short["segment_count"] == 1
    shape = [re.match(r"\d\. ", part) is not None for part in long["translated_text"].split("\n\n")]
    assert shape == [True] * 8
    attempts = reports.table("attempts", "d").filter(pl.col("report_id") == long["report_id"])
    assert long["output_tokens"] == attempts["output_tokens"].sum()
    assert long["eval_duration_ns"] == attempts["eval_duration_ns"].sum()
    assert long["started_at"] == attempts["started_at"].min()
    assert long["finished_at"] == attempts["finished_at"].max()


def on_a_terminal(arguments: list[str], api: str) -> tuple[int, str]:
    """Run the command on a terminal of 100 columns; its exit code and what it wrote."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PREFECT_API_URL": api, "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(
        [str(REPORTS), *arguments],
        cwd=CHECKOUT,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = bytearray()
    try:
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # what Linux says when the other side is closed
                break
            if not part:
                break
            written += part
        return child.wait(60), written.decode("utf-8")
    finally:
        os.close(master)
        if child.poll() is None:
            child.kill()
            child.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_terminal_shows_a_bar_that_ends_cleanly(reports: Reports, prefect_api: str) -> None:
    """On a terminal there is a bar with a line for each host; at the end the cursor is back."""
    source = write_csv(reports.folder / "in.csv", french_texts(24))
    busy = Settings(slots=2, decode_rate=150.0, load_seconds=0.0)
    with local_servers([busy, busy]) as servers:
        arguments = ["run", str(source), "--root", str(reports.root), "--dataset", "d"]
        arguments += [*hosts(*(f"{server.url}=2" for server in servers)), "--model", MODEL]
        code, written = on_a_terminal(arguments, prefect_api)
    assert code == 0, written
    assert "━" in written
    assert "●●" in written
    assert re.search(r"\d+/24 reports", written)
    assert re.search(r"\d+\.\d/s, \d+ s left", written)
    hidden, shown = written.rfind("\x1b[?25l"), written.rfind("\x1b[?25h")
    assert 0 <= hidden < shown
    # What follows the bar is as plain as it is without a terminal.
    after = written[shown:].removeprefix("\x1b[?25h")
    assert "24 reports: 24 translated" in after
    assert "\x1b" not in after.split("24 reports: 24 translated")[1]
