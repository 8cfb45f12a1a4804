r"""Bytes of a text file to text, without losing one.

The encoding is decided over the whole file: a byte order mark, else strict UTF-8,
else Windows-1252, else Latin-1. Bytes that do not decode although a mark promised
they would become lone surrogates, which no real text contains; the rows that hold
them are set aside, and `printable` shows them as \xNN.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import SourceError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The codecs that read past the mark, which "utf-16-le" and the like would keep as text.
_CODECS = {name: name.rsplit("-", 1)[0] for _, name in _MARKS if name != "utf-8-sig"}
_NOT_CP1252 = b"\x81\x8d\x8f\x90\x9d"
_BLOCK_BYTES = 1 << 20
# Western text in UTF-16 has one NUL in two bytes, any other text has none.
_MOST_NULS = 0.2
# é, à, ’ and the like in UTF-8, which as Windows-1252 would read Ã© and â€™.
_UTF8_LETTER = re.compile(rb"\xc3[\x80-\xbf]|\xe2\x80[\x90-\xbf]")

_FIRST_BYTE = 0xDC00
_LAST_BYTE = 0xDCFF
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEEP_BYTES = "report-translation-keep-bytes"


def detect_encoding(path: Path) -> str:
    """The encoding of a whole text file.

    One of utf-8, utf-8-sig, utf-16-le, utf-16-be, utf-32-le, utf-32-be, cp1252 and
    latin-1. Raises `SourceError` when the file cannot be read, and when it is full of
    NUL bytes, as UTF-16 without a mark is: read as anything else it would be nonsense.
    """
    with reporting_source(path), path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
        for mark, name in _MARKS:
            if block.startswith(mark):
                return name
        if block.count(0) > len(block) * _MOST_NULS:
            raise SourceError(
                f"{path}: is full of NUL bytes, as UTF-16 without a byte order mark is; save it "
                "as UTF-8"
            )
        decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        is_cp1252 = True
        while True:
            if decoder is not None:
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError:
                    decoder = None
            is_cp1252 = is_cp1252 and len(block.translate(None, _NOT_CP1252)) == len(block)
            if not block:
                break
            block = file.read(_BLOCK_BYTES)
    if decoder is not None:
        return "utf-8"
    return "cp1252" if is_cp1252 else "latin-1"


def encoding_note(path: Path, encoding: str | None) -> str | None:
    """What to tell about a file that is not UTF-8 but holds letters as UTF-8 writes them.

    Raises `SourceError` when the file cannot be read.
    """
    if encoding not in ("cp1252", "latin-1"):
        return None
    with reporting_source(path), path.open("rb") as file:
        found = sum(len(_UTF8_LETTER.findall(line)) for line in file)
    if not found:
        return None
    return (
        f"read as {encoding} because it is not all UTF-8, but {found} letters in it look like "
        "UTF-8 ('Ã©' for 'é'): files of two encodings may have been joined"
    )


@contextmanager
def opened_text(path: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    """The file as text with its line ends untouched; every byte is kept.

    Raises `SourceError` when the file cannot be read.
    """
    codec = _CODECS.get(encoding, encoding)
    with (
        reporting_source(path),
        path.open("r", encoding=codec, errors=_KEEP_BYTES, newline="") as file,
    ):
        yield file


@contextmanager
def reporting_source(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a source file into `SourceError`."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read: {error.strerror or error}; mend or leave out this file"
        ) from error


def is_whole(text: str) -> bool:
    """Whether the text can be stored: no byte of it failed to decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""The text with every undecoded byte as \xNN and other lone surrogates as \uNNNN."""
    if is_whole(text):
        return text
    return _SURROGATE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return f"\\x{code - _FIRST_BYTE:02x}"
    return f"\\u{code:04x}"


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    # "surrogateescape" does this too, but refuses the bytes below 0x80 that UTF-16 has.
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(chr(_FIRST_BYTE + byte) for byte in bad), error.end


codecs.register_error(_KEEP_BYTES, _keep_bytes)
