"""What the pipeline reads of a server before it asks for anything: version, tags, ps, show."""

from __future__ import annotations

from tests.contract.target import Target, eventually, fields, full_tag, object_of, require

DETAILS = {
    "parent_model": str,
    "format": str,
    "family": str,
    "families": list,
    "parameter_size": str,
    "quantization_level": str,
}
NAMED = {"name": str, "model": str, "size": int, "digest": str, "details": dict}


def test_version(target: Target) -> None:
    """The version is text and begins with numbers."""
    version = object_of(target.ask("GET", "/api/version"))
    fields("version", version, {"version": str})
    require("version", "0.30 or later", version["version"], holds=target.version >= (0, 30))


def test_tags(target: Target) -> None:
    """Every model in the list has its name, digest, size, time and details."""
    models = object_of(target.ask("GET", "/api/tags"))["models"]
    for model in models:
        fields("tags", model, {**NAMED, "modified_at": str})
        fields("tags.details", model["details"], DETAILS)
        require("tags: name and model", model["name"], model["model"])
    names = [model["name"] for model in models]
    require("tags", full_tag(target.model), names, holds=full_tag(target.model) in names)


def test_ps(target: Target) -> None:
    """A loaded model is listed with the same digest, its end and the context it was given."""
    target.generate(options={"num_ctx": 512})
    eventually("the model is in /api/ps", lambda: target.running() is not None)
    running = target.running() or {}
    more = {"expires_at": str, "size_vram": int, "context_length": int}
    fields("ps", running, {**NAMED, **more})
    fields("ps.details", running["details"], DETAILS)
    require("ps.context_length", 512, running["context_length"])
    listed = target.entry("/api/tags", target.model) or {}
    require("ps.digest", listed.get("digest"), running["digest"])


def test_show(target: Target) -> None:
    """A model tells its template, details, context length and what it can do."""
    shown = object_of(target.ask("POST", "/api/show", {"model": target.model}))
    kinds = {"modelfile": str, "template": str, "details": dict, "model_info": dict}
    fields("show", shown, {**kinds, "capabilities": list, "modified_at": str})
    fields("show.details", shown["details"], DETAILS)
    family = shown["model_info"].get("general.architecture")
    fields("show.model_info", shown["model_info"], {f"{family}.context_length": int})
    require(
        "show.capabilities",
        "completion among them",
        shown["capabilities"],
        holds="completion" in shown["capabilities"],
    )
