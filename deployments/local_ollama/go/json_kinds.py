"""The types of struct fields: each reads a value, or saves the mistake of a wrong one."""

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import Any

from deployments.local_ollama.go.json_decode import Decoder, Kind, Misfit
from deployments.local_ollama.go.json_read import Float, kind_of

_LONE = re.compile("[\ud800-\udfff]")
_INFINITE = (math.inf, -math.inf)
_INT_RANGES = {"int": 2**63, "int32": 2**31}


def _scalar(json_type: type, go_name: str) -> Kind:
    def read(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        if value is None or isinstance(value, json_type):
            return value
        decoder.save(Misfit(kind_of(value), path, go_name))
        return None

    return read


def text(go_name: str = "string") -> Kind:
    """A string field; lone surrogates become the replacement character, as in Go."""

    def read(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, str):
            return value if value.isascii() else _LONE.sub("\ufffd", value)
        return _scalar(str, go_name)(decoder, value, path)

    return read


def boolean() -> Kind:
    """A bool field."""
    return _scalar(bool, "bool")


def integer(go_name: str = "int") -> Kind:
    """An int field: a fraction or too large a number does not fit, and is named as written."""
    limit = _INT_RANGES[go_name]

    def read(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            decoder.save(Misfit(kind_of(value), path, go_name))
        elif isinstance(value, float) or not -limit <= value < limit:
            written = getattr(value, "written", value)
            decoder.save(Misfit(f"number {written}", path, go_name))
        else:
            return value
        return None

    return read


def array(element: Kind, go_name: str) -> Kind:
    """A slice field."""

    def read(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        if value is None:
            return None
        if isinstance(value, list):
            return [element(decoder, each, path) for each in value]
        decoder.save(Misfit(kind_of(value), path, go_name))
        return None

    return read


def mapping(element: Kind, go_name: str) -> Kind:
    """A map field with text keys."""

    def read(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        if value is None:
            return None
        if isinstance(value, dict):
            return {key: element(decoder, each, path) for key, each in value.items()}
        decoder.save(Misfit(kind_of(value), path, go_name))
        return None

    return read


def anything(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
    """An interface{} field: any JSON, but for numbers that no float64 can hold."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            todo += each.values()
        elif isinstance(each, list):
            todo += each
        elif isinstance(each, Float) and each in _INFINITE:
            decoder.save(Misfit(f"number {each.written}", path, "float64"))
    return value


def raw(_decoder: Decoder, value: Any, _path: tuple[str, ...]) -> Any:
    """A json.RawMessage field: any JSON, unread."""
    return value


def image(decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
    """A base64 field."""
    if value is None:
        return None
    if not isinstance(value, str):
        decoder.save(Misfit(kind_of(value), path, "api.ImageData"))
        return None
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        decoder.save(ValueError(f"illegal base64 data at input byte {_illegal_byte(value)}"))
        return None


def _illegal_byte(value: str) -> int:
    alphabet = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\r\n")
    wrong = next((at for at, char in enumerate(value) if char not in alphabet), len(value))
    return wrong if wrong < len(value) else len(value) // 4 * 4


def custom(check: Callable[[Any], Any]) -> Kind:
    """A pointer to a type with its own UnmarshalJSON: `check` raises ValueError in its words."""

    def read(_decoder: Decoder, value: Any, _path: tuple[str, ...]) -> Any:
        return None if value is None else check(value)

    return read
