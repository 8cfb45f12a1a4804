"""One host that runs on any machine share, as its limits on a Prefect server tell of it.

A host has up to three limits; `limit_name` gives NAME:

    NAME             as many slots as the host has; taken are those that runs hold
    NAME-runs        1 taken for each run that uses the host, and 1000 more while it waits
    NAME-discovery   1 slot: whoever finds out how many slots the host has

NAME's number is the smallest that any run claims; a run that finds nobody else sets its own.
NAME-runs tells which number a run set last, by a limit of 1,000,000,000 and that number.
Another number was set by hand: runs neither raise nor lower it. Deleting NAME gives it back
to them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from tasks.prefect_limits.leases import Leases
from tasks.prefect_limits.server import Limit, LimitsServer
from tasks.prefect_limits.shares import Seen, Turn, blocks, decide, limit_name, number_to_set

WAITS = 1000
"""What a run that waits takes of NAME-runs; fewer runs than that use a host."""
ROOM = 1_000_000_000
STARVED_S = 120.0
"""The server gives a killed run's slots to others within 75 s, if it knows of its leases."""
TANGLE_S = 10.0
"""How long after a run set a number another one is no sign of somebody's hand."""


class SharedHost:
    """What this run knows of a host, wants of it and holds; asked for one thing at a time.

    `tell` gets sentences for the user. Every method that awaits may raise `ServerAway`.
    """

    def __init__(
        self,
        url: str,
        server: LimitsServer,
        leases: Leases,
        *,
        look_every_s: float,
        clock: Callable[[], float],
        rng: random.Random,
        tell: Callable[[str], None],
    ) -> None:
        self.url = url
        self.name = limit_name(url)
        self._runs, self._discovery = f"{self.name}-runs", f"{self.name}-discovery"
        self._server, self._leases = server, leases
        self._look_every_s, self._clock, self._rng = look_every_s, clock, rng
        self._tell = tell
        self._told: set[str] = set()
        self.claim: int | None = None
        self._seen: Seen | None = None
        """None while nobody knows how many slots there are."""
        self._looked_at = -math.inf
        self._others_held = 0
        self._turn = Turn()
        self._needs = 0, 0
        """The most that was needed between the last two looks, and since the last."""
        self._due = 0
        self._starved_since = clock()
        self._is_alone = False
        self._told_number_at = -math.inf

    @property
    def slots(self) -> int | None:
        """How many the host has, by the last look; None when nobody knows."""
        if self._seen is None:
            return self.claim
        return self._seen.limit if self.claim is None else min(self.claim, self._seen.limit)

    @property
    def held(self) -> int:
        """Slots that are surely ours."""
        return self._leases.usable(self.name)

    def share(self, need: int) -> int:
        """How many slots to hold, by the last look; 0 while nobody knows how many there are.

        A need that goes up and down many times between two looks counts with its peak.
        """
        before, since = self._needs
        self._needs = before, max(since, need)
        if self._seen is None:
            return 0
        decision = decide(
            self._seen,
            self._turn,
            claim=self.claim,
            need=max(self._needs),
            held=self.held,
            now_s=self._clock(),
            draw=self._rng.random(),
        )
        self._turn, self._due = decision.turn, decision.due
        self._tell_if_starved(self._seen)
        return decision.share

    def _tell_if_starved(self, seen: Seen) -> None:
        """Tell when slots stay taken for longer than a killed run could keep them."""
        now_s = self._clock()
        if self.held or not self._due:
            self._starved_since = now_s
        elif now_s - self._starved_since >= STARVED_S:
            self._tell_once(
                f"{self.url}: this run has had no slot for {STARVED_S:g} s, as {self.name} counts "
                f"{self._others_held} of {seen.limit} as taken by others. Where no run uses the "
                "host, its Prefect server has lost leases in a restart: "
                f"prefect gcl update {self.name} --active-slots 0"
            )

    def ask_no_more(self) -> None:
        """Take no more slots before the next look."""
        if self._seen is not None:
            self._seen = replace(self._seen, is_used_up=True)

    async def look_if_due(self) -> None:
        """Look at what others do, unless that was done just now."""
        if self._clock() - self._looked_at >= self._look_every_s:
            await self.look()
            self._needs = self._needs[1], 0

    async def look(self) -> None:
        """Look at what others do; take part, as soon as somebody knows the slots."""
        # Before the answer: a server that is away is not asked all the time.
        self._looked_at = self._clock()
        limit = await self._limit()
        runs = await self._read(self._runs)
        self._others_held = 0
        if limit is not None:
            self._others_held = max(0, limit.slots_taken - self._leases.counted(self.name))
            runs = await self._untangled(limit, runs)
        self._seen = None if limit is None else self._what_is_seen(limit, runs)
        if limit is None or self._seen is None:
            return
        if runs is None:
            await self._server.create(self._runs, ROOM)
        await self._settle_number(self._seen)
        if not self._leases.has(self._runs, 1):
            await self._leases.take(self._runs, 1)
        if not limit.is_on:
            self._tell_once(
                f"{self.url}: its limit is switched off, so every run gets what it asks for; to "
                f"have runs share the host: prefect gcl update {self.name} --enable"
            )

    async def hold(self, slots: int) -> None:
        """Hold so many slots, or as many as there are; see to it that others know who waits."""
        if self._seen is None:
            await self.look_if_due()
        more = slots - self.held
        if more < 0:
            await self._leases.give_back(self.name, -more)
        elif more > 0 and self._seen is not None:
            await self._take(self._seen, more)
        is_waiting = self._seen is not None and self.held < self._due
        if not is_waiting:
            await self._leases.give_back_lease(self._runs, WAITS)
        elif not self._leases.has(self._runs, WAITS):
            await self._leases.take(self._runs, WAITS)

    async def enter_alone(self) -> bool:
        """Be the one to find out the slots; False while another is, or others hold slots."""
        if not self._leases.has(self._discovery, 1):
            if await self._server.read(self._discovery) is None:
                await self._server.create(self._discovery, 1)
            if not await self._leases.take(self._discovery, 1):
                return False
        await self.look()
        self._is_alone = self._seen is not None or self._others_held == 0
        return self._is_alone

    async def leave_alone(self) -> None:
        """Let others begin, whether we came to be alone or not."""
        self._is_alone = False
        await self._leases.give_back_lease(self._discovery, 1)

    async def _read(self, name: str) -> Limit | None:
        limit = await self._server.read(name)
        self._leases.forget_others(name, None if limit is None else limit.id)
        return limit

    async def _limit(self) -> Limit | None:
        """NAME, created if it is missing and this run knows the slots."""
        limit = await self._read(self.name)
        if limit is None and self.claim is not None:
            if await self._server.create(self.name, self.claim):
                await self._tell_number(self.claim)
            limit = await self._read(self.name)
        return limit

    async def _untangled(self, limit: Limit, runs: Limit | None) -> Limit | None:
        """NAME-runs, set right if this run and another set two numbers at the same moment."""
        told = ROOM + limit.slots
        just_now = self._clock() - self._told_number_at < TANGLE_S
        if runs is None or runs.slots == told or not just_now:
            return runs
        await self._tell_number(limit.slots)
        return replace(runs, slots=told)

    def _what_is_seen(self, limit: Limit, runs: Limit | None) -> Seen | None:
        """What the limits say; None if NAME is there, but no run that goes by its number."""
        taken = 0 if runs is None else runs.slots_taken - self._leases.counted(self._runs)
        waiting, others = divmod(max(0, taken), WAITS)
        is_by_hand = runs is None or runs.slots != ROOM + limit.slots
        is_known = self.claim is not None or others or self._leases.has(self._runs, 1)
        if not is_known and not is_by_hand:
            return None
        return Seen(limit.slots, self._others_held, others, waiting, is_by_hand)

    async def _settle_number(self, seen: Seen) -> None:
        """Make NAME's number what it should be; tell when it is not what this run claims."""
        number = number_to_set(seen, self.claim)
        if number is not None:
            await self._tell_number(number)
            await self._server.resize(self.name, number)
            self._seen = replace(seen, limit=number)
        elif self.claim is not None and self.claim > seen.limit:
            why = "set by hand" if seen.is_by_hand else "by another run"
            self._tell_once(
                f"{self.url} is used with {seen.limit} slots, {why}, though this run was to use "
                f"{self.claim}; to change it for all runs: "
                f"prefect gcl update {self.name} --limit {self.claim}"
            )

    async def _tell_number(self, number: int) -> None:
        self._told_number_at = self._clock()
        if not await self._server.create(self._runs, ROOM + number):
            await self._server.resize(self._runs, ROOM + number)

    async def _take(self, seen: Seen, more: int) -> None:
        had_none = not self.held
        for slots in blocks(min(more, seen.free(self._leases.counted(self.name))), seen.limit):
            if not await self._leases.take(self.name, slots):
                self.ask_no_more()
                break
        # Asked after taking: whoever is alone from now on sees what is held.
        if had_none and self.held and not self._is_alone and await self._is_other_alone():
            await self._leases.give_back(self.name, self.held)
            self.ask_no_more()

    async def _is_other_alone(self) -> bool:
        discovery = await self._server.read(self._discovery)
        return discovery is not None and discovery.slots_taken > 0

    def _tell_once(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)
