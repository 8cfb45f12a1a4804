"""The stored tables: every column, its Arrow type, its unit and its meaning.

This is the only place where the columns of a published table are spelled. The data
dictionary in `data/README.md` is written from it.

Types that every reader agrees on: strings, int32, int64, list<string> and
timestamps in microseconds UTC. Durations are int64 with the unit in the name,
because Parquet has no duration type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1

STRING = pa.string()
INT32 = pa.int32()
INT64 = pa.int64()
STRINGS = pa.list_(pa.field("element", pa.string()))
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column: its name, Arrow type and what it means."""

    name: str
    type: pa.DataType
    meaning: str


IDENTITY = (
    Column("dataset", STRING, "name of the dataset"),
    Column(
        "report_id",
        STRING,
        "the id column's value, else a hash of file name, cells and occurrence",
    ),
    Column("source_file", STRING, "source file, relative to the folder or glob that was given"),
    Column(
        "source_row", INT64, "data record in that file, from 1; header and preamble not counted"
    ),
)

TEXT = (
    Column("source_text", STRING, "the text as read, character for character"),
    Column("translated_text", STRING, "the translation; null when the report failed"),
    Column("source_lang", STRING, "language the run was told the text is in (ISO 639-1)"),
    Column("detected_lang", STRING, "language found in the text; null until detection exists"),
    Column("target_lang", STRING, "language translated into (ISO 639-1)"),
    Column("segment_count", INT32, "requests' worth of pieces the text was split into"),
)

OUTCOME = (
    Column("status", STRING, "ok, flagged, failed, reused or passed (nothing to translate)"),
    Column("flags", STRINGS, "checks that found something; empty when none did"),
    Column("attempts", INT32, "requests made for this report in this run, all hosts"),
    Column("done_reason", STRING, "the server's reason for ending the last answer, e.g. stop"),
    Column("error_kind", STRING, "kind of the last error of a failed report, else null"),
    Column("error", STRING, "message of the last error of a failed report, else null"),
    Column("deleted_at", INSTANT, "when the report was found gone from its source, else null"),
)

RUN = (
    Column("run_id", STRING, "run that wrote the row; see runs/RUN_ID/run.json"),
    Column("flow_run_id", STRING, "Prefect flow run of that run"),
)

PROVENANCE = (
    Column("host", STRING, "host that answered; null if several did, or none"),
    Column("model", STRING, "model name as asked for"),
    Column("model_digest", STRING, "digest of the model on the hosts (sha256, hex)"),
    Column("ollama_version", STRING, "version the host reported; null if several hosts differ"),
    Column("profile", STRING, "prompt profile and its version, e.g. plain/1"),
    Column("prompt_sha256", STRING, "hash of the profile's prompt, text left out"),
    Column("options_sha256", STRING, "hash of the options sent with every request"),
    Column("glossary_sha256", STRING, "hash of the glossary; null without one"),
    Column(
        "reuse_key",
        STRING,
        "hash of text, languages, model digest, prompt, options and glossary",
    ),
)

USAGE = (
    Column("prompt_tokens", INT64, "prompt tokens, cached ones included (prompt_eval_count)"),
    Column("output_tokens", INT64, "tokens generated (eval_count)"),
    Column("source_chars", INT64, "characters of source text"),
    Column("output_chars", INT64, "characters of translation"),
)

TIMING = (
    Column("queue_wait_ns", INT64, "time in our own queue until a slot was free"),
    Column("request_wall_ns", INT64, "from sending the request to having the answer, our clock"),
    Column("total_duration_ns", INT64, "the server's total_duration"),
    Column("load_duration_ns", INT64, "the server's load_duration: scheduler wait and model load"),
    Column("prompt_eval_duration_ns", INT64, "prompt processing, cached tokens not included"),
    Column("eval_duration_ns", INT64, "generation"),
    Column("server_wait_ns", INT64, "total − load − prompt_eval − eval: wait for a server slot"),
    Column("started_at", INSTANT, "first request sent"),
    Column("finished_at", INSTANT, "last answer received"),
)

VERSION = (Column("schema_version", INT32, "version of this table's columns"),)

REPORTS = (
    *IDENTITY,
    Column("source_text", STRING, "the text to translate, character for character"),
    Column("ingested_at", INSTANT, "when the row was read from its source"),
    *VERSION,
)

REJECTED = (
    Column("dataset", STRING, "name of the dataset"),
    Column("source_file", STRING, "source file, relative to the folder or glob that was given"),
    Column(
        "source_row", INT64, "data record in that file, from 1; header and preamble not counted"
    ),
    Column(
        "reason", STRING, "why it is not a report, e.g. no_text, duplicate_id, wrong_cell_count"
    ),
    Column("detail", STRING, "the reason in words"),
    Column("raw", STRING, "the record as it stood in the file; bytes that are no text as \\xNN"),
    Column("ingested_at", INSTANT, "when the row was read from its source"),
    *VERSION,
)

TRANSLATIONS = (*IDENTITY, *TEXT, *OUTCOME, *RUN, *PROVENANCE, *USAGE, *TIMING, *VERSION)

ATTEMPTS = (
    Column("dataset", STRING, "name of the dataset"),
    Column("report_id", STRING, "report the request was for"),
    Column("target_lang", STRING, "language translated into (ISO 639-1)"),
    Column("segment", INT32, "piece of the report, from 0; pieces made by splitting again follow"),
    Column("attempt", INT32, "request for that piece, from 1"),
    Column("purpose", STRING, "translate, repair or hedge"),
    Column("outcome", STRING, "accepted, refused (a bad answer), failed (no answer) or cancelled"),
    Column("done_reason", STRING, "the server's reason for ending the answer, else null"),
    Column("error_kind", STRING, "kind of error, else null"),
    Column("error", STRING, "message of the error, else null"),
    *RUN,
    *PROVENANCE,
    *USAGE,
    *TIMING,
    *VERSION,
)

PLAN = (
    *IDENTITY,
    Column("source_text", STRING, "the text to translate"),
    Column("source_lang", STRING, "language the run was told the text is in"),
    Column("target_lang", STRING, "language to translate into"),
    Column("reuse_key", STRING, "what the translation will be known by"),
    Column("predicted_tokens", INT64, "predicted length of the answer; the plan is longest first"),
)

RESERVED_NAMES = frozenset(
    column.name for table in (REPORTS, REJECTED, TRANSLATIONS, ATTEMPTS, PLAN) for column in table
)
"""Names a source column cannot keep; compared ignoring case."""


def source_fields(reports: pa.Schema) -> list[pa.Field[pa.DataType]]:
    """The dataset's own columns among those of its `reports` files."""
    ours = {column.name for column in REPORTS}
    return [field for field in reports if field.name not in ours]


def arrow_schema(
    columns: Sequence[Column], source_columns: Sequence[pa.Field[pa.DataType]] = ()
) -> pa.Schema:
    """Arrow schema of a table, the dataset's own source columns after `source_row`."""
    fields = [pa.field(column.name, column.type) for column in columns]
    if source_columns:
        names = [column.name for column in columns]
        after = names.index("source_row") + 1
        fields[after:after] = list(source_columns)
    return pa.schema(fields)
