"""What a contender gets, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deployments.local_ollama.settings import Settings
from deployments.local_ollama.timing_engine import simulated_model
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.host_client import HostClient
from tasks.core.settings import HostAddress, normal_url
from tasks.core.translate.profiles import DEFAULT_PROFILE, Prompting

MODEL = Settings().model
MODEL_DIGEST = simulated_model(Settings()).digest
PROMPTING = Prompting(DEFAULT_PROFILE, MODEL, "fr", "en", 4096)


@dataclass(frozen=True)
class Contest:
    """The hosts known from the start, those that join, and the texts to be translated."""

    hosts: Sequence[HostAddress]
    late: Sequence[HostAddress]
    joins: asyncio.Event
    """Set when the late hosts are there."""
    texts: Sequence[str]
    seed: int


@dataclass
class Outcome:
    """What became of the texts."""

    answered: int = 0
    lost: int = 0
    errors: list[str] = field(default_factory=list)
    """Some of those that lost a text."""
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of our own dispatcher: what each host did."""

    def count(self, results: Sequence[object]) -> None:
        """Take in what a gather over all texts gave, exceptions included."""
        errors = [each for each in results if isinstance(each, BaseException)]
        self.lost += len(errors)
        self.answered += len(results) - len(errors)
        self.errors += sorted({f"{type(each).__name__}: {each}"[:200] for each in errors})[:3]


def host_of(address: HostAddress) -> Host:
    """A host of our dispatcher."""
    return Host(HostClient(address), address.slots or 1)


def address_of(url: str, slots: int) -> HostAddress:
    """An address as the command would read it."""
    return HostAddress(normal_url(url), slots)


def as_plain(accounts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Accounts as JSON holds them."""
    return {url: asdict(account) for url, account in accounts.items()}
