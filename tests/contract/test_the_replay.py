"""The replay counts what is equal, tells what differs and says why it left something out."""

from __future__ import annotations

import json

from tests.contract.exchange import JSON, Exchange
from tests.contract.recording import parse_recording
from tests.contract.replay import Replayer, faults_for, mentioned
from tests.contract.target import Target

TRAFFIC = b""">>> POST /api/show {}
HTTP/1.1 400 Bad Request
Content-Type: application/json; charset=utf-8
Content-Length: 29

{"error":"model is required"}
--- 0.000s

>>> GET /
HTTP/1.1 200 OK
Content-Type: text/plain; charset=utf-8
Content-Length: 15

This is no such
--- 0.000s

>>> POST /api/generate {"model": "m", "prompt": "LONG
HTTP/1.1 200 OK
Content-Length: 0


--- 0.000s
"""


def test_a_replay_counts_equal_differing_and_skipped(target: Target) -> None:
    """The report has the counts, the first difference of each exchange and the reasons."""
    traffic = TRAFFIC.replace(b"LONG", b"once upon a time " * 20)
    report = Replayer(target.url).replay("traffic", parse_recording(traffic, "t"))
    assert (report.total, report.equal, report.skipped.total()) == (3, 1, 1)
    ((where, difference),) = report.differing
    assert (where.name, difference.what) == ("t:9", "body")
    assert "traffic: 3 exchanges, 1 equal, 1 differing, 1 skipped" in str(report)
    assert "not clear" in str(report)


def asked(prompt: str, answer: bytes) -> Exchange:
    """A recorded request with this prompt."""
    body = json.dumps({"prompt": prompt}).encode()
    return Exchange("r", "POST", "/api/generate", body, 200, JSON, answer)


def test_the_scripted_failure_is_a_fault() -> None:
    """Where the recorded runner failed when told to, a server of ours fails by a fault."""
    fault = faults_for(asked("ERR500", b"{}"))
    assert fault is not None
    assert (fault["kind"], fault["status"]) == ("status", 500)
    assert faults_for(asked("hi", b"{}")) is None


def test_a_recording_is_held_against_the_models_it_speaks_of() -> None:
    """Models that the replay made for another recording are none of its concern."""
    show = Exchange("r", "POST", "/api/show", b'{"model": "rndt"}', 200, JSON, b"{}")
    tags = Exchange("r", "GET", "/api/tags", b"", 200, JSON, b'{"name":"tiny-copy:latest"}')
    assert mentioned([show, tags]) == {"rndt:latest", "tiny-copy:latest"}
