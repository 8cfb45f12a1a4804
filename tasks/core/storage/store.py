"""Everything below one root, through operations that object stores have too.

A key is a path below the root with forward slashes. Objects are put whole: a reader
sees the old object or the new one, never a part. Writing happens in `.staging` under
the same root, outside every dataset's folder, because readers that open a folder take
every file in it for data.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tasks.core.errors import ConfigurationError, StorageError

STAGING = ".staging"
LOCKS = ".locks"


class Store:
    """The objects of one root in a local folder.

    Raises `StorageError` when the folder cannot be read or written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if "://" in os.fspath(root):
            raise ConfigurationError(
                f"--root {os.fspath(root)}: only local folders are supported; give a path, "
                "for example --root out"
            )
        self.root = Path(root).expanduser().resolve()
        if self.root.exists() and not self.root.is_dir():
            raise ConfigurationError(
                f"--root {os.fspath(root)}: that is a file; give a folder, which may be new"
            )

    def __repr__(self) -> str:
        return f"<Store {self.root}>"

    def path(self, key: str) -> Path:
        """The file behind a key, for readers and writers that want a path."""
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root):
            raise StorageError(f"key {key!r} leaves the root {self.root}")
        return path

    def list(self, prefix: str) -> list[str]:
        """Keys below a prefix (a folder), sorted; empty when there are none."""
        folder = self.path(prefix)
        with _reporting(f"list {folder}"):
            files = [path for path in folder.rglob("*") if path.is_file()]
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def exists(self, key: str) -> bool:
        """Whether an object is there."""
        return self.path(key).is_file()

    def read(self, key: str) -> bytes:
        """The whole object. Raises `StorageError` when there is none."""
        with _reporting(f"read {self.path(key)}"):
            return self.path(key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        """Put an object whole and durably, replacing the one that was there."""
        with self.staged(key) as staged:
            staged.write_bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Put an object whole unless one is there; says whether it was put."""
        target = self.path(key)
        with _reporting(f"write {target}"):
            staged = self._stage()
            try:
                staged.write_bytes(data)
                _make_durable(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(staged, target)
                except FileExistsError:
                    return False
                _make_durable(target.parent)
                return True
            finally:
                staged.unlink(missing_ok=True)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """A file to write to; becomes the object `key` at the end, or never."""
        target = self.path(key)
        with _reporting(f"write {target}"):
            staged = self._stage()
            try:
                yield staged
                _make_durable(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
                _make_durable(target.parent)
            finally:
                staged.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Delete an object; nothing happens when there is none."""
        with _reporting(f"delete {self.path(key)}"):
            self.path(key).unlink(missing_ok=True)

    def append_log(self, key: str) -> AppendLog:
        """A log below this root that only its writer may rely on until it is closed."""
        return AppendLog(self.path(key))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Wait for, and hold, a lock of this root; the kernel frees it if we die."""
        with self._lock_file(name) as descriptor:
            with _reporting(f"lock {name} in {self.root}"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold the lock if nobody else does; says whether it is held."""
        with self._lock_file(name) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        with _reporting(f"lock {name} in {self.root}"):
            path = self.path(f"{LOCKS}/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _stage(self) -> Path:
        folder = self.root / STAGING
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex


class AppendLog:
    """A log that one process adds to: never published, so it may grow in place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reporting(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o666)
            self._end = os.fstat(self._descriptor).st_size
            self._torn = False
            _make_durable(path.parent)

    def append(self, data: bytes) -> None:
        """Add data; it is durable on return, and not there at all after an error."""
        with _reporting(f"write {self._path}"):
            self._mend()
            self._torn = True
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                with suppress(OSError):  # or before the next append
                    self._mend()
                raise
            self._torn = False
            self._end += len(data)

    def close(self) -> None:
        """Give the file back, without what a failed write left of its data."""
        try:
            with _reporting(f"write {self._path}"):
                self._mend()
        finally:
            os.close(self._descriptor)

    def _mend(self) -> None:
        """Take away what a failed write left."""
        if self._torn:
            os.ftruncate(self._descriptor, self._end)
            self._torn = False


@contextmanager
def _reporting(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(
            f"cannot {action}: {reason}; see to it, then give the same command again"
        ) from error


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
