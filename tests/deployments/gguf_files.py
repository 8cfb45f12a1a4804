"""Small GGUF files, made by hand."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

NATIVE = "{% for m in messages %}<|{{m.role}}|>{{m.content}}{% endfor %}"


def text(value: str) -> bytes:
    """A text with its length in front."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(name: str, value: Any) -> bytes:
    """One key with its value."""
    if isinstance(value, bool):
        return text(name) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(name) + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return text(name) + struct.pack("<If", 6, value)
    if isinstance(value, list):
        return text(name) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(name) + struct.pack("<I", 8) + text(value)


def tensor(name: str, shape: Sequence[int]) -> bytes:
    """One entry of the tensor list: numbers of 32 bits."""
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", 0, 0)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.file_type": 0,
    "general.name": "tiny",
    "llama.context_length": 8192,
    "llama.embedding_length": 32,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}
TENSORS = {"token_embd.weight": (32, 4), "output_norm.weight": (32,)}


def gguf(
    chat_template: str | None = None,
    metadata: Mapping[str, Any] = METADATA,
    tensors: Mapping[str, Sequence[int]] = TENSORS,
) -> bytes:
    """A whole file, without weights."""
    entries = dict(metadata)
    if chat_template is not None:
        entries["tokenizer.chat_template"] = chat_template
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    body = b"".join(entry(name, value) for name, value in entries.items())
    return head + body + b"".join(tensor(name, shape) for name, shape in tensors.items())
