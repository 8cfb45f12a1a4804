"""What happens to a host in the middle of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deployments.local_ollama.process import ServerProcess
from tests.bench.scenarios import SLOWER, Happening

_POLL_S = 0.02


@dataclass
class Happened:
    """When the last host died, hung, slowed down or joined, and what it had counted by then."""

    at: float | None = None
    stats: dict[str, Any] | None = None
    """Of a server that is no longer there."""


async def happen(
    what: Happening, server: ServerProcess, joins: asyncio.Event, happened: Happened
) -> None:
    """Have it happen to this server, or set `joins`.

    Where a moment passes meanwhile, `happened` has the end of it that gives a contender
    more: the bound has to be one.
    """
    match what:
        case "dies":
            happened.stats = await asyncio.to_thread(server.stats, requests=True)
            await asyncio.to_thread(server.kill)
            happened.at = time.time()
        case "hangs":
            await asyncio.to_thread(server.add_faults, [{"kind": "hang", "now": True}])
            happened.at = time.time()
        case "slows":
            fault = {"kind": "slow", "factor": SLOWER, "now": True}
            await asyncio.to_thread(server.add_faults, [fault])
            happened.at = time.time()
        case "joins":
            happened.at = time.time()
            joins.set()


async def first_request_at(servers: Sequence[ServerProcess]) -> float:
    """When the first request with a text came, in unix seconds; waits for it."""

    def asked() -> list[float]:
        times = (server.stats()["first_request_at"] for server in servers)
        return [at for at in times if at]

    while not (times := await asyncio.to_thread(asked)):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_POLL_S)
    return min(times)
