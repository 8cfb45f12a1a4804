"""GGUF files of small llamas with random weights, which llama.cpp runs: gibberish, but real."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

SEPARATOR = "<sep>"
_SPECIAL = ("<s>", "</s>", SEPARATOR)
_MERGES = ("t h", "th e", "Ġ the", "i n", "e r", "a n", "Ã ©")
_CONTEXT = 8192
_HEADS = 4


def write_tiny_llama(
    path: Path, *, width: int = 32, layers: int = 1, seed: int = 0, ends: bool = True
) -> Path:
    """Write a llama of byte-level tokens; unless it `ends`, it says everything but its last word.

    Its answers are letters in a random but fixed order: weights are drawn from `seed`.
    """
    tokens = _tokens()
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, tokens)
    draw = np.random.default_rng(seed)

    def add(name: str, *shape: int, scale: float) -> None:
        drawn = draw.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(f"{name}.weight", drawn * np.float32(scale))

    add("token_embd", len(tokens), width, scale=1.0)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    output = draw.standard_normal((len(tokens), width), dtype=np.float32)
    if not ends:
        output[tokens.index("</s>")] = 0.0
    writer.add_tensor("output.weight", output)
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, dtype=np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}", width, width, scale=width**-0.5)
        for part in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{part}", 2 * width, width, scale=width**-0.5)
        add(f"blk.{layer}.ffn_down", width, 2 * width, scale=width**-0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokens() -> list[str]:
    merged = [merge.replace(" ", "") for merge in _MERGES]
    return [*_SPECIAL, *_byte_letters(), *merged]


def _add_tokenizer(writer: Any, tokens: list[str]) -> None:
    kinds = [gguf.TokenType.CONTROL] * len(_SPECIAL)
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(_SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(_MERGES))
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("</s>"))
    writer.add_add_bos_token(value=True)


def _byte_letters() -> list[str]:
    """A visible letter for every byte, as GPT-2's tokenizer has them."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    shifted = {byte: chr(0x100 + at) for at, byte in enumerate(hidden)}
    return [shifted.get(byte, chr(byte)) for byte in range(256)]
