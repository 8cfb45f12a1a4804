"""The bodies that each endpoint reads: field by field, with the types Go gives them."""

import math
from typing import Any

from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.json_decode import Misfit, Struct, decode
from deployments.local_ollama.go.json_kinds import (
    anything,
    array,
    boolean,
    custom,
    image,
    integer,
    mapping,
    raw,
    text,
)
from deployments.local_ollama.go.json_read import DecodeError, Float, kind_of
from deployments.local_ollama.go.text import quote
from deployments.local_ollama.settings import seconds_to_keep

_THINK_VALUES = '"high", "medium", "low", "max", true, or false'
_UNSUPPORTED = {"bool": "bool", "array": "[]interface {}", "object": "map[string]interface {}"}


def _keep_alive(value: Any) -> float:
    kind = kind_of(value)
    if kind in _UNSUPPORTED:
        raise ValueError(f"Unsupported type: '{_UNSUPPORTED[kind]}'")
    if isinstance(value, Float) and math.isinf(value):
        raise ValueError(str(Misfit(f"number {value.written}", (), "float64")))
    return seconds_to_keep(value)


def _think(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"think must be a boolean or string ({_THINK_VALUES})")  # noqa: TRY004 - decoding reports ValueError
    if value not in ("high", "medium", "low", "max"):
        raise ValueError(f"invalid think value: {quote(value)} (must be {_THINK_VALUES})")
    return value


_TEXTS = array(text(), "[]string")
_ANY_MAP = mapping(anything, "map[string]interface {}")
_FILES = mapping(text(), "map[string]string")
_TOOL = Struct(
    "ToolFunction",
    {
        "type": text(),
        "items": anything,
        "function": Struct(
            "ToolFunction",
            {"name": text(), "description": text(), "parameters": anything},
        ),
    },
    own_name="Tool",
)
_MESSAGE = Struct(
    "Message",
    {
        "role": text(),
        "content": text(),
        "thinking": text(),
        "images": array(image, "[]api.ImageData"),
        "tool_calls": array(
            Struct(
                "ToolCall",
                {
                    "id": text(),
                    "function": Struct(
                        "ToolCallFunction",
                        {"index": integer(), "name": text(), "arguments": raw},
                    ),
                },
            ),
            "[]api.ToolCall",
        ),
        "tool_name": text(),
        "tool_call_id": text(),
    },
    at_once=True,
    own_name="Alias",
)
_INFERENCE = {
    "model": text(),
    "stream": boolean(),
    "format": raw,
    "keep_alive": custom(_keep_alive),
    "options": _ANY_MAP,
    "think": custom(_think),
    "truncate": boolean(),
    "shift": boolean(),
    "logprobs": boolean(),
    "top_logprobs": integer(),
    "_debug_render_only": boolean(),
}
GENERATE = Struct(
    "GenerateRequest",
    {
        **_INFERENCE,
        "prompt": text(),
        "suffix": text(),
        "system": text(),
        "template": text(),
        "context": array(integer(), "[]int"),
        "raw": boolean(),
        "images": array(image, "[]api.ImageData"),
        "width": integer("int32"),
        "height": integer("int32"),
        "steps": integer("int32"),
    },
)
CHAT = Struct(
    "ChatRequest",
    {
        **_INFERENCE,
        "messages": array(_MESSAGE, "[]api.Message"),
        "tools": array(_TOOL, "api.Tools"),
    },
)
EMBED = Struct(
    "EmbedRequest",
    {
        "model": text(),
        "input": anything,
        "keep_alive": custom(_keep_alive),
        "truncate": boolean(),
        "dimensions": integer(),
        "options": _ANY_MAP,
    },
)
SHOW = Struct(
    "ShowRequest",
    {
        "model": text(),
        "name": text(),
        "system": text(),
        "template": text(),
        "verbose": boolean(),
        "options": _ANY_MAP,
    },
)
PULL = Struct(
    "PullRequest",
    {
        **dict.fromkeys(("model", "name", "username", "password"), text()),
        "insecure": boolean(),
        "stream": boolean(),
    },
)
DELETE = Struct("DeleteRequest", {"model": text(), "name": text()})
COPY = Struct("CopyRequest", {"source": text(), "destination": text()})
CREATE = Struct(
    "CreateRequest",
    {
        **dict.fromkeys(
            (
                *("model", "name", "from", "template", "system", "quantize", "quantization"),
                *("remote_host", "renderer", "parser", "requires"),
            ),
            text(),
        ),
        "stream": boolean(),
        "files": _FILES,
        "adapters": _FILES,
        "license": anything,
        "parameters": _ANY_MAP,
        "messages": array(_MESSAGE, "[]api.Message"),
        "info": _ANY_MAP,
    },
)


def read(body: bytes, struct: Struct) -> dict[str, Any]:
    """The fields of a request. Raises RequestError in Ollama's words."""
    try:
        return decode(body, struct)
    except EOFError as nothing:
        raise RequestError(400, "missing request body") from nothing
    except DecodeError as wrong:
        raise RequestError(400, str(wrong)) from wrong
