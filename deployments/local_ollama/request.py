"""What a client asked for, and the exact words Ollama refuses a malformed request with."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama.engine import LaunchOptions, Message
from deployments.local_ollama.settings import (
    DEFAULT_CONTEXT_LENGTH,
    LEAST_CONTEXT,
    Settings,
    seconds_to_keep,
)

KEPT_AT_FRONT = 4
_MODEL_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+){0,2}(?::[\w.-]+)?", re.ASCII)
_LAUNCH = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
_INTEGERS = frozenset(
    {
        *("num_ctx", "num_keep", "num_predict", "num_batch", "num_gpu", "num_thread", "main_gpu"),
        *("seed", "top_k", "repeat_last_n", "draft_num_predict"),
    }
)
_FLOATS = frozenset(
    {
        *("temperature", "top_p", "min_p", "typical_p"),
        *("repeat_penalty", "presence_penalty", "frequency_penalty"),
    }
)
_THINK_VALUES = '"high", "medium", "low", "max", true, or false'
_THINK_WORDS = ("", "high", "medium", "low", "max")
_COMMON_FIELDS: dict[str, str] = {
    "model": "string",
    "stream": "bool",
    "options": "map[string]interface {}",
    "truncate": "bool",
    "shift": "bool",
}
_CHAT_FIELDS = {**_COMMON_FIELDS, "messages": "[]api.Message", "tools": "api.Tools"}
_GENERATE_FIELDS = {
    **_COMMON_FIELDS,
    "prompt": "string",
    "system": "string",
    "template": "string",
    "suffix": "string",
    "raw": "bool",
}


class RequestError(Exception):
    """A request that is refused with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to `/api/chat` or `/api/generate`, checked.

    `messages` is empty for a request that only loads (or, with `keep_alive` 0, unloads).
    `output_limit` is in tokens, below 0 where the client set none. `options` is what the model has
    to be loaded with.
    """

    model: str
    chat: bool
    messages: tuple[Message, ...]
    stream: bool
    options: LaunchOptions
    keep_alive: float
    output_limit: int
    truncate: bool
    keep_tokens: int
    raw: bool
    output_format: str | Mapping[str, Any] | None
    stop: tuple[str, ...]

    @property
    def prompt(self) -> str | None:
        """All text of the request, which fault rules search; None for a load request."""
        return "\n".join(each.content for each in self.messages) if self.messages else None


def parse_object(body: bytes, struct: str) -> dict[str, Any]:
    """The JSON object in a request's body. `struct` is Go's name for it, which errors mention."""
    if not body.strip():
        raise RequestError(400, "missing request body")
    try:
        value = json.loads(body)
    except json.JSONDecodeError as found:
        raise RequestError(400, _syntax_error(found)) from found
    except UnicodeDecodeError as found:
        raise RequestError(400, "invalid character in string literal") from found
    if not isinstance(value, dict):
        kind = _kind(value)
        raise RequestError(400, f"json: cannot unmarshal {kind} into Go value of type api.{struct}")
    return value


def parse_chat(body: bytes, settings: Settings) -> Asked:
    """A request to `/api/chat`. Raises RequestError."""
    given = parse_object(body, "ChatRequest")
    _check_fields(given, _CHAT_FIELDS, "ChatRequest")
    messages = tuple(_message(each) for each in given.get("messages") or ())
    if not given.get("model"):
        raise RequestError(400, "model is required")
    if given.get("tools"):
        raise _lacks(given["model"], "tools")
    return _asked(given, messages, settings, chat=True)


def parse_generate(body: bytes, settings: Settings) -> Asked:
    """A request to `/api/generate`. Raises RequestError."""
    given = parse_object(body, "GenerateRequest")
    _check_fields(given, _GENERATE_FIELDS, "GenerateRequest")
    if given.get("raw") and any(given.get(name) for name in ("system", "template", "context")):
        raise RequestError(400, "raw mode does not support template, system, or context")
    if given.get("suffix"):
        raise _lacks(given.get("model", ""), "insert")
    prompt, system = given.get("prompt") or "", given.get("system") or ""
    messages = (Message("system", system),) if system and prompt else ()
    if prompt:
        messages = (*messages, Message("user", prompt))
    return _asked(given, messages, settings, chat=False)


def check_model(asked: str, served: str) -> None:
    """Raise RequestError unless the served model was asked for; no tag means `latest`."""
    if not asked:
        raise RequestError(404, "model '' not found")
    if not _MODEL_NAME.fullmatch(asked):
        raise RequestError(400, "invalid model name")
    if asked.endswith((":cloud", "-cloud")):
        raise RequestError(403, "ollama cloud is disabled: remote model is unavailable")
    if asked.removesuffix(":latest") != served.removesuffix(":latest"):
        raise RequestError(404, f"model '{asked}' not found")


def _asked(
    given: dict[str, Any], messages: tuple[Message, ...], settings: Settings, *, chat: bool
) -> Asked:
    keep_alive = _keep_alive(given.get("keep_alive"), settings)
    think = _think(given.get("think"))
    model = given.get("model") or ""
    check_model(model, settings.model)
    if think:
        raise RequestError(400, f'"{model}" does not support thinking')
    options = given.get("options") or {}
    _check_options(options)
    return Asked(
        model=model,
        chat=chat,
        messages=messages,
        stream=given.get("stream") is not False,
        options=_launch_options(options, settings, shift=given.get("shift") is not False),
        keep_alive=keep_alive,
        output_limit=_integer(options.get("num_predict"), -1),
        truncate=given.get("truncate") is not False,
        keep_tokens=max(0, _integer(options.get("num_keep"), KEPT_AT_FRONT)),
        raw=bool(given.get("raw")),
        output_format=given.get("format") or None,
        stop=tuple(options.get("stop") or ()),
    )


def _check_options(given: Mapping[str, Any]) -> None:
    """Raise RequestError for an option of the wrong type; unknown options pass, as in Ollama."""
    for name, value in given.items():
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _INTEGERS and not number:
            raise RequestError(500, f'option "{name}" must be of type integer')
        if name in _FLOATS and not number:
            raise RequestError(500, f'option "{name}" must be of type float32')
        if name == "use_mmap" and not isinstance(value, bool):
            raise RequestError(500, f'option "{name}" must be of type boolean')
        if name == "stop" and not isinstance(value, list):
            raise RequestError(500, f'option "{name}" must be of type array')
        if name == "stop" and not _is_texts(value):
            raise RequestError(500, f'option "{name}" must be of an array of strings')


def _launch_options(
    options: Mapping[str, Any], settings: Settings, *, shift: bool
) -> LaunchOptions:
    asked = options.get("num_ctx")
    length = _integer(asked, settings.context_length or DEFAULT_CONTEXT_LENGTH)
    others = (
        (name, json.dumps(options[name])) for name in _LAUNCH if options.get(name) is not None
    )
    return LaunchOptions(
        context_length=max(LEAST_CONTEXT, length),
        automatic=asked is None and settings.context_length is None,
        shift=shift,
        others=tuple(others),
    )


def _message(given: Any) -> Message:
    if not isinstance(given, dict):
        raise _wrong_type(given, "ChatRequest.messages", "api.Message")
    for name in ("role", "content"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise _wrong_type(given[name], f"ChatRequest.messages.{name}", "string")
    return Message(given.get("role") or "", given.get("content") or "")


def _check_fields(given: Mapping[str, Any], types: Mapping[str, str], struct: str) -> None:
    for name, wanted in types.items():
        value = given.get(name)
        if value is None:
            continue
        json_type = {"string": str, "bool": bool}.get(wanted, list if "api" in wanted else dict)
        if not isinstance(value, json_type):
            raise _wrong_type(value, f"{struct}.{name}", wanted)


def _wrong_type(value: Any, field: str, wanted: str) -> RequestError:
    return RequestError(
        400,
        f"json: cannot unmarshal {_kind(value)} into Go struct field {field} of type {wanted}",
    )


def _lacks(model: str, capability: str) -> RequestError:
    name = f"registry.ollama.ai/library/{model if ':' in model else model + ':latest'}"
    return RequestError(400, f"{name} does not support {capability}")


def _kind(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for json_type, name in names if isinstance(value, json_type)), "null")


def _keep_alive(value: Any, settings: Settings) -> float:
    if value is None:
        return settings.keep_alive
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        name = {"bool": "bool", "array": "[]interface {}"}.get(
            _kind(value), "map[string]interface {}"
        )
        raise RequestError(400, f"Unsupported type: '{name}'")
    try:
        return seconds_to_keep(value)
    except ValueError as found:
        raise RequestError(400, str(found)) from found


def _think(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if not isinstance(value, str):
        raise RequestError(400, f"think must be a boolean or string ({_THINK_VALUES})")
    if value not in _THINK_WORDS:
        raise RequestError(400, f'invalid think value: "{value}" (must be {_THINK_VALUES})')
    return bool(value)


def check_format(wanted: str | Mapping[str, Any] | None) -> None:
    """Raise RequestError unless an answer can have this format; Ollama looks after loading."""
    if wanted is None or wanted == "json" or isinstance(wanted, dict):
        return
    shown = json.dumps(json.dumps(wanted))
    raise RequestError(
        500, f'invalid format: {shown}; expected "json" or a valid JSON Schema object'
    )


def _integer(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_EXPECTED = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Extra data", "after top-level value"),
)


def _syntax_error(found: json.JSONDecodeError) -> str:
    """Go's words for the commonest mistakes in JSON."""
    if found.pos >= len(found.doc.rstrip()) or found.msg.startswith("Unterminated"):
        return "unexpected EOF"
    place = "looking for beginning of value"
    for start, words in _EXPECTED:
        if found.msg.startswith(start):
            place = words
    return f"invalid character {found.doc[found.pos]!r} {place}"
