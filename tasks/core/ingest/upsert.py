"""Source files into a dataset: a file given again replaces its rows, the others stay.

Nothing is stored before every file has been read: all parts are staged, then put one
after another, and the dataset's record is written last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from tasks.core.errors import SourceError
from tasks.core.ingest.cells import Fit
from tasks.core.ingest.contract import Contract, FileRecord, read_contract, write_contract
from tasks.core.ingest.locate import locate
from tasks.core.ingest.parts import (
    TEXT_FILES,
    PartWriter,
    holds_any_id,
    kept_rows,
    part_writer,
)
from tasks.core.ingest.plan import Plan, PlannedFile, made_plan
from tasks.core.ingest.reading import check_unchanged, look_at
from tasks.core.ingest.rows import BadRow
from tasks.core.ingest.sift import Report, sift
from tasks.core.ingest.summary import FileSummary, IngestSummary
from tasks.core.schema import REJECTED, REPORTS, SCHEMA_VERSION, arrow_schema
from tasks.core.settings import IngestSettings
from tasks.core.storage.store import Store

_REJECTED_SCHEMA = arrow_schema(REJECTED)


def ingest(store: Store, settings: IngestSettings, now: datetime) -> IngestSummary:
    """Read the sources of `settings` into its dataset; `now` becomes `ingested_at`.

    Waits for another ingest of the dataset to end. Raises `ConfigurationError` (also as
    `SourceError`) when a source cannot be used, and `StorageError`; the dataset is then
    as it was, unless it was the storing itself that failed.
    """
    located = locate(settings.sources, store.root)
    with store.locked(f"dataset-{settings.dataset}"):
        before = read_contract(store, settings.dataset)
        looked = [look_at(source, settings.text_column) for source in located.files]
        plan = made_plan(looked, settings, before)
        with ExitStack() as puts:
            staging = _Staging(store, puts, plan, now)
            summaries = [staging.stage_table(file) for file in plan.tables]
            summaries += staging.stage_texts()
            # Parts are put in the reverse of this order: an id that moves to another
            # file leaves its old part before it appears in the new one.
            moved_notes = staging.stage_others()
            for file in looked:
                check_unchanged(file)
        contract = _with_files(plan, summaries, before, now)
        _delete_unrecorded(store, contract)
        write_contract(store, contract)
    return IngestSummary.of(
        settings.dataset,
        sorted(summaries, key=lambda summary: summary.source_file),
        staging.reasons,
        [*located.notes, *plan.notes, *moved_notes],
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Where the reports and the rejected records of one part go."""

    reports: PartWriter
    rejected: PartWriter


@dataclass(slots=True)
class _Staging:
    """Writes the parts of one ingest to where `puts` will publish them from."""

    store: Store
    puts: ExitStack
    plan: Plan
    now: datetime
    seen: dict[str, str] = field(default_factory=dict)
    """Ids of this ingest that came from an id column, and where they stand."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def schema(self) -> pa.Schema:
        return arrow_schema(REPORTS, self.plan.contract.source_fields)

    def stage_table(self, file: PlannedFile) -> FileSummary:
        """The part of one tabular file."""
        with self._pair(file.part) as pair:
            return self._add(file, pair)

    def stage_texts(self) -> list[FileSummary]:
        """The part of all plain text files, with the rows of those not given."""
        if not self.plan.texts:
            return []
        given = frozenset(file.looked.source.name for file in self.plan.texts)
        with self._pair(TEXT_FILES) as pair:
            summaries = [self._add(file, pair) for file in self.plan.texts]
            ids = frozenset(self.seen)
            for table, writer in (("reports", pair.reports), ("rejected", pair.rejected)):
                key = self._key(table, TEXT_FILES)
                schema = self.schema if table == "reports" else _REJECTED_SCHEMA
                if self.store.exists(key):
                    path = self.store.path(key)
                    for batch in kept_rows(path, schema, without_files=given, without_ids=ids):
                        writer.add_batch(batch)
        return summaries

    def stage_others(self) -> list[str]:
        """The reports parts of files not given, where this ingest changes them.

        They change when the dataset's columns do, and when an id they hold now comes
        from a file that was given. Says what moved.
        """
        notes = []
        ids = frozenset(self.seen)
        for part, name in self.plan.other_parts.items():
            path = self.store.path(self._key("reports", part))
            loses_rows = bool(ids) and holds_any_id(path, ids)
            if loses_rows:
                notes.append(
                    f"{name}: ids that now come from another file were taken from its rows"
                )
            if loses_rows or self.plan.columns_change:
                self._rewrite(path, part, ids)
        return notes

    def _rewrite(self, path: Path, part: str, without_ids: frozenset[str]) -> None:
        staged = self.puts.enter_context(self.store.staged(self._key("reports", part)))
        with part_writer(staged, self.schema) as writer:
            for batch in kept_rows(path, self.schema, without_ids=without_ids):
                writer.add_batch(batch)

    @contextmanager
    def _pair(self, part: str) -> Iterator[_Pair]:
        reports = self.puts.enter_context(self.store.staged(self._key("reports", part)))
        rejected = self.puts.enter_context(self.store.staged(self._key("rejected", part)))
        with (
            part_writer(reports, self.schema) as report_writer,
            part_writer(rejected, _REJECTED_SCHEMA) as rejected_writer,
        ):
            yield _Pair(report_writer, rejected_writer)

    def _key(self, table: str, part: str) -> str:
        return f"{table}/{self.plan.contract.dataset}/{part}"

    def _add(self, file: PlannedFile, pair: _Pair) -> FileSummary:
        reports = rejected = 0
        for row in sift(file.looked.reading.rows(), file.roles, self.seen):
            if isinstance(row, BadRow):
                rejected += 1
                self.reasons[row.reason.value] += 1
                pair.rejected.add(self._rejected_row(file, row), len(row.raw))
            else:
                reports += 1
                pair.reports.add(self._report_row(file, row), 2 * len(row.text))
        return file.summary(reports=reports, rejected=rejected)

    def _report_row(self, file: PlannedFile, report: Report) -> dict[str, object]:
        row = dict(self.plan.empty_row)
        for (name, fit), cell in zip(file.columns, report.cells, strict=True):
            row[name] = cell if fit is None else _fitted(fit, cell, name, file, report.number)
        row |= {
            "dataset": self.plan.contract.dataset,
            "report_id": report.report_id,
            "source_file": file.looked.source.name,
            "source_row": report.number,
            "source_text": report.text,
            "ingested_at": self.now,
            "schema_version": SCHEMA_VERSION,
        }
        return row

    def _rejected_row(self, file: PlannedFile, row: BadRow) -> dict[str, object]:
        return {
            "dataset": self.plan.contract.dataset,
            "source_file": file.looked.source.name,
            "source_row": row.number,
            "reason": row.reason.value,
            "detail": row.detail,
            "raw": row.raw,
            "ingested_at": self.now,
            "schema_version": SCHEMA_VERSION,
        }


def _fitted(fit: Fit, cell: object, name: str, file: PlannedFile, number: int) -> object:
    try:
        return fit(cell)
    except ValueError as error:
        raise SourceError(
            f"{file.looked.source.name}, row {number}, column {name!r}: {error}; store the "
            "column as text in the source"
        ) from error


def _with_files(
    plan: Plan, summaries: Sequence[FileSummary], before: Contract | None, now: datetime
) -> Contract:
    """The contract with a record of every file: as read now, or as it was."""
    parts = {file.looked.source.name: file.part for file in (*plan.tables, *plan.texts)}
    dataset = plan.contract.dataset
    records = {} if before is None else {file.summary.source_file: file for file in before.files}
    for summary in summaries:
        part = parts[summary.source_file]
        records[summary.source_file] = FileRecord(
            summary=summary,
            reports_key=f"reports/{dataset}/{part}",
            rejected_key=f"rejected/{dataset}/{part}",
            ingested_at=now.isoformat(),
        )
    return replace(plan.contract, files=tuple(records[name] for name in sorted(records)))


def _delete_unrecorded(store: Store, contract: Contract) -> None:
    """Delete what an ingest left that was cut off before its record was written."""
    recorded = {key for file in contract.files for key in (file.reports_key, file.rejected_key)}
    for table in ("reports", "rejected"):
        for key in store.list(f"{table}/{contract.dataset}"):
            if key not in recorded:
                store.delete(key)
