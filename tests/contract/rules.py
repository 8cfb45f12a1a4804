"""Which values of an answer are compared exactly, and by which rule the others are.

A value not named here has to be equal. Times, durations, counts, sizes, digests and the
model's own words differ from server to server: of those the type and the form are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value has to be, in words, and the test: (expected, got) -> whether it is."""

    words: str
    holds: Callable[[Any, Any], bool]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?(Z|[+-]\d\d:\d\d)")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOB_PATH = re.compile(r"^FROM \S*sha256-[0-9a-f]{64}$", re.MULTILINE)
_LAYER = re.compile(r"(?:using existing|creating new) layer sha256:[0-9a-f]{64}")
_COUNT = re.compile(r"request \(\d+ tokens\)")
_REGISTRY = "pull model manifest: "
"""What follows is the word of the registry, or of the network on the way to it."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(_expected: Any, got: Any) -> bool:
    return _is_int(got) and got > 0


def _not_negative(_expected: Any, got: Any) -> bool:
    return _is_int(got) and got >= 0


def _time(_expected: Any, got: Any) -> bool:
    return isinstance(got, str) and _TIME.fullmatch(got) is not None


def _digest(expected: Any, got: Any) -> bool:
    bare = str(got).removeprefix("sha256:")
    same_form = str(got).startswith("sha256:") == str(expected).startswith("sha256:")
    return isinstance(got, str) and same_form and _DIGEST.fullmatch(bare) is not None


def _words(expected: Any, got: Any) -> bool:
    return isinstance(got, str) and bool(got) == bool(expected)


def _token_ids(_expected: Any, got: Any) -> bool:
    return isinstance(got, list) and bool(got) and all(map(_is_int, got))


def _modelfile(expected: Any, got: Any) -> bool:
    return isinstance(got, str) and _BLOB_PATH.sub("FROM", got) == _BLOB_PATH.sub("FROM", expected)


def _status(expected: Any, got: Any) -> bool:
    return isinstance(got, str) and _LAYER.sub("layer", got) == _LAYER.sub("layer", expected)


def _same_but_for_space(expected: Any, got: Any) -> bool:
    return isinstance(got, str) and got.split() != [] and _packed(got) == _packed(expected)


def _packed(text: str) -> str:
    return "".join(text.split())


def _error(expected: Any, got: Any) -> bool:
    """The same text; one that is JSON of the runner, the same JSON but for the counted prompt."""
    if not isinstance(got, str):
        return False
    if expected.startswith(_REGISTRY):
        return got.startswith(_REGISTRY)
    inner, got_inner = _runner_error(expected), _runner_error(got)
    if inner is None or got_inner is None:
        return bool(got == expected)
    return _comparable(inner) == _comparable(got_inner)


def _runner_error(text: str) -> dict[str, Any] | None:
    try:
        error = json.loads(text)["error"]
    except (ValueError, TypeError, KeyError):
        return None
    return error if isinstance(error, dict) else None


def _comparable(error: dict[str, Any]) -> dict[str, Any]:
    known = dict(error)
    if _is_int(known.get("n_prompt_tokens")):
        known["n_prompt_tokens"] = "counted"
    known["message"] = _COUNT.sub("request (counted)", str(known.get("message")))
    return known


TIME = Rule("an RFC 3339 time, no zeros at the end of the fraction", _time)
POSITIVE = Rule("a whole number above 0", _positive)
WORDS = Rule("the model's words; none where none are expected", _words)

RULES: dict[str, Rule] = {
    **dict.fromkeys(("created_at", "modified_at", "expires_at"), TIME),
    **dict.fromkeys(("total_duration", "load_duration"), POSITIVE),
    **dict.fromkeys(("prompt_eval_duration", "eval_duration"), POSITIVE),
    **dict.fromkeys(("prompt_eval_count", "eval_count", "size"), POSITIVE),
    **dict.fromkeys(("response", "content"), WORDS),
    "size_vram": Rule("a whole number, 0 or above", _not_negative),
    "digest": Rule("64 hexadecimal digits, with sha256: only where it is expected", _digest),
    "context": Rule("a list of token ids, not empty", _token_ids),
    "modelfile": Rule("the same text but for the path of the blob", _modelfile),
    "status": Rule("the same text but for the layer", _status),
    "rendered_template": Rule("the same text but for white space", _same_but_for_space),
    "error": Rule("the same text; in an overflow but for the counted tokens", _error),
}
