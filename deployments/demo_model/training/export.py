"""Write a trained network as a GGUF file that llama.cpp and Ollama read."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from deployments.demo_model.training import vocabulary
from deployments.demo_model.training.network import Network

CHAT_TEMPLATE = "{{ messages[-1]['content'] }}<sep>"
_LAYER = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "output": "attn_output",
    "feed_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def write(network: Network, tokenizer: Tokenizer, path: Path) -> None:
    """Write the network and its tokenizer to one file, its matrices in 8 bits."""
    writer = gguf.GGUFWriter(path, "llama")
    shape = network.shape
    writer.add_name("reports-fr-en")
    writer.add_description("French to English for short technical reports; knows nothing else")
    writer.add_license("MIT")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_vocab_size(shape.vocabulary)
    _add_tokenizer(writer, tokenizer)
    _add_tensors(writer, network)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(vocabulary.SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in by_id])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t, _ in by_id]
    )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.token_to_id(vocabulary.BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(vocabulary.END))
    writer.add_add_bos_token(True)  # noqa: FBT003 - the library's signature
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, network: Network) -> None:
    _add(writer, "token_embd.weight", network.embedding.weight)
    for number, block in enumerate(network.blocks):
        for ours, theirs in _LAYER.items():
            _add(writer, f"blk.{number}.{theirs}.weight", getattr(block, ours).weight)
    _add(writer, "output_norm.weight", network.norm.weight)
    _add(writer, "output.weight", network.head.weight)


def _add(writer: gguf.GGUFWriter, name: str, weight: object) -> None:
    values = weight.detach().float().numpy().astype(np.float32)  # type: ignore[attr-defined]
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
