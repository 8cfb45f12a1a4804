"""Local servers to try things on."""

from __future__ import annotations

import importlib
import signal
import threading
from pathlib import Path
from typing import Literal

from deployments.local_ollama.process import local_servers
from deployments.local_ollama.settings import Settings as ServerSettings
from flows.terminal import console, say
from tasks.core.errors import ConfigurationError

EngineName = Literal["llama", "simulated"]
CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLE = CHECKOUT / "data" / "sample"
MODEL = "reports-fr-en"
MODEL_FILE = CHECKOUT / "data" / "demo_model" / "Modelfile"

NOTICES: dict[EngineName, str] = {
    "llama": (
        "They run a small language model on this machine's processor. It was made for this demo: "
        "it knows short technical reports like those of the sample, and nothing else."
    ),
    "simulated": (
        "These servers simulate: they take the time of a model and answer word by word from a "
        "small lexicon. They do not translate."
    ),
}


def run_local_hosts(count: int, server: ServerSettings, engine: EngineName) -> int:
    """Run local servers until interrupted; prints how to use them."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with local_servers([server] * count) as servers:
        hosts = [f"{process.url}={server.slots}" for process in servers]
        for host in hosts:
            say(f"host: {host}")
        say(f"model: {server.model}")
        say(NOTICES[engine])
        say(f"try: {command_to_try('data/sample', 'out', hosts, server.model)}")
        say("Ctrl-C stops them.")
        console.file.flush()
        stopped.wait()
    return 0


def server_settings(
    engine: EngineName, *, slots: int = 4, tokens_per_second: float = 200.0
) -> ServerSettings:
    """One local server with this engine; the speed is the simulation's alone.

    Raises `ConfigurationError` where the engine is not installed.
    """
    if engine == "simulated":
        return ServerSettings(slots=slots, decode_rate=tokens_per_second)
    require("xllamacpp")
    # More threads than one would only fight over the cores of a small machine.
    return ServerSettings(
        slots=slots, engine="llama", model=MODEL, model_file=str(MODEL_FILE), threads=1
    )


def require(package: str) -> None:
    """Raise `ConfigurationError` unless an optional package can be used."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"--engine llama needs {package}, which is not installed: run `make demo`, or "
            "`pip install -e '.[demo]'`, or give --engine simulated"
        ) from missing
    except ImportError as broken:
        raise ConfigurationError(
            f"--engine llama needs {package}, which does not load ({broken}): install the library "
            "it misses (libgomp1 on Debian), or give --engine simulated"
        ) from broken


def command_to_try(source: str, root: str, hosts: list[str], model: str) -> str:
    """The command that translates a source on these hosts."""
    given = " ".join(f"--host {host}" for host in hosts)
    return f"reports run {source} --root {root} --text-column texte {given} --model {model}"
