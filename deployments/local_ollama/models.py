"""The models a server has: what is known of each, and the store they are kept in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the server's model store.

    `blob` is the `sha256:...` of the weights and the scheduler's key: two names on one blob share a
    loaded model. `path` is the GGUF file, or None for a model that only the timing engine has.
    `template` is the Go template of the Modelfile; where it is None, `chat_template`, the GGUF's
    own (Jinja), renders a chat, with the texts of the `special_tokens` bos and eos. `size` is in
    bytes, `digest` the hex sha256 of the manifest.
    """

    name: str
    digest: str
    size: int
    blob: str
    path: Path | None
    family: str = "llama"
    format: str = "gguf"
    parameter_size: str = ""
    quantization_level: str = "unknown"
    trained_context: int = 4096
    embedding_length: int = 0
    model_info: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[Mapping[str, Any], ...] = ()
    template: str | None = None
    chat_template: str | None = None
    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    license: str = ""
    modified_ns: int = 0
    special_tokens: Mapping[str, str] = field(default_factory=dict)
