"""Text as Go writes it: quoted strings, numbers and durations."""

import re
import struct
from decimal import Decimal

_SHORT = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
    "\\": "\\\\", '"': '\\"',
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6,
    "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
LONGEST_NS = 2**63 - 1
_LAST_ASCII, _LAST_BYTE, _LAST_SHORT = 0x7F, 0xFF, 0xFFFF
_PLAIN_EXPONENT = range(-6, 21)


def quote(text: str) -> str:
    """Go's `%q`: the text in double quotes, what cannot be printed escaped."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < ord(" ") or code == _LAST_ASCII:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _LAST_SHORT else f"\\U{code:08x}"


def number(value: float) -> str:
    """A number as Go's JSON encoder writes a float64: whole numbers without a point."""
    return _shortest(repr(float(value)), value)


def number32(value: float) -> str:
    """A number as Go's JSON encoder writes a float32."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == value:
            break
    return _shortest(text, value)


def _shortest(text: str, value: float) -> str:
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    exponent = Decimal(text).adjusted()
    if exponent in _PLAIN_EXPONENT:
        plain = f"{Decimal(text):f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    mantissa = f"{Decimal(text).scaleb(-exponent).normalize():f}"
    sign = "-" if exponent < 0 else "+"
    return f"{mantissa}e{sign}{abs(exponent)}"


def parse_duration(text: str) -> float:
    """Seconds in a Go duration such as `1h30m` or `250ms`. Raises ValueError in Go's words."""
    invalid = ValueError(f"time: invalid duration {_duration_quoted(text)}")
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    if not rest:
        raise invalid
    total = Decimal(0)
    while rest:
        amount = _NUMBER.match(rest)
        if amount is None or rest[0] in "+-" or not amount[0].isascii():
            raise invalid
        rest = rest[amount.end() :]
        end = next(
            (at for at, char in enumerate(rest) if char == "." or char in "0123456789"), None
        )
        unit, rest = (rest, "") if end is None else (rest[:end], rest[end:])
        if not unit:
            raise ValueError(f"time: missing unit in duration {_duration_quoted(text)}")
        if unit not in _NANOSECONDS:
            shown = _duration_quoted(unit)
            raise ValueError(f"time: unknown unit {shown} in duration {_duration_quoted(text)}")
        total += Decimal(amount[0]) * _NANOSECONDS[unit]
        if total > LONGEST_NS:
            raise invalid
    return sign * float(total / 10**9)


def _duration_quoted(text: str) -> str:
    """Quoted as Go's `time` package does it: whatever is not plain ASCII byte by byte."""
    shown = []
    for char in text:
        if char in '"\\':
            shown.append("\\" + char)
        elif ord(char) > _LAST_ASCII or char < " ":
            shown += [f"\\x{byte:02x}" for byte in char.encode(errors="replace")]
        else:
            shown.append(char)
    return '"' + "".join(shown) + '"'
