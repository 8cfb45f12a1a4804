"""JSON into the fields of a request struct, with Go's words for what does not fit.

A struct is a mapping from JSON names to types. Keys match in any case, unknown ones are dropped, of
doubled ones the last counts, and null leaves a field as it was. As in Go, decoding goes on after a
value of the wrong type, and the first such mistake is reported at the end.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.local_ollama.go.json_read import DecodeError, Doubled, kind_of, parse


@dataclass(slots=True)
class Misfit(Exception):
    """A value of the wrong type: what it is, the path of its field, Go's name of the type."""

    value: str
    path: tuple[str, ...]
    wanted: str

    def __str__(self) -> str:
        shown = f"json: cannot unmarshal {self.value} into Go "
        if not self.path:
            return f"{shown}value of type {self.wanted}"
        struct, names = self.path[0], ".".join(self.path[1:])
        return f"{shown}struct field {struct}.{names} of type {self.wanted}"


Kind = Callable[["Decoder", Any, tuple[str, ...]], Any]


@dataclass(slots=True)
class Decoder:
    """Holds the first mistake while decoding goes on."""

    first: Exception | None = None

    def save(self, mistake: Exception) -> None:
        """Keep the mistake, unless there was one before."""
        if self.first is None:
            self.first = mistake


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct type: Go's name, its fields by JSON name, and whether its mistakes end decoding.

    A type with its own UnmarshalJSON reports its first mistake at once, and under another name.
    """

    name: str
    fields: Mapping[str, Kind]
    at_once: bool = False
    own_name: str = ""
    folded: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folded.update({name.casefold(): name for name in self.fields})

    def __call__(self, decoder: Decoder, value: Any, path: tuple[str, ...]) -> Any:
        """The fields that `value` has, by JSON name."""
        inner = Decoder() if self.at_once else decoder
        decoded = self._decoded(inner, value, path or (self.name,), top=not path)
        if self.at_once and inner.first is not None:
            raise inner.first
        return decoded

    def _decoded(
        self, decoder: Decoder, value: Any, path: tuple[str, ...], *, top: bool
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if value is None:
            return found
        if not isinstance(value, dict):
            name = f"api.{self.own_name or self.name}"
            decoder.save(Misfit(kind_of(value), () if top else path, name))
            return found
        pairs: Iterable[tuple[str, Any]] = (
            value.pairs if isinstance(value, Doubled) else value.items()
        )
        for key, given in pairs:
            name = key if key in self.fields else self.folded.get(key.casefold(), "")
            if name:
                decoded = self.fields[name](decoder, given, (*path, name))
                if decoded is not None or given is None:
                    found[name] = decoded
        return found


def decode(body: bytes, struct: Struct) -> dict[str, Any]:
    """The fields of the first JSON value in `body`. Raises DecodeError, EOFError for no value."""
    value = parse(body)
    decoder = Decoder()
    try:
        decoded: dict[str, Any] = struct(decoder, value, ())
    except (Misfit, ValueError) as mistake:
        raise DecodeError(str(mistake)) from mistake
    if decoder.first is not None:
        raise DecodeError(str(decoder.first)) from decoder.first
    return decoded
