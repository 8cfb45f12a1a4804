"""From a conversation to the text a model reads: by a Go template, or by the model's own."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deployments.local_ollama.cards import DEFAULT_TEMPLATE
from deployments.local_ollama.engine import Message
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.go.template_lex import TemplateError
from deployments.local_ollama.go.template_parse import parse
from deployments.local_ollama.go.template_run import Record, run
from deployments.local_ollama.go.template_tree import (
    Node,
    Output,
    Path,
    Pipeline,
    identifiers,
    up_to_response,
)
from deployments.local_ollama.models import Model

_NO_THINKING = {"Think": False, "ThinkLevel": "", "IsThinkSet": False}
_RESPONSE = Output(Pipeline((Path("", ("Response",)),)))
_TEMPLATES_REMEMBERED = 64
_LARGEST_POWER = 64
_PADDING = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "indent"}
)


def is_native(model: Model) -> bool:
    """Whether the model's own chat template renders its chats, for want of a Modelfile's."""
    return model.template is None and model.chat_template is not None


def render_chat(model: Model, messages: Sequence[Message]) -> str:
    """The prompt of a conversation. Raises RequestError."""
    if model.template is None and model.chat_template is not None:
        return _native(model, model.chat_template, messages)
    return render(model.template or DEFAULT_TEMPLATE, messages)


def render(template: str, messages: Sequence[Message]) -> str:
    """The prompt that a Go template makes. Raises RequestError, in Go's words, where it cannot."""
    try:
        nodes, names = _parsed(template)
        system, collated = _collated(messages)
        if "messages" in names:
            said = [Record(_record(each)) for each in collated]
            values = {"System": system, "Messages": said, "Response": "", "Tools": []}
            return run(nodes, {**values, **_NO_THINKING})
        return _turn_by_turn(nodes, collated)
    except (TemplateError, RecursionError) as wrong:
        raise RequestError(500, str(wrong)) from wrong


def render_insert(template: str, prompt: str, suffix: str) -> str:
    """The prompt for a text that goes between two others. Raises RequestError."""
    try:
        values = {"Prompt": prompt, "Suffix": suffix, "Response": ""}
        return run(_parsed(template)[0], {**values, **_NO_THINKING})
    except (TemplateError, RecursionError) as wrong:
        raise RequestError(500, str(wrong)) from wrong


def check_template(template: str) -> None:
    """Raise TemplateError unless Ollama could read this template."""
    _parsed(template)


@lru_cache(maxsize=_TEMPLATES_REMEMBERED)
def _parsed(template: str) -> tuple[list[Node], frozenset[str]]:
    nodes = parse(template)
    names = identifiers(nodes)
    if not names & {"messages", "response"}:
        nodes.append(_RESPONSE)
    return nodes, names


def _record(message: Message) -> dict[str, Any]:
    return {
        "Role": message.role, "Content": message.content, "Thinking": "", "Images": [],
        "ToolCalls": [], "ToolName": "", "ToolCallID": "",
    }  # fmt: skip


def _collated(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """All system text in one, and the messages with neighbours of one role joined."""
    joined: list[Message] = []
    for each in messages:
        if joined and joined[-1].role == each.role != "tool":
            joined[-1] = Message(each.role, f"{joined[-1].content}\n\n{each.content}")
        else:
            joined.append(each)
    system = "\n\n".join(each.content for each in messages if each.role == "system")
    return system, joined


def _turn_by_turn(nodes: list[Node], messages: Sequence[Message]) -> str:
    """A template that knows one turn only, run for each: system, prompt and response."""
    turn = {"System": "", "Prompt": "", "Response": ""}
    texts: list[str] = []
    fields = {"system": "System", "user": "Prompt", "assistant": "Response"}
    ends = {"system": ("Prompt", "Response"), "user": ("Response",), "assistant": ()}
    for each in messages:
        if any(turn[name] for name in ends.get(each.role, ())):
            texts.append(run(nodes, {**turn, **_NO_THINKING}))
            turn = dict.fromkeys(turn, "")
        if each.role in fields:
            turn[fields[each.role]] = each.content
    texts.append(run(up_to_response(nodes), {**turn, **_NO_THINKING}))
    return "".join(texts)


def _native(model: Model, template: str, messages: Sequence[Message]) -> str:
    said = [{"role": each.role, "content": each.content} for each in messages]
    tokens = {f"{name}_token": text for name, text in model.special_tokens.items()}
    try:
        compiled = _environment().from_string(template)
        return compiled.render(
            {"bos_token": "", "eos_token": "", **tokens},
            messages=said,
            add_generation_prompt=True,
        )
    except (
        JinjaError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as wrong:
        # These are what a template can do wrong; the sandbox keeps it from anything else.
        raise RequestError(500, f"chat template: {wrong}") from wrong


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no product, power or width can eat the machine's memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def wrap_str_format(self, value: Any) -> None:
        """Offer no `str.format` of Jinja's own, which pads too."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Nothing that pads a text to any width."""
        padding = isinstance(obj, str) and attr in _PADDING
        return not padding and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Numbers only, and no large powers."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or (operator == "**" and abs(right) > _LARGEST_POWER):
            raise JinjaError(f"{operator} is not allowed here")
        return super().call_binop(context, operator, left, right)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    """Jinja as model makers expect it; it keeps compiled templates itself."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    for name in _PADDING & environment.filters.keys():
        del environment.filters[name]
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now(tz=UTC).strftime(form)
    return environment


def _raise(message: object) -> None:
    raise JinjaError(str(message))
