from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.hosts_file import (
    MOST_BYTES,
    HostChanges,
    changes_between,
    hosts_at_start,
    parse_hosts,
    read_hosts,
    union,
    watch,
)
from tasks.core.errors import ConfigurationError
from tasks.core.settings import HostAddress
from tests.fakes import until

EVERY_S = 0.01
HOST_FORM = "URL or URL=SLOTS, for example http://gpu1:11434=4"


def host(name: str, slots: int | None = None) -> HostAddress:
    """A host by its name."""
    return HostAddress(f"http://{name}:11434", slots)


A, B, C = host("a"), host("b", 2), host("c", 4)


def refused(text: str) -> str:
    """What is said of a file that is no list of hosts."""
    with pytest.raises(ConfigurationError) as raised:
        parse_hosts(text, "hosts.txt")
    assert str(raised.value).startswith("--hosts-file hosts.txt")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", ()),
        ("\n \n# nobody yet\n  # nor here\n", ()),
        ("a\nhttp://b:11434=2\n", (A, B)),
        ("  b=2\t\r\n\r\nA\r\n", (B, A)),
        ("# fast\nb=2 # two GPUs, ask bob@example.org\na\t#old", (B, A)),
        ("c=4", (C,)),
    ],
)
def test_a_file_of_hosts(text: str, hosts: tuple[HostAddress, ...]) -> None:
    """One host a line in the form of --host; comments and empty lines say nothing."""
    assert parse_hosts(text, "hosts.txt") == hosts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n\nb=many\n", ["line 3", "'b=many'", "whole number from 1", HOST_FORM]),
        ("ftp://a", ["line 1", "ftp://a", HOST_FORM]),
        ("a b", ["line 1", "'a b' holds a space", HOST_FORM]),
        ("http://a#top", ["line 1", "http://a#top", HOST_FORM]),
        ("b\n\x0ca\x0cc", ["line 2", HOST_FORM]),
        ("# all\na\nb\nhttp://A:11434/=4", ["lines 2 and 4", "http://a:11434", "once"]),
    ],
)
def test_lines_that_are_no_hosts(text: str, words: list[str]) -> None:
    """What is wrong is said with the file, the line and the form that is wanted."""
    said = refused(text)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "line",
    [
        "http://me:secret@a",
        "http://me:secret@a=4 # mine",
        "http://me:secret #2@a",
        "#no\nme:secret@a",
        "http://me:secret=4 # of bob@a",
    ],
)
def test_credentials_in_a_file_are_never_shown(line: str) -> None:
    """A password in a line is refused without being repeated."""
    assert "secret" not in refused(line)


@given(st.text(max_size=60))
def test_any_text_is_hosts_or_a_reason(text: str) -> None:
    """Whatever a file holds, it is a list of hosts or an error that names the file."""
    try:
        hosts, said = parse_hosts(text, "hosts.txt"), ""
    except ConfigurationError as error:
        hosts, said = (), str(error)
    assert said.startswith("--hosts-file hosts.txt") or not said
    assert len({one.url for one in hosts}) == len(hosts)


def test_reading(tmp_path: Path) -> None:
    """A file is read as UTF-8, with or without a mark in front; it may name nobody yet."""
    path = tmp_path / "hosts.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb=2 # \xc3\xa9t\xc3\xa9\r\n")
    assert read_hosts(str(path)) == (A, B)
    path.write_text("")
    assert read_hosts(str(path)) == ()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """What is no readable text file is refused by name, with the reason and the form."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00a")
    (tmp_path / "huge").write_bytes(b"#" * (MOST_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "nowhere": "cannot be read (No such file",
        "binary": "is not text in UTF-8",
        "huge": "has more than 1,048,576 bytes",
        "pipe": "is not a file",
        ".": "is not a file",
        "nul\0": "cannot be read (",
        "x" * 300: "cannot be read (File name too long",
    }.items():
        path = f"{tmp_path}/{name}"
        with pytest.raises(ConfigurationError) as raised:
            read_hosts(path)
        assert str(raised.value).startswith(f"--hosts-file {path} {reason}")
        assert HOST_FORM in str(raised.value)


def test_hosts_of_both(tmp_path: Path) -> None:
    """A run has the hosts of --host and of the file; slots that were given count."""
    assert union([A, C], [B]) == (A, C, B)
    assert union([host("b", 7)], [A, B]) == (host("b", 7), A)
    assert union([host("b")], [A, B]) == (B, A)
    assert union([], [A, B]) == (A, B)
    path = tmp_path / "hosts.txt"
    path.write_text("b=2\n")
    assert hosts_at_start([A], str(path)) == (A, B)
    assert hosts_at_start([A], None) == (A,)
    path.write_text("# later\n")
    assert hosts_at_start([A], str(path)) == (A,)
    with pytest.raises(ConfigurationError, match="names no host"):
        hosts_at_start([], str(path))


def test_changes() -> None:
    """Who joined, who left and whose slots are others is what differs, whatever the order."""
    assert changes_between([A, B, C], [host("d"), host("b", 3), A]) == HostChanges(
        joined=(host("d"),), left=(C.url,), slots_changed=(host("b", 3),)
    )
    assert changes_between([A], [host("a", 2)]) == HostChanges(slots_changed=(host("a", 2),))
    assert changes_between([B], [host("b")]) == HostChanges(slots_changed=(host("b"),))
    assert not changes_between([A, B], [B, A])
    assert HostChanges(left=(A.url,))


@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.dictionaries(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(1, 9))),
)
def test_changes_lead_from_one_to_the_other(
    before: list[str], after: dict[str, int | None]
) -> None:
    """Following the changes turns the hosts before into the hosts now."""
    old, now = [host(name) for name in before], [host(*pair) for pair in after.items()]
    changes = changes_between(old, now)
    followed = {one.url: one for one in old if one.url not in changes.left}
    followed |= {one.url: one for one in (*changes.joined, *changes.slots_changed)}
    assert followed == {one.url: one for one in now}


@dataclass
class Watched:
    """A hosts file under watch, and all that was told of it."""

    path: Path
    changes: list[HostChanges] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Put another file in its place, as editors do."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)

    def write_unmarked(self, text: str) -> None:
        """Write into the file, which keeps its time of change."""
        before = self.path.stat()
        self.path.write_text(text)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert self.path.stat().st_size == before.st_size

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink()

    async def told(self, condition: Callable[[], bool]) -> None:
        """Wait for news."""
        await until(condition, 10)

    async def rest(self) -> None:
        """Give it time in which to say something."""
        await asyncio.sleep(10 * EVERY_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two hosts."""
    path = tmp_path / "hosts.txt"
    path.write_text("a\nb=2\n")
    return path


@asynccontextmanager
async def watching(
    path: Path,
    *fixed: HostAddress,
    known: tuple[HostAddress, ...] = (A, B),
    every_s: float = EVERY_S,
) -> AsyncIterator[Watched]:
    """The file under watch in a run that began with these hosts."""
    watched = Watched(path)
    task = asyncio.create_task(
        watch(
            str(path),
            fixed,
            known,
            on_change=watched.changes.append,
            on_problem=watched.problems.append,
            every_s=every_s,
        )
    )
    yield watched
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_hosts_join_and_leave(path: Path) -> None:
    """Each change is told once, against what was told before."""
    async with watching(path) as watched:
        await watched.rest()
        assert (watched.changes, watched.problems) == ([], [])
        watched.write("a\nc=4\nb=3\n")
        await watched.told(lambda: len(watched.changes) == 1)
        watched.write("c=4\n")
        await watched.told(lambda: len(watched.changes) == 2)
        watched.write("# the same\nc=4\n")
        await watched.rest()
    assert watched.changes == [
        HostChanges(joined=(C,), slots_changed=(host("b", 3),)),
        HostChanges(left=(A.url, host("b").url)),
    ]
    assert watched.problems == []


async def test_what_changed_before_the_watch_began(path: Path) -> None:
    """A file that was changed while the run was planned is told of at once."""
    async with watching(path, known=(A, C)) as watched:
        await watched.told(lambda: bool(watched.changes))
    assert watched.changes == [HostChanges(joined=(B,), left=(C.url,))]


async def test_given_hosts_stay(path: Path) -> None:
    """A host given by --host neither leaves nor changes its slots with the file."""
    async with watching(path, B, known=(B, A)) as watched:
        watched.write("b=9\n")
        await watched.told(lambda: len(watched.changes) == 1)
        watched.write("# nobody\n")
        await watched.rest()
        watched.write("b=1\nc=4\n")
        await watched.told(lambda: len(watched.changes) == 2)
    assert watched.changes == [HostChanges(left=(A.url,)), HostChanges(joined=(C,))]
    assert watched.problems == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no host"),
        ("# all gone\n", "names no host"),
        ("a\nb=many\nc=4\n", "line 2"),
        ("a\nb\na\n", "lines 1 and 3"),
        (None, "cannot be read (No such file"),
    ],
)
async def test_a_file_that_is_not_to_be_followed(path: Path, text: str | None, words: str) -> None:
    """A file that is gone, empty or wrong is told of once; the hosts stay until it is good."""
    async with watching(path) as watched:
        for _ in range(2):
            if text is None:
                watched.remove()
            else:
                watched.write(text)
            await watched.told(lambda: bool(watched.problems))
            await watched.rest()
            assert len(watched.problems) == 1
            assert watched.changes == []
            assert str(path) in watched.problems[0]
            assert words in watched.problems[0]
            assert "the hosts stay as they are" in watched.problems[0]
            watched.write("a\nb=2\n")
            await watched.rest()
            watched.problems.clear()
        watched.write("a\nb=2\nc=4\n")
        await watched.told(lambda: bool(watched.changes))
    assert watched.changes == [HostChanges(joined=(C,))]
    assert watched.problems == []


async def test_another_problem_is_told_too(path: Path) -> None:
    """The same problem is not repeated while other lines change, another one is told."""
    async with watching(path) as watched:
        watched.write("a\nb=many\n")
        await watched.told(lambda: len(watched.problems) == 1)
        watched.write("a\nb=many\nc=4\n")
        await watched.rest()
        assert len(watched.problems) == 1
        watched.write("a\nb=2\nc=few\n")
        await watched.told(lambda: len(watched.problems) == 2)
    assert "line 3" in watched.problems[1]


async def test_a_file_that_is_being_written(path: Path) -> None:
    """A content that stands for less than the time between two looks is nobody's leaving."""
    async with watching(path, every_s=0.15) as watched:
        await asyncio.sleep(0.4)
        with path.open("w") as file:
            await asyncio.sleep(0.1)
            file.write("a\nb=2\nc=4\n")
        await watched.told(lambda: bool(watched.changes))
    assert watched.changes == [HostChanges(joined=(C,))]
    assert watched.problems == []


async def test_the_same_size_at_the_same_time(path: Path) -> None:
    """A change is found even where neither size nor time of the file tells of it."""
    async with watching(path) as watched:
        await watched.rest()
        watched.write_unmarked("a\nb=5\n")
        await watched.told(lambda: bool(watched.changes))
    assert watched.changes == [HostChanges(slots_changed=(host("b", 5),))]
