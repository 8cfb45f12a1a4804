"""A process with one llama.cpp server, which listens on a Unix socket and opens no port.

`llama_engine` starts it as a program, with one argument: a JSON object with the fields of `Launch`.
It says `ready` on standard output once the model is loaded, and ends with its standard input, so it
cannot outlive its parent; the socket and its folder go with it. What goes wrong while loading is on
standard error, in llama.cpp's words.

A process of its own, as in Ollama: the library's constructor holds Python's lock for as long as it
loads and cannot be stopped, and a file that brings llama.cpp down takes only this process with it.
This module imports nothing of the package, so that it starts within a tenth of a second.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import xllamacpp

READY = b"ready\n"
_ERRORS_ONLY = 1
_TOKENS_PER_BATCH = 512


class Launch(TypedDict):
    """How to start: `context_length` is in tokens and per slot."""

    model: str
    socket: str
    context_length: int
    slots: int
    threads: int
    shift: bool


def main() -> None:
    """Load, serve, leave."""
    launch: Launch = json.loads(sys.argv[1])
    # Kept for its threads, in which llama.cpp runs.
    _server = xllamacpp.Server(_parameters(launch))
    # The parent may have gone while the model was loaded.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        sys.stdin.buffer.read()
    with suppress(OSError):
        Path(launch["socket"]).unlink()
        Path(launch["socket"]).parent.rmdir()
    # A tidy end would wait for answers that nobody will read.
    os._exit(0)


def _parameters(launch: Launch) -> Any:
    parameters: Any = xllamacpp.CommonParams()
    parameters.model.path = launch["model"]
    parameters.offline = True
    parameters.hostnames = [launch["socket"]]
    parameters.ui = False
    # Prompts come rendered; a template of the file's own is not even to be parsed.
    parameters.chat_template = "chatml"
    parameters.endpoint_metrics = True
    parameters.verbosity = _ERRORS_ONLY
    parameters.n_ctx = launch["context_length"] * launch["slots"]
    parameters.n_parallel = launch["slots"]
    parameters.cont_batching = True
    parameters.ctx_shift = launch["shift"]
    parameters.n_batch = parameters.n_ubatch = _TOKENS_PER_BATCH
    parameters.cpuparams.n_threads = launch["threads"]
    parameters.cpuparams_batch.n_threads = launch["threads"]
    # Each slot keeps the prompt it saw last, and no other copy of it is made in memory.
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False
    # The context is what was asked for, whatever memory is free.
    parameters.fit_params = False
    return parameters


if __name__ == "__main__":
    main()
