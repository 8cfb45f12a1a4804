"""What is wrong with how the `reports` command was used, in one line that names the option."""

from __future__ import annotations

import re
from typing import TypeVar

import pydantic
from cyclopts import CycloptsError, UnknownOptionError

from tasks.core.errors import ConfigurationError
from tasks.core.settings import HOST_FORM, Settings

_OPTIONS = {
    "sources": "SOURCE",
    "hosts": "--host",
    "source_lang": "--from",
    "target_lang": "--to",
    "other_weights": "--allow-other-weights",
    "fleet_timeout_seconds": "--fleet-timeout",
    "load_timeout_seconds": "--load-timeout",
}

_FORMS = {
    "--root": "--root FOLDER",
    "--dataset": "--dataset NAME",
    "--model": "--model NAME, for example --model translategemma:12b",
    "--host": f"--host as {HOST_FORM}",
    "--hosts-file": "--hosts-file PATH, a text file with one host a line",
    "--limit": "--limit as a whole number from 1",
    "--fleet-timeout": "--fleet-timeout as a whole number of seconds from 0",
    "--load-timeout": "--load-timeout as a whole number of seconds from 1",
    "--num-ctx": "--num-ctx as a whole number of tokens from 256",
    "--count": "--count as a whole number from 1",
    "--slots": "--slots as a whole number from 1",
    "--tokens-per-second": "--tokens-per-second as a number from 0",
}

AnySettings = TypeVar("AnySettings", bound=Settings)


def validated(kind: type[AnySettings], **values: object) -> AnySettings:
    """Settings from options.

    Raises `ConfigurationError`, which names the option.
    """
    if values.get("sources") == []:
        raise ConfigurationError("SOURCE is missing; give at least one file, folder or glob")
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:
            raise ConfigurationError(first["msg"].removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        if option in _FORMS and first["type"] != "value_error":
            # The words are pydantic's, and speak of inputs and fields.
            raise ConfigurationError(wrong(option, values[name])) from error
        message = f"{option}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigurationError(message) from error


def at_least_one(option: str, value: int) -> None:
    """Raises `ConfigurationError` for a number below 1."""
    if value < 1:
        raise ConfigurationError(f"{option} {value}: give a whole number from 1")


def wrong(option: str, value: object) -> str:
    """That a value is none for an option, and the form of one that is."""
    return f"{option} {value!r}: give {_FORMS[option]}"


def usage_message(error: CycloptsError) -> str:
    """What is wrong with the words of a command."""
    text = " ".join(str(error).split()).replace('"', "'").rstrip(".")
    text = re.sub(
        r"^Command '[^']*' parameter (\S+) requires an argument", r"\1 needs a value", text
    )
    forms = [form for option, form in _FORMS.items() if re.search(rf"{option}(?![\w-])", text)]
    if forms and not isinstance(error, UnknownOptionError):
        return f"{text}; give {forms[0]}"
    return f"{text}; see '{' '.join(('reports', *(error.command_chain or ())))} --help'"
