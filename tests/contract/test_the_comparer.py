"""The comparer finds what differs, and only that."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from tests.contract.compare import Comparer, NotAsOllama
from tests.contract.exchange import JSON, NDJSON, PLAIN_JSON, Exchange
from tests.contract.target import fail_for, fields
from tests.contract.tiny_gguf import JINJA, tiny_gguf
from tests.contract.wire import Answer

BODY = {
    "model": "m",
    "created_at": "2026-01-02T03:04:05.678Z",
    "response": "Hello",
    "done": True,
    "done_reason": "stop",
    "context": [1, 2],
    "total_duration": 4,
    "eval_count": 2,
}
OTHER = {
    "context": [7],
    "done": True,
    "response": "Bonjour",
    "eval_count": 9,
    "total_duration": 99,
    "created_at": "2027-05-06T07:08:09Z",
    "done_reason": "stop",
    "model": "m",
}


def exchange(
    *answer: Any, content_type: str | None = JSON, status: int = 200, **request: Any
) -> Exchange:
    """A recorded exchange with these JSON lines."""
    lines = "\n".join(map(json.dumps, answer))
    sent = json.dumps(request).encode()
    return Exchange("r", "POST", "/api/generate", sent, status, content_type, lines.encode())


def answer(*lines: Any, content_type: str | None = JSON, status: int = 200) -> Answer:
    """What a server said."""
    headers = {"content-type": content_type} if content_type else {}
    return Answer(status, headers, "\n".join(map(json.dumps, lines)).encode())


def differing(expected: Exchange, got: Answer, **how: Any) -> list[str]:
    """What differs, by name."""
    return [each.what for each in Comparer(**how).answer(expected, got)]


def changed(**fields: Any) -> dict[str, Any]:
    """Another server's equal answer, but for these fields."""
    return {**OTHER, **fields}


def test_equal_answers() -> None:
    """Order, times, durations, counts and the model's words may be others."""
    assert differing(exchange(BODY), answer(OTHER)) == []


def test_a_wrong_status_or_content_type_is_found() -> None:
    """Both are told before the body, with what was expected and got."""
    assert differing(exchange(BODY), answer(OTHER, status=500)) == ["status"]
    assert differing(exchange(BODY), answer(OTHER, content_type=PLAIN_JSON)) == ["content type"]
    assert differing(exchange(BODY), answer(OTHER, content_type=None)) == ["content type"]
    (found,) = Comparer().answer(exchange(BODY), answer(OTHER, status=503))
    assert str(found).startswith("status: expected (Ollama) 200 / got 503")


@pytest.mark.parametrize(
    ("got", "what"),
    [
        ({k: v for k, v in OTHER.items() if k != "context"}, "context"),
        (changed(thinking="hm"), "thinking"),
        (changed(model="other"), "model"),
        (changed(done=1), "done"),
        (changed(done_reason="load"), "done_reason"),
        (changed(created_at="yesterday"), "created_at"),
        (changed(created_at="2026-01-02T03:04:05.670Z"), "created_at"),
        (changed(total_duration=0.5), "total_duration"),
        (changed(total_duration=0), "total_duration"),
        (changed(total_duration=True), "total_duration"),
        (changed(eval_count="9"), "eval_count"),
        (changed(response=""), "response"),
        (changed(response=None), "response"),
        (changed(context=["a"]), "context"),
        (changed(context=[]), "context"),
    ],
)
def test_a_missing_a_stray_and_a_wrong_field_are_found(got: dict[str, Any], what: str) -> None:
    """Each is named with its place."""
    assert differing(exchange(BODY), answer(got)) == [f"body.{what}"]


def test_a_later_server_may_have_more_fields() -> None:
    """Where that is allowed, only what is expected is looked at."""
    assert differing(exchange(BODY), answer(changed(news=1)), may_have_more=True) == []


def test_a_cut_answer_is_compared_as_far_as_it_goes() -> None:
    """Fields behind the cut are neither missed nor stray."""
    half = exchange(BODY)
    half = dataclasses.replace(half, answer=half.answer[:90], answer_cut=True)
    assert differing(half, answer(OTHER)) == []
    assert differing(half, answer(changed(model="x"))) == ["body.model"]


def test_what_is_no_json_is_found() -> None:
    """A body that does not parse is a difference, not an error."""
    page = Answer(200, {"content-type": JSON}, b"<html>")
    assert differing(exchange(BODY), page) == ["body"]
    plain = exchange(content_type="text/plain", status=404)
    plain = dataclasses.replace(plain, answer=b"404 page not found")
    wrong = Answer(404, {"content-type": "text/plain"}, b"nothing here")
    assert differing(plain, wrong) == ["body"]


@pytest.mark.parametrize(
    ("reason", "count", "limit", "found"),
    [
        ("length", 3, 3, []),
        ("stop", 2, 3, []),
        ("stop", 3, 3, ["done_reason"]),
        ("length", 4, 3, ["eval_count"]),
        ("length", 2, None, ["done_reason"]),
        ("stop", 2, None, []),
    ],
)
def test_the_end_fits_the_limit(
    reason: str, count: int, limit: int | None, found: Sequence[str]
) -> None:
    """Where an answer ends is the model's affair; that `done_reason` tells it is the server's."""
    options = {} if limit is None else {"num_predict": limit}
    got = answer(changed(done_reason=reason, eval_count=count))
    assert differing(exchange(BODY, options=options), got) == found


def test_runner_errors_are_compared_inside() -> None:
    """The counted prompt may be another; the type, the context and the wording may not."""

    def error(tokens: int, ctx: int = 64, kind: str = "exceed_context_size_error") -> Any:
        message = f"request ({tokens} tokens) exceeds the available context size ({ctx} tokens)"
        inner = {"message": message, "type": kind, "n_prompt_tokens": tokens, "n_ctx": ctx}
        return {"error": json.dumps({"error": inner})}

    assert differing(exchange(error(102)), answer(error(70))) == []
    assert differing(exchange(error(102)), answer(error(102, ctx=65))) == ["body.error"]
    assert differing(exchange(error(102)), answer(error(102, kind="x"))) == ["body.error"]
    assert differing(exchange(error(102)), answer({"error": "too long"})) == ["body.error"]
    assert differing(exchange({"error": "a"}), answer({"error": "b"})) == ["body.error"]


def test_streams() -> None:
    """Pieces have the form of the first line, the end that of the last; both have to be there."""
    piece, end = {"response": "Hel", "done": False}, {"response": "", "done": True}
    recorded = exchange(piece, piece, end, content_type=NDJSON)

    def found(*lines: Any) -> list[str]:
        return differing(recorded, answer(*lines, content_type=NDJSON))

    assert found({"response": "B", "done": False}, end) == []
    assert found(end) == ["stream"]
    assert found(piece, piece) == ["line 2 of 2.response", "line 2 of 2.done"]
    assert found(piece, {**piece, "x": 1}, end) == ["line 2 of 3.x"]
    assert found(piece, {"response": "more", "done": True}) == ["line 2 of 2.response"]


def test_steps_count_one_by_one() -> None:
    """Of a create every step has to be there; the digests may be others."""
    steps = [{"status": f"using existing layer sha256:{'a' * 64}"}, {"status": "success"}]
    recorded = exchange(*steps, content_type=NDJSON)
    ours = [{"status": f"creating new layer sha256:{'b' * 64}"}, {"status": "success"}]
    assert differing(recorded, answer(*ours, content_type=NDJSON)) == []
    assert differing(recorded, answer(ours[1], content_type=NDJSON)) == ["stream"]
    assert differing(recorded, answer(*ours, ours[1], content_type=NDJSON)) == ["steps"]


def test_lists_of_models_are_compared_by_name() -> None:
    """The order counts for nothing; models that are not ours are left out where that is asked."""
    a, b = {"name": "a", "size": 1}, {"name": "b", "size": 2}
    recorded = exchange({"models": [a, b]})
    more = answer({"models": [{"name": "c", "size": 3}, {**b, "size": 9}, a]})
    assert differing(recorded, more, only_models=["a", "b"]) == []
    assert differing(recorded, more) == ["body.models"]
    assert differing(recorded, answer({"models": [a]})) == ["body.models"]
    wrong = answer({"models": [a, {**b, "size": "9"}]})
    assert differing(recorded, wrong) == ["body.models[b].size"]


def test_a_failed_check_names_each_difference() -> None:
    """The message has expected and got; the table at the end has them one by one."""
    with pytest.raises(NotAsOllama, match=r"ps.size: expected \(Ollama\) int") as failure:
        fields("ps", {"size": "big"}, {"size": int, "name": str})
    assert [each.what for each in failure.value.differences] == ["ps.size", "ps.name"]
    fail_for([])


def test_the_tiny_file_has_its_head_and_its_data() -> None:
    """The file begins as GGUF 3 with two tensors, and ends with their data."""
    content = tiny_gguf(chat_template=JINJA)
    assert struct.unpack("<4sIQQ", content[:24]) == (b"GGUF", 3, 2, 16)
    assert content.endswith(bytes(4 * (32 * 4 + 32)))
    assert len(content) % 32 == 0
    assert len(content) < 2500
