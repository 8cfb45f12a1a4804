from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prefect.context import root_settings_context
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.core.errors import ConfigurationError
from tasks.core.limits.local import LocalLedger
from tasks.core.settings import LimitsName
from tasks.limits import limits_in_use, server_warnings, slot_ledger
from tasks.prefect_limits.check import IN_MEMORY, ON_DISK

API = "http://127.0.0.1:9/api"
"""Where no Prefect server answers."""
URL = "http://gpu1:11434"

WELL_SET = {
    "concurrency": {"lease_storage": ON_DISK, "maximum_concurrency_slot_wait_seconds": 2.0},
    "services": {"repossessor": {"enabled": True, "loop_seconds": 15.0}},
}
BADLY_SET = {
    "concurrency": {"lease_storage": IN_MEMORY, "maximum_concurrency_slot_wait_seconds": 30.0},
    "services": {"repossessor": {"enabled": False, "loop_seconds": 15.0}},
}


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPORTS_SLOTS_FOLDER", str(tmp_path))


@asynccontextmanager
async def prefect_server(
    settings: Mapping[str, object], of_limits: int = 500
) -> AsyncIterator[list[str]]:
    """A Prefect server of which only the settings can be read; gives the paths it was asked for.

    It answers `of_limits` to whatever is wanted of a limit.
    """
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        match request.path:
            case "/api/admin/settings":
                return web.json_response({"server": settings})
            case "/api/v2/concurrency_limits/filter":
                return web.json_response([])
            case "/api/csrf-token":
                return web.Response(status=404)
            case _:
                return web.Response(status=of_limits)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        with temporary_settings({PREFECT_API_URL: str(server.make_url("/api"))}):
            yield asked


@pytest.mark.parametrize(
    ("limits", "with_server", "without"),
    [("local", "local", "local"), ("auto", "prefect", "local"), ("prefect", "prefect", None)],
)
def test_the_limits_in_use(
    limits: LimitsName, with_server: LimitsName, without: LimitsName | None
) -> None:
    """What was asked for is used; `auto` is Prefect's limits where a server is set, only there."""
    with temporary_settings({PREFECT_API_URL: API}):
        assert limits_in_use(limits) == with_server
    if without:
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert limits_in_use(limits) == without


@pytest.mark.parametrize(("value", "in_use"), [(API, "prefect"), ("", "local"), (None, "local")])
def test_the_variable_decides(
    value: str | None, in_use: LimitsName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server is set by PREFECT_API_URL, as the help of --limits says; an empty one is none."""
    if value is not None:
        monkeypatch.setenv("PREFECT_API_URL", value)
    with root_settings_context():
        assert limits_in_use("auto") == in_use


def test_prefect_without_a_server_is_refused() -> None:
    """Limits of a temporary server would be shared with nobody; the user is told what to do."""
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigurationError) as refused,
    ):
        limits_in_use("prefect")
    assert str(refused.value) == (
        "--limits prefect: no Prefect server is set; set PREFECT_API_URL, or give --limits local "
        "for runs on this machine alone"
    )


async def test_warnings_of_a_server_that_is_set_badly() -> None:
    """Each setting that is in the way is told, with the variable that is its cure."""
    async with prefect_server(BADLY_SET) as asked:
        said = await server_warnings("prefect")
    assert asked == ["/api/admin/settings"]
    assert len(said) == 3
    cures = (
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE=",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_ENABLED=true",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS=2",
    )
    for sentence, cure in zip(said, cures, strict=True):
        assert sentence.startswith("the Prefect server ")
        assert cure in sentence


async def test_warnings_of_a_server_that_is_set_well() -> None:
    """There is nothing to warn of."""
    async with prefect_server(WELL_SET):
        assert await server_warnings("prefect") == ()


async def test_no_warnings_where_the_server_is_not_used() -> None:
    """A run that shares hosts by locks of this machine asks no server, however that is set."""
    async with prefect_server(BADLY_SET) as asked:
        assert await server_warnings("local") == ()
    assert asked == []


async def test_no_warnings_of_a_server_that_is_away() -> None:
    """Whether a server can be used is found out when the run begins, not by its warnings."""
    with temporary_settings({PREFECT_API_URL: API}):
        assert await server_warnings("prefect") == ()


async def test_the_ledger_of_local_limits() -> None:
    """Slots are shared with runs beside it; a Prefect server is asked nothing, though set."""
    notes: list[str] = []
    async with (
        prefect_server(WELL_SET) as asked,
        slot_ledger("local", notes.append) as ledger,
        LocalLedger() as beside,
    ):
        await ledger.claim(URL, 4)
        assert await ledger.hold(URL, 3) == 3
        assert await beside.known_slots(URL) == 4
        assert await beside.hold(URL, 4) == 1
    assert asked == notes == []


async def test_the_ledger_of_prefect_limits() -> None:
    """A slot is one of this machine and one of the server: a run that uses the locks alone
    is not overlooked, and what the server does not grant is not held.
    """
    notes: list[str] = []
    async with (
        prefect_server(WELL_SET) as asked,
        slot_ledger("prefect", notes.append) as ledger,
        LocalLedger() as beside,
    ):
        await ledger.claim(URL, 4)
        assert await beside.known_slots(URL) == 4
        await beside.claim(URL, 2)
        assert await ledger.known_slots(URL) == 2
        async with beside.alone(URL):
            pass
        assert await ledger.hold(URL, 2) == 0
        assert await beside.hold(URL, 2) == 2
    assert any(path.startswith("/api/v2/concurrency_limits/ollama-gpu1") for path in asked)
    [note] = notes
    assert note.startswith("the Prefect server cannot be used just now (it answers 500)")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_refuses(status: int) -> None:
    """A run that may not use the limits is told so at once, with what it needs."""
    notes: list[str] = []
    async with (
        prefect_server(WELL_SET, of_limits=status),
        slot_ledger("prefect", notes.append) as ledger,
    ):
        with pytest.raises(ConfigurationError) as refused:
            await ledger.claim(URL, 4)
    assert str(refused.value).startswith("the Prefect server refuses ")
    assert f"({status}): sharing hosts takes the right to " in str(refused.value)
    assert str(refused.value).endswith("or give --limits local")
    assert notes == []
