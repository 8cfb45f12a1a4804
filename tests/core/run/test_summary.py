from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tasks.core.dispatch.account import HostAccount
from tasks.core.ingest.summary import FileSummary, IngestSummary
from tasks.core.run.run_record import RunState
from tasks.core.run.summary import (
    counts_line,
    host_rows,
    ingest_lines,
    markdown,
    opening_lines,
)
from tests.core.run.test_run_record import record

HOST = HostAccount(
    slots=4, requests=90, failures=1, output_tokens=3000, busy_seconds=30.04, peak_in_flight=4
)
COUNTS = {"rows_in": 1300, "rejected": 65, "reports": 1235, "translated": 1234, "failed": 1}


def a_file(rows_in: int, rejected: int) -> FileSummary:
    """A source file as it was read."""
    return FileSummary(
        source_file="a.csv",
        format="csv",
        sha256="0" * 64,
        size_bytes=99,
        encoding="utf-8",
        delimiter=",",
        header_row=1,
        preamble=(),
        text_column="text",
        id_column=None,
        rows_in=rows_in,
        reports=rows_in - rejected,
        rejected=rejected,
    )


def test_counts() -> None:
    """The counts that are not zero are told, with separators for thousands."""
    assert counts_line(record(**COUNTS)) == "1,235 reports: 1,234 translated, 1 failed"
    assert counts_line(record()) == "0 reports: nothing to do"
    every = record(flagged=1, reused=2, passed=3, unchanged=4, unfinished=5, reports=15)
    assert counts_line(every) == (
        "15 reports: 1 flagged, 2 reused, 3 passed (nothing to translate), 4 unchanged, "
        "5 unfinished"
    )


def test_what_was_read() -> None:
    """An ingest's rows, files, rejections by reason and notes are told line by line."""
    summary = IngestSummary.of(
        "ds", [a_file(1000, 3), a_file(5, 0)], Counter(no_text=2, duplicate_id=1), ["odd"]
    )
    assert ingest_lines(summary) == [
        "ds: 1,005 rows in 2 files, 1,002 reports, 3 rejected",
        "  rejected: 1 duplicate_id",
        "  rejected: 2 no_text",
        "  note: odd",
    ]
    one = IngestSummary.of("ds", [a_file(1, 0)], Counter(), [])
    assert ingest_lines(one) == ["ds: 1 rows in 1 file, 1 reports, 0 rejected"]


def test_what_is_going_to_be_done() -> None:
    """A run opens with its notes, what is to do, the languages, the model and the hosts."""
    run = record(planned=1200, unchanged=5, notes=["a note"], hosts={"http://a:1": HOST})
    assert opening_lines(run) == [
        "a note",
        "ds: 1,200 to translate, 5 unchanged; fr → en with m (dddddddddddd), 1 host",
    ]
    limited = record(planned=1, beyond_limit=1199, hosts={"http://a:1": HOST, "http://b:1": HOST})
    (line,) = opening_lines(limited)
    assert "1,199 left for another run by --limit" in line
    assert line.endswith("2 hosts")


def test_hosts_in_a_table() -> None:
    """A host's row has its work and its rates over the time it was busy."""
    idle = replace(HOST, busy_seconds=0.0, requests=0, output_tokens=0)
    first, second = host_rows(record(hosts={"http://a:1": HOST, "http://b:1": idle}))
    assert first == {
        "host": "http://a:1",
        "slots": 4,
        "requests": 90,
        "failures": 1,
        "peak": 4,
        "busy s": 30.0,
        "tokens": 3000,
        "tokens/s": 99.87,
        "req/s": 3.0,
    }
    assert (second["tokens/s"], second["req/s"]) == (0.0, 0.0)


def test_the_page_of_a_run() -> None:
    """A finished run on a page: how it ended, its counts, its hosts, where things are."""
    run = record(
        "r1",
        **COUNTS,
        state=RunState.COMPLETED_WITH_FAILURES,
        wall_seconds=61.2,
        hosts={"http://a:1": HOST},
    )
    lines = markdown(run, "out").splitlines()
    assert lines[0] == "# ds: fr → en"
    assert lines[2] == (
        "**completed with failures** after 1 min 01 s with `m` (`dddddddddddd`, profile `plain/1`)."
    )
    assert "| rows in | 1300 |" in lines
    assert "| translated | 1234 |" in lines
    assert "| unfinished | 0 |" in lines
    assert "| http://a:1 | 4 | 90 | 1 | 4 | 30.0 | 3000 | 99.87 | 3.0 |" in lines
    assert "Translations: `out/translations/ds/**/*.parquet`  " in lines
    assert lines[-1] == "Run: `out/runs/r1/run.json`"


def test_the_page_of_a_run_that_failed() -> None:
    """A run that could not finish shows its error; one that never asked the hosts says so."""
    run = record(state=RunState.FAILED, error="all hosts were lost", model_digest=None)
    page = markdown(run, "out")
    assert page.endswith("\n\nError: all hosts were lost")
    assert "(`not asked`, profile" in page
    assert "after 0 s" in page
    assert "| host |" not in page
