"""The `format` of a request: nothing, "json" or a JSON schema."""

import json
from collections.abc import Mapping
from typing import Any

from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.text import quote

_READER = json.JSONDecoder()


def checked_format(wanted: Any, body: bytes) -> str | Mapping[str, Any] | None:
    """The format an engine gets. Raises RequestError, which quotes the request as it was written.

    Ollama looks at it only once the model is loaded.
    """
    if wanted is None or wanted == "":
        return None
    if wanted == "json" or isinstance(wanted, dict):
        return wanted  # type: ignore[no-any-return]
    shown = quote(_written(body) or json.dumps(wanted, ensure_ascii=False))
    raise RequestError(
        500, f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
    )


def _written(body: bytes) -> str | None:
    """The last value of the key `format` in the body's object, letter by letter."""
    text, found = body.decode(errors="replace"), None
    at = text.find("{") + 1
    try:
        while True:
            key, at = _READER.raw_decode(text, _past_space(text, at))
            start = _past_space(text, _past_space(text, at) + 1)
            _, at = _READER.raw_decode(text, start)
            if isinstance(key, str) and key.casefold() == "format":
                found = text[start:at]
            at = _past_space(text, at)
            if text[at : at + 1] != ",":
                return found
            at += 1
    except ValueError:
        return found


def _past_space(text: str, at: int) -> int:
    while text[at : at + 1] in tuple(" \t\r\n"):
        at += 1
    return at
