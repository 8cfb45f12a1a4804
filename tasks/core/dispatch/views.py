"""The hosts as the decision what to send next sees them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from tasks.core.dispatch.choose import HostView
from tasks.core.dispatch.host import Host


def views(hosts: Collection[Host], tokens_per_s: Callable[[Host], float | None]) -> list[HostView]:
    """The hosts that may get requests; none when no slot of theirs is free.

    `tokens_per_s` is the speed of a host's slot, in predicted tokens. While no host takes
    requests, those that might still answer count, each for one request: the last hosts of a
    run are never shut out.
    """
    if any(host.in_flight < host.cap and not host.is_shielded for host in hosts):
        return [_view(host, host.cap, tokens_per_s) for host in hosts if host.cap]
    if any(host.takes_requests for host in hosts):
        return []
    last = ((host, host.at_once(is_last=True)) for host in hosts)
    return [_view(host, cap, tokens_per_s) for host, cap in last if cap]


def _view(host: Host, cap: int, tokens_per_s: Callable[[Host], float | None]) -> HostView:
    slots = min(cap, host.in_flight) if host.is_shielded else cap
    return HostView(host.url, slots, host.in_flight, tokens_per_s(host))
