"""Where an answer differs from the one Ollama gives."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from tests.contract.exchange import NDJSON, Exchange
from tests.contract.rules import RULES
from tests.contract.wire import Answer

SHOWN = 160


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it is with Ollama."""

    what: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.what}: expected (Ollama) {self.expected} / got {self.got}"


class NotAsOllama(AssertionError):
    """A failed check; holds the differences that the table at the end of the session shows."""

    def __init__(self, differences: list[Difference]) -> None:
        super().__init__("\n" + "\n".join(map(str, differences)))
        self.differences = differences


@dataclass(frozen=True, slots=True)
class Comparer:
    """Compares answers by the rules.

    `may_have_more` lets objects have fields that are not expected. `only_models`, where it
    is given, leaves all other models of a server out of its lists.
    """

    may_have_more: bool = False
    only_models: Collection[str] | None = None
    _absent: object = field(default_factory=object, repr=False)

    def answer(self, expected: Exchange, got: Answer) -> list[Difference]:
        """The differences of a whole answer, the most telling first."""
        found: list[Difference] = []
        if got.status != expected.status:
            found.append(Difference("status", str(expected.status), f"{got.status} {_text(got)}"))
        if got.content_type != expected.content_type:
            found.append(
                Difference("content type", str(expected.content_type), str(got.content_type))
            )
        if found:
            return found
        return self._body(expected, got)

    def _body(self, expected: Exchange, got: Answer) -> list[Difference]:
        if expected.method == "HEAD" or "json" not in (expected.content_type or ""):
            same = got.body == (b"" if expected.method == "HEAD" else expected.answer)
            return [] if same else [Difference("body", _short(expected.answer), _text(got))]
        try:
            if expected.content_type == NDJSON:
                return self._stream(expected, got.lines())
            value = got.json()
        except ValueError:
            return [Difference("body", "valid JSON", _text(got))]
        wanted = expected.value()
        found = self.value("body", wanted, value, cut=expected.answer_cut)
        return found + ending(expected, wanted, value)

    def _stream(self, expected: Exchange, got: list[Any]) -> list[Difference]:
        lines = expected.lines()
        least = 1 if expected.answer_cut else min(2, len(lines))
        if len(got) < least:
            return [Difference("stream", f"{len(lines)} lines", f"{len(got)} lines")]
        if "status" in lines[0]:  # the steps of a create or a pull, each of which counts
            if len(got) != len(lines):
                return [Difference("steps", _short(lines), _short(got))]
            pairs = list(zip(lines, got, strict=True))
        elif expected.answer_cut:
            pairs = [(lines[0], each) for each in got if not each.get("done")]
        else:
            pairs = [(lines[0], each) for each in got[:-1]] + [(lines[-1], got[-1])]
        found = []
        for number, (line, each) in enumerate(pairs, 1):
            found += self.value(f"line {number} of {len(got)}", line, each)
        return found + ending(expected, lines[-1], got[-1])

    def value(self, where: str, expected: Any, got: Any, *, cut: bool = False) -> list[Difference]:
        """The differences of a JSON value; of one that was cut short, those in what is there."""
        if isinstance(expected, dict) and isinstance(got, dict):
            return self._object(where, expected, got, cut=cut)
        if isinstance(expected, list) and isinstance(got, list):
            if where.endswith(".models"):
                return self._models(where, expected, got)
            if len(expected) == len(got):
                found: list[Difference] = []
                for number, (each, other) in enumerate(zip(expected, got, strict=True)):
                    found += self.value(f"{where}[{number}]", each, other)
                return found
        same_kind = type(expected) is type(got)
        if same_kind and expected == got:
            return []
        return [Difference(where, _short(expected), _short(got))]

    def _object(
        self, where: str, expected: dict[str, Any], got: dict[str, Any], *, cut: bool
    ) -> list[Difference]:
        found: list[Difference] = []
        for name, value in expected.items():
            place = f"{where}.{name}"
            if name not in got:
                found.append(Difference(place, _short(value), "no such field"))
            elif name == "done_reason" and {value, got[name]} <= {"stop", "length"}:
                continue  # `ending` judges it: the model's words decide which of the two
            elif (rule := RULES.get(name)) and isinstance(value, str | int | list):
                if not rule.holds(value, got[name]):
                    words = f"{_short(value)}, that is {rule.words}"
                    found.append(Difference(place, words, _short(got[name])))
            else:
                found += self.value(place, value, got[name])
        if not (cut or self.may_have_more):
            more = [name for name in got if name not in expected]
            found += [
                Difference(f"{where}.{name}", "no such field", _short(got[name])) for name in more
            ]
        return found

    def _models(self, where: str, expected: list[Any], got: list[Any]) -> list[Difference]:
        known = {each["name"]: each for each in got if isinstance(each, dict) and "name" in each}
        names = [each["name"] for each in expected]
        found: list[Difference] = []
        for each in expected:
            there = known.get(each["name"])
            if there is None:
                found.append(Difference(where, f"{each['name']} among them", _short(sorted(known))))
            else:
                found += self.value(f"{where}[{each['name']}]", each, there)
        only = self.only_models
        stray = [n for n in known if n not in names and (only is None or n in only)]
        return found + [Difference(where, f"no {name}", "it is there") for name in stray]


def ending(expected: Exchange, wanted: Any, got: Any) -> list[Difference]:
    """That `done_reason` fits: `length` where the answer has as many tokens as the request allows.

    How long a model's answer gets is its own affair; only where nothing limits it has it to
    end as the expected one does.
    """
    if not isinstance(wanted, dict) or not isinstance(got, dict):
        return []
    limit, count, reason = expected.num_predict, got.get("eval_count"), got.get("done_reason")
    if reason not in ("stop", "length"):
        return []
    if limit is None:
        right = wanted.get("done_reason", reason)
        return [] if reason == right else [Difference("done_reason", _short(right), _short(reason))]
    if isinstance(count, int) and count > limit:
        return [Difference("eval_count", f"at most num_predict, {limit}", str(count))]
    if count == limit and reason != "length":
        return [Difference("done_reason", f'"length": {count} of {limit} tokens', _short(reason))]
    return []


def _short(value: Any) -> str:
    text = (
        repr(value.decode(errors="replace"))
        if isinstance(value, bytes)
        else json.dumps(value, ensure_ascii=False)
    )
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _text(answer: Answer) -> str:
    return _short(answer.body)
