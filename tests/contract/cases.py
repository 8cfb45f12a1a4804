"""Reads our own cases: small files of requests and the answers that the protocol asks for.

    # what the case promises
    ! unless tools                      optional: not where the model has this capability
    POST /api/generate
    {"model": "$MODEL", "prompt": "x"}  optional: the body, up to the empty line

    404 application/json; charset=utf-8
    {"error": "model '$MODEL' not found"}

`====` stands between two cases. `$MODEL` is the model's name and `$FULL_NAME` the one with
registry and tag. Of a stream the first and the last line are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.contract.exchange import Exchange

CASES = Path(__file__).parent / "cases"
BETWEEN = "\n====\n"


@dataclass(frozen=True, slots=True)
class Case:
    """A request, the answer that it has to get, and the model that it is not meant for."""

    promise: str
    unless: str | None
    exchange: Exchange

    def named(self, model: str) -> Exchange:
        """The exchange, about this model."""
        words = {b"$MODEL": model, b"$FULL_NAME": full_name(model)}
        body, answer = self.exchange.body, self.exchange.answer
        for word, name in words.items():
            body, answer = body.replace(word, name.encode()), answer.replace(word, name.encode())
        given = self.exchange
        return Exchange(
            given.name, given.method, given.path, body, given.status, given.content_type, answer
        )


def full_name(model: str) -> str:
    """The name as Ollama completes it, with registry, namespace and tag."""
    name = model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"
    missing = ("registry.ollama.ai", "library")[: max(0, 2 - name.count("/"))]
    return "/".join((*missing, name))


def read_cases(path: Path) -> list[Case]:
    """The cases of a file."""
    return parse_cases(path.read_text(encoding="utf-8"), path.name)


def parse_cases(text: str, name: str = "cases") -> list[Case]:
    """The cases in a text. Raises ValueError with the promise of one that cannot be read."""
    return [_case(block.strip("\n"), name) for block in text.split(BETWEEN) if block.strip()]


def _case(block: str, name: str) -> Case:
    head, _, answer = block.partition("\n\n")
    lines = head.splitlines()
    promise = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
    unless = next((line.removeprefix("! unless ") for line in lines if line[:1] == "!"), None)
    request = [line for line in lines if line[:1] not in ("#", "!")]
    status_line, _, body = answer.partition("\n")
    status, _, content_type = status_line.partition(" ")
    if not request or not promise or not status.isdecimal():
        raise ValueError(f"{name}: this is no case: {block[:120]!r}")
    method, _, path = request[0].partition(" ")
    exchange = Exchange(
        name=name,
        method=method,
        path=path,
        body="\n".join(request[1:]).encode(),
        status=int(status),
        content_type=content_type or None,
        answer=body.encode(),
    )
    return Case(promise, unless, exchange)
