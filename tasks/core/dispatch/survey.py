"""Asks every host, before anything is planned, whether it is there and has the model.

The digest of the model is part of every reuse key, so a plan cannot be made without.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.core.dispatch.host_client import HostClient
from tasks.core.errors import ConfigurationError, HostsUnreachable, RequestFailed

TRIES = 2
PAUSE_S = 1.0
ANSWER_WITHIN_S = 5.0
"""Each question; with all tries a dead fleet is named well within 30 s."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a host said of itself."""

    url: str
    version: str | None = None
    digests: dict[str, str] | None = None
    error: str | None = None
    """Why it said nothing."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the hosts agree on."""

    model_digest: str
    warnings: tuple[str, ...]


async def ask_all(clients: Iterable[HostClient]) -> list[HostFacts]:
    """The facts of every host, asked at the same time."""
    return list(await asyncio.gather(*(_ask(client) for client in clients)))


async def _ask(client: HostClient) -> HostFacts:
    error = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        try:
            version = await client.version(ANSWER_WITHIN_S)
            digests = await client.model_digests(ANSWER_WITHIN_S)
        except RequestFailed as failure:
            error = failure.message
        else:
            return HostFacts(client.url, version, digests)
    return HostFacts(client.url, error=error)


def agree(facts: Sequence[HostFacts], model: str) -> Survey:
    """The digest that the model has on the hosts, and what is to be said about them.

    Raises `HostsUnreachable` when no host answered, and `ConfigurationError` when none
    has the model or when the same name means different weights on two hosts.
    """
    reached = {host.url: host.digests for host in facts if host.digests is not None}
    warnings = [f"{host.error}; it is tried again during the run" for host in facts if host.error]
    if not reached:
        raise HostsUnreachable(
            "no host can be reached: "
            + "; ".join(str(host.error) for host in facts)
            + ". Start the Ollama servers, or correct --host"
        )
    name = full_model_name(model)
    digests = {url: models[name] for url, models in reached.items() if name in models}
    missing = [missing_model(url, model, reached[url]) for url in reached if url not in digests]
    if not digests:
        raise ConfigurationError(f"--model {model}: " + "; ".join(missing))
    if len(set(digests.values())) > 1:
        different = ", ".join(f"{url} has {digest[:12]}" for url, digest in digests.items())
        raise ConfigurationError(
            f"--model {model}: the name means different weights: {different}. "
            f"Run 'ollama pull {model}' on all of them, or leave some out with --host"
        )
    return Survey(
        model_digest=next(iter(digests.values())),
        warnings=tuple(warnings + [f"{text}; it is left out" for text in missing]),
    )


def full_model_name(model: str) -> str:
    """The model's name with its tag, `latest` when none is given."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def missing_model(url: str, model: str, digests: Iterable[str]) -> str:
    """That a host lacks a model, what it has instead, and how to get it."""
    names = sorted(digests)
    close = difflib.get_close_matches(full_model_name(model), names, n=3, cutoff=0.4) or names[:3]
    has = f"it has {', '.join(close)}" if close else "it has no model at all"
    return f"{url} has no model {model} ({has}; get it with 'ollama pull {model}')"
