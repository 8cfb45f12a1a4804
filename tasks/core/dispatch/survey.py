"""Asks every host, before anything is planned, whether it is there and has the model.

The digest of the model is part of every reuse key, so a plan cannot be made without. What
else of a host makes a run slow, or its translations differ, is said and does not end it.
"""

from __future__ import annotations

import asyncio
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.core.dispatch.host_client import HostClient, RunningModel
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

    def and_warn(self, more: Iterable[str]) -> Survey:
        """The same with more to be said."""
        return replace(self, warnings=(*self.warnings, *more))


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


def agree(facts: Sequence[HostFacts], model: str, *, other_weights: bool = False) -> Survey:
    """The digest that the model has on the hosts, and what is to be said about them.

    Raises `HostsUnreachable` when no host answered, and `ConfigurationError` when none has
    the model or when the same name means different weights on two hosts. With
    `other_weights` it may: the digest is then that of most hosts.
    """
    reached = {host.url: host.digests for host in facts if host.digests is not None}
    silent = [f"{host.error}; it is tried again during the run" for host in facts if host.error]
    if not reached:
        raise HostsUnreachable(
            "no host can be reached: "
            + "; ".join(str(host.error) for host in facts)
            + ". Start the Ollama servers, or correct --host or --hosts-file"
        )
    name = full_model_name(model)
    digests = {url: models[name] for url, models in reached.items() if name in models}
    missing = [missing_model(url, model, reached[url]) for url in reached if url not in digests]
    if not digests:
        raise ConfigurationError(f"--model {model}: " + "; ".join(missing))
    if len(set(digests.values())) > 1 and not other_weights:
        raise _different_weights(digests, model)
    digest = Counter(digests.values()).most_common(1)[0][0]
    return Survey(
        model_digest=digest,
        warnings=(
            *silent,
            *(f"{text}; it is left out" for text in missing),
            *_mixed_weights(digests, digest, model),
            *version_warnings({host.url: host.version for host in facts if host.url in digests}),
        ),
    )


def _different_weights(digests: Mapping[str, str], model: str) -> ConfigurationError:
    different = ", ".join(f"{url} has {_short(digest)}" for url, digest in digests.items())
    return ConfigurationError(
        f"--model {model}: the name means different weights: {different}. "
        f"Run 'ollama pull {model}' on all of them, leave some out of --host and --hosts-file, "
        "or mix them on purpose with --allow-other-weights"
    )


def _mixed_weights(digests: Mapping[str, str], digest: str, model: str) -> list[str]:
    other = [f"{url} ({_short(one)})" for url, one in digests.items() if one != digest]
    if not other:
        return []
    warning = (
        f"{model} means other weights on {', '.join(other)} than on the other hosts "
        f"({_short(digest)}, which the run records for all): a translation depends on its host"
    )
    return [warning]


def _short(digest: str) -> str:
    return digest[:12] or "no digest"


def full_model_name(model: str) -> str:
    """The model's name with its tag, `latest` when none is given."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def missing_model(url: str, model: str, digests: Iterable[str]) -> str:
    """That a host lacks a model, what it has instead, and how to get it."""
    names = sorted(digests)
    close = difflib.get_close_matches(full_model_name(model), names, n=3, cutoff=0.4) or names[:3]
    has = f"it has {', '.join(close)}" if close else "it has no model at all"
    return f"{url} has no model {model} ({has}; get it with 'ollama pull {model}')"


Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Landmark:
    """A release of Ollama that answers requests like ours with another text than before."""

    version: Version
    mixed: str = ""
    """What to say when hosts of one run are on both sides of it."""
    older: str = ""
    """What to say of older hosts wherever they are."""


# Changed defaults are none: truncate, shift, think, num_ctx and repeat_penalty are sent with
# every request (think: 0.12.4, num_ctx: 0.15.5, repeat_penalty: 0.32.10).
LANDMARKS = (
    Landmark(
        version=(0, 12, 6),
        older="cuts a text that does not fit the context in silence, where 0.12.6 and later "
        "refuse it and it is split; update Ollama there, or give a --num-ctx that fits all",
    ),
    Landmark(
        version=(0, 30, 0),
        mixed="0.30.0 replaced the engines, so a translation may depend on its host; install "
        "one version on all of them if it must not",
    ),
)

_VERSION = re.compile(
    r"v?([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?(?:[-+.][0-9A-Za-z.+-]{0,40})?"
)


def parsed_version(text: str | None) -> Version | None:
    """The release that a version is of, or comes before: 0.33.0-rc2 is 0.33.0.

    None for what is no version, and for the 0.0.0 of servers built from source.
    """
    found = _VERSION.fullmatch(text or "")
    if not found:
        return None
    version = int(found[1]), int(found[2]), int(found[3] or 0)
    return version if any(version) else None


def version_warnings(versions: Mapping[str, str | None]) -> list[str]:
    """What is to be said of the hosts' versions, by URL: why they may differ in the text."""
    known = {url: parsed for url, text in versions.items() if (parsed := parsed_version(text))}
    warnings = []
    for landmark in LANDMARKS:
        older = [url for url, version in known.items() if version < landmark.version]
        newer = [url for url in known if url not in older]
        named = ", ".join(f"{url} ({versions[url]})" for url in older)
        if older and landmark.older:
            warnings.append(f"Ollama on {named} {landmark.older}")
        if older and newer and landmark.mixed:
            others = ", ".join(f"{url} ({versions[url]})" for url in newer)
            warnings.append(f"Ollama is older on {named} than on {others}: {landmark.mixed}")
    return warnings


SMALL_MODEL_BYTES = 500_000_000
"""A model of less is quick enough without a GPU."""
SPILL_SHARE = 0.02
"""On the CPU, of a model that is taken to be wholly on the GPU."""


def partly_on_cpu(host_url: str, running: Iterable[RunningModel], model: str) -> str | None:
    """That a host runs the model on the CPU or partly so, or None when it does not."""
    name = full_model_name(model)
    found = next((one for one in running if one.name == name), None)
    if found is None or found.size_bytes < SMALL_MODEL_BYTES:
        return None
    share = 1 - found.size_vram_bytes / found.size_bytes
    if share < SPILL_SHARE:
        return None
    sizes = f"size_vram {found.size_vram_bytes / 1e9:.1f} of {found.size_bytes / 1e9:.1f} GB"
    if found.size_vram_bytes <= 0:
        return (
            f"{host_url} runs {model} on the CPU ({sizes}), which is slow; if it has a GPU, look "
            "in the server's log why it is not used, and restart the server"
        )
    return (
        f"{host_url} runs {model} with {100 * share:.0f} % of it on the CPU ({sizes}), which is "
        "slow; free memory on its GPU, lower OLLAMA_NUM_PARALLEL there or --num-ctx, or take a "
        "smaller model"
    )
