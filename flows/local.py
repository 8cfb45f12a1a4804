"""Local servers to try things on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from deployments.local_ollama.process import local_servers
from deployments.local_ollama.settings import Settings as ServerSettings
from flows.terminal import console, say

CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLE = CHECKOUT / "data" / "sample"

SIMULATION = (
    "These servers simulate: they take the time of a model and answer word by word from a "
    "small lexicon. They do not translate."
)


def run_local_hosts(count: int, slots: int, tokens_per_second: float) -> int:
    """Run local servers until interrupted; prints how to use them."""
    settings = ServerSettings(slots=slots, decode_rate=tokens_per_second)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with local_servers([settings] * count) as servers:
        hosts = [f"{server.url}={slots}" for server in servers]
        for host in hosts:
            say(f"host: {host}")
        say(f"model: {settings.model}")
        say(SIMULATION)
        say(f"try: {command_to_try('data/sample', 'out', hosts, settings.model)}")
        say("Ctrl-C stops them.")
        console.file.flush()
        stopped.wait()
    return 0


def command_to_try(source: str, root: str, hosts: list[str], model: str) -> str:
    """The command that translates a source on these hosts."""
    given = " ".join(f"--host {host}" for host in hosts)
    return f"reports run {source} --root {root} --text-column texte {given} --model {model}"
