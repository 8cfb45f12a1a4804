"""One request and the answer that Ollama gave to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

JSON = "application/json; charset=utf-8"
PLAIN_JSON = "application/json"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer; either may have been cut short when it was written down."""

    name: str
    method: str
    path: str
    body: bytes
    status: int
    content_type: str | None
    answer: bytes
    body_cut: bool = False
    answer_cut: bool = False
    note: str = ""
    """What was done to it after it was written down."""

    def __str__(self) -> str:
        return f"{self.name} {self.method} {self.path} {self.body.decode(errors='replace')[:90]}"

    @property
    def request(self) -> dict[str, Any]:
        """The JSON object that was sent; empty where none was."""
        try:
            sent = json.loads(self.body)
        except ValueError:
            return {}
        return sent if isinstance(sent, dict) else {}

    @property
    def num_predict(self) -> int | None:
        """The most tokens that the request allows."""
        options = self.request.get("options")
        limit = options.get("num_predict") if isinstance(options, dict) else None
        return limit if isinstance(limit, int) else None

    def value(self) -> Any:
        """The JSON of the answer; of one that was cut short, the members that are complete."""
        text = self.answer.decode(errors="replace")
        return complete_members(text) if self.answer_cut else json.loads(text)

    def lines(self) -> list[Any]:
        """The JSON lines of a streamed answer that are complete."""
        whole = []
        for line in self.answer.decode(errors="replace").split("\n"):
            try:
                whole += [json.loads(line)] if line.strip() else []
            except ValueError:
                break
        return whole


def complete_members(text: str) -> dict[str, Any]:
    """The members of a JSON object that stand complete before the text breaks off."""
    members: dict[str, Any] = {}
    decode, at = json.JSONDecoder().raw_decode, 1
    try:
        while True:
            name, at = decode(text, _skipped(text, at))
            value, at = decode(text, _skipped(text, at))
            if text[at : at + 1] not in (",", "}"):
                return members  # a number may go on behind the cut
            members[name] = value
    except ValueError:
        return members


def _skipped(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r,:":
        at += 1
    return at
