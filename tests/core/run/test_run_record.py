from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.core.dispatch.account import HostAccount
from tasks.core.run.run_record import (
    Counts,
    RunRecord,
    RunState,
    lock_name,
    new_run_id,
    plan_key,
    read_run,
    read_runs,
    run_key,
    write_run,
)
from tasks.core.storage.store import Store
from tests.fakes import NOW


def record(run_id: str = "20261122T120000Z-aaaaaa", **more: Any) -> RunRecord:
    """A run's record."""
    fields: dict[str, Any] = {
        "run_id": run_id,
        "dataset": "ds",
        "model": "m",
        "model_digest": "d" * 64,
        "source_lang": "fr",
        "target_lang": "en",
        "profile": "plain/1",
        "prompt_sha256": "p" * 64,
        "options_sha256": "o" * 64,
        "options": {"temperature": 0.0, "num_ctx": 4096},
        "started_at": NOW,
        **more,
    }
    return RunRecord(**fields)


def test_a_record_comes_back(tmp_path: Path) -> None:
    """A record that was written is read back equal, types and all."""
    store = Store(tmp_path)
    host = HostAccount(
        slots=4, requests=9, failures=1, output_tokens=99, busy_seconds=1.5, peak_in_flight=4
    )
    written = record(
        state=RunState.INTERRUPTED,
        hosts={"http://a:1": host},
        notes=["a note"],
        sources=[{"source_file": "a.csv"}],
        finished_at=NOW,
        limit=5,
        error="stopped",
    )
    write_run(store, written)
    assert read_run(store, written.run_id) == written
    assert isinstance(read_run(store, written.run_id).options["num_ctx"], int)


def test_a_record_is_json_for_others(tmp_path: Path) -> None:
    """`run.json` is indented JSON with ISO times in UTC and states as words."""
    store = Store(tmp_path)
    write_run(store, record("r1"))
    text = store.read("runs/r1/run.json").decode()
    shown = json.loads(text)
    assert text.endswith("}\n")
    assert "\n  " in text
    assert shown["state"] == "running"
    assert shown["started_at"] == "2026-11-22T12:00:00.123456Z"


def test_runs_oldest_first(tmp_path: Path) -> None:
    """All runs of a root, in the order of their start; other files of a run are no runs."""
    store = Store(tmp_path)
    assert read_runs(store) == []
    for run_id in ("20261122T120000Z-b", "20261121T120000Z-c", "20261122T120000Z-a"):
        write_run(store, record(run_id))
        store.put(plan_key(run_id), b"")
        store.put(f"runs/{run_id}/journal/w.jsonl", b"")
    ids = [one.run_id for one in read_runs(store)]
    assert ids == ["20261121T120000Z-c", "20261122T120000Z-a", "20261122T120000Z-b"]


def test_ids_sort_by_start_and_differ() -> None:
    """Ids hold the second of the start and differ also within one."""
    early = new_run_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    late = new_run_id(NOW)
    assert re.fullmatch(r"20260102T030405Z-[0-9a-f]{6}", early)
    assert early < late
    assert len({new_run_id(NOW) for _ in range(50)}) > 45


def test_places() -> None:
    """A run's record and plan lie in its folder, and its lock has its name."""
    assert run_key("r1") == "runs/r1/run.json"
    assert plan_key("r1") == "runs/r1/plan.parquet"
    assert lock_name("r1") == "run-r1"


@pytest.mark.parametrize(
    ("counts", "adds_up"),
    [
        ({}, True),
        ({"rows_in": 3, "reports": 2, "rejected": 1, "translated": 1, "failed": 1}, True),
        (
            {
                "rows_in": 28,
                "reports": 28,
                "translated": 1,
                "flagged": 2,
                "reused": 3,
                "passed": 4,
                "failed": 5,
                "unchanged": 6,
                "unfinished": 7,
            },
            True,
        ),
        ({"rows_in": 3, "reports": 2, "translated": 2}, False),
        ({"rows_in": 2, "reports": 2, "translated": 1}, False),
        ({"rows_in": 1, "reports": 1, "translated": 1, "unfinished": 1}, False),
    ],
)
def test_sums(counts: dict[str, int], *, adds_up: bool) -> None:
    """Rows are reports and rejected; reports are the sum of all ways to end."""
    assert Counts(**counts).add_up() is adds_up


def test_the_values_of_every_row() -> None:
    """A run's rows carry what its record says of model, prompt and options."""
    columns = record("r1", flow_run_id="f", glossary_sha256="g").columns()
    assert (columns.dataset, columns.run_id, columns.flow_run_id) == ("ds", "r1", "f")
    assert (columns.model, columns.model_digest) == ("m", "d" * 64)
    assert (columns.profile, columns.target_lang) == ("plain/1", "en")
    assert columns.prompt_sha256 == "p" * 64
    assert columns.options_sha256 == "o" * 64
    assert columns.glossary_sha256 == "g"


def test_a_record_does_not_change() -> None:
    """A record is a value; what comes later is another record."""
    with pytest.raises(ValidationError, match="frozen"):
        record().state = RunState.FAILED  # type: ignore[misc]
