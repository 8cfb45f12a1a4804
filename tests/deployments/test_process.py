"""Servers as child processes, their command line and their settings."""

import math
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deployments.local_ollama import LocalServer, Settings, local_server, local_servers
from deployments.local_ollama.go.text import parse_duration
from deployments.local_ollama.process import CHECKOUT, ServerStartError
from deployments.local_ollama.settings import seconds_to_keep, split_host
from tests.deployments.gguf_files import gguf

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def version(url: str) -> str:
    """What `/api/version` answers."""
    with OPENER.open(url + "/api/version", timeout=10) as answer:
        said: str = answer.read().decode()
        return said


def gone(pid: int) -> bool:
    """Whether no process has this id any more; a zombie counts as gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return stat.rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_children_answer_and_end_with_the_block() -> None:
    """Each child has a URL that answers inside the block, and is gone after it."""
    with local_servers([Settings(slots=2).instant(), Settings().instant()]) as servers:
        assert len({server.url for server in servers}) == 2
        for server in servers:
            assert "simulated" in version(server.url)
            assert server.stats(requests=True)["requests"] == []
    assert [server.exit_code for server in servers] == [0, 0]


def test_faults_can_be_set_in_a_child() -> None:
    """Faults given at start and at run time hold in the child, and a wrong one is refused."""
    with local_server(faults=[{"kind": "status", "path": "/api/version"}]) as server:
        with pytest.raises(urllib.error.HTTPError) as refused:
            version(server.url)
        refused.value.close()
        server.clear_faults()
        assert "simulated" in version(server.url)
        with pytest.raises(ValueError, match="unknown fault kind"):
            server.add_faults([{"kind": "nope"}])
        server.add_faults([{"kind": "die", "now": True, "exit_code": 3}])
        end = time.monotonic() + 10
        while server.exit_code is None and time.monotonic() < end:
            time.sleep(0.02)
        assert server.exit_code == 3


def test_killed_child_is_no_error() -> None:
    """A test may kill its server; leaving the block is then quiet."""
    with local_server() as server:
        server.kill()
        assert server.exit_code == -signal.SIGKILL


def test_child_that_cannot_start_says_why() -> None:
    """A port that is taken is reported with the child's own words."""
    with local_server() as server:
        port = int(server.url.rsplit(":", 1)[1])
        with (
            pytest.raises(ServerStartError, match="cannot start"),
            local_server(Settings(port=port)),
        ):
            pass


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_child_dies_with_its_parent() -> None:
    """A parent that is killed leaves no server behind."""
    program = textwrap.dedent("""
        import time
        from deployments.local_ollama import local_server
        with local_server() as server:
            print(server.pid, flush=True)
            time.sleep(600)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
        parent.wait()
    end = time.monotonic() + 10
    while not gone(child):
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)


def test_command_line_says_where_it_listens_and_that_it_simulates() -> None:
    """The first line has the URL, the second says that this is a simulation."""
    with subprocess.Popen(
        [sys.executable, "-m", "deployments.local_ollama", "--port", "0", "--instant"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("Listening on http://127.0.0.1:")
        assert "simulates" in child.stdout.readline()
        child.terminate()
        assert child.wait(10) == 0


def test_settings_come_from_ollamas_variables() -> None:
    """Ollama's variables and our own are read; empty ones count as unset."""
    settings = Settings.from_environment({
        "OLLAMA_HOST": "http://127.0.0.1:11500", "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_MAX_QUEUE": "", "OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_CONTEXT_LENGTH": "8192",
        "LOCAL_OLLAMA_DECODE_RATE": "12.5", "LOCAL_OLLAMA_MODEL": "m",
        "OLLAMA_MAX_LOADED_MODELS": "2", "OLLAMA_LOAD_TIMEOUT": "1m", "LOCAL_OLLAMA_THREADS": "3",
        "LOCAL_OLLAMA_ENGINE": "llama", "LOCAL_OLLAMA_MODEL_FILE": "m.gguf",
    })  # fmt: skip
    assert settings == Settings(
        port=11500, slots=4, keep_alive=math.inf, context_length=8192, decode_rate=12.5, model="m",
        max_loaded=2, load_timeout=60.0, threads=3, engine="llama", model_file="m.gguf",
    )  # fmt: skip


def test_command_line_carries_every_setting() -> None:
    """A child started with a server's command line has exactly its settings."""
    from deployments.local_ollama.__main__ import _read

    settings = Settings(
        slots=3, keep_alive=math.inf, context_length=99, jitter=0.25, seed=7, max_loaded=2,
        engine="llama", model_file="m.gguf", threads=2, model="m",
    )  # fmt: skip
    assert _read(settings.command_line())[0] == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"host": "0.0.0.0"}, "this machine only"),  # noqa: S104 - to be refused
        ({"slots": 0}, "at least one slot"),
        ({"port": 70000}, "port is 70000"),
        ({"decode_rate": -1.0}, "decode_rate is -1"),
        ({"jitter": 1.0}, "jitter is 1"),
        ({"engine": "magic"}, "engine is 'magic'"),
        ({"engine": "llama"}, "needs a model: give --model-file"),
        ({"threads": 0}, "threads is 0"),
        ({"max_loaded": -1}, "max_loaded is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    """A wrong setting is refused by name; addresses other machines could reach are, too."""
    with pytest.raises(ValueError, match=words):
        Settings(**given)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("0", 0), ("-1s", -1)]
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    """Durations are read as Go reads them."""
    assert parse_duration(text) == pytest.approx(seconds)


def test_negative_keep_alive_is_for_ever() -> None:
    """Below zero means for ever, as a number and as a duration."""
    assert (seconds_to_keep(-1), seconds_to_keep("-1m"), seconds_to_keep(3)) == (
        math.inf,
        math.inf,
        3,
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1", ("127.0.0.1", 11434)),
        (":99", ("127.0.0.1", 99)),
        ("http://localhost", ("localhost", 80)),
        ("[::1]:7", ("::1", 7)),
        ("::1", ("::1", 11434)),
        ("http://127.0.0.1:5/path", ("127.0.0.1", 5)),
    ],
)
def test_hosts_are_read_as_ollama_reads_them(text: str, place: tuple[str, int]) -> None:
    """OLLAMA_HOST may hold a scheme, a host, a port, in any of Ollama's forms."""
    assert split_host(text) == place


def test_an_engine_that_is_not_installed_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name, the reason and the next step stand in one line."""
    weights = tmp_path / "model.gguf"
    weights.write_bytes(gguf())
    monkeypatch.setitem(sys.modules, "deployments.local_ollama.llama_engine", None)
    with pytest.raises(ValueError, match=r"engine llama: .* not installed: run .*\[llama\]"):
        LocalServer(Settings(engine="llama", model_file=str(weights)))


def test_a_model_file_gives_the_simulation_its_model(tmp_path: Path) -> None:
    """The built-in model can come from a file, whatever the engine."""
    weights = tmp_path / "model.gguf"
    weights.write_bytes(gguf())
    server = LocalServer(Settings(model="tiny", model_file=str(weights)))
    (model,) = server.store.listed()
    assert (model.name, model.parameter_size, model.path) == ("tiny:latest", "160", weights)


def test_a_child_that_cannot_use_its_model_says_why() -> None:
    """A model file that is missing is told with its path."""
    with (
        pytest.raises(ServerStartError, match=r"no-such\.gguf: there is no such file"),
        local_server(Settings(model_file="no-such.gguf")),
    ):
        pass
