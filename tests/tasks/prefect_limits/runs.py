"""What tests of the Prefect ledger need: a server, its limits, and runs that use it."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

from tasks.prefect_limits.ledger import PrefectLedger
from tasks.prefect_limits.shares import limit_name
from tests.conftest import _wait_until_healthy, stop, unmeasured
from tests.flows.harness import get

PATIENCE_S = 30.0
_TLS = ssl.create_default_context()
"""Made once: it takes longer than most tests."""

HOLDER = """
import asyncio, sys
from prefect.client.orchestration import PrefectClient
from tasks.prefect_limits.ledger import PrefectLedger

async def main(api, url):
    async with PrefectLedger(lambda: PrefectClient(api)) as ledger:
        await ledger.claim(url, 4)
        held = await ledger.hold(url, await ledger.share(url, 9))
        print("holds", held, flush=True)
        while True:
            await asyncio.sleep(1)
            await ledger.hold(url, await ledger.share(url, 9))

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class LimitsApi:
    """A Prefect server with leases on disk, which takes back ended ones every second."""

    url: str
    home: Path

    @property
    def leases(self) -> ConcurrencyLeaseStorage:
        """Its own storage of leases."""
        return ConcurrencyLeaseStorage(self.home / "concurrency_leases")

    async def end_leases(self) -> None:
        """Let the time of every lease be over."""
        for lease in await self.leases.read_active_lease_ids(limit=1000):
            await self.leases.renew_lease(lease, timedelta(seconds=-1))

    async def forget_leases(self) -> None:
        """Lose every lease, as a server does that restarts and had them in memory."""
        for lease in await self.leases.read_active_lease_ids(limit=1000):
            await self.leases.revoke_lease(lease)

    def client(self) -> PrefectClient:
        """An operator's client."""
        return PrefectClient(self.url, httpx_settings={"verify": _TLS})

    def limit(self, url: str, kind: str = "") -> dict[str, Any]:
        """One of the limits of a host, as an operator sees it."""
        found: dict[str, Any] = get(f"{self.url}/v2/concurrency_limits/{limit_name(url)}{kind}")
        return found

    def taken(self, url: str, kind: str = "") -> int:
        """How much of a limit is taken."""
        return int(self.limit(url, kind)["active_slots"])


@contextmanager
def limits_api(home: Path, **settings: str) -> Iterator[LimitsApi]:
    """Start a Prefect server that keeps its leases below a folder, with these settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    storage = "prefect.server.concurrency.lease_storage.filesystem"
    environment = {"PREFECT_HOME": str(home), "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": storage}
    with (home / "server.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            cwd=home,
            env={**unmeasured(os.environ), **environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", child, home / "server.log")
        yield LimitsApi(f"http://127.0.0.1:{port}/api", home)
    finally:
        stop(child)


class Line(httpx.AsyncHTTPTransport):
    """A line to the server that counts calls, and can be cut, or slow to bring answers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.is_cut = False
        self.answers_after_s = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Count the call, and make it."""
        path = request.url.path.removeprefix("/api/v2/concurrency_limits/")
        self.calls.append(f"{request.method} {path.partition('/')[0]}")
        if self.is_cut:
            raise httpx.ConnectError("cut")
        answer = await super().handle_async_request(request)
        await asyncio.sleep(self.answers_after_s)
        return answer

    def counted(self) -> list[str]:
        """The calls since this was asked last."""
        calls, self.calls = self.calls, []
        return calls


@dataclass
class Run:
    """A run with a ledger, a clock that goes only when told, and a line to the server."""

    api: LimitsApi
    line: Line = field(default_factory=Line)
    notes: list[str] = field(default_factory=list)
    now_s: float = 1000.0
    ledger: PrefectLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = PrefectLedger(
            lambda: PrefectClient(
                self.api.url, httpx_settings={"transport": self.line, "verify": _TLS}
            ),
            on_note=self.notes.append,
            rng=random.Random(1),
            clock=lambda: self.now_s,
        )

    async def settle(self, url: str, need: int, in_flight: int = 0) -> int:
        """Look again, and hold what is the share now; returns how many may be used."""
        self.now_s += 2.0
        share = await self.ledger.share(url, need)
        return min(share, await self.ledger.hold(url, max(share, in_flight)))

    async def renew(self, later_s: float = 25.0) -> None:
        """Let time pass until leases are renewed."""
        self.now_s += later_s
        await self.ledger._leases.renew_old()


@asynccontextmanager
async def new_run(api: LimitsApi) -> AsyncIterator[Run]:
    """A run that takes part."""
    run = Run(api)
    async with run.ledger:
        yield run


@contextmanager
def killed_holder(api: LimitsApi, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds all 4 slots of a host; it is killed at the end, if not before."""
    command = [sys.executable, "-c", HOLDER, api.url, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "holds 4\n"
            yield child
        finally:
            child.kill()


async def eventually(ask: Callable[[], object], answer: object) -> None:
    """Ask again and again until the answer is this."""
    until = time.monotonic() + PATIENCE_S
    while (found := ask()) != answer:
        assert time.monotonic() < until, f"still {found}, not {answer}"
        await asyncio.sleep(0.1)
