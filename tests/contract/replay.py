"""Sends recorded requests to a server and compares its answers with the recorded ones."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.contract.compare import Comparer, Difference
from tests.contract.exchange import Exchange
from tests.contract.rebuild import rebuilt
from tests.contract.tiny_gguf import JINJA, digest_of, tiny_gguf
from tests.contract.wire import Answer, ask

TURNS = "{{ range .Messages }}[{{ .Role }}] {{ .Content }}\n{{ end }}[assistant]"
PLAIN = (
    "{{ if .System }}<|system|>{{ .System }}{{ end }}"
    "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }} {{ end }}"
)
TURNS_JINJA = "{% for m in messages %}[{{m.role}}] {{m.content}}\n{% endfor %}[assistant]"
# 75 thousand parameters, as the recorded model has.
FILES = {
    "native.gguf": tiny_gguf(chat_template=JINJA),
    "plain.gguf": tiny_gguf(),
    "random.gguf": tiny_gguf(chat_template=TURNS_JINJA, tokens=2342),
}
MODELS: tuple[tuple[str, str, str | None], ...] = (
    ("tiny-native", "native.gguf", None),
    ("tiny-plain", "plain.gguf", PLAIN),
    ("rnd", "random.gguf", None),
    ("rndt", "random.gguf", TURNS),
)
MADE = frozenset({f"{name}:latest" for name, _, _ in MODELS} | {"tiny-copy:latest"})
RECORDED_BLOBS = {
    "native.gguf": "8e59cba04775e4d8acb9b3038afe1be54e3a4ba5994373ef85b448fd82a2c83d",
    "plain.gguf": "e50ff7ae77f4f0aac9dce5099a3a373fec38100baa483460591a92f9912ef9f4",
    "random.gguf": "b5ed4f10e537db26222d4bc2bb061836f5983445b8497166895980d5fdf56d71",
}
RUNS = ("/api/chat", "/api/generate")
SETTLES_WITHIN_S = 3.0
FAIL, REPEAT = "ERR500", "REPEAT"
"""What the recorded model was told, to have its runner fail and to have it repeat itself."""
REPETITIVE = ". " * 200
"""What our own model, which says what it is told, repeats itself with."""
RUNNER_ERROR = {
    "error": json.dumps(
        {"error": {"code": 500, "message": "fake internal error", "type": "server_error"}}
    )
}


@dataclass(slots=True)
class Report:
    """What became of the exchanges of one recording."""

    title: str
    total: int = 0
    equal: int = 0
    cut: int = 0
    rebuilt: int = 0
    differing: list[tuple[Exchange, Difference]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = (
            f"{self.title}: {self.total} exchanges, {self.equal} equal, "
            f"{len(self.differing)} differing, {self.skipped.total()} skipped "
            f"({self.cut} answers compared as far as they were recorded, "
            f"{self.rebuilt} requests rebuilt)"
        )
        lines = [counts]
        for exchange, difference in self.differing:
            lines += [f"  {exchange}", f"      {difference}"]
        lines += [f"  skipped {count}: {reason}" for reason, count in self.skipped.items()]
        return "\n".join(lines)


class Replayer:
    """Replays recordings against one server, on which it first makes the recorded models."""

    def __init__(self, url: str) -> None:
        self._url = url
        faults = ask(url, "GET", "/_local/faults")
        self._misbehaves = faults.status == HTTPStatus.OK
        self._cannot_run = ""

    def prepare(self) -> None:
        """Post the files, make the models anew and find out whether the server can run them."""
        self.clean_up()
        for content in FILES.values():
            ask(self._url, "POST", f"/api/blobs/{digest_of(content)}", content)
        for name, file, template in MODELS:
            body = {"model": name, "files": {file: digest_of(FILES[file])}, "stream": False}
            self._post("/api/create", {**body, **({"template": template} if template else {})})
        loaded = self._post("/api/generate", {"model": "tiny-native"})
        self._post("/api/generate", {"model": "tiny-native", "keep_alive": 0})
        if loaded.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            said = loaded.body.decode(errors="replace")[:120]
            self._cannot_run = f"the server cannot run a model without weights: {said}"

    def clean_up(self) -> None:
        """Delete the recorded models."""
        for name in MADE:
            ask(self._url, "DELETE", "/api/delete", {"model": name})

    def replay(self, title: str, exchanges: Iterable[Exchange]) -> Report:
        """Send every request, in order, and compare."""
        report, exchanges = Report(title), rebuilt(exchanges)
        comparer = Comparer(only_models=mentioned(exchanges))
        for exchange in exchanges:
            report.total += 1
            if reason := self._why_not(exchange):
                report.skipped[reason] += 1
                continue
            report.cut += exchange.answer_cut
            report.rebuilt += bool(exchange.note)
            differences = self._differences(comparer, self._for_our_models(exchange))
            if differences:
                report.differing.append((exchange, differences[0]))
            else:
                report.equal += 1
        return report

    def _why_not(self, exchange: Exchange) -> str:
        if exchange.body_cut:
            return "the request was cut, and how it went on is not clear"
        if exchange.path in RUNS and self._cannot_run and exchange.status == HTTPStatus.OK:
            return self._cannot_run
        if spoken(exchange) in (FAIL, REPEAT) and not self._misbehaves:
            return "the recorded model was told to misbehave"
        return ""

    def _for_our_models(self, exchange: Exchange) -> Exchange:
        path, body = exchange.path, exchange.body
        for file, recorded in RECORDED_BLOBS.items():
            ours = digest_of(FILES[file]).removeprefix("sha256:")
            path = path.replace(recorded, ours)
            body = body.replace(recorded.encode(), ours.encode())
        if spoken(exchange) == REPEAT:
            body = body.replace(REPEAT.encode(), REPETITIVE.encode())
        return dataclasses.replace(exchange, path=path, body=body)

    def _differences(self, comparer: Comparer, exchange: Exchange) -> list[Difference]:
        until = time.monotonic() + SETTLES_WITHIN_S
        while True:
            with self._misbehaving(exchange):
                got = ask(self._url, exchange.method, exchange.path, exchange.body or None)
            found = comparer.answer(exchange, got)
            # What a server has loaded it tells a moment after it has answered.
            if not found or exchange.path != "/api/ps" or time.monotonic() > until:
                return found
            time.sleep(0.05)

    @contextmanager
    def _misbehaving(self, exchange: Exchange) -> Iterator[None]:
        rules = faults_for(exchange)
        if rules is None:
            yield
            return
        self._post("/_local/faults", rules)
        try:
            yield
        finally:
            ask(self._url, "DELETE", "/_local/faults")

    def _post(self, path: str, body: Mapping[str, Any]) -> Answer:
        return ask(self._url, "POST", path, body)


def mentioned(exchanges: Iterable[Exchange]) -> frozenset[str]:
    """The models that a recording speaks of; what a server has besides is not its concern."""
    said = b"".join(exchange.body + exchange.answer for exchange in exchanges)
    return frozenset(
        name
        for name in MADE
        if any(f'"{word}"'.encode() in said for word in (name, name.removesuffix(":latest")))
    )


def spoken(exchange: Exchange) -> object:
    """The prompt or the last message of a request."""
    sent = exchange.request
    turns = sent.get("messages")
    return turns[-1].get("content") if isinstance(turns, list) and turns else sent.get("prompt")


def faults_for(exchange: Exchange) -> dict[str, Any] | None:
    """The fault by which our own server does what the recorded model was told to do."""
    if spoken(exchange) != FAIL:
        return None
    # In front of a stream an error has no charset, which the fault has to be told.
    headers = {"Content-Type": exchange.content_type}
    return {"kind": "status", "status": 500, "body": RUNNER_ERROR, "headers": headers}
