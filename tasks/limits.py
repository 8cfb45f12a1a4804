"""How a run shares hosts with others: on this machine always, over machines by Prefect."""

from __future__ import annotations

from collections.abc import Callable

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from tasks.core.errors import ConfigurationError
from tasks.core.limits.ledger import AllOf, SlotLedger
from tasks.core.limits.local import LocalLedger
from tasks.core.settings import LimitsName
from tasks.prefect_limits.check import check_server
from tasks.prefect_limits.ledger import PrefectLedger


def limits_in_use(limits: LimitsName) -> LimitsName:
    """`local` or `prefect`, as asked for; `auto` is `prefect` where a server is set.

    Raises `ConfigurationError` where `prefect` is asked for and no server is set: a temporary
    one would be shared with nobody.
    """
    has_server = bool(get_current_settings().api.url)
    if limits == "prefect" and not has_server:
        raise ConfigurationError(
            "--limits prefect: no Prefect server is set; set PREFECT_API_URL, or give "
            "--limits local for runs on this machine alone"
        )
    if limits == "auto":
        return "prefect" if has_server else "local"
    return limits


async def server_warnings(limits: LimitsName) -> tuple[str, ...]:
    """What is to be said of the Prefect server's settings, if runs share hosts by it."""
    if limits != "prefect":
        return ()
    async with get_client() as client:
        return tuple(problem.message for problem in await check_server(client))


def slot_ledger(limits: LimitsName, on_note: Callable[[str], None]) -> SlotLedger:
    """The ledger of a new run; the locks of this machine are kept in Prefect's mode, too."""
    if limits == "prefect":
        return AllOf(LocalLedger(on_note=on_note), PrefectLedger(on_note=on_note))
    return LocalLedger(on_note=on_note)
