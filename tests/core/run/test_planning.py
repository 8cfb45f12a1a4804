from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import schema
from tasks.core.errors import ConfigurationError
from tasks.core.records import Measures, PlannedReport, ReportOutcome, Status
from tasks.core.run.planning import (
    FEWEST_SHARDS,
    MOST_SHARD_ROWS,
    MOST_SHARDS,
    RUNNING_SHARDS,
    SHARD_ROWS,
    USUAL_SHARDS,
    Plan,
    cut_into_shards,
    make_plan,
    read_shard,
)
from tasks.core.run.run_record import plan_key
from tasks.core.storage.publish import RunColumns, publish_translations
from tasks.core.storage.store import Store
from tasks.core.translate.reuse_key import Recipe
from tasks.core.translate.segments import predicted_tokens
from tests.fakes import write_reports

RECIPE = Recipe("d1", "fr", "en", "p", "o")
TEXTS = {"r1": "Le rein", "r2": "Le foie est bien plus long que le rein", "r3": "Rien"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A root with three reports."""
    store = Store(tmp_path)
    write_reports(store, TEXTS, source={"ward": ["A", "B", "C"]})
    return store


def plan(store: Store, recipe: Recipe = RECIPE, run_id: str = "run", **options: object) -> Plan:
    """The plan of a run."""
    return make_plan(store, run_id, "ds", recipe, slots=1, **options)  # type: ignore[arg-type]


def planned(store: Store, run_id: str = "run") -> list[str]:
    """The ids of a plan's reports, in its order."""
    table = pq.read_table(store.path(plan_key(run_id)))
    ids: list[str] = table["report_id"].to_pylist()
    return ids


def publish(store: Store, statuses: dict[str, Status], recipe: Recipe = RECIPE) -> None:
    """Publish a run in which reports ended like this."""
    plan(store, recipe, run_id="before")
    outcomes = {
        report_id: ReportOutcome(report_id, status, "x", 1, 1, Measures())
        for report_id, status in statuses.items()
    }
    columns = RunColumns("ds", "before", None, "m", "d1", "plain/1", "p", "o", None, "en")
    table = pq.read_table(store.path(plan_key("before")))
    publish_translations(store, columns, table, outcomes)


def test_everything_is_missing_at_first(store: Store) -> None:
    """Without translations the plan is all reports, longest first."""
    made = plan(store)
    assert (made.reports, made.unchanged, made.planned, made.beyond_limit) == (3, 0, 3, 0)
    assert planned(store) == ["r2", "r1", "r3"]
    assert made.predicted_tokens == sum(map(predicted_tokens, TEXTS.values()))


def test_the_plan_is_a_table(store: Store) -> None:
    """The plan's file has the plan's columns and the dataset's own, with what a run needs."""
    plan(store)
    table = pq.read_table(store.path(plan_key("run")))
    fields = [pa.field("ward", pa.string())]
    assert table.schema.equals(schema.arrow_schema(schema.PLAN, fields))
    assert table.slice(1, 1).to_pylist() == [
        {
            "dataset": "ds",
            "report_id": "r1",
            "source_file": "notes.csv",
            "source_row": 1,
            "ward": "A",
            "source_text": "Le rein",
            "source_lang": "fr",
            "target_lang": "en",
            "reuse_key": RECIPE.reuse_key("Le rein"),
            "predicted_tokens": 2,
        }
    ]


@pytest.mark.parametrize("status", [one for one in Status if one is not Status.FAILED])
def test_what_is_done_is_not_planned(store: Store, status: Status) -> None:
    """A report that has its translation is unchanged, however it came by it."""
    publish(store, {"r2": status})
    made = plan(store)
    assert (made.reports, made.unchanged, made.planned) == (3, 1, 2)
    assert planned(store) == ["r1", "r3"]


def test_what_failed_is_planned_again(store: Store) -> None:
    """A failed report is missing."""
    publish(store, {"r1": Status.FAILED, "r2": Status.OK, "r3": Status.OK})
    assert (plan(store).planned, planned(store)) == (1, ["r1"])


def test_another_model_makes_all_missing(store: Store) -> None:
    """Translations by another recipe do not count."""
    publish(store, dict.fromkeys(TEXTS, Status.OK))
    assert plan(store).planned == 0
    assert plan(store, Recipe("d2", "fr", "en", "p", "o")).planned == 3


def test_another_language_is_another_table(store: Store) -> None:
    """What is there in one language is missing in another."""
    publish(store, dict.fromkeys(TEXTS, Status.OK))
    assert plan(store, Recipe("d1", "fr", "de", "p", "o")).planned == 3


def test_a_changed_text_is_missing(store: Store) -> None:
    """A report whose text changed is translated again."""
    publish(store, dict.fromkeys(TEXTS, Status.OK))
    write_reports(store, {**TEXTS, "r3": "Autre"}, source={"ward": ["A", "B", "C"]})
    assert (plan(store).unchanged, planned(store)) == (2, ["r3"])


def test_the_limit_takes_the_first_of_the_sources(store: Store) -> None:
    """A limit takes missing reports in the order of their sources, not the longest."""
    publish(store, {"r1": Status.OK})
    write_reports(store, {"z": "Encore"}, source={"ward": ["A"]}, source_file="a.csv", file="b")
    made = plan(store, limit=2)
    assert planned(store) == ["r2", "z"]
    assert (made.reports, made.unchanged, made.planned, made.beyond_limit) == (3, 1, 2, 1)
    assert plan(store, limit=99).beyond_limit == 0


def test_only_some_source_files(store: Store) -> None:
    """A run about some source files leaves the reports of all others alone."""
    write_reports(store, {"z": "Encore"}, source={"ward": ["A"]}, source_file="a.csv", file="b")
    assert plan(store, source_files=["a.csv"]).reports == 1
    assert planned(store) == ["z"]
    assert plan(store, source_files=["b.csv"]) == Plan(
        reports=0, unchanged=0, planned=0, predicted_tokens=0, beyond_limit=0, shards=()
    )
    assert plan(store, source_files=[]).reports == 0


def test_equal_lengths_keep_the_order_of_the_sources(tmp_path: Path) -> None:
    """The plan does not depend on chance: equals stand in the order of their sources."""
    store = Store(tmp_path)
    write_reports(store, {f"r{number}": "Rein" for number in range(9, 0, -1)})
    plan(store)
    assert planned(store) == [f"r{number}" for number in range(9, 0, -1)]


def test_a_dataset_without_reports(tmp_path: Path) -> None:
    """A dataset that was ingested and holds no report has an empty plan, a file all the same."""
    write_reports(Store(tmp_path), {})
    made = plan(Store(tmp_path))
    assert (made.reports, made.planned, made.shards) == (0, 0, ())
    assert planned(Store(tmp_path)) == []


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    """A dataset of which nothing was ingested is refused, with the command that does it."""
    with pytest.raises(ConfigurationError, match=r"--dataset ds: .* 'reports ingest SOURCE"):
        plan(Store(tmp_path))


def test_shards_are_read_back(tmp_path: Path) -> None:
    """Shards cover the plan: together they give each report once, in the plan's order."""
    store = Store(tmp_path)
    write_reports(store, {f"r{number}": "Le rein " * number for number in range(1, 300)})
    made = plan(store)
    read = [report for shard in made.shards for report in read_shard(store, shard)]
    assert [report.report_id for report in read] == planned(store)
    assert [len(read_shard(store, shard)) for shard in made.shards] == [
        shard.rows for shard in made.shards
    ]
    text = "Le rein " * 299
    assert read[0] == PlannedReport("r299", text, RECIPE.reuse_key(text))


@given(st.integers(0, 400_000), st.integers(1, 2_000))
def test_shards_cover_all_rows_once(rows: int, slots: int) -> None:
    """Shards are whole row ranges, one after the other, of equal size but for the last."""
    shards = cut_into_shards("run", rows, slots)
    next_row = 0
    for index, shard in enumerate(shards):
        assert (shard.run_id, shard.index, shard.first_row) == ("run", index, next_row)
        assert 0 < shard.rows <= shards[0].rows
        assert shard.rows == shards[0].rows or index == len(shards) - 1
        next_row += shard.rows
    assert next_row == rows
    assert len(shards) <= MOST_SHARDS


@given(st.integers(1, 400_000), st.integers(1, 2_000))
def test_running_shards_hold_work_for_every_slot_twice(rows: int, slots: int) -> None:
    """The shards that run at once fill all slots twice, or are the whole plan."""
    shards = cut_into_shards("run", rows, slots)
    assert shards[0].rows * RUNNING_SHARDS >= min(2 * slots, rows)


@given(st.integers(16, 400_000))
def test_a_plan_of_some_size_has_enough_shards(rows: int) -> None:
    """With few slots even a small plan is cut so that several shards can run."""
    shards = cut_into_shards("run", rows, 1)
    assert len(shards) >= FEWEST_SHARDS
    assert len(shards) <= USUAL_SHARDS or rows > USUAL_SHARDS * MOST_SHARD_ROWS
    assert shards[0].rows <= max(SHARD_ROWS, MOST_SHARD_ROWS) or len(shards) == MOST_SHARDS


@pytest.mark.parametrize(
    ("rows", "slots", "sizes"),
    [
        (0, 4, []),
        (1, 4, [1]),
        (3, 1, [1, 1, 1]),
        (5, 1, [2, 2, 1]),
        (10, 64, [8, 2]),
        (256, 8, [64, 64, 64, 64]),
        (300, 8, [60] * 5),
        (20_000, 64, [625] * 32),
        (1_000_000, 8, [1000] * 1000),
        (4_000_000, 8, [2000] * 2000),
    ],
)
def test_sizes_of_shards(rows: int, slots: int, sizes: list[int]) -> None:
    """What the rule comes to for plans of some sizes."""
    assert [shard.rows for shard in cut_into_shards("run", rows, slots)] == sizes
