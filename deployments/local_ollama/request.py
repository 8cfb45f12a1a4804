"""One request to generate or chat, checked in the order in which Ollama checks it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama.cards import capabilities
from deployments.local_ollama.engine import Message
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.text import quote
from deployments.local_ollama.models import Model
from deployments.local_ollama.naming import ModelName
from deployments.local_ollama.options import Options, resolve
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.store import ModelStore, asked_model
from deployments.local_ollama.structs import CHAT, GENERATE, read

MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to `/api/chat` or `/api/generate`, checked.

    `messages` is empty for a request that only loads. `keep_alive` is None where the client set
    none. `template`, `suffix` and `context` come with generate alone. `body` is the request as it
    was written.
    """

    model: Model
    named: str
    chat: bool
    messages: tuple[Message, ...]
    stream: bool
    options: Options
    keep_alive: float | None
    truncate: bool = True
    raw: bool = False
    render_only: bool = False
    output_format: Any = None
    template: str = ""
    suffix: str = ""
    context: tuple[int, ...] | None = None
    body: bytes = b""

    @property
    def prompt(self) -> str | None:
        """All text of the request, which fault rules search; None for a load request."""
        return "\n".join(each.content for each in self.messages) if self.messages else None


@dataclass(frozen=True, slots=True)
class Unload:
    """A request that asks for the model to go."""

    model: Model
    named: str
    chat: bool


Parse = Callable[[bytes, ModelStore, Settings], Asked | Unload]


def parse_chat(body: bytes, store: ModelStore, settings: Settings) -> Asked | Unload:
    """A request to `/api/chat`. Raises RequestError."""
    given = read(body, CHAT)
    _check_logprobs(given)
    if not given.get("model"):
        raise RequestError(400, "model is required")
    model = asked_model(store, given["model"])
    messages = tuple(
        Message(each.get("role", "").lower(), each.get("content", ""))
        for each in given.get("messages") or ()
    )
    if not messages and given.get("keep_alive") == 0:
        return Unload(model, given["model"], chat=True)
    if messages and messages[0].role != "system" and model.system:
        messages = (Message("system", model.system), *messages)
    _check_think(given)
    if given.get("tools"):
        raise _lacks(given["model"], "tools")
    return Asked(chat=True, messages=messages, **_common(given, model, settings, body))


def parse_generate(body: bytes, store: ModelStore, settings: Settings) -> Asked | Unload:
    """A request to `/api/generate`. Raises RequestError."""
    given = read(body, GENERATE)
    _check_logprobs(given)
    if not given.get("model"):
        raise RequestError(404, "model '' not found")
    model = asked_model(store, given["model"])
    prompt = given.get("prompt") or ""
    if not prompt and given.get("keep_alive") == 0:
        return Unload(model, given["model"], chat=False)
    if given.get("raw") and any(given.get(name) for name in ("system", "template", "context")):
        raise RequestError(400, "raw mode does not support template, system, or context")
    _check_think(given)
    if given.get("suffix") and "insert" not in capabilities(model):
        raise _lacks(given["model"], "insert")
    context = given.get("context")
    return Asked(
        chat=False,
        messages=_generate_messages(given, model, prompt),
        raw=bool(given.get("raw")),
        template=given.get("template") or "",
        suffix=given.get("suffix") or "",
        context=None if context is None else tuple(each or 0 for each in context),
        **_common(given, model, settings, body),
    )


def _generate_messages(given: dict[str, Any], model: Model, prompt: str) -> tuple[Message, ...]:
    if not prompt:
        return ()
    system = "" if given.get("raw") else given.get("system") or model.system
    said = (Message("user", prompt),)
    return (Message("system", system), *said) if system else said


def _common(given: dict[str, Any], model: Model, settings: Settings, body: bytes) -> dict[str, Any]:
    return {
        "model": model,
        "named": given["model"],
        "stream": given.get("stream") is not False,
        "options": resolve(
            given.get("options") or {},
            model,
            shift=given.get("shift") is not False,
            server_context=settings.context_length,
        ),
        "keep_alive": given.get("keep_alive"),
        "truncate": given.get("truncate") is not False,
        "render_only": bool(given.get("_debug_render_only")),
        "output_format": given.get("format"),
        "body": body,
    }


def _check_logprobs(given: dict[str, Any]) -> None:
    if not 0 <= (given.get("top_logprobs") or 0) <= MOST_LOGPROBS:
        raise RequestError(400, "top_logprobs must be between 0 and 20")


def _check_think(given: dict[str, Any]) -> None:
    if given.get("think"):
        raise RequestError(400, f"{quote(given['model'])} does not support thinking")


def _lacks(named: str, capability: str) -> RequestError:
    name = ModelName.parse(named)
    return RequestError(400, f"{name.full if name else named} does not support {capability}")
