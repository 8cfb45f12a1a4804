"""`python -m deployments.local_ollama`: serve until stopped."""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from deployments.local_ollama.faults import FaultError, Rule
from deployments.local_ollama.modelfile import read_modelfile
from deployments.local_ollama.server import LocalServer
from deployments.local_ollama.settings import Settings, seconds_to_keep

_OWN_NAME = Settings().model
NOTICES = {
    "simulated": "This server simulates Ollama: it answers word by word from a small lexicon and "
    "takes the time its settings say. It is no language model.",
    "llama": "This server answers like Ollama, with a language model that llama.cpp runs here.",
}
_HELP = {
    "host": "address to listen on, this machine only (OLLAMA_HOST)",
    "port": "port to listen on; 0 takes any free one (OLLAMA_HOST)",
    "slots": "answers made at the same time (OLLAMA_NUM_PARALLEL)",
    "max_queue": "requests that may wait for a load (OLLAMA_MAX_QUEUE)",
    "keep_alive": "how long an idle model stays: seconds or 5m; -1 for ever (OLLAMA_KEEP_ALIVE)",
    "context_length": "tokens per slot where a request sets none (OLLAMA_CONTEXT_LENGTH)",
    "model": "name of the model it comes with (LOCAL_OLLAMA_MODEL)",
    "prefill_rate": "prompt tokens read per second, 0 for no time (LOCAL_OLLAMA_PREFILL_RATE)",
    "decode_rate": "tokens written per second, 0 for no time (LOCAL_OLLAMA_DECODE_RATE)",
    "slowdown": "alpha in rate / (1 + alpha * (n - 1)) for n answers (LOCAL_OLLAMA_SLOWDOWN)",
    "load_seconds": "seconds a load takes (LOCAL_OLLAMA_LOAD_SECONDS)",
    "jitter": "largest relative change of an answer's time (LOCAL_OLLAMA_JITTER)",
    "seed": "seed of the jitter (LOCAL_OLLAMA_SEED)",
    "max_loaded": "models loaded at once, 0 for 3 (OLLAMA_MAX_LOADED_MODELS)",
    "load_timeout": "seconds after which a load is given up, 0 for never (OLLAMA_LOAD_TIMEOUT)",
    "engine": "simulated, or llama for a real model (LOCAL_OLLAMA_ENGINE)",
    "model_file": "Modelfile or .gguf of the model it comes with (LOCAL_OLLAMA_MODEL_FILE)",
    "threads": "threads of one loaded model, with llama (LOCAL_OLLAMA_THREADS)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server; returns 0 when it was told to stop and 2 for settings it cannot use."""
    try:
        settings, faults, options = _read(sys.argv[1:] if arguments is None else arguments)
        asyncio.run(_serve(settings, faults, until_stdin_closes=options.until_stdin_closes))
    except (ValueError, OSError) as wrong:
        sys.stderr.write(f"local_ollama cannot start: {wrong}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _read(arguments: Sequence[str]) -> tuple[Settings, list[Rule], argparse.Namespace]:
    from_environment = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(
        prog="python -m deployments.local_ollama",
        description="An Ollama-compatible server with a simulated or a small model.",
    )
    for field in fields(Settings):
        current = getattr(from_environment, field.name)
        kind: Callable[[str], Any] = type(current)
        if field.name == "keep_alive":
            kind = _keep_alive
        elif field.name == "context_length":
            kind = int
        elif field.name == "model_file":
            kind = str
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            default=current,
            help=f"{_HELP[field.name]}; now {current}",
        )
    parser.add_argument("--instant", action="store_true", help="answer and load at once")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="JSON", help="a fault rule; repeatable"
    )
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="stop when the parent closes stdin"
    )
    options = parser.parse_args(arguments)
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    settings = _named(replace(from_environment, **given))
    return settings.instant() if options.instant else settings, _faults(options.fault), options


def _named(settings: Settings) -> Settings:
    """A real model is not called what the simulation calls its own: it has its file's name."""
    if settings.engine == "simulated" or settings.model_file is None or settings.model != _OWN_NAME:
        return settings
    return replace(settings, model=read_modelfile(Path(settings.model_file)).weights.stem)


def _keep_alive(text: str) -> float:
    try:
        return seconds_to_keep(float(text))
    except ValueError:
        return seconds_to_keep(text)


def _faults(texts: Sequence[str]) -> list[Rule]:
    rules: list[Rule] = []
    for text in texts:
        try:
            given = json.loads(text)
        except json.JSONDecodeError as wrong:
            raise FaultError(f"--fault {text}: this is no JSON ({wrong})") from wrong
        rules += [Rule.from_json(each) for each in (given if isinstance(given, list) else [given])]
    return rules


async def _serve(settings: Settings, faults: list[Rule], *, until_stdin_closes: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with LocalServer(settings, faults) as server:
        sys.stdout.write(f"Listening on {server.url}\n{NOTICES[settings.engine]}\n")
        sys.stdout.flush()
        watched = asyncio.create_task(_stdin_closed(stop)) if until_stdin_closes else None
        await stop.wait()
        if watched is not None:
            watched.cancel()
            await asyncio.wait({watched})


async def _stdin_closed(stop: asyncio.Event) -> None:
    """Set `stop` once nobody can write to our standard input any more: the parent is gone."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while await reader.read(1024):
            pass
        stop.set()
    finally:
        transport.close()


if __name__ == "__main__":
    sys.exit(main())
