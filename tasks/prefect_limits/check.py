"""Whether a Prefect server is set so that runs can rely on its concurrency limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient

from tasks.prefect_limits.server import LEASE_S

IN_MEMORY = "prefect.server.concurrency.lease_storage.memory"
ON_DISK = "prefect.server.concurrency.lease_storage.filesystem"
LONG_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class ServerProblem:
    """A setting of the server that is in the way of sharing hosts."""

    message: str
    can_strand_slots: bool
    """Whether slots can stay taken for ever; otherwise things only take longer."""


async def check_server(client: PrefectClient) -> list[ServerProblem]:
    """What is to be said of the server's settings; nothing if it does not tell them."""
    try:
        answer = await client.request("GET", "/admin/settings")
        server = answer.json()["server"]
        return problems_of(server["concurrency"], server["services"]["repossessor"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        # Prefect Cloud has no such page, and other versions may have another one.
        return []


def problems_of(concurrency: dict[str, Any], repossessor: dict[str, Any]) -> list[ServerProblem]:
    """What is to be said of these parts of a server's settings."""
    problems = []
    if concurrency["lease_storage"] == IN_MEMORY:
        problems.append(
            ServerProblem(
                "the Prefect server keeps leases in memory: when it restarts, the slots that runs "
                "held stay taken for ever. Start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE="
                f"{ON_DISK} (or, with several servers, prefect_redis.lease_storage). Slots that "
                "stayed taken are freed, while no run uses them, by: "
                "prefect gcl update NAME --active-slots 0",
                can_strand_slots=True,
            )
        )
    if not repossessor["enabled"]:
        problems.append(
            ServerProblem(
                "the Prefect server never takes back what a killed run held. Start it with "
                "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED=true",
                can_strand_slots=True,
            )
        )
    elif repossessor["loop_seconds"] > LEASE_S:
        problems.append(
            ServerProblem(
                "the Prefect server looks for slots of killed runs only every "
                f"{repossessor['loop_seconds']:g} s. Start it with "
                "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS=15",
                can_strand_slots=False,
            )
        )
    wait_s = concurrency["maximum_concurrency_slot_wait_seconds"]
    if wait_s > LONG_WAIT_S:
        problems.append(
            ServerProblem(
                f"the Prefect server has flows wait up to {wait_s:g} s for a slot that may be "
                "free after one. Runs of reports do not wait so, but other flows that use the "
                "same limits do: start it with "
                "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS=2",
                can_strand_slots=False,
            )
        )
    return problems
