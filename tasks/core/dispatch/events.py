"""What happens during a run, for whoever shows or logs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.core.records import Status


@dataclass(frozen=True, slots=True)
class HostUp:
    """A host has the model loaded and takes requests."""

    host: str
    slots: int


@dataclass(frozen=True, slots=True)
class HostJoined:
    """A host was added to the run."""

    host: str
    slots: int | None
    """None: still to be found out."""


@dataclass(frozen=True, slots=True)
class HostDraining:
    """A host was taken out of the run; what it has in flight is waited for."""

    host: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class SlotsFound:
    """A host whose slots nobody gave was found to have so many."""

    host: str
    slots: int
    by_burst: bool
    """False: another run said so."""


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """Of a host's slots so many are used from now on."""

    host: str
    used: int
    slots: int
    reason: str
    again: bool = False
    """It goes up and down by one, which was told before."""


@dataclass(frozen=True, slots=True)
class HostLoading:
    """A host answers and is loading the model."""

    host: str


@dataclass(frozen=True, slots=True)
class HostSuspect:
    """A host answers badly and has to prove itself."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class HostDown:
    """A host does not answer; it is tried again in `retry_in_s`."""

    host: str
    reason: str
    retry_in_s: float
    again: bool = False
    """It was told before, and nothing is new about it."""


@dataclass(frozen=True, slots=True)
class HostLeft:
    """A host is of no use in this run and is not tried again."""

    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class FleetDown:
    """No host is left; the run waits `timeout_s` for one to come back."""

    reasons: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class FleetBack:
    """A host came back after all had been lost."""

    host: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A segment broke the answers of several hosts; it is tried once more at the end."""

    report_id: str
    hosts: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class RetriesSlowed:
    """So much fails that retries are sent one after the other."""

    reason: str


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something else that is worth knowing, in a sentence."""

    sentence: str


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A request went to a host."""

    host: str


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request to a host ended, with this many tokens generated, or with an error."""

    host: str
    output_tokens: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportDone:
    """A report ended."""

    report_id: str
    status: Status
    predicted_tokens: int
    """How much of the plan's work it was."""


Event = (
    HostUp
    | HostJoined
    | HostDraining
    | SlotsFound
    | SlotsChanged
    | HostLoading
    | HostSuspect
    | HostDown
    | HostLeft
    | FleetDown
    | FleetBack
    | Quarantined
    | RetriesSlowed
    | Noticed
    | RequestSent
    | RequestEnded
    | ReportDone
)
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer of a run that nobody watches."""
