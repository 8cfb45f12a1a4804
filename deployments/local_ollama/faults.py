"""Faults that can be switched on: which request gets which, and what it does to an answer.

Nothing here touches the network; `misbehaviour` carries out what this module decides.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from deployments.local_ollama.engine import Completion

Kind = Literal[
    "refuse", "reset", "reset_mid_body", "hang", "drip", "status", "html", "truncated_json",
    "empty", "not_done", "length", "wrong_language", "repeat", "slow", "die", "loading",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
ANSWER_KINDS = frozenset({"empty", "not_done", "length", "wrong_language", "repeat"})
BODY_KINDS = frozenset({"reset_mid_body", "drip", "truncated_json"})
# A request that gets one of these is not answered, whatever its client makes of it.
UNANSWERED_KINDS = BODY_KINDS - {"drip"} | {"refuse", "reset", "hang", "status", "html", "die"}
TEXT_PATHS = frozenset({"/api/chat", "/api/generate"})
REPETITIONS = 60
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Those that concern the whole server; the others need a request to happen to.
NOW_KINDS = ("refuse", "die", "loading", "slow", "hang")
LOWEST_STATUS, HIGHEST_STATUS = 200, 599


class FaultError(ValueError):
    """A fault rule that cannot be read."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault and the requests that get it.

    A rule counts the requests it matches, all together or, with `per_text`, apart for each text.
    It lets the first `after` of them pass, then fires on every `every`-th, at most `times` times.
    """

    kind: Kind
    times: int | None = None
    after: int = 0
    every: int = 1
    contains: str | None = None
    path: str | None = None
    per_text: bool = False
    delay: float = 0.0
    seconds: float | None = None
    now: bool = False
    factor: float = 10.0
    status: int = 503
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    piece: int = 16
    pause: float = 0.05
    exit_code: int = 1

    @classmethod
    def from_json(cls, given: Any) -> Self:
        """A rule from its JSON object. Raises FaultError that says what to change."""
        if not isinstance(given, dict):
            raise FaultError(f"a fault rule is a JSON object, not {json.dumps(given)}")
        kind = given.get("kind")
        if kind not in KINDS:
            raise FaultError(f"unknown fault kind {kind!r}: use one of {', '.join(KINDS)}")
        unknown = sorted(given.keys() - _RULE_TYPES.keys())
        if unknown:
            known = ", ".join(_RULE_TYPES)
            raise FaultError(f"fault {kind}: unknown field {unknown[0]!r}; known are {known}")
        for name, value in given.items():
            _check(kind, name, value)
        return cls(**given)

    def as_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and the kind."""
        shown = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = dataclasses.asdict(Rule(kind=self.kind))
        return {k: v for k, v in shown.items() if k == "kind" or v != plain[k]}

    def applies(self, path: str, text: str | None) -> bool:
        """Whether a request to `path` with this prompt (None where it has none) is of its kind."""
        if self.path is None:
            if path not in TEXT_PATHS or text is None:
                return False
        elif self.path not in ("*", path):
            return False
        return self.contains is None or (text is not None and self.contains in text)


_NUMBER: tuple[type, ...] = (int, float)
_RULE_TYPES: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "times": (int,),
    "after": (int,),
    "every": (int,),
    "contains": (str,),
    "path": (str,),
    "per_text": (bool,),
    "delay": _NUMBER,
    "seconds": _NUMBER,
    "now": (bool,),
    "factor": _NUMBER,
    "status": (int,),
    "body": (str, dict, list),
    "headers": (dict,),
    "piece": (int,),
    "pause": _NUMBER,
    "exit_code": (int,),
}
_LEAST: dict[str, int] = {
    "times": 1,
    "after": 0,
    "every": 1,
    "delay": 0,
    "seconds": 0,
    "piece": 1,
    "pause": 0,
}


def _check(kind: Any, name: str, value: Any) -> None:
    wanted = _RULE_TYPES[name]
    if not _is_one_of(value, wanted):
        names = " or ".join(each.__name__ for each in wanted)
        raise FaultError(f"fault {kind}: {name} is {json.dumps(value)}; give {names}")
    if isinstance(value, float) and not math.isfinite(value):
        raise FaultError(f"fault {kind}: {name} is {value}; give a number that JSON can hold")
    if name == "headers" and not all(map(_is_header, value.keys(), value.values())):
        raise FaultError(
            f"fault {kind}: headers is {json.dumps(value)}; give names and texts of one line"
        )
    if name in _LEAST and value < _LEAST[name]:
        raise FaultError(f"fault {kind}: {name} is {value}; the least is {_LEAST[name]}")
    if name == "factor" and value <= 0:
        raise FaultError(f"fault {kind}: factor is {value}; give a number above 0")
    if name == "status" and not LOWEST_STATUS <= value <= HIGHEST_STATUS:
        raise FaultError(f"fault {kind}: status is {value}; give an HTTP status from 200 to 599")
    if name == "now" and value and kind not in NOW_KINDS:
        raise FaultError(f"fault {kind}: only {', '.join(NOW_KINDS)} can happen now")


def _is_header(name: str, value: object) -> bool:
    return bool(_HEADER_NAME.fullmatch(name)) and isinstance(value, str) and value.isprintable()


def _is_one_of(value: object, wanted: tuple[type, ...]) -> bool:
    # In Python True is a whole number; in JSON it is not.
    return isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))


class FaultPlan:
    """The rules in force, in order, and how often each has matched and fired."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules: list[_Armed] = []
        self.add(rules)

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rules: Iterable[Rule]) -> None:
        """Put more rules after those in force."""
        self._rules.extend(_Armed(rule) for rule in rules)

    def clear(self) -> None:
        """Take every rule away."""
        self._rules.clear()

    def strike(self, path: str, text: str | None) -> Rule | None:
        """The fault for this request, or None. All rules that match count it; the first wins."""
        struck: Rule | None = None
        for armed in self._rules:
            if armed.rule.applies(path, text) and armed.fires(text, free=struck is None):
                struck = armed.rule
        return struck

    def as_json(self) -> list[dict[str, Any]]:
        """The rules with how many requests each has matched and struck."""
        return [
            {**armed.rule.as_json(), "matched": armed.matched.total(), "fired": armed.fired.total()}
            for armed in self._rules
        ]


@dataclass(slots=True)
class _Armed:
    rule: Rule
    matched: Counter[str] = field(default_factory=Counter)
    fired: Counter[str] = field(default_factory=Counter)

    def fires(self, text: str | None, *, free: bool) -> bool:
        key = (text or "") if self.rule.per_text else ""
        seen = self.matched[key]
        self.matched[key] += 1
        if seen < self.rule.after or (seen - self.rule.after) % self.rule.every or not free:
            return False
        if self.rule.times is not None and self.fired[key] >= self.rule.times:
            return False
        self.fired[key] += 1
        return True


def altered(kind: str, answer: Completion, source: str) -> Completion:
    """The answer as a fault of one of ANSWER_KINDS leaves it; its durations stay."""
    half = answer.text[: len(answer.text) // 2]
    match kind:
        case "empty":
            return dataclasses.replace(answer, text="", output_tokens=1)
        case "not_done":
            return dataclasses.replace(answer, text=half, done=False, done_reason=None)
        case "length":
            tokens = max(1, answer.output_tokens // 2)
            return dataclasses.replace(
                answer, text=half, output_tokens=tokens, done_reason="length"
            )
        case "wrong_language":
            return dataclasses.replace(answer, text=source)
        case "repeat":
            word = (half.split() or ["."])[-1]
            text = half + f" {word}" * REPETITIONS
            tokens = answer.output_tokens // 2 + REPETITIONS
            return dataclasses.replace(answer, text=text, output_tokens=tokens)
    raise ValueError(f"{kind} is not a fault that alters an answer")
