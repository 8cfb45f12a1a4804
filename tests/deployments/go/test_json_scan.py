import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local_ollama.go.json_scan import DEEPEST, complaint


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{bad", "invalid character 'b' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
        (b"nul ", "invalid character ' ' in literal null (expecting 'l')"),
        (b'"a\x01"', "invalid character '\\x01' in string literal"),
        (b'"a\n"', "invalid character '\\n' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        (b"-a", "invalid character 'a' in numeric literal"),
        (b"1.a", "invalid character 'a' after decimal point in numeric literal"),
        (b"1ea", "invalid character 'a' in exponent of numeric literal"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b"'", "invalid character '\\'' looking for beginning of value"),
        (b'{"a":', "unexpected EOF"),
        (b'"\\', "unexpected EOF"),
        (b"[" * (DEEPEST + 1), "exceeded max depth"),
    ],
)
def test_mistakes_are_named_as_go_names_them(body: bytes, message: str) -> None:
    """Each state of Go's scanner has its own words, with the character that did not fit."""
    assert complaint(body) == message


@pytest.mark.parametrize("body", [b"{} trailing", b"[]]", b'"a"b', b" 01", b"true,"])
def test_what_follows_the_first_value_is_not_read(body: bytes) -> None:
    """Only the first value counts."""
    assert complaint(body) is None


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_sound_json_has_no_complaint(value: object) -> None:
    """Whatever Python writes as JSON the scanner takes, unless a number is infinite."""
    text = json.dumps(value)
    if "Infinity" not in text:
        assert complaint(text.encode()) is None


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_get_a_verdict(body: bytes) -> None:
    """The scanner says something of any bytes, and raises nothing."""
    found = complaint(body)
    assert found is None or found.startswith(("invalid character", "unexpected EOF"))
