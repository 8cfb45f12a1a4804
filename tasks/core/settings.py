"""What a run is told: validated once at the edge, then passed as frozen values.

The same models are the parameters of the Prefect flows (their descriptions are the
help texts of the run form) and of the `reports` command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

OptionalText = Annotated[str | None, WithJsonSchema({"type": "string"})]
OptionalCount = Annotated[
    Annotated[int, Field(ge=1)] | None, WithJsonSchema({"type": "integer", "minimum": 1})
]
"""Plain fields of the run form in Prefect's UI that may be left empty: it would show a
choice between a type and None in front of each."""


def at(position: int) -> Callable[[dict[str, Any]], None]:
    """Place a field in the run form; a default of None is left out, it is no text."""

    def place(schema: dict[str, Any]) -> None:
        schema["position"] = position
        if schema.get("default", "") is None:
            del schema["default"]

    return place


PolicyName = Literal["pull", "random", "round_robin", "least_connections"]
LimitsName = Literal["auto", "local", "prefect"]

HOST_FORM = "URL or URL=SLOTS, for example http://gpu1:11434=4"
OLLAMA_PORT = 11434

_DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One Ollama server and the number of requests it may have in flight."""

    url: str
    slots: int | None = None
    """None when the user did not say: found out at the start of a run."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `URL[=SLOTS]`; the URL is brought into the form `scheme://name:port[/path]`.

        Raises `ValueError` with a message that never shows a password.
        """
        url, equals, slots_text = text.strip().rpartition("=")
        if not equals:
            url, slots_text = slots_text, ""
        if equals and not (slots_text.isascii() and slots_text.isdigit() and int(slots_text) > 0):
            raise ValueError(
                f"{hide_credentials(text)!r}: the slots after '=' must be a whole number from 1; "
                f"give {HOST_FORM}"
            )
        return cls(url=normal_url(url), slots=int(slots_text) if equals else None)


def normal_url(text: str) -> str:
    """The one spelling of a host's URL, as the ollama client would complete it.

    A bare name gets `http` and port 11434; with a scheme the port defaults to that
    scheme's. Raises `ValueError` for credentials and for what is no address.
    """
    shown = hide_credentials(text)
    had_scheme = "://" in text
    if "@" in text:
        raise ValueError(
            f"{shown!r}: credentials do not belong in a host URL; put the server behind a proxy "
            f"that needs none from here and give {HOST_FORM}"
        )
    try:
        parts = urlsplit(text if had_scheme else f"http://{text}")
    except ValueError:
        raise ValueError(f"{shown!r} is not the address of a host; give {HOST_FORM}") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"{shown!r}: the port is not a number from 1 to 65535; give {HOST_FORM}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{shown!r} is not the address of an Ollama server; give {HOST_FORM}")
    if any(character.isspace() for character in text):
        raise ValueError(f"{shown!r} holds a space; give {HOST_FORM}")
    if any(mark in text for mark in ",;"):
        raise ValueError(
            f"{shown!r} is more than one address; to each its own option or line: give {HOST_FORM}"
        )
    default_port = {"http": 80, "https": 443}[parts.scheme] if had_scheme else OLLAMA_PORT
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}:{port or default_port}{parts.path.rstrip('/')}"


def hide_credentials(text: str) -> str:
    """The text with whatever stands before an `@` replaced, for messages."""
    return re.sub(r"^(https?://)?.*@", r"\1***@", text, flags=re.IGNORECASE | re.DOTALL)


def dataset_name_for(source: str) -> str:
    """A dataset name from the first source: its file or folder name, made safe."""
    path = PurePath(source)
    fixed = [part for part in path.parts if not any(mark in part for mark in "*?[")]
    name = fixed[-1] if fixed else "reports"
    stem = PurePath(name).stem if fixed == list(path.parts) else name
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")
    return safe[:100] or "reports"


class Settings(BaseModel):
    """What every command needs: where things are stored, and under which name."""

    # A host URL may hold a password, and pydantic would print it with the error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    root: str = Field(
        description="Folder under which everything is stored.",
        min_length=1,
        json_schema_extra=at(1),
    )
    dataset: str = Field(
        description="Name of the dataset: letters, digits, '.', '_' and '-'.",
        json_schema_extra=at(2),
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_means_not_given(cls, given: object) -> object:
        """A form sends an empty text for a field that was left alone."""
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value not in ("", None)}
        return given

    @field_validator("dataset")
    @classmethod
    def _dataset_is_a_name(cls, dataset: str) -> str:
        if not _DATASET_NAME.fullmatch(dataset):
            raise ValueError(
                f"{dataset!r} is not a dataset name; use letters, digits, '.', '_' and '-', "
                "starting with a letter or digit"
            )
        return dataset


class IngestSettings(Settings):
    """Which source files to read as reports."""

    sources: list[str] = Field(
        description="Files, folders or globs: csv, tsv, jsonl, json, parquet, xlsx, txt, md.",
        min_length=1,
        json_schema_extra=at(0),
    )
    text_column: OptionalText = Field(
        default=None,
        description="Column that holds the text; empty: the column with the longest texts.",
        json_schema_extra=at(3),
    )
    id_column: OptionalText = Field(
        default=None,
        description="Column that holds a unique id; empty: ids are made from the rows.",
        json_schema_extra=at(4),
    )
    evolve: bool = Field(
        default=False,
        description="Let new columns or types in, by rewriting the dataset's files.",
        json_schema_extra=at(5),
    )


class TranslateSettings(Settings):
    """Which hosts translate a dataset, with which model, and how."""

    hosts: list[str] = Field(
        default_factory=list,
        description=f"Ollama servers, each as {HOST_FORM}; without SLOTS they are found out by "
        "a short burst at the start of the run.",
        json_schema_extra=at(6),
    )
    hosts_file: OptionalText = Field(
        default=None,
        description=f"Text file with one Ollama server a line, each as {HOST_FORM}; read again "
        "during the run, so that servers can join and leave.",
        json_schema_extra=at(7),
    )
    model: str = Field(
        description="Model name on the hosts, for example translategemma:12b.",
        min_length=1,
        json_schema_extra=at(8),
    )
    source_lang: str = Field(
        default="fr",
        description="Language of the reports (ISO 639-1).",
        json_schema_extra=at(9),
    )
    target_lang: str = Field(
        default="en",
        description="Language to translate into (ISO 639-1).",
        json_schema_extra=at(10),
    )
    limit: OptionalCount = Field(
        default=None,
        description="Translate at most this many of the missing reports; empty: all.",
        json_schema_extra=at(11),
    )
    policy: PolicyName = Field(
        default="pull",
        description="How reports are given to hosts; pull is the one to use, the others are "
        "baselines.",
        json_schema_extra=at(12),
    )
    limits: LimitsName = Field(
        default="auto",
        description="How runs at the same time share hosts: local: by locks of this machine; "
        "prefect: by concurrency limits of the Prefect server, too; auto: prefect where a "
        "server is set (PREFECT_API_URL), else local.",
        json_schema_extra=at(13),
    )
    hedge: bool = Field(
        default=True,
        description="Near the end of a run, let idle slots ask again for what takes longest; "
        "the first answer counts. Off: nothing is sent twice unless it failed.",
        json_schema_extra=at(14),
    )
    other_weights: bool = Field(
        default=False,
        description="Let the model's name mean different weights on different hosts.",
        json_schema_extra=at(15),
    )
    fleet_timeout_seconds: int = Field(
        default=300,
        ge=0,
        description="Seconds to wait for any host when all were lost in the middle of a run.",
        json_schema_extra=at(16),
    )
    load_timeout_seconds: int = Field(
        default=600,
        ge=1,
        description="Seconds a host may take to load the model.",
        json_schema_extra=at(17),
    )
    num_ctx: int = Field(
        default=4096,
        ge=256,
        description="Context length in tokens, the same for every request of a run.",
        json_schema_extra=at(18),
    )
    profile: OptionalText = Field(
        default=None,
        description="Prompt profile; empty: chosen by the model's name.",
        json_schema_extra=at(19),
    )

    @field_validator("hosts")
    @classmethod
    def _hosts_are_addresses(cls, hosts: list[str]) -> list[str]:
        addresses = [HostAddress.parse(host) for host in hosts]
        urls = [address.url for address in addresses]
        for url in urls:
            if urls.count(url) > 1:
                raise ValueError(f"{url} is given twice; give each host once, with all its slots")
        return hosts

    @field_validator("source_lang", "target_lang")
    @classmethod
    def _language_is_a_code(cls, language: str) -> str:
        if not _LANGUAGE.fullmatch(language):
            raise ValueError(f"{language!r} is not a language code; give one such as fr or pt-BR")
        return language

    @model_validator(mode="after")
    def _some_host_is_given(self) -> Self:
        if not self.hosts and self.hosts_file is None:
            raise ValueError(
                f"no host is given; give at least one --host as {HOST_FORM}, or --hosts-file "
                "with one a line"
            )
        return self

    @model_validator(mode="after")
    def _languages_differ(self) -> Self:
        if self.source_lang == self.target_lang:
            raise ValueError(
                f"--to {self.target_lang}: reports are translated from another language; "
                "give two different ones with --from and --to"
            )
        return self

    @property
    def addresses(self) -> tuple[HostAddress, ...]:
        """The hosts of `hosts`, parsed: those that stay whatever the hosts file says."""
        return tuple(HostAddress.parse(host) for host in self.hosts)


class RunSettings(IngestSettings, TranslateSettings):
    """Which source files to read, and which hosts translate them."""

    dataset: str = Field(
        default="",
        description="Name of the dataset; empty: that of the first source.",
        json_schema_extra=at(2),
    )

    @model_validator(mode="before")
    @classmethod
    def _dataset_from_first_source(cls, given: object) -> object:
        if isinstance(given, dict) and not given.get("dataset"):
            sources = given.get("sources")
            if isinstance(sources, list) and sources and isinstance(sources[0], str):
                return {**given, "dataset": dataset_name_for(sources[0])}
        return given
