"""What servers counted."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama.process import ServerProcess
from tests.bench.contest import MODEL, PROMPTING


@dataclass
class Counted:
    """What all servers counted; times are unix seconds."""

    first_request_at: float
    last_answer_at: float
    requests: int
    answers: int
    peaks: list[int]
    """Of requests in flight, server by server."""


def load_models(servers: Sequence[ServerProcess]) -> None:
    """Have the model loaded as the contenders ask for it, and count from zero."""
    body = {"model": MODEL, "messages": [], "options": PROMPTING.options, "keep_alive": "30m"}
    for server in servers:
        request = urllib.request.Request(  # noqa: S310 - ours
            f"{server.url}/api/chat", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
            answer.read()
        server.reset_stats()


def count(stats: Sequence[dict[str, Any]], texts: Sequence[str]) -> Counted:
    """The requests for these texts, and no others; the peaks are of all."""
    hashes = {hashlib.sha256(text.encode()).hexdigest() for text in texts}
    records = [
        record for each in stats for record in each["requests"] if record["sha256"] in hashes
    ]
    return Counted(
        first_request_at=min(record["started_at"] for record in records),
        last_answer_at=max(
            (record["ended_at"] for record in records if record["outcome"] == "answered"),
            default=0.0,
        ),
        requests=len(records),
        answers=sum(record["outcome"] == "answered" for record in records),
        peaks=[each["peak_in_flight"] for each in stats],
    )
