"""An entry with its slots filled: nouns with their articles, adjectives, values, phrases."""

from __future__ import annotations

from random import Random

from deployments.demo_model.grammar import Entry, Grammar, Part, Slot
from deployments.demo_model.morphology import (
    Noun,
    Phrase,
    agreement,
    english_article,
    with_article,
)
from deployments.demo_model.slots import PLURAL_FORMS
from deployments.demo_model.values import MAKERS

# How often a noun gets an adjective of its class, a code, or another noun as its owner.
ADJECTIVE_SHARE, CODE_SHARE, COMPLEMENT_SHARE = 0.22, 0.12, 0.06
CODED = frozenset(
    {"any", "part", "equipment", "machine", "vehicle", "sensor", "valve", "structure"}
)
_DEFINITE = frozenset({"le", "du", "au"})


class Filling:
    """One entry being filled: what each of its slots stands for."""

    def __init__(self, grammar: Grammar, random: Random, entry: Entry) -> None:
        self._grammar = grammar
        self._random = random
        self._entry = entry
        self._nouns: dict[str, Phrase] = {}
        self._pairs: dict[str, tuple[str, str]] = {}
        self._adjectives: dict[str, tuple[str, ...]] = {}

    def texts(self) -> tuple[str, str]:
        """French and English; the same slots stand for the same things in both."""
        for slot in self._entry.slots():
            if slot.kind == "noun" and slot.name not in self._nouns:
                self._nouns[slot.name] = self._noun_phrase(slot)
        return self._side(self._entry.french, french=True), self._side(
            self._entry.english, french=False
        )

    def _side(self, parts: tuple[Part, ...], *, french: bool) -> str:
        return "".join(p if isinstance(p, str) else self._text(p, french=french) for p in parts)

    def _text(self, slot: Slot, *, french: bool) -> str:
        if slot.kind == "noun":
            phrase = self._nouns[slot.name]
            return with_article(slot.form, phrase) if french else english_article(slot.form, phrase)
        if slot.kind in ("ending", "choice"):
            return self._agreeing(slot)
        if slot.kind == "adjective":
            return self._adjective(slot, french=french)
        pair = self._pairs.get(slot.name)
        if pair is None:
            pair = self._pairs[slot.name] = self._drawn(slot)
        text = pair[0 if french else 1]
        if slot.base == "date" and slot.form:
            return f"le {text}" if french else f"on {text}"
        return text

    def _drawn(self, slot: Slot) -> tuple[str, str]:
        if slot.kind == "value":
            return MAKERS[slot.base](self._random)
        entry = self._random.choice(self._grammar.phrases[slot.base])
        return Filling(self._grammar, self._random, entry).texts()

    def _agreeing(self, slot: Slot) -> str:
        phrase = self._nouns.get(slot.name)
        gender, plural = (phrase.gender, phrase.plural) if phrase else ("m", False)
        if slot.kind == "ending":
            return agreement(gender, plural=plural)
        forms = slot.form.split("/")
        if len(forms) == 4:  # noqa: PLR2004
            return forms[(gender == "f") + 2 * plural]
        form = forms[gender == "f"]
        return form + "s" if plural and not form.endswith(("s", "x")) else form

    def _adjective(self, slot: Slot, *, french: bool) -> str:
        if slot.name not in self._adjectives:
            drawn = self._random.choice(self._grammar.adjectives[slot.base])
            self._adjectives[slot.name] = (*drawn.forms, drawn.en)
        forms = self._adjectives[slot.name]
        if not french:
            return forms[4]
        phrase = self._nouns.get(slot.form)
        return forms[(phrase.gender == "f") + 2 * phrase.plural] if phrase else forms[0]

    def _noun_phrase(self, slot: Slot) -> Phrase:
        slots = [each for each in self._entry.slots() if each.name == slot.name]
        forms = {each.form for each in slots if each.kind == "noun"}
        english = {
            part.form
            for part in self._entry.english
            if isinstance(part, Slot) and part.name == slot.name and part.kind == "noun"
        }
        plural = bool(forms & PLURAL_FORMS)
        nouns = self._grammar.nouns[slot.base]
        noun = self._random.choice(nouns)
        while plural and noun.plural is None:
            noun = self._random.choice(nouns)
        phrase = _bare(noun, plural=plural)
        if any(each.kind == "adjective" and each.form == slot.name for each in slots):
            return phrase
        drawn = self._random.random()
        adjectives = self._grammar.adjectives.get(slot.base, [])
        if drawn < ADJECTIVE_SHARE and adjectives and " " not in noun.singular:
            return self._described(phrase, slot)
        drawn -= ADJECTIVE_SHARE
        definite = forms <= _DEFINITE and english == {"the"}
        if 0 <= drawn < CODE_SHARE and definite and slot.base in CODED:
            code = MAKERS["code"](self._random)[0]
            return Phrase(
                f"{phrase.fr} {code}", f"{phrase.en} {code}", phrase.gender, plural, named=True
            )
        drawn -= CODE_SHARE
        if 0 <= drawn < COMPLEMENT_SHARE and definite and slot.base in CODED:
            other = _bare(self._random.choice(nouns), plural=False)
            fr = f"{phrase.fr} {with_article('du', other)}"
            return Phrase(fr, f"{phrase.en} of the {other.en}", phrase.gender, plural)
        return phrase

    def _described(self, phrase: Phrase, slot: Slot) -> Phrase:
        adjective = self._random.choice(self._grammar.adjectives[slot.base])
        form = adjective.forms[(phrase.gender == "f") + 2 * phrase.plural]
        fr = f"{form} {phrase.fr}" if adjective.before else f"{phrase.fr} {form}"
        return Phrase(
            fr, f"{adjective.en} {phrase.en}", phrase.gender, phrase.plural,
            adjective_first=adjective.before,
        )  # fmt: skip


def _bare(noun: Noun, *, plural: bool) -> Phrase:
    if plural and noun.plural is not None and noun.en_plural is not None:
        return Phrase(noun.plural, noun.en_plural, noun.gender, plural=True)
    return Phrase(noun.singular, noun.en, noun.gender, plural=False)
