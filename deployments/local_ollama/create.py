"""Makes models: from an uploaded GGUF file, from another model, or from a Modelfile."""

import asyncio
import dataclasses
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from deployments.local_ollama.blobs import digest_of
from deployments.local_ollama.cards import human_number
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.gguf import GgufError, Header, read_header
from deployments.local_ollama.go.template_lex import TemplateError
from deployments.local_ollama.modelfile import Modelfile, ModelfileError
from deployments.local_ollama.models import Model
from deployments.local_ollama.naming import ModelName
from deployments.local_ollama.prompt import check_template
from deployments.local_ollama.store import ModelStore

REGISTRY_OUT_OF_REACH = "pull model manifest: file does not exist"
_MAGIC = b"GGUF"


@dataclasses.dataclass(frozen=True, slots=True)
class CreateRequest:
    """A checked request to create a model."""

    name: ModelName
    parent: str
    files: Mapping[str, str] | None
    template: str
    system: str
    license: str
    parameters: Mapping[str, Any]


def checked_request(given: dict[str, Any], store: ModelStore) -> CreateRequest:
    """The request in the fields of a body. Raises RequestError."""
    name = ModelName.parse(given.get("model") or given.get("name") or "")
    if name is None:
        raise RequestError(400, "invalid model name")
    files = given.get("files")
    for digest in (files or {}).values():
        store.blobs.path(digest or "")
    return CreateRequest(
        name=name,
        parent=given.get("from") or "",
        files=files,
        template=given.get("template") or "",
        system=given.get("system") or "",
        license=_license(given.get("license")),
        parameters={k: v for k, v in (given.get("parameters") or {}).items() if v is not None},
    )


def _license(given: Any) -> str:
    if isinstance(given, list):
        return "\n".join(each for each in given if isinstance(each, str))
    return given if isinstance(given, str) else ""


async def create(request: CreateRequest, store: ModelStore) -> AsyncIterator[str]:
    """Make and keep the model; yields Ollama's lines of progress but the last.

    Raises RequestError, before the first line where the request cannot be meant, else after it.
    """
    if request.parent:
        base = _parent(request.parent, store)
        if base is None:
            yield "pulling manifest"
            raise RequestError(500, REGISTRY_OUT_OF_REACH)
        base = dataclasses.replace(base, parent=base.name)
    elif request.files is not None:
        path, digest = _weights(request.files, store)
        yield "parsing GGUF"
        base = await asyncio.to_thread(_read_model, path, digest)
        yield "verifying conversion"
    else:
        raise RequestError(400, "neither 'from' or 'files' was specified")
    yield f"using existing layer {base.blob}"
    model, layers = _made(base, request)
    for layer in layers:
        known = layer in store.layers
        store.layers.add(layer)
        yield f"{'using existing' if known else 'creating new'} layer {layer}"
    yield "writing manifest"
    store.put(model)


def _parent(named: str, store: ModelStore) -> Model | None:
    name = ModelName.parse(named)
    if name is None:
        raise RequestError(400, "invalid model name")
    return store.find(name)


def _weights(files: Mapping[str, str], store: ModelStore) -> tuple[Path, str]:
    """The one GGUF file of a request, and its digest. Raises RequestError."""
    for name, digest in sorted(files.items()):
        path = store.blobs.path(digest)
        named = name.endswith(".gguf")
        if path is None:
            status = 500 if named else 400
            raise RequestError(
                status, f"open {digest.replace(':', '-')}: no such file or directory"
            )
        with path.open("rb") as file:
            if named or file.read(len(_MAGIC)) == _MAGIC:
                return path, digest.replace("-", ":")
    raise RequestError(400, "unknown type")


def _read_model(path: Path, digest: str) -> Model:
    """The model in a GGUF file, still without a name. Raises RequestError."""
    try:
        header = read_header(path)
    except GgufError as wrong:
        raise RequestError(500, str(wrong)) from wrong
    return _model(header, path, digest)


def _model(header: Header, path: Path, digest: str) -> Model:
    info = {**header.metadata, "general.parameter_count": header.parameters}
    return Model(
        name="",
        digest="",
        size=path.stat().st_size,
        blob=digest,
        path=path,
        family=header.architecture,
        parameter_size=human_number(header.parameters),
        quantization_level=header.quantization,
        trained_context=header.whole("context_length"),
        embedding_length=header.whole("embedding_length"),
        model_info=info,
        tensors=tuple(
            {"name": each.name, "type": each.type, "shape": list(each.shape)}
            for each in header.tensors
        ),
        chat_template=header.text("tokenizer.chat_template"),
        special_tokens=header.special_tokens,
    )


def _made(base: Model, request: CreateRequest) -> tuple[Model, list[str]]:
    """The model, and the digests of the layers that the request adds to its base."""
    if request.template:
        try:
            check_template(request.template)
        except TemplateError as wrong:
            raise RequestError(400, f"template error: {wrong}") from wrong
    parameters = {**base.parameters, **request.parameters}
    texts = [request.template, request.system, request.license]
    if request.parameters:
        texts.append(json.dumps(parameters, sort_keys=True))
    layers = [_digest(text) for text in texts if text]
    manifest = json.dumps([base.blob, base.digest, *layers])
    model = dataclasses.replace(
        base,
        name=request.name.shortest,
        digest=_digest(manifest).removeprefix("sha256:"),
        size=base.size + sum(len(text.encode(errors="replace")) for text in texts),
        template=request.template or base.template,
        system=request.system or base.system,
        license=request.license or base.license,
        parameters=parameters,
        modified_ns=time.time_ns(),
    )
    return model, layers


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"


def model_of(found: Modelfile, named: str) -> Model:
    """The model that a Modelfile describes. Raises ModelfileError."""
    name = ModelName.parse(named)
    if name is None:
        raise ModelfileError(f"model is {named!r}: this is no name for a model")
    if found.template is not None:
        try:
            check_template(found.template)
        except TemplateError as wrong:
            raise ModelfileError(f"TEMPLATE of {named}: {wrong}") from wrong
    try:
        base = _model(read_header(found.weights), found.weights, digest_of(found.weights))
    except GgufError as wrong:
        raise ModelfileError(f"{found.weights} is no GGUF file: {wrong}") from wrong
    request = CreateRequest(
        name, "", None, found.template or "", found.system, found.license, found.parameters
    )
    return _made(base, request)[0]
