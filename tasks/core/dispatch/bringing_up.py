"""What a host goes through before it gets requests, at first and after it was lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from tasks.core.dispatch import events
from tasks.core.dispatch.discovery import discover_slots
from tasks.core.dispatch.health import HostState
from tasks.core.dispatch.host import Host
from tasks.core.dispatch.learning import RELOAD_S
from tasks.core.dispatch.survey import (
    full_model_name,
    missing_model,
    partly_on_cpu,
    version_warnings,
)
from tasks.core.errors import ErrorKind, RequestFailed
from tasks.core.limits.ledger import SlotLedger
from tasks.core.translate.profiles import Prompting

BUSY_PAUSE_S = 2.0
MOST_MISSED = 2
"""Questions in a row without an answer after which a host is silent: within 20 s."""


class HostOfNoUse(Exception):
    """A host answered, and cannot take part in this run."""


class BringingUp:
    """Asks a host, checks and loads the model, has it prove itself, finds out its slots.

    `model_digest` is the run's; None lets every host have its own weights.
    """

    def __init__(
        self,
        prompting: Prompting,
        model_digest: str | None,
        ledger: SlotLedger,
        *,
        load_timeout_s: float,
        listen_every_s: float,
        observe: events.Observer,
        rng: random.Random,
        on_change: Callable[[Host], None],
    ) -> None:
        self._prompting = prompting
        self._model_digest = model_digest
        self._ledger = ledger
        self._load_timeout_s = load_timeout_s
        self._listen_every_s = listen_every_s
        self._observe = observe
        self._rng = rng
        self._on_change = on_change
        self._versions: dict[str, str | None] = {}
        self._said: set[str] = set()

    async def bring_up(self, host: Host) -> None:
        """One try, given up where the host is taken out of the run meanwhile.

        Raises `RequestFailed`, and `HostOfNoUse` where trying again is no use.
        """
        before = host.health.state
        host.version = await host.client.version()
        await self._check_model(host)
        self._compare_version(host)
        if host.slots is not None:
            await self._claim(host, host.slots)
        if host.health.is_leaving:
            return
        if before in (HostState.PROBING, HostState.OPEN):
            host.health = host.health.loading()
            self._on_change(host)
        asked_at = time.monotonic()
        await self._load(host)
        if before is not HostState.PROBING and time.monotonic() - asked_at > RELOAD_S:
            host.clock.reloaded(time.monotonic(), asked_at)
        if host.health.is_leaving:
            return
        # Where the slots are to be found out yet, the burst is proof enough.
        if before is not HostState.PROBING and host.slots is not None:
            if before is HostState.OPEN:
                host.health = host.health.proving()
                self._on_change(host)
            await self._prove(host)
        await self._look_at_memory(host)
        if host.slots is None:
            await self._find_slots(host)

    async def _check_model(self, host: Host) -> None:
        digests = await host.client.model_digests()
        digest = digests.get(full_model_name(self._prompting.model))
        if digest is None:
            raise HostOfNoUse(missing_model(host.url, self._prompting.model, digests))
        if self._model_digest is not None and digest != self._model_digest:
            raise HostOfNoUse(
                f"{host.url} has other weights under the name {self._prompting.model} "
                f"({digest[:12]}, not {self._model_digest[:12]}; --allow-other-weights uses it)"
            )

    def _compare_version(self, host: Host) -> None:
        """Say of a host that came later how its version changes texts, if it does."""
        self._versions[host.url] = host.version
        if host.joined_late:
            for sentence in version_warnings(self._versions):
                self._say_once(sentence)

    async def _load(self, host: Host) -> None:
        """Load the model, as long as the server is alive meanwhile."""
        load = asyncio.create_task(self._load_in_time(host))
        missed = 0
        try:
            while not (await asyncio.wait({load}, timeout=self._listen_every_s))[0]:
                try:
                    await host.client.version(self._listen_every_s)
                except RequestFailed:
                    missed += 1
                    if missed == MOST_MISSED:
                        raise
                else:
                    missed = 0
            await load
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)

    async def _load_in_time(self, host: Host) -> None:
        """Load the model; a full queue in front of it means waiting longer."""
        prompting, until = self._prompting, time.monotonic() + self._load_timeout_s
        while True:
            try:
                await host.client.load(
                    prompting.model, prompting.options, max(1.0, until - time.monotonic())
                )
            except RequestFailed as failure:
                if failure.kind is not ErrorKind.BUSY or time.monotonic() > until:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S * (0.5 + 0.5 * self._rng.random()))
            else:
                return

    async def _prove(self, host: Host) -> None:
        """Have one token generated, with the run's own options, in a slot that the run holds."""
        host.wants_probe = True
        host.holding_changes.set()
        try:
            while host.in_flight >= min(host.usable, host.working_slots):
                host.slot_freed.clear()
                await host.slot_freed.wait()
            host.clock.probe_started()
            try:
                prompting = self._prompting
                await host.client.prove(
                    prompting.model,
                    prompting.options,
                    prompting.profile.think,
                    host.pace.probe_deadline_s(),
                )
            finally:
                host.clock.probe_ended()
                host.freed()
        finally:
            host.wants_probe = False

    async def _look_at_memory(self, host: Host) -> None:
        """Tell when the model does not run on the GPU alone."""
        try:
            running = await host.client.running_models()
        except RequestFailed as failure:
            # It loaded the model: what it says of its memory is no reason to do without it.
            self._observe(events.Noticed(f"{failure.message}, asked whether it runs on a GPU"))
            return
        sentence = partly_on_cpu(host.url, running, self._prompting.model)
        if sentence:
            self._say_once(sentence)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._observe(events.Noticed(sentence))

    async def _claim(self, host: Host, slots: int) -> None:
        """Make the number of slots known, to this run and to the others.

        A number that the user gives meanwhile stays.
        """
        await self._ledger.claim(host.url, slots)
        if host.slots in (None, slots):
            host.found(slots)
        else:
            host.claim_changes = True

    async def _find_slots(self, host: Host) -> None:
        """As another run says, or by a burst of requests while nobody else uses the host."""
        await self._ledger.claim(host.url, None)
        slots = await self._ledger.known_slots(host.url)
        by_burst = False
        if slots is None:
            async with self._ledger.alone(host.url):
                slots = await self._ledger.known_slots(host.url)
                if slots is None:
                    found = await discover_slots(host.client, self._prompting)
                    slots, by_burst = host.slots or found.slots, host.slots is None
                    if found.tokens_per_s is not None:
                        host.speed = host.speed.after(
                            found.requests, found.requests / found.tokens_per_s
                        )
                # Before anybody else may find out, or begin.
                await self._claim(host, slots)
        else:
            await self._claim(host, slots)
        self._observe(events.SlotsFound(host.url, slots, by_burst=by_burst))
