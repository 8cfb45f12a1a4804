from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tasks.core.limits.claim_files import ClaimFiles, LockFile
from tasks.core.limits.shares import Claim, Standing
from tests.core.limits.runs import files_in


def settled(files: ClaimFiles, mine: Claim) -> Standing:
    """The claims after ours was changed."""
    standing = files.try_to_settle(lambda _: mine)
    assert standing
    return standing


def test_runs_see_the_same(tmp_path: Path) -> None:
    """Every run sees every claim, whole and in the same order."""
    claims = [
        Claim(4, 2**40, 3),
        Claim(None, 0, 0, is_alone=True),
        Claim(2**40, 1, 2**40),
    ]
    runs = [ClaimFiles(tmp_path / "host") for _ in claims]
    for run, claim in zip(runs, claims, strict=True):
        settled(run, claim)
    seen = [settled(run, claim) for run, claim in zip(runs, claims, strict=True)]
    assert len({standing.claims for standing in seen}) == 1
    assert [standing.mine for standing in seen] == claims
    for run in runs:
        run.close()


def test_one_decides_at_a_time(tmp_path: Path) -> None:
    """While a run decides another one is told so, and is not kept waiting."""
    one, two = ClaimFiles(tmp_path / "host"), ClaimFiles(tmp_path / "host")
    refused: list[Standing | None] = []

    def decide(standing: Standing) -> Claim:
        refused.append(two.try_to_settle(lambda standing: standing.mine))
        return standing.mine

    assert one.try_to_settle(decide)
    assert refused == [None]
    assert two.try_to_settle(lambda standing: standing.mine)
    one.close()
    two.close()


def test_failed_decision_lets_others_decide(tmp_path: Path) -> None:
    """An error in the middle changes no claim and leaves the gate open."""
    one, two = ClaimFiles(tmp_path / "host"), ClaimFiles(tmp_path / "host")
    settled(one, Claim(4))

    def fail(standing: Standing) -> Claim:
        raise ArithmeticError(standing)

    with pytest.raises(ArithmeticError):
        one.try_to_settle(fail)
    assert settled(two, Claim()).others == (Claim(4),)
    one.close()
    two.close()


def test_what_a_crash_left(tmp_path: Path) -> None:
    """A claim that nobody holds a lock of counts for nothing, and is deleted."""
    run = ClaimFiles(tmp_path / "host")
    (tmp_path / "host" / "1-dead.claim").write_bytes(b"\1" * 32)
    (tmp_path / "host" / "2-empty.claim").touch()
    assert settled(run, Claim(4)).claims == (Claim(4),)
    assert files_in(tmp_path) == [".claim", "gate"]
    run.close()


def test_claim_in_the_making(tmp_path: Path) -> None:
    """A claim that is alive and has not said anything yet says nothing."""
    run = ClaimFiles(tmp_path / "host")
    silent = LockFile(tmp_path / "host" / "1-silent.claim")
    assert silent.try_lock()
    assert settled(run, Claim(4)).others == (Claim(),)
    silent.close()
    run.close()


def test_lock_of_a_deleted_file(tmp_path: Path) -> None:
    """A lock that others no longer see is not held; the next try is at the file they see."""
    lock = LockFile(tmp_path / "gate")
    (tmp_path / "gate").unlink()
    assert not lock.try_lock()
    assert lock.try_lock()
    other = LockFile(tmp_path / "gate")
    assert not other.try_lock()
    lock.unlock()
    assert other.try_lock()
    lock.close()
    other.close()


def test_many_begin_at_once(tmp_path: Path) -> None:
    """Whoever makes the folder and the gate, all meet at the same ones."""
    for attempt in range(100):
        folder = tmp_path / str(attempt) / "host"
        together = threading.Barrier(4)
        locks: list[LockFile] = []

        def begin(
            folder: Path = folder,
            together: threading.Barrier = together,
            locks: list[LockFile] = locks,
        ) -> None:
            together.wait()
            locks.append(LockFile(folder / "gate"))

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [lock.try_lock() for lock in locks] == [True, False, False, False]
        assert os.listdir(folder) == ["gate"]  # noqa: PTH208
        for lock in locks:
            lock.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(100)))
