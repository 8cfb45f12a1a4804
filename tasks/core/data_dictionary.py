"""Writes `data/README.md`: every stored column, from the schema that the code uses.

python -m tasks.core.data_dictionary > data/README.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields

import pyarrow as pa

from tasks.core import schema
from tasks.core.dispatch.account import HostAccount
from tasks.core.run.run_record import Counts, RunRecord

_TYPES: dict[pa.DataType, str] = {
    schema.STRING: "string",
    schema.INT32: "int32",
    schema.INT64: "int64",
    schema.STRINGS: "list&lt;string&gt;",
    schema.INSTANT: "timestamp, µs UTC",
}

_INTRODUCTION = """\
# Data

Written by `python -m tasks.core.data_dictionary`; a test keeps it in step with the code.

`sample/` holds 80 French reports (inspections, incidents, maintenance, field visits),
written for this project, in the formats that real ones come in: a cp1252 CSV with lines
above its header, JSON lines, Parquet and a folder of text files.
`sample-references.jsonl` holds English reference translations for 48 of them, by
`source_file` and `source_row`.

## What a run stores

Everything lies below the folder given with `--root`:

| path | what |
| --- | --- |
| `reports/DATASET/**/*.parquet` | what was ingested: one row a report |
| `rejected/DATASET/**/*.parquet` | what was read and is no report, with the reason |
| `translations/DATASET/LANG/*.parquet` | one row a report and target language |
| `attempts/DATASET/*.parquet` | one row a request, a file a run |
| `datasets/DATASET.json` | the dataset's columns, and how each source file was read |
| `runs/RUN_ID/run.json` | a run: state, counts, hosts; there from its start |
| `runs/RUN_ID/plan.parquet`, `runs/RUN_ID/journal/` | what it set out to do, and all it did |

Every column is in every file, with its type, also where all its values are null; new
releases add columns and raise `schema_version`. Durations are integers with the unit in
the name. Source columns keep their names, except those that equal one of ours ignoring
case: they become `source_NAME`. A report's row is always in the same file of
`translations`, and files are replaced whole: a reader sees each report at most once.

The sums that hold in every run: `rows_in = reports + rejected`, and
`reports = translated + flagged + reused + passed + failed + unchanged`. A run that could
not finish has `unfinished` reports besides.
"""


def render() -> str:
    """The whole page."""
    sections = [
        _INTRODUCTION,
        _section(
            "reports",
            "Key: `report_id`. The source's own columns stand after `source_row`.",
            schema.REPORTS,
        ),
        _section("rejected", "No key: a row of a source that is no report.", schema.REJECTED),
        _section(
            "translations",
            "Key: `report_id`, `target_lang`. The source's own columns stand after `source_row`. "
            "A report that took several requests has the sums over its accepted ones.",
            schema.TRANSLATIONS,
        ),
        _section(
            "attempts",
            "Key: `run_id`, `report_id`, `segment`, `attempt`. Every request, also those that "
            "failed.",
            schema.ATTEMPTS,
        ),
        "## run.json\n\n" + _record_fields(),
    ]
    return "\n".join(sections)


def _section(name: str, text: str, columns: Sequence[schema.Column]) -> str:
    rows = ((column.name, _TYPES[column.type], column.meaning) for column in columns)
    return f"## {name}\n\n{text}\n\n" + _table(("column", "type", "meaning"), rows)


def _record_fields() -> str:
    counts = ", ".join(f"`{name}`" for name in Counts.model_fields)
    others = ", ".join(
        f"`{name}`" for name in RunRecord.model_fields if name not in Counts.model_fields
    )
    hosts = ", ".join(f"`{field.name}`" for field in fields(HostAccount))
    return (
        f"Counts: {counts}.\n\nThe run: {others}.\n\n"
        f"`hosts` has, by URL: {hosts}. A slot-second is one slot for one second; "
        "`busy_seconds` is the time with at least one request in flight.\n"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join((f"`{row[0]}`", *row[1:])) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
