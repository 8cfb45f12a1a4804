"""The two sides of an entry, cut into words and slots, each slot resolved by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deployments.demo_model.grammar import Grammar, GrammarError, Part, Slot
from deployments.demo_model.values import MAKERS

FRENCH_FORMS = (
    *("le", "un", "ce", "son", "du", "au", "de", "d"),
    *("les", "des", "aux", "ces", "ses", "pl"),
)
PLURAL_FORMS = frozenset({"les", "des", "aux", "ces", "ses", "pl"})
ENGLISH_FORMS = ("the", "a", "pl")
OF_ITS_CLASS = "adj"
"""As the name of an adjective slot: of the class of the noun it belongs to."""

_SLOT = re.compile(r"\{([^{}]*)\}")
_ON_BOTH_SIDES = ("value", "noun", "phrase", "adjective")


@dataclass(frozen=True, slots=True)
class SlotReader:
    """Reads the slots of one entry; errors begin with its place."""

    place: str
    grammar: Grammar
    articled: frozenset[str]
    """Names that stand with an article: nouns, although a value has the same name."""

    @classmethod
    def of(cls, place: str, french: str, grammar: Grammar) -> SlotReader:
        """A reader for the entry with this French side."""
        slots = (text.split() for text in _SLOT.findall(french))
        articled = (
            words[-1]
            for words in slots
            if len(words) > 1 and words[0] in FRENCH_FORMS and words[1:] != ["date"]
        )
        return cls(place, grammar, frozenset(articled))

    def parts(self, text: str, *, french: bool) -> tuple[Part, ...]:
        """One side of the entry. Raises GrammarError."""
        return tuple(self._parts(text, french=french))

    def check(self, french: tuple[Part, ...], english: tuple[Part, ...]) -> None:
        """Raise GrammarError unless both sides have the same slots and every ending its noun."""
        here, there = (
            {part.name for part in side if isinstance(part, Slot) and part.kind in _ON_BOTH_SIDES}
            for side in (french, english)
        )
        if here != there:
            different = ", ".join(sorted(here ^ there))
            raise self._error(f"{{{different}}} stands on one side only")
        for part in french:
            if isinstance(part, Slot) and part.kind in ("ending", "choice", "adjective"):
                owner = part.form if part.kind == "adjective" else part.name
                if owner not in here:
                    raise self._error(f"nothing here is called {owner!r} to agree with")

    def _parts(self, text: str, *, french: bool) -> Iterator[Part]:
        at = 0
        for found in _SLOT.finditer(text):
            if found.start() > at:
                yield text[at : found.start()]
            yield self._slot(found[1], french=french)
            at = found.end()
        rest = text[at:]
        if "{" in rest or "}" in rest:
            raise self._error(f"a brace is not closed in {text!r}")
        if rest:
            yield rest

    def _slot(self, text: str, *, french: bool) -> Slot:
        words = text.split()
        if not words:
            raise self._error("an empty slot")
        name, form = words[-1], " ".join(words[:-1])
        return (
            self._adjective(name, french=french)
            or _agreeing(name, form)
            or self._value(text, name, form)
            or self._noun_or_phrase(text, name, form, french=french)
        )

    def _adjective(self, name: str, *, french: bool) -> Slot | None:
        named, at, owner = name.partition("@")
        base = without_number(named)
        known = base in self.grammar.adjectives and base not in self.grammar.nouns
        if not at and (french or not (known or base == OF_ITS_CLASS)):
            return None
        if base == OF_ITS_CLASS:
            base = without_number(owner)
        if owner and base not in self.grammar.adjectives:
            raise self._error(f"there is no class of adjectives {base!r}")
        return Slot("adjective", named, base, owner)

    def _value(self, text: str, name: str, form: str) -> Slot | None:
        base = without_number(name)
        if base == "date" and form in ("le", "on"):
            return Slot("value", name, base, form)
        if base not in MAKERS or (base in self.grammar.nouns and name in self.articled):
            return None
        if form:
            raise self._error(f"{{{text}}}: a value takes no article")
        return Slot("value", name, base)

    def _noun_or_phrase(self, text: str, name: str, form: str, *, french: bool) -> Slot:
        base = without_number(name)
        nouns = self.grammar.nouns.get(base)
        if nouns is None:
            if base in self.grammar.phrases:
                return Slot("phrase", name, base)
            raise self._error(f"{{{text}}}: nothing is called {base!r}")
        forms = FRENCH_FORMS if french else ENGLISH_FORMS
        if form and form not in forms:
            raise self._error(f"{{{text}}}: no such form; use {', '.join(forms)}")
        if form in PLURAL_FORMS and all(noun.plural is None for noun in nouns):
            raise self._error(f"{{{text}}}: no noun of {base!r} has a plural")
        return Slot("noun", name, base, form)

    def _error(self, reason: str) -> GrammarError:
        return GrammarError(f"{self.place}: {reason}")


def without_number(name: str) -> str:
    """The class a slot's name stands for: `part` for `part2`."""
    return name.rstrip("0123456789")


def _agreeing(name: str, form: str) -> Slot | None:
    if form == "e":
        return Slot("ending", name, without_number(name))
    if "/" in form:
        return Slot("choice", name, without_number(name), form)
    return None
