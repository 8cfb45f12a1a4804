"""The parsers of recordings and cases, and the completion of what was cut."""

from __future__ import annotations

import json

import pytest

from tests.contract.cases import full_name, parse_cases
from tests.contract.exchange import Exchange, complete_members
from tests.contract.rebuild import CONVERSATION, rebuilt
from tests.contract.recording import NotARecording, parse_recording, unchunked

WHOLE = b"""#### a heading
>>> POST /api/show {"model": "m"}
HTTP/1.1 200 OK\r
Content-Type: application/json; charset=utf-8\r
Content-Length: 15\r
\r
{"license":"x"}
--- 0.002s

## another heading
>>> HEAD /api/blobs/sha256:00
HTTP/1.1 404 Not Found
Connection: close


--- 0.000s
"""
STREAM = b""">>> POST /api/generate {"model": "m"}
HTTP/1.1 200 OK\r
Content-Type: application/x-ndjson\r
Transfer-Encoding: chunked\r
\r
c\r
{"done":false}
\r
d\r
{"done":true}
\r
0\r
\r

--- 0.010s
"""


def test_requests_answers_and_headings() -> None:
    """Every exchange has its request, status, content type and body; headings are left out."""
    show, head = parse_recording(WHOLE, "r.txt")
    assert (show.name, show.method, show.path) == ("r.txt:2", "POST", "/api/show")
    assert (show.request, show.status, show.value()) == ({"model": "m"}, 200, {"license": "x"})
    assert show.content_type == "application/json; charset=utf-8"
    assert (head.method, head.status, head.content_type, head.answer) == ("HEAD", 404, None, b"")
    assert not any((show.body_cut, show.answer_cut, head.body_cut, head.answer_cut))


def test_a_stream_is_put_together_from_its_chunks() -> None:
    """The chunks become lines, also where their sizes no longer fit."""
    (exchange,) = parse_recording(STREAM)
    assert exchange.lines() == [{"done": False}, {"done": True}]
    assert not exchange.answer_cut


def test_what_the_recorder_cut_is_noticed() -> None:
    """A stream without its end and a body that is shorter than announced have been cut."""
    (stream,) = parse_recording(STREAM[: STREAM.index(b"rue}")])
    assert stream.answer_cut
    assert stream.lines() == [{"done": False}]
    (short, _) = parse_recording(WHOLE.replace(b'{"license":"x"}', b'{"a":1,"licen'))
    assert short.answer_cut
    assert short.value() == {"a": 1}
    assert unchunked(b"5\nhel") == (b"hel", True)


def test_an_edited_body_is_whole_where_it_is_json() -> None:
    """A body that became shorter when names were replaced has not been cut."""
    (edited, _) = parse_recording(WHOLE.replace(b'"x"', b'""'))
    assert not edited.answer_cut


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ('{"a":1,"b":{"c":[2]},"d":"cu', {"a": 1, "b": {"c": [2]}}),
        ('{"a":12', {}),
        ('{"mode', {}),
        ('{"a": true}', {"a": True}),
    ],
)
def test_complete_members(text: str, members: dict[str, object]) -> None:
    """Of a cut object only what certainly stands complete is compared."""
    assert complete_members(text) == members


def test_a_summary_is_no_recording() -> None:
    """A file without requests is refused by name."""
    with pytest.raises(NotARecording, match="notes"):
        parse_recording(b"8 requests, all 200\n", "notes.txt")
    with pytest.raises(NotARecording, match="status line"):
        parse_recording(b">>> GET /\nconnection refused\n--- 0.0s\n")


def cut(path: str, body: str, status: int = 200) -> Exchange:
    """A request of which the recorder kept the beginning."""
    return Exchange("r.txt:1", "POST", path, body.encode(), status, None, b"", body_cut=True)


def test_cut_requests_are_completed_where_it_is_clear_how() -> None:
    """Flags are told by their beginning, or by the order in which the recorder asked."""
    words = "x " * 100
    begin = f'{{"model": "m", "prompt": "{words}", "stream": false, "options": {{"num_ctx": 64}}, '
    (one,) = rebuilt([cut("/api/generate", begin + '"truncate": fals')])
    assert one.request["truncate"] is False
    assert "shift" not in one.request
    (both,) = rebuilt([cut("/api/generate", begin + '"shift": false, ')])
    assert (both.request["shift"], both.request["truncate"]) == (False, False)
    begin = f'{{"model": "m", "messages": [{{"role": "user", "content": "{words}'
    asked = [each.request for each in rebuilt([cut("/api/chat", begin)] * 3)]
    assert [each.get("truncate") for each in asked] == [None, False, None]
    assert [each.get("shift") for each in asked] == [None, None, False]
    assert all(not each.body_cut and each.note for each in (one, both))
    kept = '{"model": "m", "messages": [{"role": "system", "content": "keep"}, {"role": "us'
    (conversation,) = rebuilt([cut("/api/chat", kept)])
    assert conversation.request["messages"] == CONVERSATION


def test_other_cut_requests_stay_cut() -> None:
    """What is not clear is not guessed."""
    words = "x " * 100
    for body in (
        '{"model": "m", "prompt": "once upon a time',
        f'{{"model": "m", "prompt": "{words}", "stream": false, "options": {{"num_ctx": 64}}, "',
    ):
        (exchange,) = rebuilt([cut("/api/generate", body)])
        assert exchange.body_cut


def test_prompts_too_long_are_so_for_every_tokenizer() -> None:
    """A whole request gets more words than the context has tokens, and keeps all else."""
    words = "x " * 100
    sent = {"model": "m", "prompt": words, "options": {"num_ctx": 64}, "shift": False}
    whole = Exchange("r", "POST", "/api/generate", json.dumps(sent).encode(), 400, None, b"")
    (longer,) = rebuilt([whole])
    assert {**longer.request, "prompt": words} == sent
    assert longer.request["prompt"].split() == [f"x{number}" for number in range(256)]
    (same,) = rebuilt([cut("/api/chat", '{"model": "m", "messages": []}')])
    assert not same.note


CASES = """# a missing model
# is a 404
! unless tools
POST /api/chat
{"model": "$MODEL"}

404 application/json; charset=utf-8
{"error": "$FULL_NAME"}
====
# a head
HEAD /

200
"""


def test_cases() -> None:
    """A case has a promise, a request, an answer and, maybe, a model it is not meant for."""
    first, second = parse_cases(CASES)
    assert (first.promise, first.unless) == ("a missing model is a 404", "tools")
    named = first.named("m")
    assert named.request == {"model": "m"}
    assert named.value() == {"error": "registry.ollama.ai/library/m:latest"}
    assert (second.exchange.method, second.exchange.content_type) == ("HEAD", None)
    assert second.exchange.body == b""


def test_a_case_that_cannot_be_read_is_named() -> None:
    """The error shows the case."""
    with pytest.raises(ValueError, match="no status"):
        parse_cases("# no status\nGET /\n")


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("m", "registry.ollama.ai/library/m:latest"),
        ("m:1b", "registry.ollama.ai/library/m:1b"),
        ("me/m", "registry.ollama.ai/me/m:latest"),
        ("host/me/m:1b", "host/me/m:1b"),
    ],
)
def test_full_names(model: str, full: str) -> None:
    """What a name lacks is added in front and behind."""
    assert full_name(model) == full
