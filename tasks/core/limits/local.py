"""Slots shared by every run on one machine, whoever started it and wherever it writes to.

The limit belongs to the machine and to the host's URL. A run says in a file what it
claims, needs and holds; the file is locked as long as the run lives, and the kernel frees
the lock of a run that ends in whatever way. A run that is only stopped keeps what it
holds. A container is a machine of its own, unless the folder is mounted into it; a folder
on a network drive makes no two machines one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.core.errors import ConfigurationError
from tasks.core.limits.claim_files import ClaimFiles, LockFile, make_folder
from tasks.core.limits.shares import (
    Claim,
    Standing,
    fair_shares,
    granted,
    known_slots,
    may_enter_alone,
)

_log = logging.getLogger(__name__)

FOLDER_VARIABLE = "REPORTS_SLOTS_FOLDER"
# Not below TMPDIR: runs that look in different folders know nothing of each other.
DEFAULT_FOLDER = "/tmp/report-translation-slots"  # noqa: S108 - no link there is followed

CHECK_EVERY_S = 0.05
GATE_RETRY_S = 0.002
GATE_PATIENCE_S = 1.0
"""A decision takes far less than a millisecond, unless its maker was stopped just then."""


class LocalLedger:
    """The slots that this run holds on the hosts that it shares with runs beside it.

    `on_note` gets sentences for the user. Raises `ConfigurationError` when the folder cannot
    be used.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        check_every_s: float = CHECK_EVERY_S,
        gate_patience_s: float = GATE_PATIENCE_S,
        clock: Callable[[], float] = time.time,
        on_note: Callable[[str], None] = _log.warning,
    ) -> None:
        self._folder = folder or Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
        self.check_every_s = check_every_s
        self._gate_patience_s = gate_patience_s
        self._clock = clock
        self._note = on_note
        self._told: set[tuple[str, int]] = set()
        self._hosts: dict[str, ClaimFiles] = {}

    async def __aenter__(self) -> Self:
        """See to it that the folder can be used."""
        with self._reporting():
            make_folder(self._folder)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give everything back."""
        while self._hosts:
            _, host = self._hosts.popitem()
            host.close()

    async def claim(self, url: str, slots: int | None) -> None:
        """Say how many slots the host has; the smallest number of all runs holds for all."""
        await self._settle(url, lambda standing: replace(standing.mine, slots=slots))

    async def known_slots(self, url: str) -> int | None:
        """The smallest number that any run which is alive claims; None when none knows."""
        standing = await self._settle(url, lambda standing: standing.mine)
        return known_slots(standing.claims)

    async def share(self, url: str, need: int) -> int:
        """How many slots this run should hold now; the need counts until it is said anew.

        0 while no run knows how many slots there are.
        """
        try:
            async with asyncio.timeout(self._gate_patience_s):
                standing = await self._settle(
                    url, lambda standing: replace(standing.mine, need=max(0, need))
                )
        except TimeoutError:
            return self._host(url).mine.held
        self._tell_of_fewer(url, standing)
        return fair_shares(standing.claims, self._clock())[standing.place]

    async def hold(self, url: str, slots: int) -> int:
        """Hold so many slots; returns how many are held: fewer when others hold them."""
        host = self._host(url)
        if slots <= host.mine.held:
            with self._reporting():
                host.say(replace(host.mine, held=max(0, slots)))
            return host.mine.held
        with suppress(TimeoutError):
            async with asyncio.timeout(self._gate_patience_s):
                await self._settle(
                    url,
                    lambda standing: replace(standing.mine, held=granted(standing, slots)),
                )
        return host.mine.held

    @asynccontextmanager
    async def alone(self, url: str) -> AsyncIterator[None]:
        """Wait until no other run holds slots of the host; none begins to, meanwhile.

        One run is inside at a time. Where a live run knows the number by then, nothing is
        left to find out: the others then go on.
        """
        host = self._host(url)
        with self._reporting():
            lock = LockFile(host.folder / "alone")
        with closing(lock):
            while not self._is_locked(lock):  # noqa: ASYNC110 - no event tells of other processes
                await asyncio.sleep(self.check_every_s)
            try:
                while not may_enter_alone(await self._settle(url, _to_be_alone)):  # noqa: ASYNC110
                    await asyncio.sleep(self.check_every_s)
                yield
            finally:
                with self._reporting():
                    host.say(replace(host.mine, is_alone=False))

    def _tell_of_fewer(self, url: str, standing: Standing) -> None:
        """Tell, once for a number, that others use the host with fewer slots than this run."""
        number, claimed = known_slots(standing.claims), standing.mine.slots
        if number and claimed and number < claimed and (url, number) not in self._told:
            self._told.add((url, number))
            self._note(
                f"{url} is used with {number} slots, though this run was to use {claimed}: "
                "another run on this machine says so, and the smaller number holds for both"
            )

    def _is_locked(self, lock: LockFile) -> bool:
        with self._reporting():
            return lock.try_lock()

    async def _settle(self, url: str, decide: Callable[[Standing], Claim]) -> Standing:
        """Claim what `decide` says, while nobody else decides about the host."""
        host = self._host(url)
        while True:
            with self._reporting():
                standing = host.try_to_settle(decide)
            if standing:
                return standing
            # Not a blocking wait: who decides may have been stopped in the middle.
            await asyncio.sleep(GATE_RETRY_S)

    def _host(self, url: str) -> ClaimFiles:
        if url not in self._hosts:
            with self._reporting():
                make_folder(self._folder)
                self._hosts[url] = ClaimFiles(self._folder / folder_name(url))
        return self._hosts[url]

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise ConfigurationError(
                f"cannot count the slots in use in {self._folder}: {reason}; see to it, or name "
                f"another folder in {FOLDER_VARIABLE}, the same one for all runs on this machine"
            ) from error


def folder_name(url: str) -> str:
    """The folder of a host: readable, and of no other host."""
    readable = re.sub(r"[^a-z0-9]+", "-", url.lower()).strip("-")
    return f"{readable[:60]}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _to_be_alone(standing: Standing) -> Claim:
    """Our claim while we wait to be alone; who need not be alone keeps nobody waiting."""
    return replace(standing.mine, is_alone=known_slots(standing.claims) is None)
