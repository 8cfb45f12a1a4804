"""The file of --hosts-file: one host a line, read again while a run goes on.

    # comments and empty lines say nothing
    http://gpu1:11434=4
    http://gpu2:11434    # without slots: found out

Hosts given by --host stay whatever the file says. A file that cannot be read, or not
understood, changes nothing: the hosts of its last good content stay.
"""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ConfigurationError
from tasks.core.settings import HOST_FORM, HostAddress

LOOK_EVERY_S = 1.0
MOST_BYTES = 1 << 20
"""A longer file is taken for another one, given by mistake."""


@dataclass(frozen=True, slots=True)
class HostChanges:
    """How the hosts of a run are others than before."""

    joined: tuple[HostAddress, ...] = ()
    left: tuple[str, ...] = ()
    """By URL."""
    slots_changed: tuple[HostAddress, ...] = ()
    """With their new slots; None when the file does not say any more."""

    def __bool__(self) -> bool:
        return bool(self.joined or self.left or self.slots_changed)


def parse_hosts(text: str, path: str) -> tuple[HostAddress, ...]:
    """The hosts that the text of a hosts file names, in its order.

    Raises `ConfigurationError`, which names the file, the line and the form.
    """
    hosts: dict[str, tuple[int, HostAddress]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        host = _host_in(line, f"--hosts-file {path}, line {number}")
        if host is None:
            continue
        if host.url in hosts:
            raise ConfigurationError(
                f"--hosts-file {path}: lines {hosts[host.url][0]} and {number} both give "
                f"{host.url}; give each host once, with all its slots"
            )
        hosts[host.url] = number, host
    return tuple(host for _, host in hosts.values())


def read_hosts(path: str) -> tuple[HostAddress, ...]:
    """The hosts that the file names; there may be none.

    Raises `ConfigurationError`, which names the file, the reason and the form.
    """
    return parse_hosts(_text_of(path), path)


def hosts_at_start(given: Sequence[HostAddress], path: str | None) -> tuple[HostAddress, ...]:
    """The hosts that a run starts with: those given by --host, and those of the file.

    Raises `ConfigurationError` for a file that cannot be used, or when there is no host.
    """
    return _united(given, "" if path is None else _text_of(path), path or "")


def union(given: Sequence[HostAddress], listed: Iterable[HostAddress]) -> tuple[HostAddress, ...]:
    """The given hosts, then those that only the file lists.

    For a host of both, the slots that were given count, and the file's when none were.
    """
    in_file = {host.url: host for host in listed}
    named = [host if host.slots else in_file.pop(host.url, host) for host in given]
    urls = {host.url for host in named}
    return (*named, *(host for host in in_file.values() if host.url not in urls))


def changes_between(before: Sequence[HostAddress], now: Sequence[HostAddress]) -> HostChanges:
    """Who joined, who left, and whose slots are others, in the order of `now`."""
    slots_before = {host.url: host.slots for host in before}
    urls_now = {host.url for host in now}
    return HostChanges(
        joined=tuple(host for host in now if host.url not in slots_before),
        left=tuple(host.url for host in before if host.url not in urls_now),
        slots_changed=tuple(
            host for host in now if slots_before.get(host.url, host.slots) != host.slots
        ),
    )


async def watch(
    path: str,
    given: Sequence[HostAddress],
    known: Sequence[HostAddress],
    *,
    on_change: Callable[[HostChanges], None],
    on_problem: Callable[[str], None],
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Tell how the hosts of a run change with the file, until cancelled.

    `given` are those of --host, `known` those that the run started with. A content counts
    when it is found twice in a row: one that is being written is no list of hosts. A
    problem is told once, until the file is good again or has another one.
    """
    before: _Seen | None = None
    done: _Seen | None = None
    told = ""
    while True:
        seen = await asyncio.to_thread(_look, path)
        if seen == before and seen != done:
            done = seen
            now, problem = _hosts_of(seen, given, path)
            if problem and problem != told:
                on_problem(f"{problem}; until then the hosts stay as they are")
            elif not problem and (changes := changes_between(known, now)):
                known = now
                on_change(changes)
            told = problem
        before = seen
        await asyncio.sleep(every_s)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at the file found."""

    text: str
    problem: str = ""


def _look(path: str) -> _Seen:
    # Its marks would not do: two writes can have one time of change, and one size.
    try:
        return _Seen(_text_of(path))
    except ConfigurationError as error:
        return _Seen("", str(error))


def _hosts_of(
    seen: _Seen, given: Sequence[HostAddress], path: str
) -> tuple[tuple[HostAddress, ...], str]:
    """The hosts of the run by what was found, or why it is not to be followed."""
    if seen.problem:
        return (), seen.problem
    try:
        return _united(given, seen.text, path), ""
    except ConfigurationError as error:
        return (), str(error)


def _text_of(path: str) -> str:
    try:
        # Opening a pipe would wait for its other end, and it can be read only once.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise _unusable(path, "is not a file")
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _unusable(path, f"cannot be read ({reason})") from error
    if len(content) > MOST_BYTES:
        raise _unusable(path, f"has more than {MOST_BYTES:,} bytes: it is no list of hosts")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unusable(path, "is not text in UTF-8") from error


def _unusable(path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"--hosts-file {path} {reason}; give a text file with one host a line, as {HOST_FORM}"
    )


def _united(given: Sequence[HostAddress], text: str, path: str) -> tuple[HostAddress, ...]:
    hosts = union(given, parse_hosts(text, path))
    if not hosts:
        raise _unusable(path, "names no host")
    return hosts


def _host_in(line: str, place: str) -> HostAddress | None:
    """The host of a line, if it holds one; the message shows no password."""
    text, *comment = re.split(r"(?:^|\s)#", line, maxsplit=1)
    if not text.strip():
        return None
    try:
        return HostAddress.parse(text)
    except ValueError as error:
        # Hidden is what stands before an '@', which a '#' in a password cuts off.
        is_safe = "@" not in "".join(comment)
        reason = str(error) if is_safe else f"what is before the '#' is no host; give {HOST_FORM}"
        raise ConfigurationError(f"{place}: {reason}") from None
