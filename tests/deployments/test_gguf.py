import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local_ollama.gguf import GgufError, Header, Tensor, read_header
from tests.deployments.gguf_files import METADATA, NATIVE, entry, gguf, text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "model.gguf"


def header(place: Path, body: bytes) -> Header:
    """The head of a file with this content."""
    place.write_bytes(body)
    return read_header(place)


def test_a_head_is_read_whole(place: Path) -> None:
    """Family, sizes, kind, chat template, tensors and the texts of bos and eos come out."""
    found = header(place, gguf(NATIVE))
    assert (found.architecture, found.quantization, found.parameters) == ("llama", "F32", 160)
    assert (found.whole("context_length"), found.whole("embedding_length")) == (8192, 32)
    assert found.text("tokenizer.chat_template") == NATIVE
    assert found.tensors == (
        Tensor("token_embd.weight", "F32", (32, 4)),
        Tensor("output_norm.weight", "F32", (32,)),
    )
    assert found.special_tokens == {"bos": "<s>", "eos": "</s>"}
    assert found.metadata["tokenizer.ggml.tokens"] is None


def test_a_head_without_anything_is_sound(place: Path) -> None:
    """A file that says nothing of itself has defaults."""
    found = header(place, gguf(metadata={}, tensors={}))
    assert (found.architecture, found.parameters, found.quantization) == ("unknown", 0, "unknown")
    assert found.whole("context_length", 7) == 7


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "unexpected EOF"),
        (b"NOPE" + bytes(40), "invalid file magic"),
        (b"GGUF" + struct.pack("<I", 99), "unsupported GGUF version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "a length of 4611686018427387904 cannot be"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**40), "cannot be"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77),
         "invalid type: 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 4)
         + b"1234", "unexpected EOF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k")
         + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 6, "nest too deep"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text("t") + struct.pack("<I", 99) + bytes(8),
         "99 dimensions"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_with_the_reason(place: Path, body: bytes, words: str) -> None:
    """Counts that the file cannot hold are never believed."""
    with pytest.raises(GgufError, match=words):
        header(place, body)


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 10_000), change=st.binary(min_size=1, max_size=12), cut=st.booleans())
def test_no_damage_is_more_than_an_error(
    place: Path,
    at: int,
    change: bytes,
    cut: bool,  # noqa: FBT001 - hypothesis names it
) -> None:
    """A file with any bytes changed is read or refused, never worse."""
    body = gguf(NATIVE, {**METADATA, "flag": True, "half": 0.5})
    at %= len(body)
    damaged = body[:at] + change + (b"" if cut else body[at + len(change) :])
    with contextlib.suppress(GgufError):
        header(place, damaged)


def test_entries_of_every_small_type_are_read(place: Path) -> None:
    """Texts, whole numbers, fractions and truth values keep their value."""
    given_ = {"t": "é", "n": 7, "f": 0.5, "b": True}
    assert header(place, gguf(metadata=given_)).metadata == given_
    assert len(entry("t", "é")) == 8 + 1 + 4 + 8 + 2
