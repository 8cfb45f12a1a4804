"""Reads the head of a GGUF file: its metadata and its list of tensors, never the weights.

The file comes from a client, so every count and length is checked against what the file can hold
before anything is read, and whatever is wrong with it is a GgufError.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

LONGEST_TEXT = 16 << 20
MOST_ENTRIES = 65_536
MOST_ELEMENTS = 16 << 20
MOST_DIMENSIONS = 8
DEEPEST_ARRAY = 4
_NUMBERS = {
    0: ("B", 1), 1: ("b", 1), 2: ("H", 2), 3: ("h", 2), 4: ("I", 4), 5: ("i", 4), 6: ("f", 4),
    10: ("Q", 8), 11: ("q", 8), 12: ("d", 8),
}  # fmt: skip
_FLOAT32, _BOOL, _TEXT, _ARRAY = 6, 7, 8, 9
_TENSOR_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1",
    10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
_SPECIAL = ("bos", "eos")


class GgufError(ValueError):
    """A file that is no GGUF file this reader can follow."""


class Float32(float):
    """A number that the file holds in 32 bits, so that it is shown with no more digits."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the tensor list."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself. Arrays are left out of `metadata`: their value is None."""

    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    special_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The family of the model."""
        return str(self.metadata.get("general.architecture") or "unknown")

    @property
    def parameters(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def quantization(self) -> str:
        """The kind of the weights."""
        kind = self.metadata.get("general.file_type")
        return _FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "unknown"

    def whole(self, name: str, otherwise: int = 0) -> int:
        """A whole number of the architecture, such as `context_length`."""
        value = self.metadata.get(f"{self.architecture}.{name}")
        return value if isinstance(value, int) and 0 <= value < 1 << 31 else otherwise

    def text(self, name: str) -> str | None:
        """A text under its full name."""
        value = self.metadata.get(name)
        return value if isinstance(value, str) else None


def read_header(path: Path) -> Header:
    """The head of the file. Raises GgufError, with the reason, for anything else than a GGUF."""
    with path.open("rb") as file:
        return _Reader(file, path.stat().st_size).header()


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._arrays: dict[str, tuple[int, int]] = {}
        self._depth = 0

    def header(self) -> Header:
        if self._bytes(4) != b"GGUF":
            raise GgufError("invalid file magic")
        version = self._number("I", 4)
        if version not in (2, 3):
            raise GgufError(f"unsupported GGUF version {version}")
        tensors, entries = self._count(MOST_ENTRIES), self._count(MOST_ENTRIES)
        metadata = dict(self._entry() for _ in range(entries))
        listed = tuple(self._tensor() for _ in range(tensors))
        return Header(metadata, listed, self._special_tokens(metadata))

    def _entry(self) -> tuple[str, Any]:
        name, kind = self._text(), self._number("I", 4)
        if kind == _ARRAY:
            self._skip_array(name)
            return name, None
        return name, self._value(kind)

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _BOOL:
            return self._bytes(1) != b"\0"
        if kind not in _NUMBERS:
            raise GgufError(f"invalid type: {kind}")
        value = self._number(*_NUMBERS[kind])
        return Float32(value) if kind == _FLOAT32 else value

    def _skip_array(self, name: str = "") -> None:
        kind, length = self._number("I", 4), self._count(MOST_ELEMENTS)
        if name and kind == _TEXT:
            self._arrays[name] = (self._file.tell(), length)
        if kind == _TEXT:
            for _ in range(length):
                self._skip(self._count(LONGEST_TEXT))
        elif kind == _ARRAY:
            self._depth += 1
            if self._depth > DEEPEST_ARRAY:
                raise GgufError("arrays nest too deep")
            for _ in range(length):
                self._skip_array()
            self._depth -= 1
        elif kind == _BOOL:
            self._skip(length)
        elif kind in _NUMBERS:
            self._skip(length * _NUMBERS[kind][1])
        else:
            raise GgufError(f"invalid array type: {kind}")

    def _tensor(self) -> Tensor:
        name, dimensions = self._text(), self._number("I", 4)
        if dimensions > MOST_DIMENSIONS:
            raise GgufError(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number("Q", 8) for _ in range(dimensions))
        kind, _offset = self._number("I", 4), self._number("Q", 8)
        return Tensor(name, _TENSOR_TYPES.get(kind, f"unknown type {kind}"), shape)

    def _special_tokens(self, metadata: dict[str, Any]) -> dict[str, str]:
        """The texts of the first and last token, which chat templates may ask for."""
        start, length = self._arrays.get("tokenizer.ggml.tokens", (0, 0))
        ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in _SPECIAL}
        wanted = {at: name for name, at in ids.items() if isinstance(at, int) and at < length}
        found: dict[str, str] = {}
        if wanted:
            self._file.seek(start)
            for at in range(max(wanted) + 1):
                text = self._text()
                found.update({name: text for name, which in ids.items() if which == at})
        return found

    def _text(self) -> str:
        return self._bytes(self._count(LONGEST_TEXT)).decode(errors="replace")

    def _count(self, most: int) -> int:
        """A count or length of 64 bits that the rest of the file can hold."""
        count: int = self._number("Q", 8)
        if count > most or count > self._size - self._file.tell():
            raise GgufError(f"the file is cut off or damaged: a length of {count} cannot be")
        return count

    def _number(self, form: str, size: int) -> Any:
        return struct.unpack("<" + form, self._bytes(size))[0]

    def _skip(self, size: int) -> None:
        if size > self._size - self._file.tell():
            raise GgufError("unexpected EOF")
        self._file.seek(size, 1)

    def _bytes(self, size: int) -> bytes:
        found = self._file.read(size)
        if len(found) < size:
            raise GgufError("unexpected EOF")
        return found
