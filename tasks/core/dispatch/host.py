"""One host during a run: its client, its health, its slots and what it has done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tasks.core.dispatch.account import Ending, HostAccount
from tasks.core.dispatch.health import Health, HostState, requests_at_once
from tasks.core.dispatch.host_client import HostClient
from tasks.core.dispatch.pace import Pace
from tasks.core.dispatch.slot_clock import SlotClock
from tasks.core.dispatch.speed import Speed
from tasks.core.dispatch.wait_controller import WaitController


@dataclass(eq=False, slots=True)
class Host:
    """The state that the dispatcher keeps of a host; changed on its event loop only.

    `slots` is what the user said, or what was found out; None until then. Of these,
    `usable` is what this run holds under the limit that all runs share.
    """

    client: HostClient
    slots: int | None = None
    version: str | None = None
    health: Health = field(default_factory=Health)
    pace: Pace = field(default_factory=Pace)
    speed: Speed = field(default_factory=Speed)
    waits: WaitController | None = None
    """Follows how many slots the server really has for us, once their number is known."""
    usable: int = 0
    held: int = 0
    """As the ledger has it: more than usable while some are in use that are to be given back."""
    claim_changes: bool = False
    """The ledger does not know yet that the number of slots has changed."""
    joined_late: bool = False
    """It was not asked before the run began, as the others were."""
    wants_probe: bool = False
    """A slot is needed for the request by which the host proves itself."""
    heard_at: float = 0.0
    """When it last answered anything, by the monotonic clock."""
    needs_attention: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the host is to be probed and loaded (again)."""
    slot_freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the probe may find a slot free that the run holds."""
    holding_changes: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when what is held of its slots should be looked at again."""
    clock: SlotClock = field(default_factory=SlotClock)
    is_shielded: bool = False
    """It has a segment in quarantine, beside which nothing else is sent."""
    cap: int = 0
    """Requests that it may have in flight now."""

    def __post_init__(self) -> None:
        self.clock.slots = self.slots or 0

    @property
    def url(self) -> str:
        """The host's name everywhere."""
        return self.client.url

    @property
    def in_flight(self) -> int:
        """Requests that occupy a slot."""
        return self.clock.in_flight

    @property
    def takes_requests(self) -> bool:
        """Whether requests may be sent, as far as its health goes."""
        return self.health.state is HostState.CLOSED

    @property
    def working_slots(self) -> int:
        """Of its slots, those that really answer at once."""
        return 0 if self.slots is None else self.waits.limit if self.waits else self.slots

    def at_once(self, *, is_last: bool) -> int:
        """How many requests this run may have in flight here now; a probe comes first."""
        slots = min(self.usable, self.working_slots) - self.wants_probe
        at_once = requests_at_once(self.health, max(0, slots), is_last=is_last)
        return at_once + self.clock.probes_in_flight if at_once else 0

    def needed(self, waiting: int | None) -> int:
        """For how many of its slots there is use, where so many segments wait; None: more come."""
        if self.health.is_leaving:
            return self.in_flight
        if self.health.is_lost or self.wants_probe:
            return self.in_flight + self.wants_probe
        if waiting is None:
            return self.working_slots
        return min(self.working_slots, self.in_flight + waiting)

    def found(self, slots: int) -> None:
        """The number of its slots is known, or is another one from now on."""
        if slots != self.slots or self.waits is None:
            self.slots, self.waits = slots, WaitController(ceiling=slots, limit=slots)

    def use(self, slots: int, now: float) -> None:
        """Use so many of its slots from now on."""
        if slots > self.usable:
            self.slot_freed.set()
        self.usable = slots
        self.changed(now)

    def changed(self, now: float) -> None:
        """Work out how many requests it may get by now, and let the account know its slots."""
        self.cap = self.at_once(is_last=False)
        slots = self.slots or 0 if self.takes_requests else 0
        self.clock.limit_changed(now, slots, min(self.usable, self.working_slots))

    def occupy(self, now: float, *, is_hedge: bool = False) -> None:
        """A slot is taken."""
        self.clock.request_started(now, is_hedge=is_hedge)

    def release(
        self, now: float, started_at: float, ending: Ending, output_tokens: int = 0
    ) -> None:
        """A slot is free again."""
        self.clock.request_ended(now, started_at, ending, output_tokens)
        self.freed()

    def freed(self) -> None:
        """Tell who waits for a slot, here or in another run."""
        self.slot_freed.set()
        if self.held > max(self.usable, self.in_flight):
            self.holding_changes.set()

    def account(self, now: float) -> HostAccount:
        """What the host did up to now."""
        return self.clock.account(now)
