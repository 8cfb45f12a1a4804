"""JSON text into values, with Go's words for what cannot be read."""

import json
from typing import Any

from deployments.local_ollama.go.json_scan import complaint

_LONGEST_WHOLE_NUMBER = 308


class DecodeError(ValueError):
    """A body that does not fit; the message is Go's."""


class Float(float):
    """A number with a point or exponent, which remembers how it was written."""

    __slots__ = ("written",)
    written: str


class Doubled(dict[str, Any]):
    """An object in which a key stands twice, with all its pairs in order."""

    __slots__ = ("pairs",)
    pairs: list[tuple[str, Any]]


def parse(body: bytes) -> Any:
    """The first JSON value in `body`. Raises DecodeError in Go's words, EOFError for no value."""
    text = body.lstrip(b" \t\r\n")
    if not text:
        raise EOFError
    try:
        value, _ = _READER.raw_decode(text.decode(errors="replace"))
    except RecursionError:
        raise DecodeError(complaint(text) or "exceeded max depth") from None
    except ValueError as found:
        raise DecodeError(complaint(text) or "unexpected EOF") from found
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    doubled = Doubled(plain)
    doubled.pairs = pairs
    return doubled


def _float(text: str) -> float:
    value = Float(text)
    value.written = text
    return value


def _int(text: str) -> int | float:
    # No field of a request can hold a longer one, and as a float it may be infinite.
    return int(text) if len(text) <= _LONGEST_WHOLE_NUMBER else _float(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_READER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_refuse_constant
)


def kind_of(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for json_type, name in names if isinstance(value, json_type)), "null")
