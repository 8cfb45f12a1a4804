from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import SourceError
from tasks.core.ingest.encoding import (
    detect_encoding,
    encoding_note,
    is_whole,
    opened_text,
    printable,
)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"abc", "utf-8"),
        ("été".encode(), "utf-8"),
        ("été".encode("utf-8-sig"), "utf-8-sig"),
        (codecs.BOM_UTF16_LE + "é".encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF32_LE + "é".encode("utf-32-le"), "utf-32-le"),
        (codecs.BOM_UTF32_BE + "é".encode("utf-32-be"), "utf-32-be"),
        ("l’été".encode("cp1252"), "cp1252"),
        (b"\xe9\x81", "latin-1"),
        ("é".encode()[:1], "cp1252"),
    ],
)
def test_detection(tmp_path: Path, data: bytes, encoding: str) -> None:
    """A mark decides, else strict UTF-8, Windows-1252 and Latin-1 in this order."""
    path = tmp_path / "a"
    path.write_bytes(data)
    assert detect_encoding(path) == encoding


def test_the_whole_file_decides(tmp_path: Path) -> None:
    """A single byte at the end of a large file decides as one at its start would."""
    path = tmp_path / "a"
    path.write_bytes(b"a" * (1 << 20) + "é".encode() * 10 + b"\xe9")
    assert detect_encoding(path) == "cp1252"
    path.write_bytes(b"a" * ((1 << 20) - 1) + "é".encode())
    assert detect_encoding(path) == "utf-8"


def test_utf16_without_a_mark_is_refused(tmp_path: Path) -> None:
    """A file full of NUL bytes is refused instead of being read as nonsense."""
    path = tmp_path / "a.csv"
    path.write_bytes("id,text\n".encode("utf-16-le"))
    with pytest.raises(SourceError, match=r"a\.csv.*UTF-16"):
        detect_encoding(path)


def test_two_encodings_in_one_file_are_told(tmp_path: Path) -> None:
    """UTF-8 letters in a file that is not all UTF-8 are told; clean files are not."""
    path = tmp_path / "a"
    path.write_bytes("été ".encode() + "été".encode("cp1252"))
    note = encoding_note(path, "cp1252")
    assert note is not None
    assert "2 letters" in note
    path.write_bytes("l’été à Noël".encode("cp1252"))
    assert encoding_note(path, "cp1252") is None


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE])
@given(data=st.binary(max_size=40))
def test_no_byte_is_lost(
    tmp_path_factory: pytest.TempPathFactory, mark: bytes, data: bytes
) -> None:
    """Whatever follows a mark can be read, and what is no text can be told and shown."""
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(mark + data)
    with opened_text(path, detect_encoding(path)) as file:
        text = file.read()
    assert is_whole(printable(text))
    assert is_whole(text) == (printable(text) == text)


def test_bytes_are_shown() -> None:
    r"""Undecoded bytes are shown as \xNN, other lone surrogates as \uNNNN."""
    assert printable("a\udcff\udc00b\ud800") == "a\\xff\\x00b\\ud800"


def test_missing_file(tmp_path: Path) -> None:
    """A file that cannot be opened is named with the reason."""
    with pytest.raises(SourceError, match="nope: cannot be read: No such file"):
        detect_encoding(tmp_path / "nope")
