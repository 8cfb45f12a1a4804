"""What a run is going to do: the missing reports, longest predicted first, in shards."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.core import schema
from tasks.core.errors import ConfigurationError
from tasks.core.records import PlannedReport, Shard
from tasks.core.run.run_record import plan_key
from tasks.core.storage.publish import read_row_group, read_table, strings, translations_folder
from tasks.core.storage.store import Store
from tasks.core.translate.reuse_key import Recipe
from tasks.core.translate.segments import predicted_tokens

FEWEST_SHARDS = 4
MOST_SHARDS = 2_000
SHARD_ROWS = 64
"""Reports in a shard, as long as there are no more than `USUAL_SHARDS` of them."""

USUAL_SHARDS = 32
"""A task run costs as much as dozens of requests, and 16 at once are all that is needed."""

MOST_SHARD_ROWS = 1_000
"""Reports in a shard before there are more shards than usual."""

SLOTS_IF_UNKNOWN = 16
"""Slots that a shard's size allows for on a host whose number is not known before the run."""

RUNNING_SHARDS = 16
"""Shards translated at once: the workers of the task runner."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's plan, as far as numbers go; its rows stand in `plan.parquet`."""

    reports: int
    unchanged: int
    planned: int
    predicted_tokens: int
    beyond_limit: int
    shards: tuple[Shard, ...]


def make_plan(
    store: Store,
    run_id: str,
    dataset: str,
    recipe: Recipe,
    *,
    slots: int,
    source_files: Collection[str] | None = None,
    limit: int | None = None,
) -> Plan:
    """Write a run's plan: the reports that have no translation by this recipe.

    A report is missing when it has no row in the target language, when its row is
    `failed`, or when its reuse key is another: its text, the model, the prompt or the
    options changed. `source_files` narrows the run to reports of these files; `limit` takes
    the first so many of the missing, in the order of their sources.
    """
    with store.locked(f"dataset-{dataset}"):  # no ingest in the middle of it
        require_reports(store, dataset)
        reports = read_table(store, f"reports/{dataset}")
    if source_files is not None:
        chosen = pa.array(sorted(source_files), type=schema.STRING)
        reports = reports.filter(pc.is_in(reports["source_file"], value_set=chosen))
    reports = reports.sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    keys = [recipe.reuse_key(text) for text in strings(reports["source_text"])]
    known = _known_keys(store, dataset, recipe.target_lang)
    ids = strings(reports["report_id"])
    missing = [row for row, key in enumerate(keys) if known.get(ids[row]) != key]
    taken = missing[:limit]
    rows = _planned_rows(reports.take(pa.array(taken, type=schema.INT64)), recipe)
    shards = cut_into_shards(run_id, rows.num_rows, slots)
    plan_schema = schema.arrow_schema(schema.PLAN, schema.source_fields(reports.schema))
    rows = rows.select(plan_schema.names).cast(plan_schema)
    with store.staged(plan_key(run_id)) as path:
        pq.write_table(
            rows, path, compression="zstd", row_group_size=shards[0].rows if shards else None
        )
    return Plan(
        reports=reports.num_rows - len(missing) + len(taken),
        unchanged=reports.num_rows - len(missing),
        planned=len(taken),
        predicted_tokens=pc.sum(rows["predicted_tokens"], min_count=0).as_py(),
        beyond_limit=len(missing) - len(taken),
        shards=shards,
    )


def require_reports(store: Store, dataset: str) -> None:
    """Raise `ConfigurationError` when nothing was ever ingested under this name."""
    if not store.list(f"reports/{dataset}"):
        raise ConfigurationError(
            f"--dataset {dataset}: there are no reports of that name under {store.root}; "
            f"read some with 'reports ingest SOURCE --root {store.root} --dataset {dataset}'"
        )


def cut_into_shards(run_id: str, rows: int, slots: int) -> tuple[Shard, ...]:
    """Row ranges of a plan, all but the last of equal size.

    As many as `MOST_SHARDS` and `FEWEST_SHARDS` allow, and large enough that those
    running at once hold work for every slot twice.
    """
    if rows == 0:
        return ()
    shard_rows = min(MOST_SHARD_ROWS, max(SHARD_ROWS, math.ceil(rows / USUAL_SHARDS)))
    wanted = min(MOST_SHARDS, max(FEWEST_SHARDS, math.ceil(rows / shard_rows)))
    size = max(math.ceil(rows / wanted), min(rows, math.ceil(2 * slots / RUNNING_SHARDS)))
    return tuple(
        Shard(run_id, index, first_row, min(size, rows - first_row))
        for index, first_row in enumerate(range(0, rows, size))
    )


def read_shard(store: Store, shard: Shard) -> list[PlannedReport]:
    """The reports of a shard; it is one row group of the plan."""
    columns = ["report_id", "source_text", "reuse_key"]
    rows = read_row_group(store, plan_key(shard.run_id), shard.index, columns)
    return [PlannedReport(**row) for row in rows.to_pylist()]


def _planned_rows(reports: pa.Table, recipe: Recipe) -> pa.Table:
    texts = strings(reports["source_text"])
    tokens = [predicted_tokens(text) for text in texts]
    languages = (recipe.source_lang, recipe.target_lang)
    for name, language in zip(("source_lang", "target_lang"), languages, strict=True):
        reports = reports.append_column(name, pa.repeat(pa.scalar(language), len(texts)))
    keys = pa.array([recipe.reuse_key(text) for text in texts], schema.STRING)
    reports = reports.append_column("reuse_key", keys)
    reports = reports.append_column("predicted_tokens", pa.array(tokens, schema.INT64))
    longest_first = sorted(range(len(texts)), key=lambda row: -tokens[row])
    return reports.take(pa.array(longest_first, type=schema.INT64))


def _known_keys(store: Store, dataset: str, target_lang: str) -> dict[str, str]:
    """The reuse key of every report that has a translation."""
    folder = translations_folder(dataset, target_lang)
    rows = read_table(store, folder, columns=["report_id", "status", "reuse_key"])
    return {
        row["report_id"]: row["reuse_key"] for row in rows.to_pylist() if row["status"] != "failed"
    }
