"""A server under test: how it is asked, what it is, and the checks that name what differs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama import Settings
from tests.contract.compare import Comparer, Difference, NotAsOllama
from tests.contract.exchange import JSON, Exchange
from tests.contract.rules import RULES
from tests.contract.wire import Answer, ask

KNOWN = (0, 33)
"""The version that the expectations are from; a later one may have more fields."""
SETTLES_WITHIN_S = 15.0
PROSE = "Le train arrive à la gare de Lyon avant midi. "


@dataclass(frozen=True, slots=True)
class Target:
    """One server and the model that the tests use."""

    url: str
    model: str
    slots: int
    is_own: bool
    version: tuple[int, ...]
    capabilities: frozenset[str]
    busy_s: float
    """How long a request has to take that others wait for."""

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """The answer to a request."""
        return ask(self.url, method, path, body)

    def generate(self, prompt: str = "", **more: Any) -> Answer:
        """The answer of /api/generate, not streamed unless told otherwise."""
        return self.ask("POST", "/api/generate", self.generate_body(prompt, **more))

    def chat(self, text: str = "", **more: Any) -> Answer:
        """The answer of /api/chat, not streamed unless told otherwise."""
        return self.ask("POST", "/api/chat", self.chat_body(text, **more))

    def generate_body(self, prompt: str, **more: Any) -> dict[str, Any]:
        """A request to /api/generate."""
        return {"model": self.model, "prompt": prompt, "stream": False, **self._calm(), **more}

    def chat_body(self, text: str, **more: Any) -> dict[str, Any]:
        """A request to /api/chat with one message, or with none."""
        messages = [{"role": "user", "content": text}] if text else []
        return {
            "model": self.model,
            "messages": messages,
            "stream": False,
            **self._calm(),
            **more,
        }

    def _calm(self) -> dict[str, Any]:
        return {"think": False} if "thinking" in self.capabilities else {}

    def running(self) -> dict[str, Any] | None:
        """The model's entry in /api/ps, or None while it is not loaded."""
        return self.entry("/api/ps", self.model)

    def entry(self, path: str, model: str) -> dict[str, Any] | None:
        """A model's entry in a list of the server."""
        name = full_tag(model)
        models = object_of(self.ask("GET", path)).get("models", [])
        return next((each for each in models if each.get("name") == name), None)

    def unload(self) -> None:
        """Unload the model and wait until it is gone."""
        self.generate(keep_alive=0)
        eventually("the model leaves /api/ps after keep_alive 0", lambda: self.running() is None)

    def comparer(self) -> Comparer:
        """A comparer that forgives a later Ollama what it added."""
        return Comparer(may_have_more=self.version[:2] > KNOWN)

    def same_answer(self, expected: Exchange) -> None:
        """Check the answer to a request against the expected one."""
        got = ask(self.url, expected.method, expected.path, expected.body)
        fail_for(self.comparer().answer(expected, got))


def own_server(url: str, settings: Settings) -> Target:
    """Our own server, with its slots as set."""
    return _target(url, settings.model, settings.slots, is_own=True, busy_s=1.0)


def other_server(url: str, model: str, slots: int) -> Target:
    """A server that somebody else runs; a second passes before it sees that a client left."""
    return _target(url.rstrip("/"), model, slots, is_own=False, busy_s=6.0)


def _target(url: str, model: str, slots: int, *, is_own: bool, busy_s: float) -> Target:
    shown = object_of(ask(url, "POST", "/api/show", {"model": model}))
    version = str(object_of(ask(url, "GET", "/api/version")).get("version"))
    return Target(
        url=url,
        model=model,
        slots=slots,
        is_own=is_own,
        version=tuple(int(part) for part in re.findall(r"\d+", version)[:3]),
        capabilities=frozenset(shown.get("capabilities") or ()),
        busy_s=busy_s,
    )


def full_tag(model: str) -> str:
    """The name with its tag, as the lists have it."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def fail_for(differences: list[Difference]) -> None:
    """Fail where there are differences, naming them."""
    if differences:
        raise NotAsOllama(differences)


def require(what: str, expected: object, got: object, *, holds: bool | None = None) -> None:
    """Fail unless `got` is what is expected, or unless `holds` where that is given."""
    if not (got == expected if holds is None else holds):
        fail_for([Difference(what, str(expected), str(got)[:300])])


def object_of(answer: Answer, status: int = 200, content_type: str = JSON) -> dict[str, Any]:
    """The JSON object of an answer, once its status and content type are right."""
    said = answer.body.decode(errors="replace")
    require("status", status, f"{answer.status} {said}", holds=answer.status == status)
    require("content type", content_type, answer.content_type)
    try:
        value = answer.json()
    except json.JSONDecodeError:
        value = None
    require("body", "a JSON object", said, holds=isinstance(value, dict))
    return dict(value)


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    """The lines of a streamed answer, once its status and content type are right."""
    said = answer.body.decode(errors="replace")
    require("status", 200, f"{answer.status} {said}", holds=answer.status == 200)
    require("content type", "application/x-ndjson", answer.content_type)
    try:
        return answer.lines()
    except json.JSONDecodeError:
        fail_for([Difference("stream", "one JSON object on each line", said[:300])])
        raise


def fields(where: str, got: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Check that an object has these fields, of these types or, where they are ruled, forms."""
    found = []
    for name, kind in kinds.items():
        value, rule = got.get(name), RULES.get(name)
        fits = type(value) is kind and (rule is None or kind is dict or rule.holds(value, value))
        if not fits:
            words = kind.__name__ if rule is None else f"{kind.__name__}, that is {rule.words}"
            shown = str(value)[:160] if name in got else "no such field"
            found.append(Difference(f"{where}.{name}", words, shown))
    fail_for(found)


def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Wait for what a server does after it has answered."""
    until = time.monotonic() + SETTLES_WITHIN_S
    while not holds():
        require(
            what, "soon", f"not within {SETTLES_WITHIN_S:.0f} s", holds=time.monotonic() < until
        )
        time.sleep(0.02)
