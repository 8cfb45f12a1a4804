from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.core.errors import ConfigurationError, StorageError
from tasks.core.storage.store import STAGING, Store

NEXT = "; see to it, then give the same command again"


def is_locked(store: Store, name: str) -> bool:
    """Whether somebody holds the lock at this moment."""
    with store.try_lock(name) as is_mine:
        return not is_mine


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A root that does not exist yet."""
    return Store(tmp_path / "root")


def staged_files(store: Store) -> list[Path]:
    """What lies in the staging folder."""
    return list((store.root / STAGING).glob("*"))


def test_put_and_read(store: Store) -> None:
    """What was put is read, replaced whole, listed and deleted."""
    store.put("a/b/one.txt", b"1")
    store.put("a/two.txt", b"2")
    store.put("a/two.txt", b"22")
    assert store.read("a/two.txt") == b"22"
    assert store.list("a") == ["a/b/one.txt", "a/two.txt"]
    assert store.list("a/b") == ["a/b/one.txt"]
    store.delete("a/two.txt")
    store.delete("a/two.txt")
    assert not store.exists("a/two.txt")
    assert store.exists("a/b/one.txt")
    assert staged_files(store) == []


def test_nothing_there(store: Store) -> None:
    """A root or folder that does not exist is empty, and nothing is made by looking."""
    assert store.list("a") == []
    assert not store.exists("a/one.txt")
    assert not store.root.exists()


def test_reading_what_is_not_there(store: Store) -> None:
    """Reading a missing object is a `StorageError` that names the file and the reason."""
    with pytest.raises(StorageError) as raised:
        store.read("a/one.txt")
    path = store.root / "a/one.txt"
    assert str(raised.value) == f"cannot read {path}: No such file or directory{NEXT}"


def test_put_if_absent(store: Store) -> None:
    """Of several who put the same key, the first one's object stays."""
    assert store.put_if_absent("a/one.txt", b"first")
    assert not store.put_if_absent("a/one.txt", b"second")
    assert store.read("a/one.txt") == b"first"
    assert staged_files(store) == []


def test_put_if_absent_from_many_threads(store: Store) -> None:
    """Exactly one of many at the same time is told that its object was put."""
    put: list[int] = []

    def try_to_put(number: int) -> None:
        if store.put_if_absent("one", str(number).encode()):
            put.append(number)

    threads = [threading.Thread(target=try_to_put, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.read("one")] == [str(number).encode() for number in put]


@pytest.mark.parametrize("key", ["../out.txt", "a/../../out.txt", "/etc/passwd"])
def test_a_key_that_leaves_the_root(store: Store, key: str) -> None:
    """No operation reaches anything outside the root."""
    for operation in (store.read, store.delete, store.exists, store.list, store.append_log):
        with pytest.raises(StorageError, match="leaves the root"):
            operation(key)
    for put in (store.put, store.put_if_absent):
        with pytest.raises(StorageError, match="leaves the root"):
            put(key, b"")
    assert not (store.root.parent / "out.txt").exists()


def test_a_link_that_leaves_the_root(store: Store, tmp_path: Path) -> None:
    """A link below the root does not lead out of it."""
    store.root.mkdir()
    (store.root / "link").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="leaves the root"):
        store.put("link/out.txt", b"")


def test_nothing_is_visible_while_staging(store: Store) -> None:
    """Until a writer is done the key holds the old object, and its folder nothing else."""
    store.put("data/one.txt", b"old")
    with store.staged("data/one.txt") as path:
        path.write_bytes(b"half of the n")
        assert store.read("data/one.txt") == b"old"
        assert store.list("data") == ["data/one.txt"]
        assert not path.is_relative_to(store.root / "data")
        path.write_bytes(b"new")
    assert store.read("data/one.txt") == b"new"
    assert store.list("data") == ["data/one.txt"]
    assert staged_files(store) == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_fails(store: Store, error: BaseException) -> None:
    """After a failed write the old object stands and nothing is left in the staging folder."""
    store.put("data/one.txt", b"old")

    def write_half() -> None:
        with store.staged("data/one.txt") as path:
            path.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert store.read("data/one.txt") == b"old"
    assert staged_files(store) == []


def test_a_writer_that_runs_out_of_space(store: Store) -> None:
    """An error of the system while writing is a `StorageError` that names key and reason."""
    with pytest.raises(StorageError) as raised, store.staged("data/one.txt"):
        raise OSError(28, "No space left on device")
    target = store.root / "data/one.txt"
    assert str(raised.value) == f"cannot write {target}: No space left on device{NEXT}"
    assert isinstance(raised.value.__cause__, OSError)


def test_a_writer_that_writes_nothing(store: Store) -> None:
    """A writer that made no file does not make an object."""
    with pytest.raises(StorageError, match="cannot write"), store.staged("data/one.txt"):
        pass
    assert not store.exists("data/one.txt")


def test_a_folder_in_the_way(store: Store) -> None:
    """What cannot be put is told of, by every way of putting, and leaves nothing behind."""
    store.put("data", b"a file where a folder is wanted")
    for put in (store.put, store.put_if_absent):
        with pytest.raises(StorageError, match=r"cannot write .*data/one\.txt"):
            put("data/one.txt", b"")
    with pytest.raises(StorageError, match="cannot write"):
        store.append_log("data/one.txt")
    assert staged_files(store) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    """A root that cannot hold anything is refused with the option that named it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"--root .*file: that is a file; give a folder"):
        Store(tmp_path / "file")


@pytest.mark.parametrize("root", ["s3://bucket/x", "gs://bucket"])
def test_object_stores_are_refused(root: str) -> None:
    """A root that is no folder is refused in words, not made into a folder of that name."""
    with pytest.raises(ConfigurationError, match="only local folders are supported"):
        Store(root)


def test_the_root_is_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative root stays where it was when the working folder changes; `~` is the home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = Store("out")
    monkeypatch.chdir("/")
    assert store.root == tmp_path / "out"
    assert Store("~/out").root == tmp_path / "home" / "out"
    assert repr(store) == f"<Store {tmp_path / 'out'}>"


def test_locks_exclude_each_other(store: Store) -> None:
    """A second holder waits until the first is done; other locks are free."""
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with Store(store.root).locked("publish"):
            order.append("second")

    with store.locked("publish"):
        assert is_locked(store, "publish")
        assert not is_locked(store, "other")
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert not is_locked(store, "publish")


def test_a_dead_holder_frees_its_lock(store: Store) -> None:
    """The kernel frees the lock of a process that was killed."""
    program = (
        "import sys, time\n"
        "from tasks.core.storage.store import Store\n"
        "with Store(sys.argv[1]).locked('run-1'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, store.root], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_locked(store, "run-1")
        holder.send_signal(signal.SIGKILL)
        holder.wait(30)
    assert not is_locked(store, "run-1")


def test_a_log_grows(store: Store) -> None:
    """A log is added to, also by a writer that opens it again."""
    for part in (b"one\n", b"two\n"):
        log = store.append_log("runs/1/log.jsonl")
        log.append(part)
        log.append(b"")
        log.close()
    assert store.read("runs/1/log.jsonl") == b"one\ntwo\n"


@contextmanager
def at_most_100_bytes_a_file() -> Iterator[None]:
    """A limit of the system on the size of files, in place of a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_failed_append_leaves_no_trace(store: Store) -> None:
    """An append that did not fit is not there at all, and a later one that fits is whole."""
    log = store.append_log("log")
    log.append(b"a" * 60)
    with at_most_100_bytes_a_file():
        with pytest.raises(StorageError) as raised:
            log.append(b"b" * 60)
        after_failure = store.read("log")
        log.append(b"c" * 40)
    log.close()
    assert after_failure == b"a" * 60
    assert store.read("log") == b"a" * 60 + b"c" * 40
    assert str(raised.value) == f"cannot write {store.root / 'log'}: File too large{NEXT}"


def test_a_failed_put_leaves_the_old_object(store: Store) -> None:
    """An object that did not fit leaves the old one and no staging file."""
    store.put("one", b"old")
    for put in (store.put, store.put_if_absent):
        with at_most_100_bytes_a_file(), pytest.raises(StorageError, match="File too large"):
            put("one", b"n" * 200)
    assert store.read("one") == b"old"
    assert staged_files(store) == []


def test_a_log_is_not_given_to_children(store: Store) -> None:
    """A process started meanwhile does not hold the log or a lock open."""
    log = store.append_log("log")
    assert not os.get_inheritable(log._descriptor)
    log.close()
