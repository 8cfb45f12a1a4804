"""The claims on one host as files: one for each run, locked as long as the run lives.

Decisions are made one at a time, by whoever holds the lock of the file `gate`. All users
of the machine take part, so every file is for everybody; none is opened through a link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tasks.core.limits.shares import Claim, Standing

CLAIM = ".claim"

# For writing even where we only read: opening a pipe that was put there would block otherwise.
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_RECORD = struct.Struct("<4Q")
_MOST_REPLACED = 10


class LockFile:
    """A lock that the kernel frees when its holder dies; never waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = _open_for_all(path)

    def try_lock(self) -> bool:
        """Hold the lock if nobody else does; says whether it is held."""
        if not _try_lock(self._descriptor):
            return False
        if os.fstat(self._descriptor).st_nlink:
            return True
        # Somebody cleaned up, and others meet at a new file.
        renewed = _open_for_all(self._path)
        os.close(self._descriptor)
        self._descriptor = renewed
        return False

    def unlock(self) -> None:
        """Let others have it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let others have it, for good."""
        os.close(self._descriptor)


class ClaimFiles:
    """Our claim on one host, and the claims of others."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.folder = folder
        self.mine = Claim()
        self._gate = LockFile(folder / "gate")
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}{CLAIM}"
        self._descriptor: int | None = None

    def try_to_settle(self, decide: Callable[[Standing], Claim]) -> Standing | None:
        """Claim what `decide` says; None when another run is deciding at this moment."""
        if not self._gate.try_lock():
            return None
        try:
            self._keep_alive()
            standing = self._standing()
            self.say(decide(standing))
            return standing.saying(self.mine)
        finally:
            self._gate.unlock()

    def say(self, mine: Claim) -> None:
        """Change our claim. Without the gate only in a way that gives something back."""
        if mine != self.mine and self._descriptor is not None:
            os.pwrite(self._descriptor, _packed(mine), 0)
        self.mine = mine

    def close(self) -> None:
        """Claim nothing any more."""
        if self._descriptor is not None:
            # What cannot be deleted is no longer locked, so it counts for nothing.
            with suppress(OSError):
                (self.folder / self._name).unlink()
            os.close(self._descriptor)
            self._descriptor = None
        self._gate.close()

    def _keep_alive(self) -> None:
        """Have a claim that others see, also after somebody cleaned up."""
        if self._descriptor is not None:
            if os.fstat(self._descriptor).st_nlink:
                return
            os.close(self._descriptor)
            self._descriptor = None
        self._descriptor = _open_for_all(self.folder / self._name)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(self._descriptor, _packed(self.mine), 0)

    def _standing(self) -> Standing:
        names = {path.name for path in self.folder.iterdir() if path.suffix == CLAIM}
        others = {name: self._living(name) for name in names - {self._name}}
        alive = {name: claim for name, claim in others.items() if claim} | {self._name: self.mine}
        order = sorted(alive)
        return Standing(tuple(alive[name] for name in order), order.index(self._name))

    def _living(self, name: str) -> Claim | None:
        """What another run claims; None when it is dead, and then its file is deleted."""
        path = self.folder / name
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:  # it has just left
            return None
        try:
            if not _try_lock(descriptor):
                return _unpacked(os.pread(descriptor, _RECORD.size, 0))
            # Another user's has to stay where it is; it counts for nothing all the same.
            with suppress(OSError):
                path.unlink()
            return None
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """A folder that every user may add to, where nobody may delete what others added."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "that is a link")
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # It appears with its mode: another user may come between making and changing it.
    draft = path.with_name(f".{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        draft.chmod(0o1777)
        draft.rename(path)
    except OSError:
        draft.rmdir()
        if not path.is_dir():
            raise


def _open_for_all(path: Path) -> int:
    """Open a file that every user may open, which may be new."""
    for _ in range(_MOST_REPLACED):
        # The folder may go at any moment: who makes it replaces an empty one, and somebody may
        # be cleaning up.
        with suppress(FileNotFoundError):
            return _open_or_make(path)
    return _open_or_make(path)


def _open_or_make(path: Path) -> int:
    # Without O_CREAT first: in a sticky folder Linux refuses it for others' files.
    with suppress(FileNotFoundError):
        return os.open(path, _FLAGS)
    for folder in (path.parent.parent, path.parent):  # that of all hosts, and that of this one
        make_folder(folder)
    draft = path.with_name(f".{uuid.uuid4().hex}")
    descriptor = os.open(draft, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.fchmod(descriptor, 0o666)
        os.link(draft, path)
    except FileExistsError:
        os.close(descriptor)
        return os.open(path, _FLAGS)
    except OSError:
        os.close(descriptor)
        raise
    finally:
        draft.unlink(missing_ok=True)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _packed(claim: Claim) -> bytes:
    return _RECORD.pack(claim.slots or 0, claim.need, claim.held, claim.is_alone)


def _unpacked(record: bytes) -> Claim:
    slots, need, held, is_alone = _RECORD.unpack(record.ljust(_RECORD.size, b"\0"))
    return Claim(slots or None, need, held, bool(is_alone))
