"""A text file (txt, md) as one report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa

from tasks.core.ingest.cells import STRING
from tasks.core.ingest.columns import renaming_notes, stored_names
from tasks.core.ingest.encoding import detect_encoding, is_whole, opened_text, printable
from tasks.core.ingest.rows import BadRow, Reading, Reason, Row, SourceFile

FILE_NAME_COLUMN = "file_name"
TEXT_COLUMN = "text"


def read_plain_text(source: SourceFile, text_column: str | None) -> Reading:
    """Look at a text file: its columns are its base name and its whole text.

    Raises `SourceError` when the file cannot be read.
    """
    names = (FILE_NAME_COLUMN, (text_column or TEXT_COLUMN).strip())
    stored = stored_names(names)
    encoding = detect_encoding(source.path)
    return Reading(
        names=names,
        fields=tuple(pa.field(name, STRING) for name in stored),
        rows=lambda: _rows(source, encoding),
        encoding=encoding,
        text_index=1,
        notes=renaming_notes(names, stored),
    )


def _rows(source: SourceFile, encoding: str) -> Iterator[Row | BadRow]:
    with opened_text(source.path, encoding) as file:
        text = file.read()
    if is_whole(text):
        yield Row(1, (PurePosixPath(source.name).name, text), text)
    else:
        detail = "bytes that are no text in the file's encoding"
        yield BadRow(1, Reason.UNDECODABLE, detail, printable(text))
