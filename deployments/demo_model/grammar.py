"""What a grammar holds: nouns, adjectives, and entries with slots; see GRAMMAR.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from deployments.demo_model.morphology import Adjective, Noun

SENTENCES = ("clause", "note", "opener", "tail", "link", "label", "remark", "fragment")
ANY = "any"
"""The class of all nouns, and that of all adjectives."""

SlotKind = Literal["value", "noun", "phrase", "ending", "choice", "adjective"]


class GrammarError(ValueError):
    """A line that breaks the rules; the message names its file and number."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One `{form name}` of an entry.

    `name` may carry a number, `base` does not. `form` is the article; for a choice its forms, for
    an adjective the name of the noun it belongs to.
    """

    kind: SlotKind
    name: str
    base: str
    form: str = ""


Part = str | Slot


@dataclass(frozen=True, slots=True)
class Entry:
    """One line that makes text: its parts in both languages, and the line it stands on."""

    kind: str
    place: str
    french: tuple[Part, ...]
    english: tuple[Part, ...]

    def slots(self) -> Iterator[Slot]:
        """Every slot of the French side."""
        return (part for part in self.french if isinstance(part, Slot))


@dataclass(slots=True)
class Grammar:
    """Everything the files hold, by class or kind."""

    nouns: dict[str, list[Noun]] = field(default_factory=dict)
    adjectives: dict[str, list[Adjective]] = field(default_factory=dict)
    phrases: dict[str, list[Entry]] = field(default_factory=dict)
    sentences: dict[str, list[Entry]] = field(default_factory=dict)

    def entries(self) -> Iterator[Entry]:
        """All lines that make text."""
        for group in (*self.sentences.values(), *self.phrases.values()):
            yield from group
