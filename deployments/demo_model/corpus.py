"""Sentence pairs from the grammar.

A pair has a shape: the lines of the grammar it is made of, nouns and values aside. A fixed share of
the shapes is held out: training never sees them, the evaluation sees nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from random import Random
from typing import Literal

from deployments.demo_model.grammar import Entry, Grammar, Part, Slot
from deployments.demo_model.morphology import (
    Noun,
    Phrase,
    agreement,
    elides,
    english_article,
    with_article,
)
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.slots import PLURAL_FORMS
from deployments.demo_model.values import MAKERS, NBSP

Split = Literal["training", "held-out"]
HELD_OUT_IN = 20
"""One shape of so many is held out."""

ADJECTIVE_SHARE, CODE_SHARE, COMPLEMENT_SHARE = 0.22, 0.12, 0.06
CODED = frozenset(
    {"any", "part", "equipment", "machine", "vehicle", "sensor", "valve", "structure"}
)
FREE_WEIGHT = 5.0
"""How much oftener than others a line of the free patterns of `any.txt` is taken."""

_DEFINITE = frozenset({"le", "du", "au"})
_SPACES = (NBSP, NBSP, "\u202f", " ")
_BEFORE_SIGN = re.compile(r" ([:;!?»%€])")
_AFTER_QUOTE = re.compile(r"« ")
_UNSPACED = re.compile(r"(?<=\S)([;»])")
_ELIDING = re.compile(r"\b([Qq]u|[Ll]orsqu|[Pp]uisqu|[Jj]usqu|[Dd])e (?=(\w+))")
_LONGEST_CHARS = 330


@dataclass(frozen=True, slots=True)
class Pair:
    """A French text, its English translation, and the grammar lines they were made of."""

    fr: str
    en: str
    shape: tuple[str, ...]


class Corpus:
    """Makes pairs; the same seed makes the same pairs."""

    def __init__(self, grammar: Grammar, forbidden: Forbidden, seed: int) -> None:
        self._grammar = grammar
        self._forbidden = forbidden
        self._random = Random(seed)  # noqa: S311 - a corpus, not a secret
        self._weights = {
            kind: list(accumulate(_weight(entry) for entry in entries))
            for kind, entries in grammar.sentences.items()
        }

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Pairs of one split without end; none shares six words in a row with what is forbidden."""
        while True:
            pair = self._sentence()
            if is_held_out(pair.shape) is not (split == "held-out"):
                continue
            if len(pair.fr) <= _LONGEST_CHARS and not self._forbidden.touches(pair.fr, pair.en):
                yield pair

    def _sentence(self) -> Pair:
        compose, ends = self._random.choices(_COMPOSITIONS, _WEIGHTS)[0]
        drafts = compose(self)
        fr = _ELIDING.sub(_elided, "".join(draft.fr for draft in drafts))
        en = "".join(draft.en for draft in drafts)
        if ends:
            fr, en = self._finished(fr, en)
        elif en[0] in "“‘":
            en = _capital(en)
        fr, en = self._typography(fr, en)
        return Pair(fr, en, tuple(draft.place for draft in drafts if draft.place))

    def make(self, kind: str) -> Draft:
        """One entry of a kind, filled in."""
        entries = self._grammar.sentences[kind]
        entry = self._random.choices(entries, cum_weights=self._weights[kind])[0]
        fr, en = self.filled(entry)
        if kind == "link":
            fr, en = (f" {text}" if text[0].isalpha() else text for text in (fr, en))
        return Draft(fr, en, entry.place)

    def filled(self, entry: Entry) -> tuple[str, str]:
        """An entry with its slots filled, in both languages."""
        return _Filling(self._grammar, self._random, entry).texts()

    def _finished(self, fr: str, en: str) -> tuple[str, str]:
        fr, en = _capital(fr), _capital(en)
        if fr[-1] in ".!?…»":
            return fr, en
        drawn = self._random.random()
        if drawn < 0.88:  # noqa: PLR2004 - the shares are choices
            return fr + ".", en + "."
        if drawn < 0.91:  # noqa: PLR2004
            return f"- {fr}{NBSP};", f"- {en};"
        if drawn < 0.93:  # noqa: PLR2004
            return f"- {fr[:1].lower()}{fr[1:]}.", f"- {en[:1].lower()}{en[1:]}."
        return fr, en

    def _typography(self, fr: str, en: str) -> tuple[str, str]:
        random = self._random
        fr = _UNSPACED.sub(r" \1", fr)
        fr = _BEFORE_SIGN.sub(NBSP + r"\1", _AFTER_QUOTE.sub("«" + NBSP, fr))
        if random.random() < 0.15:  # noqa: PLR2004
            fr = fr.replace("«" + NBSP, '"').replace(NBSP + "»", '"')
            en = en.replace("“", '"').replace("”", '"')
        if random.random() < 0.5:  # noqa: PLR2004
            fr = fr.replace("'", "’")
        return fr.replace(NBSP, random.choice(_SPACES)), en.replace(NBSP, " ")


@dataclass(frozen=True, slots=True)
class Draft:
    """A piece of a sentence in both languages; `place` is empty for mere punctuation."""

    fr: str
    en: str
    place: str = ""


def _weight(entry: Entry) -> float:
    return FREE_WEIGHT if entry.place.startswith("any.txt") else 1.0


def is_held_out(shape: tuple[str, ...]) -> bool:
    """Whether a shape belongs to the evaluation alone; decided by its lines, not by the seed."""
    digest = blake2b("|".join(shape).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_IN == 0


def _elided(found: re.Match[str]) -> str:
    return f"{found[1]}'" if elides(found[2]) else found[0]


def _capital(text: str) -> str:
    at = next((i for i, character in enumerate(text) if character.isalnum()), 0)
    return text[:at] + text[at].upper() + text[at + 1 :] if text else text


class _Filling:
    """One entry being filled: what each of its slots stands for."""

    def __init__(self, grammar: Grammar, random: Random, entry: Entry) -> None:
        self._grammar = grammar
        self._random = random
        self._entry = entry
        self._nouns: dict[str, Phrase] = {}
        self._pairs: dict[str, tuple[str, str]] = {}
        self._adjectives: dict[str, tuple[str, ...]] = {}

    def texts(self) -> tuple[str, str]:
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
        return _Filling(self._grammar, self._random, entry).texts()

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


Compose = Callable[[Corpus], list[Draft]]


def _then(*kinds: str | Draft) -> Compose:
    def compose(corpus: Corpus) -> list[Draft]:
        return [kind if isinstance(kind, Draft) else corpus.make(kind) for kind in kinds]

    return compose


_COMMA, _SPACE, _COLON = Draft(", ", ", "), Draft(" ", " "), Draft(" : ", ": ")
_SEMICOLON, _STOP = Draft(" ; ", "; "), Draft(". ", ". ")
# What a sentence is made of, whether it gets a capital and a full stop, and how often it occurs.
_MIXTURE: tuple[tuple[Compose, bool, float], ...] = (
    (_then("clause"), True, 0.26),
    (_then("opener", _COMMA, "clause"), True, 0.13),
    (_then("clause", _SPACE, "tail"), True, 0.07),
    (_then("opener", _COMMA, "clause", _SPACE, "tail"), True, 0.03),
    (_then("clause", "link", _SPACE, "clause"), True, 0.13),
    (_then("label", _COLON, "clause"), True, 0.02),
    (_then("label", _COLON, "note"), True, 0.03),
    (_then("note"), True, 0.11),
    (_then("note", _SPACE, "tail"), True, 0.03),
    (_then("note", _COMMA, "note"), True, 0.02),
    (_then("note", _COLON, "clause"), True, 0.02),
    (_then("note", _SEMICOLON, "note"), True, 0.02),
    (_then("clause", _COLON, "clause"), True, 0.02),
    (_then("remark"), False, 0.05),
    (_then("fragment"), False, 0.06),
)  # fmt: skip
_COMPOSITIONS = [(compose, ends) for compose, ends, _ in _MIXTURE]
_WEIGHTS = [weight for *_, weight in _MIXTURE]
