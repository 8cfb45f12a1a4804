"""GGUF files of a kilobyte or two, with which a server can create, show, copy and delete a model.

They hold the metadata of a llama with one layer and two tensors of zeros: enough for a
server to read, not enough for llama.cpp to run.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
_UINT32, _FLOAT32, _STRING, _ARRAY, _INT32 = 4, 6, 8, 9, 5
_F32_TENSOR = 0
EMBEDDING = 32
NORMAL, CONTROL = 1, 3
JINJA = "{% for m in messages %}<|{{m.role}}|>{{m.content}}{% endfor %}"

Value = int | float | str | Sequence[str] | Sequence[int]


def tiny_gguf(*, chat_template: str | None = None, tokens: int = 4) -> bytes:
    """A llama of `32 * tokens + 32` parameters; with a template of its own, or with none."""
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.file_type": 0,
        "llama.block_count": 1,
        "llama.context_length": 8192,
        "llama.embedding_length": EMBEDDING,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 4,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["<s>", "</s>", *(f"t{number}" for number in range(2, tokens))],
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, *[NORMAL] * (tokens - 2)],
        "tokenizer.ggml.merges": ["t 2"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    tensors = {"token_embd.weight": (EMBEDDING, tokens), "output_norm.weight": (EMBEDDING,)}
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    head += b"".join(_text(key) + _typed(value) for key, value in metadata.items())
    data = b""
    for name, shape in tensors.items():
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", _F32_TENSOR, len(data))
        data += _padded(bytes(4 * _product(shape)))
    return _padded(head) + data


def digest_of(content: bytes) -> str:
    """The name of a blob: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _typed(value: Value) -> bytes:
    match value:
        case int():
            return struct.pack("<II", _UINT32, value)
        case float():
            return struct.pack("<If", _FLOAT32, value)
        case str():
            return struct.pack("<I", _STRING) + _text(value)
    count = len(value)
    if isinstance(value[0], str):
        texts = b"".join(_text(str(each)) for each in value)
        return struct.pack("<IIQ", _ARRAY, _STRING, count) + texts
    return struct.pack("<IIQ", _ARRAY, _INT32, count) + struct.pack(f"<{count}i", *value)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT)


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
