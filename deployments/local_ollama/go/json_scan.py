"""What Go's JSON scanner says of a text it cannot read."""

from typing import Literal, NoReturn

DEEPEST = 10_000
_SPACE = b" \t\r\n"
_DIGITS = b"0123456789"
_HEX = b"0123456789abcdefABCDEF"
_LITERALS = {b"t"[0]: "true", b"f"[0]: "false", b"n"[0]: "null"}
_ENDS = {b"}"[0]: b"{", b"]"[0]: b"["}
_Wanted = Literal["value", "value or end", "key", "key or end", "more"]


class JsonSyntaxError(ValueError):
    """A text that is no JSON; the message is Go's."""


def complaint(body: bytes) -> str | None:
    """Go's message for the first value in `body`, or None where that value is sound.

    Only the first value counts: what follows it is never looked at.
    """
    try:
        _Scanner(body).value()
    except JsonSyntaxError as found:
        return str(found)
    return None


def quoted(byte: int) -> str:
    """A byte as Go's error messages show it."""
    named = {"'": "'\\''", '"': "'\"'", "\n": "'\\n'", "\r": "'\\r'", "\t": "'\\t'", "\\": "'\\\\'"}
    char = chr(byte)
    if char in named:
        return named[char]
    escapes = {7: "\\a", 8: "\\b", 11: "\\v", 12: "\\f"}
    if byte in escapes:
        return f"'{escapes[byte]}'"
    if char.isprintable() and byte != 0xA0:  # noqa: PLR2004 - the no-break space is not printable in Go
        return f"'{char}'"
    return f"'\\x{byte:02x}'" if byte < 0x80 else f"'\\u{byte:04x}'"  # noqa: PLR2004 - end of ASCII


class _Scanner:
    """One pass over the bytes, without recursion: a body may nest as deep as it likes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0
        self._open: list[int] = []

    def value(self) -> None:
        """Read one value to its end. Raises JsonSyntaxError."""
        wanted: _Wanted = "value"
        while self._open or wanted != "more":
            match wanted:
                case "value" | "value or end":
                    wanted = self._begin_value(may_close=wanted == "value or end")
                case "key" | "key or end":
                    wanted = self._key(may_close=wanted == "key or end")
                case "more":
                    wanted = self._after_value()

    def _begin_value(self, *, may_close: bool) -> _Wanted:
        """Read up to the end of a scalar, or into an object or array."""
        char = self._next()
        if char == b"{"[0] or char == b"["[0]:
            self._enter(char)
            return "key or end" if char == b"{"[0] else "value or end"
        if may_close and char == b"]"[0]:
            self._open.pop()
        elif char == b'"'[0]:
            self._string()
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        elif char == b"-"[0] or char in _DIGITS:
            self._number(char)
        else:
            self._wrong(char, "looking for beginning of value")
        return "more"

    def _after_value(self) -> _Wanted:
        """What comes after a value inside an object or array."""
        inside, char = self._open[-1], self._next()
        in_object = inside == b"{"[0]
        if char == b","[0]:
            return "key" if in_object else "value"
        if _ENDS.get(char, b"")[:1] != bytes([inside]):
            place = "after object key:value pair" if in_object else "after array element"
            self._wrong(char, place)
        self._open.pop()
        return "more"

    def _key(self, *, may_close: bool) -> _Wanted:
        char = self._next()
        if may_close and char == b"}"[0]:
            self._open.pop()
            return "more"
        if char != b'"'[0]:
            self._wrong(char, "looking for beginning of object key string")
        self._string()
        colon = self._next()
        if colon != b":"[0]:
            self._wrong(colon, "after object key")
        return "value"

    def _enter(self, char: int) -> None:
        self._open.append(char)
        if len(self._open) > DEEPEST:
            raise JsonSyntaxError("exceeded max depth")

    def _string(self) -> None:
        while True:
            char = self._take()
            if char == b'"'[0]:
                return
            if char == b"\\"[0]:
                self._escape()
            elif char < b" "[0]:
                self._wrong(char, "in string literal")

    def _escape(self) -> None:
        char = self._take()
        if char == b"u"[0]:
            for _ in range(4):
                digit = self._take()
                if digit not in _HEX:
                    self._wrong(digit, "in \\u hexadecimal character escape")
        elif char not in b'bfnrt\\/"':
            self._wrong(char, "in string escape code")

    def _literal(self, word: str) -> None:
        for wanted in word[1:]:
            char = self._take()
            if char != ord(wanted):
                self._wrong(char, f"in literal {word} (expecting '{wanted}')")

    def _number(self, char: int) -> None:
        if char == b"-"[0]:
            char = self._take()
            if char not in _DIGITS:
                self._wrong(char, "in numeric literal")
        if char != b"0"[0]:
            self._digits()
        if self._peek_is(b"."):
            self._at += 1
            self._one_digit("after decimal point in numeric literal")
        if self._peek_is(b"e") or self._peek_is(b"E"):
            self._at += 1
            if self._peek_is(b"+") or self._peek_is(b"-"):
                self._at += 1
            self._one_digit("in exponent of numeric literal")

    def _one_digit(self, place: str) -> None:
        char = self._take()
        if char not in _DIGITS:
            self._wrong(char, place)
        self._digits()

    def _digits(self) -> None:
        while self._at < len(self._body) and self._body[self._at] in _DIGITS:
            self._at += 1

    def _peek_is(self, char: bytes) -> bool:
        return self._body[self._at : self._at + 1] == char

    def _next(self) -> int:
        """The next byte that is no space."""
        while True:
            char = self._take()
            if char not in _SPACE:
                return char

    def _take(self) -> int:
        if self._at >= len(self._body):
            raise JsonSyntaxError("unexpected EOF")
        self._at += 1
        return self._body[self._at - 1]

    def _wrong(self, char: int, place: str) -> NoReturn:
        raise JsonSyntaxError(f"invalid character {quoted(char)} {place}")
