"""A model is made from a file, shown, copied and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.contract.compare import Comparer
from tests.contract.target import (
    KNOWN,
    Target,
    eventually,
    fail_for,
    lines_of,
    object_of,
    require,
)
from tests.contract.tiny_gguf import JINJA, digest_of, tiny_gguf
from tests.contract.wire import ask

NAME, COPY, PLAIN = "contract-tiny", "contract-tiny-copy", "contract-tiny-plain"
# A tensor of an unusual shape, so that no server has this file by chance.
FILE = tiny_gguf(chat_template=JINJA, tokens=5)
DIGEST = digest_of(FILE)
TEMPLATE = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }} {{ end }}"
MODEL_INFO = {
    "general.architecture": "llama",
    "general.file_type": 0,
    "general.parameter_count": 192,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.block_count": 1,
    "llama.context_length": 8192,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.merges": None,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.token_type": None,
    "tokenizer.ggml.tokens": None,
}


@pytest.fixture
def clean(target: Target) -> Iterator[None]:
    """No model of ours, before and after."""
    delete_all(target)
    yield
    delete_all(target)


def delete_all(target: Target) -> None:
    """Delete what an earlier test has made."""
    for name in (NAME, COPY, PLAIN):
        target.ask("DELETE", "/api/delete", {"model": name})


def is_gone(target: Target, name: str) -> bool:
    """Whether a model is no longer in the list."""
    return target.entry("/api/tags", name) is None


def upload(target: Target) -> None:
    """Post the file as a blob."""
    status = ask(target.url, "POST", f"/api/blobs/{DIGEST}", FILE).status
    require(
        "status of a posted blob",
        "201, or 200 where it is known",
        status,
        holds=status in (200, 201),
    )


@pytest.mark.usefixtures("clean")
def test_a_blob_is_new_once(target: Target) -> None:
    """A posted blob is there; posted again, it is known."""
    upload(target)
    path = f"/api/blobs/{DIGEST}"
    require("HEAD of a blob", 200, target.ask("HEAD", path).status)
    require("status of a blob that is known", 200, ask(target.url, "POST", path, FILE).status)


@pytest.mark.usefixtures("clean")
def test_create_tells_its_steps(target: Target) -> None:
    """A model is made step by step, the last of which is success; or at once."""
    upload(target)
    request = {"model": NAME, "files": {"tiny.gguf": DIGEST}}
    lines = lines_of(target.ask("POST", "/api/create", request))
    steps = ["parsing GGUF", "verifying conversion", f"using existing layer {DIGEST}"]
    steps += ["writing manifest", "success"]
    require("the last step", {"status": "success"}, lines[-1])
    if target.version[:2] == KNOWN:
        require("the steps", len(steps), lines, holds=len(lines) == len(steps))
        for number, (step, line) in enumerate(zip(steps, lines, strict=True), 1):
            fail_for(Comparer().value(f"step {number}", {"status": step}, line))
    with_template = {**request, "model": PLAIN, "template": TEMPLATE, "stream": False}
    at_once = object_of(
        target.ask("POST", "/api/create", with_template), content_type="application/json"
    )
    require("created at once", {"status": "success"}, at_once)
    shown = object_of(target.ask("POST", "/api/show", {"model": PLAIN}))
    require("show.template", TEMPLATE, shown["template"])


@pytest.mark.usefixtures("clean")
def test_a_model_is_listed_shown_copied_and_deleted(target: Target) -> None:
    """The made model shows what its file holds; its copy is the same; deleted, it is gone."""
    upload(target)
    parameters = {"num_ctx": 2048, "temperature": 0, "stop": ["X"]}
    request = {"model": NAME, "files": {"tiny.gguf": DIGEST}, "stream": False}
    target.ask("POST", "/api/create", {**request, "system": "Be short.", "parameters": parameters})
    shown = object_of(target.ask("POST", "/api/show", {"model": NAME}))
    require("show.system", "Be short.", shown.get("system"))
    require("show.template", JINJA, shown.get("template"))
    lines = sorted(" ".join(line.split()) for line in str(shown.get("parameters")).splitlines())
    require("show.parameters", ["num_ctx 2048", 'stop "X"', "temperature 0"], lines)
    fail_for(target.comparer().value("show.model_info", MODEL_INFO, shown["model_info"]))
    require(
        "copy", 200, target.ask("POST", "/api/copy", {"source": NAME, "destination": COPY}).status
    )
    entry = target.entry("/api/tags", NAME) or {}
    require("family", "llama", entry.get("details", {}).get("family"))
    require("parameter_size", "192", entry.get("details", {}).get("parameter_size"))
    copied = target.entry("/api/tags", COPY) or {}
    require("digest of the copy", entry.get("digest"), copied.get("digest"))
    for name in (NAME, COPY):
        require("delete", 200, target.ask("DELETE", "/api/delete", {"model": name}).status)
        eventually("a deleted model leaves the list", partial(is_gone, target, name))
    object_of(target.ask("POST", "/api/show", {"model": NAME}), status=404)
