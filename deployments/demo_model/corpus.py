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

from deployments.demo_model.filling import Filling
from deployments.demo_model.grammar import Entry, Grammar
from deployments.demo_model.morphology import elides
from deployments.demo_model.names import NBSP
from deployments.demo_model.overlap import Forbidden

Split = Literal["training", "held-out"]
HELD_OUT_IN = 20
"""One shape of so many is held out."""

FREE_WEIGHT = 5.0
"""How much oftener than others a line of the free patterns of `any.txt` is taken."""

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
        return Filling(self._grammar, self._random, entry).texts()

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
