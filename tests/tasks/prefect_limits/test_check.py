from __future__ import annotations

from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.settings.models.server.concurrency import ServerConcurrencySettings
from prefect.settings.models.server.services import ServerServicesRepossessorSettings

from tasks.prefect_limits.check import IN_MEMORY, ON_DISK, check_server, problems_of

ON_DISK_ALREADY = {"lease_storage": ON_DISK, "maximum_concurrency_slot_wait_seconds": 2.0}
TAKES_BACK = {"enabled": True, "loop_seconds": 15.0}


def test_a_server_that_is_set_well() -> None:
    """There is nothing to say."""
    assert problems_of(ON_DISK_ALREADY, TAKES_BACK) == []


@pytest.mark.parametrize(
    ("setting", "value", "variable", "can_strand_slots"),
    [
        ("lease_storage", IN_MEMORY, "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=", True),
        (
            "maximum_concurrency_slot_wait_seconds",
            30.0,
            "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS=2",
            False,
        ),
        ("enabled", False, "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED=true", True),
        ("loop_seconds", 90.0, "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS=15", False),
    ],
)
def test_each_problem_names_its_cure(
    setting: str, value: object, variable: str, *, can_strand_slots: bool
) -> None:
    """The variable to set, with a value, and whether slots can be lost by it."""
    concurrency: dict[str, Any] = dict(ON_DISK_ALREADY)
    repossessor: dict[str, Any] = dict(TAKES_BACK)
    (concurrency if setting in concurrency else repossessor)[setting] = value
    [problem] = problems_of(concurrency, repossessor)
    assert variable in problem.message
    assert problem.can_strand_slots is can_strand_slots


def test_the_variables_are_those_that_prefect_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the messages say, a server has no problem any more."""
    for name, value in {
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": ON_DISK,
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED": "true",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "15",
    }.items():
        monkeypatch.setenv(name, value)
    concurrency = ServerConcurrencySettings().model_dump()
    repossessor = ServerServicesRepossessorSettings().model_dump()
    assert concurrency == concurrency | ON_DISK_ALREADY
    assert repossessor == repossessor | TAKES_BACK


async def test_a_server_set_as_in_compose(prefect_api: str) -> None:
    """Of a server with the settings of our compose file nothing is to be said."""
    async with PrefectClient(prefect_api) as client:
        assert await check_server(client) == []


async def test_a_server_that_does_not_say(prefect_api: str) -> None:
    """Where there is no such page, nothing is known to be wrong."""
    async with PrefectClient(f"{prefect_api}/elsewhere") as client:
        assert await check_server(client) == []
