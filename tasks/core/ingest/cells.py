"""Types of source columns, and values brought into them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal

import pyarrow as pa

from tasks.core.schema import INSTANT, STRINGS

STRING = pa.string()
UNKNOWN = pa.null()
"""The type of a column without a value; any other type takes its place."""

_SIMPLE_TYPES: dict[str, pa.DataType] = {
    str(type_): type_
    for type_ in (
        STRING,
        pa.bool_(),
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.float32(),
        pa.float64(),
        pa.binary(),
        pa.date32(),
        INSTANT,
    )
} | {"list<string>": STRINGS}
_DECIMAL = re.compile(r"decimal128\((\d+), (-?\d+)\)")
# Integers of at most this many bits are exact in a float64.
_EXACT_FLOAT_BITS = 53

Fit = Callable[[object], object]


def type_name(type_: pa.DataType) -> str:
    """The name of a column's type in the dataset's record."""
    return "list<string>" if type_ == STRINGS else str(type_)


def type_named(name: str) -> pa.DataType:
    """The type behind a name from the dataset's record. Raises `ValueError` for no type of ours."""
    decimal = _DECIMAL.fullmatch(name)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    if name not in _SIMPLE_TYPES:
        raise ValueError(f"{name!r} is not the type of a source column")
    return _SIMPLE_TYPES[name]


def fits(type_: pa.DataType, into: pa.DataType) -> bool:
    """Whether every value of one type can be stored in another without loss.

    An int64 counts as fitting a float64; `fit_into` refuses the values that do not.
    """
    if type_ in (into, UNKNOWN):
        return True
    if pa.types.is_signed_integer(type_):
        wide_integer = pa.types.is_signed_integer(into) and into.bit_width >= type_.bit_width
        return wide_integer or into == pa.float64()
    return type_ == pa.float32() and into == pa.float64()


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """A type that takes the values of both; text where nothing else does."""
    if fits(one, other):
        return other
    return one if fits(other, one) else STRING


def fit_into(type_: pa.DataType, into: pa.DataType) -> Fit | None:
    """How values of one type become values of another; None when they stay as they are."""
    if type_ == into and into != STRING:
        return None
    if into == STRING:
        return _text_or_none
    if into == pa.float64() and pa.types.is_signed_integer(type_):
        return _exact_float
    return None


def as_text(value: object) -> str:
    """A value as text: strings as they are, dates as ISO, bytes as hex, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=as_text)


def row_as_json(names: tuple[str, ...], cells: tuple[object, ...]) -> str:
    """A row as one JSON object, for rows that have no text of their own."""
    return json.dumps(dict(zip(names, cells, strict=True)), ensure_ascii=False, default=as_text)


def _text_or_none(value: object) -> object:
    return None if value is None else as_text(value)


def _exact_float(value: object) -> object:
    if not isinstance(value, int):
        return value
    if value.bit_length() > _EXACT_FLOAT_BITS and int(float(value)) != value:
        raise ValueError(f"{value} cannot be stored exactly in a column of type double")
    return float(value)
