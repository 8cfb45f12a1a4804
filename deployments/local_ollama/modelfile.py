"""Reads a Modelfile: FROM, TEMPLATE, SYSTEM, PARAMETER and LICENSE."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COMMAND = re.compile(r"[ \t]*([A-Za-z]+)[ \t]+")
_COMMENT = re.compile(r"[ \t]*(#[^\n]*)?(\n|$)")
_QUOTED = re.compile(r'"""(.*?)"""|"((?:[^"\n]|\n)*?)"(?=[ \t]*(?:\n|$))', re.DOTALL)
_IGNORED = frozenset({"MESSAGE", "ADAPTER", "RENDERER", "PARSER", "REQUIRES"})
_LISTS = frozenset({"stop"})


class ModelfileError(ValueError):
    """A Modelfile that cannot be used; the message has its path and line."""


@dataclass(slots=True)
class Modelfile:
    """What a Modelfile says. `weights` is the GGUF file that FROM names."""

    weights: Path
    template: str | None = None
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    license: str = ""


def read_modelfile(path: Path) -> Modelfile:
    """A Modelfile, or a GGUF file by itself. Raises ModelfileError, OSError."""
    if path.suffix == ".gguf":
        return _checked(Modelfile(path), path)
    text = path.read_text(encoding="utf-8")
    found = Modelfile(Path())
    licences: list[str] = []
    for line, command, value in _commands(text, path):
        match command:
            case "FROM":
                found.weights = path.parent / value
            case "TEMPLATE":
                found.template = value
            case "SYSTEM":
                found.system = value
            case "LICENSE":
                licences.append(value)
            case "PARAMETER":
                name, *given = value.split(None, 1)
                _set(found.parameters, name, "".join(given))
            case _ if command not in _IGNORED:
                raise ModelfileError(
                    f"{path}, line {line}: {command} is no command of a Modelfile: use FROM, "
                    "TEMPLATE, SYSTEM, PARAMETER or LICENSE"
                )
    found.license = "\n".join(licences)
    return _checked(found, path)


def _commands(text: str, path: Path) -> list[tuple[int, str, str]]:
    """Line, command and value of each command, in order."""
    commands: list[tuple[int, str, str]] = []
    at = 0
    while at < len(text):
        blank = _COMMENT.match(text, at)
        if blank is not None:
            at = max(blank.end(), at + 1)
            continue
        line = text.count("\n", 0, at) + 1
        head = _COMMAND.match(text, at)
        if head is None:
            raise ModelfileError(f"{path}, line {line}: begin the line with a command such as FROM")
        value, at = _value(text, head.end())
        commands.append((line, head[1].upper(), value))
    return commands


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at `at`, quoted or to the end of the line, and where it ends."""
    quoted = _QUOTED.match(text, at)
    if quoted is not None:
        return quoted[1] if quoted[1] is not None else quoted[2], quoted.end()
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return text[at:end].strip(), end


def _set(parameters: dict[str, Any], name: str, text: str) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if name in _LISTS:
        parameters.setdefault(name, []).append(value if isinstance(value, str) else text)
    else:
        parameters[name] = value


def _checked(found: Modelfile, path: Path) -> Modelfile:
    if found.weights == Path():
        raise ModelfileError(f"{path}: it names no weights: add a line FROM ./model.gguf")
    if not found.weights.is_file():
        raise ModelfileError(
            f"{found.weights}: there is no such file; {path} says FROM it: run `make demo`, "
            "or give another --model-file"
        )
    return found
