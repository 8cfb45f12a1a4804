"""What an ingest will do, decided before a row is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.ingest.cells import Fit, fit_into
from tasks.core.ingest.contract import Contract, agreed_fields
from tasks.core.ingest.parts import TEXT_FILES, part_name
from tasks.core.ingest.reading import Looked, id_columns, text_columns
from tasks.core.ingest.rows import Field
from tasks.core.ingest.sift import Roles
from tasks.core.ingest.summary import FileSummary
from tasks.core.settings import IngestSettings


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A source file with all that is decided about it."""

    looked: Looked
    roles: Roles
    part: str
    columns: tuple[tuple[str, Fit | None], ...]
    """For every column of the file: the dataset's name for it, and how values get in."""

    def summary(self, *, reports: int, rejected: int) -> FileSummary:
        """What became of the file, given its counts."""
        source, reading, roles = self.looked.source, self.looked.reading, self.roles
        return FileSummary(
            source_file=source.name,
            format=source.format,
            sha256=self.looked.fingerprint.sha256,
            size_bytes=self.looked.fingerprint.size_bytes,
            encoding=reading.encoding,
            delimiter=reading.delimiter,
            header_row=reading.header_row,
            preamble=reading.preamble,
            text_column=None if roles.text is None else self.columns[roles.text][0],
            id_column=None if roles.id is None else self.columns[roles.id][0],
            rows_in=reports + rejected,
            reports=reports,
            rejected=rejected,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of an ingest, and the contract their dataset will have."""

    contract: Contract
    tables: tuple[PlannedFile, ...]
    texts: tuple[PlannedFile, ...]
    other_parts: dict[str, str]
    """Parts this ingest does not write by itself: the file name, and whose rows it holds."""
    columns_change: bool
    """Whether parts written before lack a column, or have one of another type."""
    empty_row: dict[str, object]
    """Null for every source column."""
    notes: tuple[str, ...]


def made_plan(looked: Sequence[Looked], settings: IngestSettings, before: Contract | None) -> Plan:
    """Decide columns, roles and parts. Raises `ConfigurationError` when they do not fit."""
    remembered = None if before is None else before.text_column
    texts = text_columns(looked, settings.text_column, remembered)
    ids = id_columns(looked, settings.id_column)
    fields = agreed_fields(
        before,
        [(file.source.name, file.reading.fields) for file in looked],
        evolve=settings.evolve,
    )
    files = [
        _planned(file, texts[file.source.name], ids[file.source.name], fields) for file in looked
    ]
    tables = tuple(file for file in files if file.part != TEXT_FILES)
    contract = Contract(
        dataset=settings.dataset,
        source_fields=fields,
        text_column=_text_column(tables, settings, remembered),
        id_column=next((name for file in tables if (name := _id_column(file))), None),
        files=(),
    )
    return Plan(
        contract=contract,
        tables=tables,
        texts=tuple(file for file in files if file.part == TEXT_FILES),
        other_parts=_other_parts(before, {file.part for file in files}),
        columns_change=before is not None and before.source_fields != fields,
        empty_row=dict.fromkeys(field.name for field in fields),
        notes=_notes(looked, tables, contract, before),
    )


def _planned(
    looked: Looked, text: int | None, id_: int | None, fields: Sequence[Field]
) -> PlannedFile:
    by_name = {field.name.casefold(): field for field in fields}
    own = looked.reading.fields
    return PlannedFile(
        looked=looked,
        roles=Roles(
            source_file=looked.source.name,
            names=looked.reading.names,
            stored=tuple(field.name for field in own),
            text=text,
            id=id_,
        ),
        part=part_name(looked.source.name, looked.source.format),
        columns=tuple(
            (target.name, fit_into(field.type, target.type))
            for field in own
            for target in (by_name[field.name.casefold()],)
        ),
    )


def _text_column(
    tables: Sequence[PlannedFile], settings: IngestSettings, remembered: str | None
) -> str | None:
    if remembered is not None and settings.text_column is None:
        return remembered
    chosen = (file.columns[file.roles.text][0] for file in tables if file.roles.text is not None)
    return next(chosen, remembered)


def _id_column(file: PlannedFile) -> str | None:
    return None if file.roles.id is None else file.columns[file.roles.id][0]


def _other_parts(before: Contract | None, written: set[str]) -> dict[str, str]:
    if before is None:
        return {}
    parts = {}
    for file in before.files:
        part = part_name(file.summary.source_file, file.summary.format)
        if part not in written:
            parts[part] = "text files" if part == TEXT_FILES else file.summary.source_file
    return parts


def _notes(
    looked: Sequence[Looked],
    tables: Sequence[PlannedFile],
    contract: Contract,
    before: Contract | None,
) -> tuple[str, ...]:
    notes = [f"{file.source.name}: {note}" for file in looked for note in file.reading.notes]
    notes += [
        f"{file.source.name}: holds no columns, so no reports"
        for file in looked
        if not file.reading.fields
    ]
    had_tables = before is not None and before.text_column is not None
    if before is not None and had_tables and tables and before.id_column != contract.id_column:
        notes.append(
            f"ids come from {_id_rule(contract)} now, and came from {_id_rule(before)} before: "
            "the same reports have other ids"
        )
    return tuple(notes)


def _id_rule(contract: Contract) -> str:
    return "the rows" if contract.id_column is None else f"column {contract.id_column!r}"
