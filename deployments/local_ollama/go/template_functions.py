"""The functions a Go template may call, and how Go prints and judges values."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deployments.local_ollama.go.template_lex import TemplateError
from deployments.local_ollama.go.text import quote

MOST_CHARACTERS = 64 << 20
"""More text no template may make, kept or said, at once or in all: no model could read it."""
TOO_MUCH_TEXT = "template: :1: this template makes too much text"
_DIRECTIVE = re.compile("%([sdvq%])")


def truth(value: Any) -> bool:
    """Whether Go counts a value as true: not empty, not zero."""
    return bool(value)


def shown(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = " ".join(f"{key}:{shown(each)}" for key, each in sorted(value.items()))
        return f"map[{inner}]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(shown(each) for each in value) + "]"
    return str(value)


def call(name: str, given: Sequence[Any]) -> Any:
    """What a function makes of its arguments. Raises TemplateError."""
    if sum(len(each) for each in given if isinstance(each, str)) > MOST_CHARACTERS:
        raise TemplateError(TOO_MUCH_TEXT)
    try:
        return _FUNCTIONS[name](*given)
    except (IndexError, KeyError, TypeError, ValueError) as wrong:
        raise TemplateError(
            f'template: :1: executing "" at <{name}>: error calling {name}: {wrong}'
        ) from wrong


def _equal(first: Any, *others: Any) -> bool:
    return any(first == each for each in others)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(key, int) and key >= 0:
            value = value[key]
        else:
            raise IndexError(f"index out of range: {key}")
    return value


def _print(*given: Any) -> str:
    return "".join(shown(each) for each in given)


def _printf(form: Any, *given: Any) -> str:
    """Go's Printf with `%s`, `%d`, `%v` and `%q`; no widths, which could ask for any length."""
    values = list(given)

    def filled(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if not values:
            return f"%!{found[1]}(MISSING)"
        value = values.pop(0)
        return quote(str(value)) if found[1] == "q" else shown(value)

    return _DIRECTIVE.sub(filled, str(form))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not truth(value),
    "and": lambda value: value,
    "or": lambda value: value,
    "len": len,
    "index": _index,
    "slice": lambda value, *bounds: value[slice(*bounds)] if bounds else value,
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "print": _print,
    "println": lambda *given: " ".join(shown(each) for each in given) + "\n",
    "printf": _printf,
}
KNOWN_FUNCTIONS = frozenset(_FUNCTIONS)
