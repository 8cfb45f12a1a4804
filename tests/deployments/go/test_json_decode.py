import pytest

from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.structs import CHAT, CREATE, GENERATE, PULL, read

INTO = "json: cannot unmarshal "
FIELD = " into Go struct field GenerateRequest."
THINK = '("high", "medium", "low", "max", true, or false)'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b"[1]", INTO + "array into Go value of type api.GenerateRequest"),
        (b'"x"', INTO + "string into Go value of type api.GenerateRequest"),
        (b'{"model":5}', INTO + "number" + FIELD + "model of type string"),
        (b'{"MODEL":5}', INTO + "number" + FIELD + "model of type string"),
        (
            b'{"model":[],"prompt":5}',
            INTO + "array into Go struct field GenerateRequest.model of type string",
        ),
        (
            b'{"model":5,"model":"a"}',
            INTO + "number" + FIELD + "model of type string",
        ),
        (b'{"stream":"x"}', INTO + "string" + FIELD + "stream of type bool"),
        (
            b'{"options":[]}',
            INTO + "array into Go struct field GenerateRequest.options of type "
            "map[string]interface {}",
        ),
        (
            b'{"options":{"a":1e999}}',
            INTO + "number 1e999 into Go struct field GenerateRequest.options of type float64",
        ),
        (
            b'{"top_logprobs":1.5}',
            INTO + "number 1.5 into Go struct field GenerateRequest.top_logprobs of type int",
        ),
        (
            b'{"context":["x"]}',
            INTO + "string into Go struct field GenerateRequest.context of type int",
        ),
        (b'{"images":["a!"]}', "illegal base64 data at input byte 1"),
        (b'{"think":5}', "think must be a boolean or string " + THINK),
        (b'{"keep_alive":[]}', "Unsupported type: '[]interface {}'"),
        (b'{"keep_alive":"5"}', 'time: missing unit in duration "5"'),
        (b'{"model":5,"keep_alive":true}', "Unsupported type: 'bool'"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"[" * 100_000, "exceeded max depth"),
    ],
)  # fmt: skip
def test_generate_bodies_that_do_not_fit(body: bytes, message: str) -> None:
    """A wrong type is told by value, field and Go type; the first one counts, customs at once."""
    with pytest.raises(RequestError) as refused:
        read(body, GENERATE)
    assert (refused.value.status, refused.value.message) == (400, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"messages":"x"}',
            INTO + "string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            b'{"messages":["x"]}',
            INTO + "string into Go struct field ChatRequest.messages of type api.Alias",
        ),
        (
            b'{"messages":[{"content":5}]}',
            INTO + "number into Go struct field ChatRequest.messages.content of type string",
        ),
        (b'{"tools":{}}', INTO + "object into Go struct field ChatRequest.tools of type api.Tools"),
    ],
)
def test_chat_bodies_that_do_not_fit(body: bytes, message: str) -> None:
    """Fields of messages are named by their whole path."""
    with pytest.raises(RequestError) as refused:
        read(body, CHAT)
    assert refused.value.message == message


def test_null_leaves_a_field_unset() -> None:
    """Null is no mistake anywhere, and a message may be null."""
    body = b'{"model":null,"messages":[null],"options":null,"think":null,"keep_alive":null}'
    assert read(body, CHAT) == {
        "model": None, "messages": [{}], "options": None, "think": None, "keep_alive": None,
    }  # fmt: skip
    assert read(b"null", CHAT) == {}


def test_keys_match_in_any_case_and_the_last_counts() -> None:
    """Unknown keys are dropped; of keys that differ in case only the last counts."""
    assert read(b'{"Model":"a","x":1,"model":"b"} rest', PULL) == {"model": "b"}


def test_lone_surrogates_are_replaced() -> None:
    """Half a character pair becomes the replacement character."""
    assert read(b'{"model":"a\\ud800"}', PULL) == {"model": "a\ufffd"}


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    """As Go does, a byte that is no text becomes the replacement character."""
    assert read(b'{"model":"a\xff"}', PULL) == {"model": "a\ufffd"}


def test_maps_name_their_field() -> None:
    """A value of a map that does not fit is told by the field of the map."""
    with pytest.raises(RequestError, match=r"CreateRequest.files of type string"):
        read(b'{"files":{"a.gguf":5}}', CREATE)
