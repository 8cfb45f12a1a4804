"""What one server is told before it starts."""

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from deployments.local_ollama.go.text import parse_duration

DEFAULT_PORT = 11434
DEFAULT_CONTEXT_LENGTH = 4096
LEAST_CONTEXT = 4
ENGINES = ("simulated", "llama")
HIGHEST_PORT = 65535
_NOT_NEGATIVE = (
    *("max_queue", "max_loaded", "load_timeout"),
    *("prefill_rate", "decode_rate", "slowdown", "load_seconds"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's settings. Rates are tokens per second; a rate of 0 costs no time at all.

    `slowdown` is alpha in r(n) = r(1) / (1 + alpha * (n - 1)), the decode rate of each of n
    concurrent answers. `jitter` is the largest relative change of an answer's decode time, drawn
    from `seed` and the text, so that the same text always takes the same time. `max_loaded` of 0
    leaves the number of loaded models to the server, and a `load_timeout` of 0 a load all the time
    it takes. `model_file` is the Modelfile or GGUF file of the model that the server comes with;
    the simulation needs none. `threads` are those of one loaded model.
    """

    host: str = "127.0.0.1"
    port: int = 0
    slots: int = 1
    max_queue: int = 512
    keep_alive: float = 300.0
    context_length: int | None = None
    model: str = "simulated-fr-en"
    prefill_rate: float = 2000.0
    decode_rate: float = 60.0
    slowdown: float = 0.05
    load_seconds: float = 1.0
    jitter: float = 0.0
    seed: int = 0
    max_loaded: int = 0
    load_timeout: float = 300.0
    engine: str = "simulated"
    model_file: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        _require_loopback(self.host)
        if self.slots < 1:
            raise ValueError(f"slots is {self.slots}: a server needs at least one slot")
        if not 0 <= self.port <= HIGHEST_PORT:
            raise ValueError(f"port is {self.port}: use 0 (any free port) to 65535")
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}: use one of {', '.join(ENGINES)}")
        if self.engine == "llama" and not self.model_file:
            raise ValueError("engine is llama, which needs a model: give --model-file PATH")
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}: use 1 or more")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: use 0 or more")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is {self.jitter}: use a share from 0 up to, not including, 1")
        if self.context_length is not None and self.context_length < LEAST_CONTEXT:
            raise ValueError(f"context_length is {self.context_length}: use 4 tokens or more")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Settings from Ollama's variables and our own LOCAL_OLLAMA_*; an empty value is unset."""
        given = {name: value for name, value in environment.items() if value}
        settings: dict[str, Any] = {"port": DEFAULT_PORT}
        if "OLLAMA_HOST" in given:
            settings["host"], settings["port"] = split_host(given["OLLAMA_HOST"])
        if "OLLAMA_KEEP_ALIVE" in given:
            settings["keep_alive"] = _seconds("OLLAMA_KEEP_ALIVE", given["OLLAMA_KEEP_ALIVE"])
        if given.get("OLLAMA_CONTEXT_LENGTH", "0") != "0":
            length = given["OLLAMA_CONTEXT_LENGTH"]
            settings["context_length"] = _number("OLLAMA_CONTEXT_LENGTH", length, int)
        for field, variable, kind in _PLAIN_VARIABLES:
            if variable in given:
                settings[field] = _number(variable, given[variable], kind)
        if "OLLAMA_LOAD_TIMEOUT" in given:
            timeout = _seconds("OLLAMA_LOAD_TIMEOUT", given["OLLAMA_LOAD_TIMEOUT"])
            settings["load_timeout"] = 0.0 if math.isinf(timeout) else timeout
        for field in ("model", "engine", "model_file"):
            if (variable := f"LOCAL_OLLAMA_{field.upper()}") in given:
                settings[field] = given[variable]
        return cls(**settings)

    def instant(self) -> Self:
        """The same server, answering and loading at once."""
        return replace(self, prefill_rate=0.0, decode_rate=0.0, load_seconds=0.0)

    def command_line(self) -> list[str]:
        """The arguments that make a child process start with exactly these settings."""
        given: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                given += [f"--{field.name.replace('_', '-')}={value}"]
        return given


_PLAIN_VARIABLES: tuple[tuple[str, str, type[int | float]], ...] = (
    ("slots", "OLLAMA_NUM_PARALLEL", int),
    ("max_queue", "OLLAMA_MAX_QUEUE", int),
    ("max_loaded", "OLLAMA_MAX_LOADED_MODELS", int),
    ("threads", "LOCAL_OLLAMA_THREADS", int),
    ("prefill_rate", "LOCAL_OLLAMA_PREFILL_RATE", float),
    ("decode_rate", "LOCAL_OLLAMA_DECODE_RATE", float),
    ("slowdown", "LOCAL_OLLAMA_SLOWDOWN", float),
    ("load_seconds", "LOCAL_OLLAMA_LOAD_SECONDS", float),
    ("jitter", "LOCAL_OLLAMA_JITTER", float),
    ("seed", "LOCAL_OLLAMA_SEED", int),
)


def _number(variable: str, text: str, kind: type[int | float]) -> int | float:
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"{variable} is {text!r}: give {wanted}") from error


def seconds_to_keep(value: float | str) -> float:
    """A keep_alive as seconds: a number is seconds, text is a Go duration, negative is forever."""
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 else seconds


def _seconds(variable: str, text: str) -> float:
    try:
        return seconds_to_keep(float(text))
    except ValueError:
        pass  # Not a bare number of seconds, so it has to be a duration with units.
    try:
        return seconds_to_keep(text)
    except ValueError as error:
        raise ValueError(
            f"{variable} is {text!r}: give seconds (300, -1 for ever) or a duration (5m)"
        ) from error


def split_host(text: str) -> tuple[str, int]:
    """Host and port of an OLLAMA_HOST value such as `127.0.0.1`, `:11435` or `http://[::1]:80`."""
    scheme, separator, rest = text.strip().partition("://")
    default = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT
    place = (rest if separator else scheme).split("/", 1)[0]
    if place.startswith("["):
        host, _, tail = place[1:].partition("]")
        port_text = tail.removeprefix(":")
    elif place.count(":") > 1:
        host, port_text = place, ""
    else:
        host, _, port_text = place.partition(":")
    if port_text and not port_text.isdecimal():
        raise ValueError(f"OLLAMA_HOST is {text!r}: {port_text!r} is no port number")
    return host or "127.0.0.1", int(port_text) if port_text else default


def _require_loopback(host: str) -> None:
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            f"host is {host!r}: the simulation has no authentication and serves this machine only; "
            "use 127.0.0.1, ::1 or localhost"
        )
