import contextlib
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local_ollama.go.text import number, number32, parse_duration, quote


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"), (2048.0, "2048"), (0.0, "0"), (1e20, "100000000000000000000"),
        (1e21, "1e+21"), (1e-6, "0.000001"), (1e-7, "1e-7"), (-1.25e-10, "-1.25e-10"),
    ],
)  # fmt: skip
def test_numbers_are_gos(value: float, shown: str) -> None:
    """Whole numbers have no point; very large and very small ones an exponent."""
    assert number(value) == shown


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_short_numbers_keep_their_value(value: float) -> None:
    """A number of 32 bits is shown with no more digits than it takes to read it back."""
    assert struct.pack("f", float(number32(value))) == struct.pack("f", value)


def test_short_number_has_no_noise() -> None:
    """What was 0.00001 in 32 bits is shown so, not with the digits of 64."""
    assert number32(struct.unpack("f", struct.pack("f", 1e-5))[0]) == "0.00001"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", '"a"'),
        ('"\n\\', '"\\"\\n\\\\"'),
        ("\x01\x7f", '"\\x01\\x7f"'),
        ("é\u200b", '"é\\u200b"'),
    ],
)
def test_quotes_are_gos(text: str, shown: str) -> None:
    """What cannot be printed is escaped, letters of any script are not."""
    assert quote(text) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc", 'time: invalid duration "abc"'),
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("é", 'time: invalid duration "\\xc3\\xa9"'),
        ("9" * 30 + "h", f'time: invalid duration "{"9" * 30}h"'),
    ],
)
def test_wrong_durations_are_named_as_go_names_them(text: str, message: str) -> None:
    """A duration that cannot be read is refused in the words of Go's time package."""
    with pytest.raises(ValueError, match="time: ") as wrong:
        parse_duration(text)
    assert str(wrong.value) == message


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_plain_error(text: str) -> None:
    """No text brings the reader of durations down."""
    with contextlib.suppress(ValueError):
        assert math.isfinite(parse_duration(text))
