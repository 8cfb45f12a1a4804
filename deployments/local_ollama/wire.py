"""The JSON that Ollama writes: field order, escapes, timestamps, fields left out when empty."""

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama.engine import Completion
from deployments.local_ollama.gguf import Float32
from deployments.local_ollama.go.text import number, number32

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"
PLAIN_TEXT = "text/plain"
BUSY = "server busy, please try again.  maximum pending requests exceeded"
PROMPT_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPED = re.compile("[<>&\u2028\u2029]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: Any) -> bytes:
    """JSON as Go's encoder writes it: compact, UTF-8, with <, > and & escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = _ESCAPED.sub(lambda found: _ESCAPES[found[0]], text)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _LONE_SURROGATE.sub("\ufffd", text).encode()


def encode_numbers(value: Any) -> str:
    """JSON as Go's encoder writes it, fractions too: as plain as Go makes them."""
    if isinstance(value, dict):
        pairs = (f"{encode_numbers(key)}:{encode_numbers(each)}" for key, each in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(encode_numbers(each) for each in value) + "]"
    if isinstance(value, Float32):
        return number32(value) if math.isfinite(value) else "null"
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else "null"
    return encode(value).decode()


def timestamp(unix_ns: int) -> str:
    """RFC 3339 in UTC with up to nine decimals, trailing zeros left out."""
    seconds, fraction = divmod(unix_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    decimals = f"{fraction:09d}".rstrip("0")
    return f"{stamp}.{decimals}Z" if decimals else f"{stamp}Z"


def error(message: str) -> dict[str, Any]:
    """The body of every error."""
    return {"error": message}


def context_exceeded(prompt_tokens: int, context_length: int) -> str:
    """The runner's own refusal of a prompt, which Ollama hands on as its message."""
    refusal = {
        "code": 400,
        "message": f"request ({prompt_tokens} tokens) exceeds the available context size "
        f"({context_length} tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": prompt_tokens,
        "n_ctx": context_length,
    }
    return encode({"error": refusal}).decode()


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """How one endpoint writes answers for the model name a client asked for."""

    model: str
    chat: bool

    def piece(self, text: str) -> dict[str, Any]:
        """One line of a stream, before the last."""
        return {**self._head(text), "done": False}

    def bare(self, done_reason: str) -> dict[str, Any]:
        """The answer to a request that only loads or unloads."""
        return {**self._head(""), "done": True, "done_reason": done_reason}

    def rendered(self, prompt: str) -> dict[str, Any]:
        """The answer to a request that only wants to see its prompt."""
        head = self._head("", role="")
        return {**head, "done": False, "_debug_info": {"rendered_template": prompt}}

    def whole(
        self,
        answer: Completion,
        total_ns: int,
        load_ns: int,
        *,
        context: Sequence[int] = (),
        streamed: bool = False,
    ) -> dict[str, Any]:
        """The full answer, or after a stream its last line, which repeats no text."""
        body = self._head("" if streamed else answer.text)
        body["done"] = answer.done
        if not answer.done:
            return body
        if answer.done_reason:
            body["done_reason"] = answer.done_reason
        if context:
            body["context"] = list(context)
        numbers = {
            "total_duration": total_ns,
            "load_duration": load_ns,
            "prompt_eval_count": answer.prompt_tokens,
            "prompt_eval_duration": answer.prompt_ns,
            "eval_count": answer.output_tokens,
            "eval_duration": answer.output_ns,
        }
        body.update((name, number) for name, number in numbers.items() if number)
        return body

    def _head(self, text: str, role: str = "assistant") -> dict[str, Any]:
        head: dict[str, Any] = {"model": self.model, "created_at": timestamp(time.time_ns())}
        if self.chat:
            head["message"] = {"role": role, "content": text}
        else:
            head["response"] = text
        return head
