"""JSON as rows: one object a line, an array of objects, or a single object.

A value keeps its type where its whole column has that type; columns of several types
are text. Objects and arrays inside a row are stored as their JSON text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from tasks.core.ingest.cells import STRING, UNKNOWN
from tasks.core.ingest.columns import renaming_notes, stored_names
from tasks.core.ingest.encoding import detect_encoding, is_whole, opened_text, printable
from tasks.core.ingest.rows import BadRow, Reading, Reason, Row, SourceFile

_INT64 = range(-(1 << 63), 1 << 63)
_EXACT_IN_FLOAT = range(-(1 << 53), (1 << 53) + 1)
_SPACE = " \t\r\n"


def read_json(source: SourceFile) -> Reading:
    """Look at a JSON file: every row, since any may bring a column or change a type.

    Raises `SourceError` when the file cannot be read.
    """
    encoding = detect_encoding(source.path)
    kinds: dict[str, _Kinds] = {}
    for item in _items(source, encoding):
        if isinstance(item, _Object):
            for key, value in item.values.items():
                kinds.setdefault(key, _Kinds()).see(value)
    keys = tuple(kinds)
    stored = stored_names(keys)
    return Reading(
        names=keys,
        fields=tuple(
            pa.field(name, kinds[key].type) for name, key in zip(stored, keys, strict=True)
        ),
        rows=lambda: _rows(source, encoding, keys),
        encoding=encoding,
        notes=renaming_notes(keys, stored),
    )


def _rows(source: SourceFile, encoding: str, keys: tuple[str, ...]) -> Iterator[Row | BadRow]:
    for number, item in enumerate(_items(source, encoding), start=1):
        if isinstance(item, _Object):
            yield Row(number, tuple(item.values.get(key) for key in keys), item.raw)
        else:
            yield BadRow(number, item.reason, item.detail, printable(item.raw))


@dataclass(frozen=True, slots=True)
class _Object:
    values: dict[str, object]
    raw: str


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: Reason
    detail: str
    raw: str


@dataclass(slots=True)
class _Kinds:
    """The kinds of value seen in a column, and the type that takes them all."""

    seen: set[type] = field(default_factory=set)
    in_int64: bool = True
    exact_in_float: bool = True

    def see(self, value: object) -> None:
        if value is None:
            return
        self.seen.add(type(value))
        if type(value) is int:
            self.in_int64 = self.in_int64 and value in _INT64
            self.exact_in_float = self.exact_in_float and value in _EXACT_IN_FLOAT

    @property
    def type(self) -> pa.DataType:
        if not self.seen:
            return UNKNOWN
        if self.seen == {bool}:
            return pa.bool_()
        if self.seen == {int} and self.in_int64:
            return pa.int64()
        if self.seen == {float} or (self.seen == {int, float} and self.exact_in_float):
            return pa.float64()
        return STRING


class _DuplicateKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(f"the key {printable(repeated)!r} stands there twice")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _items(source: SourceFile, encoding: str) -> Iterator[_Object | _Refused]:
    with opened_text(source.path, encoding) as file:
        if source.format == "json":
            yield from _document(file.read())
        else:
            for line in file:
                if line.strip(_SPACE):
                    yield _line(line)


def _document(text: str) -> Iterator[_Object | _Refused]:
    start = _skip_space(text, 0)
    if text.startswith("[", start):
        yield from _elements(text, start + 1)
        return
    whole = _line(text)
    if start == len(text):
        return
    if isinstance(whole, _Object):
        yield whole
        return
    for line in io.StringIO(text, newline=""):
        if line.strip(_SPACE):
            yield _line(line)


def _elements(text: str, position: int) -> Iterator[_Object | _Refused]:
    """Elements of an array, one at a time; from a broken one on, the rest is one record."""
    position = _skip_space(text, position)
    if text.startswith("]", position):
        position += 1
    else:
        while True:
            try:
                value, end = _DECODER.raw_decode(text, position)
            except (ValueError, RecursionError) as error:
                yield _refused(error, text[position:].rstrip(_SPACE))
                return
            yield _checked(value, text[position:end])
            position = _skip_space(text, end)
            if text.startswith("]", position):
                position += 1
                break
            if not text.startswith(",", position):
                rest = text[position:].rstrip(_SPACE)
                yield _Refused(Reason.NOT_JSON, "the array is not closed", rest)
                return
            position = _skip_space(text, position + 1)
    rest = text[_skip_space(text, position) :].rstrip(_SPACE)
    if rest:
        yield _Refused(Reason.NOT_JSON, "text after the end of the array", rest)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _line(line: str) -> _Object | _Refused:
    raw = line.rstrip("\r\n")
    try:
        value, end = _DECODER.raw_decode(raw, _skip_space(raw, 0))
    except (ValueError, RecursionError) as error:
        return _refused(error, raw)
    if raw[end:].strip(_SPACE):
        return _Refused(Reason.NOT_JSON, f"text after the value, at character {end + 1}", raw)
    return _checked(value, raw)


def _refused(error: ValueError | RecursionError, raw: str) -> _Refused:
    if isinstance(error, _DuplicateKeyError):
        return _Refused(Reason.DUPLICATE_KEY, str(error), raw)
    if isinstance(error, RecursionError):
        return _Refused(Reason.NOT_JSON, "nested too deep to be read", raw)
    if not is_whole(raw):
        return _undecodable(raw)
    return _Refused(Reason.NOT_JSON, str(error), raw)


def _undecodable(raw: str) -> _Refused:
    return _Refused(Reason.UNDECODABLE, "holds bytes or escapes that are no text", raw)


def _checked(value: object, raw: str) -> _Object | _Refused:
    if not is_whole(raw):
        return _undecodable(raw)
    if not isinstance(value, dict):
        return _Refused(Reason.NOT_AN_OBJECT, f"a JSON {_json_kind(value)}, not an object", raw)
    try:
        values = {key: _cell(inner) for key, inner in value.items()}
    except RecursionError as error:
        return _refused(error, raw)
    texts = (text for pair in values.items() for text in pair if isinstance(text, str))
    if not all(is_whole(text) for text in texts):
        return _undecodable(raw)
    return _Object(values, raw)


def _cell(value: object) -> object:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def _json_kind(value: object) -> str:
    if isinstance(value, list):
        return "array"
    if isinstance(value, str):
        return "string"
    if value is None or isinstance(value, bool):
        return "constant"
    return "number"
