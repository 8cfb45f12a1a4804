"""The calls that are made of a Prefect server about its global concurrency limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.core.errors import ConfigurationError

LEASE_S = 60.0
"""The shortest lease that a server grants."""
CALL_S = 10.0
"""The client tries again by itself, for a minute and longer; a run has to know sooner."""

DENIED = {httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY}
REFUSED = {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
GONE = {httpx.codes.GONE, httpx.codes.NOT_FOUND}


class ServerAway(Exception):
    """The Prefect server did not answer, or not in a way that can be used; with the reason."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A global concurrency limit as the server has it."""

    id: UUID
    slots: int
    slots_taken: int
    is_on: bool


@dataclass(slots=True)
class Lease:
    """Slots of one limit that the server counts as ours."""

    name: str
    slots: int
    id: UUID
    limit_id: UUID
    renewed_at: float
    """When it was last asked for with success, before the question went out."""

    @property
    def ends_at(self) -> float:
        """The server does not take it back before."""
        return self.renewed_at + LEASE_S


async def greet(client: PrefectClient) -> None:
    """Find out whether a server answers, and lets us read its limits.

    Raises `ServerAway`, and `ConfigurationError` when it refuses.
    """
    async with _asking():
        await client.read_global_concurrency_limits(limit=1)


class LimitsServer:
    """The calls that are made. Each may raise `ServerAway`, or `ConfigurationError` when refused.

    `on_answer` hears of every call whether the server was away.
    """

    def __init__(
        self, client: PrefectClient, on_answer: Callable[[ServerAway | None], None]
    ) -> None:
        self._client = client
        self._on_answer = on_answer

    async def read(self, name: str) -> Limit | None:
        """The limit of that name; None when there is none."""
        async with self._asking():
            try:
                found = await self._client.read_global_concurrency_limit_by_name(name)
            except ObjectNotFound:
                return None
            return Limit(found.id, found.limit, found.active_slots, found.active)

    async def create(self, name: str, slots: int) -> bool:
        """Create a limit; False when there is one already, which stays as it is."""
        async with self._asking():
            try:
                await self._client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=name, limit=slots)
                )
            except ObjectAlreadyExists:
                return False
            return True

    async def resize(self, name: str, slots: int) -> None:
        """Set a limit to so many slots, if it is still there."""
        async with self._asking():
            try:
                await self._client.update_global_concurrency_limit(
                    name, GlobalConcurrencyLimitUpdate(limit=slots)
                )
            except ObjectNotFound:
                return

    async def lease(self, name: str, slots: int, now_s: float) -> Lease | None:
        """Take slots; None when there are not so many free, or no such limit."""
        async with self._asking():
            try:
                answer = await self._client.increment_concurrency_slots_with_lease(
                    [name], slots, "concurrency", LEASE_S
                )
            except httpx.HTTPStatusError as error:
                if error.response.status_code in DENIED:
                    return None
                raise
            said = answer.json()
            lease_id = UUID(said["lease_id"])
            if said["limits"]:
                return Lease(name, slots, lease_id, UUID(said["limits"][0]["id"]), now_s)
        # A limit that does not exist denies nothing: the lease is on nothing.
        await self.give_back(lease_id)
        return None

    async def renew(self, lease: Lease) -> bool:
        """Make a lease last from now on; False when the server does not know it any more."""
        async with self._asking():
            try:
                await self._client.renew_concurrency_lease(lease.id, LEASE_S)
            except httpx.HTTPStatusError as error:
                if error.response.status_code in GONE:
                    return False
                raise
            return True

    async def give_back(self, lease_id: UUID) -> None:
        """End a lease, if it has not ended."""
        async with self._asking():
            await self._client.release_concurrency_slots_with_lease(lease_id)

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with _asking():
                yield
        except ServerAway as away:
            self._on_answer(away)
            raise
        self._on_answer(None)


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CALL_S):
            yield
    except TimeoutError as error:
        raise ServerAway(f"no answer in {CALL_S:g} s") from error
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in REFUSED:
            raise ConfigurationError(
                f"the Prefect server refuses {error.request.method} {error.request.url.path} "
                f"({status}): sharing hosts takes the right to read, make and lease its global "
                "concurrency limits; set a PREFECT_API_KEY that has it, or give --limits local"
            ) from error
        raise ServerAway(f"it answers {status}") from error
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise ServerAway(str(error) or type(error).__name__) from error
