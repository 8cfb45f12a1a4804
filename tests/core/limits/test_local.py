from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasks.core.errors import ConfigurationError
from tasks.core.limits.local import DEFAULT_FOLDER, FOLDER_VARIABLE, LocalLedger, folder_name
from tasks.core.limits.shares import TURN_S, Standing
from tests.core.limits.runs import (
    PATIENCE_S,
    URL,
    clean_up,
    eventually,
    files_in,
    new_run,
    other_process,
    wait_until_stopped,
)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    """A run."""
    async with new_run(tmp_path) as ledger:
        yield ledger


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    """Another run on the same machine."""
    async with new_run(tmp_path) as ledger:
        yield ledger


async def test_one_run_has_all(one: LocalLedger) -> None:
    """A run by itself holds what it needs, up to the host's slots, and gives back."""
    await one.claim(URL, 4)
    assert await one.share(URL, 9) == 4
    assert await one.hold(URL, 9) == 4
    assert await one.hold(URL, 1) == 1
    assert await one.hold(URL, 3) == 3
    assert await one.hold(URL, 0) == 0


async def test_two_runs_share(one: LocalLedger, two: LocalLedger) -> None:
    """Who had all gives back half as its requests end, and the newcomer gets that half."""
    await one.claim(URL, 4)
    assert await one.hold(URL, await one.share(URL, 9)) == 4
    await two.claim(URL, 4)
    assert await two.share(URL, 9) == 2
    assert await two.hold(URL, 2) == 0
    assert await one.share(URL, 9) == 2
    assert await one.hold(URL, 3) == 3
    assert await two.hold(URL, 2) == 1
    assert await one.hold(URL, 2) == 2
    assert await two.hold(URL, 2) == 2
    assert await one.hold(URL, 9) == 2


async def test_what_others_leave_is_taken(one: LocalLedger, two: LocalLedger) -> None:
    """A run that needs less, or ends, leaves its slots to the other."""
    for ledger in (one, two):
        await ledger.claim(URL, 4)
        await ledger.share(URL, 9)
        await ledger.hold(URL, 2)
    assert await two.share(URL, 1) == 1
    assert await one.share(URL, 9) == 3
    await two.hold(URL, 1)
    assert await one.hold(URL, 3) == 3
    await two.__aexit__(None, None, None)
    assert await one.share(URL, 9) == 4
    assert await one.hold(URL, 4) == 4


async def test_what_nobody_needs_is_kept(one: LocalLedger, two: LocalLedger) -> None:
    """A run gives nothing back for want of work while nobody else has any."""
    await one.claim(URL, 4)
    await one.hold(URL, 4)
    await two.claim(URL, 4)
    assert await one.share(URL, 0) == 4
    assert await two.share(URL, 0) == 0
    assert await two.share(URL, 3) == 3
    assert await one.share(URL, 0) == 1


async def test_smallest_claim_holds(one: LocalLedger, two: LocalLedger) -> None:
    """A smaller claim is everybody's: nobody adds to what is held until it is below that."""
    await one.claim(URL, 4)
    await one.hold(URL, 4)
    await two.claim(URL, 2)
    assert await one.known_slots(URL) == 2
    assert await two.share(URL, 9) == 2
    assert await one.share(URL, 9) == 1
    for held in (3, 2):
        assert await one.hold(URL, held) == held
        assert await two.hold(URL, 1) == 0
    assert await one.hold(URL, 1) == 1
    assert await two.hold(URL, 2) == 1
    assert await one.hold(URL, 4) == 1


async def test_a_smaller_claim_is_told(tmp_path: Path) -> None:
    """Who is left with fewer slots than were claimed hears of it once, and of the other why."""
    notes: list[str] = []
    async with LocalLedger(tmp_path, on_note=notes.append) as one, LocalLedger(tmp_path) as two:
        await one.claim(URL, 4)
        await one.share(URL, 9)
        assert notes == []
        await two.claim(URL, 2)
        await one.share(URL, 9)
        await one.share(URL, 9)
    [note] = notes
    assert note.startswith(f"{URL} is used with 2 slots, though this run was to use 4: another run")


async def test_larger_claim_holds_when_the_smaller_is_gone(
    one: LocalLedger, two: LocalLedger
) -> None:
    """The number of a run that has ended, or that says another one, is forgotten."""
    await one.claim(URL, 4)
    await two.claim(URL, 2)
    await two.claim(URL, 3)
    assert await one.known_slots(URL) == 3
    await two.claim(URL, None)
    assert await two.known_slots(URL) == 4
    await one.__aexit__(None, None, None)
    assert await two.known_slots(URL) is None


async def test_unknown_number(one: LocalLedger, two: LocalLedger) -> None:
    """Nobody holds anything before one knows; then that run's number does for all."""
    await one.claim(URL, None)
    assert await one.known_slots(URL) is None
    assert await one.share(URL, 3) == 0
    assert await one.hold(URL, 3) == 0
    await two.claim(URL, 2)
    assert await one.known_slots(URL) == 2
    assert await one.hold(URL, 3) == 2


async def test_hosts_are_apart(one: LocalLedger, two: LocalLedger) -> None:
    """What is held of one host says nothing of another."""
    for url in (URL, URL + "/other"):
        await one.claim(url, 2)
        await two.claim(url, 2)
    assert await one.hold(URL, 2) == 2
    assert await two.hold(URL + "/other", 2) == 2


async def test_turns(tmp_path: Path) -> None:
    """Two runs have one slot in turn, and agree on whose turn it is."""
    now_s = 0.0
    runs = [LocalLedger(tmp_path, clock=lambda: now_s) for _ in range(2)]
    for run in runs:
        await run.claim(URL, 1)
        await run.share(URL, 5)
    had = []
    for turn in range(20):
        now_s = turn * TURN_S
        had.append([await run.share(URL, 5) for run in runs])
    for lap in range(0, 20, 2):
        assert sorted(had[lap : lap + 2]) == [[0, 1], [1, 0]]
    for run in runs:
        await run.__aexit__(None, None, None)


async def test_leaving_takes_the_claim_along(tmp_path: Path) -> None:
    """Nothing is left of a run but what the next one uses, too."""
    async with new_run(tmp_path) as ledger:
        await ledger.claim(URL, 4)
        assert files_in(tmp_path) == [".claim", "gate"]
    assert files_in(tmp_path) == ["gate"]
    assert await ledger.hold(URL, 0) == 0


async def test_for_all_users(tmp_path: Path) -> None:
    """Whatever the umask, every user may take part, and nobody deletes others' files."""
    umask = os.umask(0o077)
    try:
        async with new_run(tmp_path / "slots") as ledger, ledger.alone(URL):
            modes = {
                path.name if path.suffix != ".claim" else "claim": path.stat().st_mode & 0o7777
                for path in [tmp_path / "slots", *(tmp_path / "slots").rglob("*")]
            }
    finally:
        os.umask(umask)
    files = dict.fromkeys(["gate", "alone", "claim"], 0o666)
    assert modes == {"slots": 0o1777, folder_name(URL): 0o1777} | files


async def test_cleaned_up(tmp_path: Path, one: LocalLedger, two: LocalLedger) -> None:
    """Runs find each other again after somebody has deleted their files."""
    await one.claim(URL, 4)
    await one.hold(URL, 3)
    await two.claim(URL, 4)
    clean_up(tmp_path)
    await one.share(URL, 9)
    assert await two.hold(URL, 4) == 1
    assert await one.hold(URL, 4) == 3


def test_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for all runs of the machine, unless the environment names another."""
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert LocalLedger()._folder == Path(DEFAULT_FOLDER)
    monkeypatch.setenv(FOLDER_VARIABLE, "/shared/slots")
    assert LocalLedger()._folder == Path("/shared/slots")
    assert LocalLedger(Path("/given"))._folder == Path("/given")


def test_folder_of_a_host() -> None:
    """It can be read, it is a plain name, and only the same URL has the same."""
    assert folder_name("http://gpu1:11434/a") == (
        "http-gpu1-11434-a-" + hashlib.sha256(b"http://gpu1:11434/a").hexdigest()[:12]
    )
    assert folder_name("http://gpu1:11434/a") != folder_name("http://gpu1:11434/A")
    assert len(folder_name("http://" + "x" * 300)) < 100


async def test_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A file or a link in its place is an error that names it and what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name, reason in (("file", "Not a directory"), ("link", "that is a link")):
        with pytest.raises(ConfigurationError) as raised:
            await new_run(tmp_path / name).__aenter__()
        assert str(raised.value) == (
            f"cannot count the slots in use in {tmp_path / name}: {reason}; see to it, or name "
            "another folder in REPORTS_SLOTS_FOLDER, the same one for all runs on this machine"
        )


async def test_link_in_place_of_a_host(tmp_path: Path, one: LocalLedger) -> None:
    """Nothing is written to a folder that a link leads to."""
    (tmp_path / "victim").mkdir()
    (tmp_path / folder_name(URL)).symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigurationError, match="that is a link"):
        await one.claim(URL, 4)
    assert files_in(tmp_path) == []


async def test_link_in_place_of_a_file(tmp_path: Path, one: LocalLedger) -> None:
    """Nothing is opened through a link that somebody else has put there."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / folder_name(URL)).mkdir()
    (tmp_path / folder_name(URL) / "gate").symlink_to(victim)
    with pytest.raises(ConfigurationError):
        await one.claim(URL, 4)
    assert victim.read_bytes() == b"precious"


HOLD_ALL = """
async def main():
    async with LocalLedger(folder) as ledger:
        await ledger.claim(url, 4)
        await ledger.share(url, 9)
        assert await ledger.hold(url, 4) == 4
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_slots_of_a_killed_run(tmp_path: Path, one: LocalLedger) -> None:
    """They are free as soon as it is dead, and its claim is deleted."""
    await one.claim(URL, 4)
    with other_process(HOLD_ALL, tmp_path) as child:
        assert await one.hold(URL, 4) == 0
        assert await one.share(URL, 9) == 2
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert await one.hold(URL, 4) == 4
    assert await one.share(URL, 9) == 4
    assert files_in(tmp_path) == [".claim", "gate"]


STOP_AT_THE_GATE = """
async def main():
    ledger = LocalLedger(folder)
    def stop(standing):
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return standing.mine
    await ledger._settle(url, stop)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_run_that_is_stopped_at_the_gate(tmp_path: Path) -> None:
    """The others keep what they have, may give back, and their event loops go on."""
    async with LocalLedger(tmp_path, gate_patience_s=0.2) as one:
        await one.claim(URL, 4)
        await one.hold(URL, 3)
        with other_process(STOP_AT_THE_GATE, tmp_path) as child:
            wait_until_stopped(child)
            raising = asyncio.create_task(one.hold(URL, 4))
            sharing = asyncio.create_task(one.share(URL, 4))
            await asyncio.sleep(0)
            assert await one.hold(URL, 2) == 2
            assert await raising == 2
            assert await sharing == 2
            child.send_signal(signal.SIGCONT)
            await eventually(lambda: one.hold(URL, 4), 4)


RANDOM_WISHES = """
async def main():
    async with LocalLedger(folder, clock=lambda: random.random() * 100) as ledger:
        await ledger.claim(url, 4)
        print("ready", flush=True)
        while True:
            share = await ledger.share(url, random.randrange(6))
            await ledger.hold(url, random.choice([share, 9, 0]))
            await asyncio.sleep(0)
asyncio.run(main())
"""


async def test_many_processes(tmp_path: Path, one: LocalLedger) -> None:
    """Whatever several processes ask for, together they never hold more than there is."""
    await one.claim(URL, 4)

    async def standing() -> Standing:
        return await one._settle(URL, lambda standing: standing.mine)

    with (
        other_process(RANDOM_WISHES, tmp_path),
        other_process(RANDOM_WISHES, tmp_path),
        other_process(RANDOM_WISHES, tmp_path),
    ):
        seen: set[tuple[int, ...]] = set()
        until = time.monotonic() + PATIENCE_S
        while len(seen) < 20:
            assert time.monotonic() < until, seen
            seen.add(tuple(claim.held for claim in (await standing()).claims))
            await asyncio.sleep(0.002)
    assert max(map(sum, seen)) <= 4
    assert await one.hold(URL, 4) == 4
