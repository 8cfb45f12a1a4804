"""Splitting a report that does not fit the context, and putting it back together.

Paragraphs stay whole where they fit, then sentences, then words; the whitespace
between the pieces is kept aside and comes back unchanged. A model that was made for
single sentences gets them one by one, whatever would fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import sentencex

CHARS_PER_TOKEN = 3.0
"""Few enough for French in the vocabularies of current models (3.5 to 4 is typical)."""

OUTPUT_PER_INPUT = 1.3
"""Tokens of translation to leave room for, per token of source."""

SPARE_TOKENS = 64
"""For the chat template's own tokens."""

Unit = Literal["report", "sentence"]
"""What one request may hold at most, where it fits: as much as possible, or one sentence."""

_PARAGRAPH = re.compile(r"\n[^\S\n]*(?:\n\s*)?")
_WORD = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of text to translate, and the whitespace that follows it."""

    text: str
    separator: str


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text as leading whitespace and pieces that fit."""

    lead: str
    pieces: tuple[Piece, ...]

    def joined(self, translations: Sequence[str]) -> str:
        """The translations of all pieces, with the whitespace of the source."""
        together = zip(translations, self.pieces, strict=True)
        return self.lead + "".join(text + piece.separator for text, piece in together)


def char_budget(num_ctx: int, prompt_chars: int) -> int:
    """Characters of source that fit one request, with room for the answer; at least 1."""
    free_tokens = num_ctx - prompt_chars / CHARS_PER_TOKEN - SPARE_TOKENS
    return max(1, int(free_tokens / (1 + OUTPUT_PER_INPUT) * CHARS_PER_TOKEN))


def predicted_tokens(text: str) -> int:
    """Length of the answer, in tokens: enough to order reports, longest first."""
    return max(1, round(len(text) / CHARS_PER_TOKEN))


def has_nothing_to_translate(text: str) -> bool:
    """Whether there is no letter in it: numbers, dashes, whitespace."""
    return not any(character.isalpha() for character in text)


def split(text: str, budget_chars: int, lang: str, unit: Unit = "report") -> SplitText:
    """The text as pieces of at most `budget_chars` characters, and at most one `unit`.

    `split(text, n, lang).joined([piece.text for piece in pieces]) == text`, always.
    """
    body = text.strip()
    if not body:
        return SplitText(lead=text, pieces=())
    start = text.index(body)
    if unit == "sentence":
        paragraphs, sentences, *finer = _cutters(lang)
        cut = [part for paragraph in paragraphs(text[start:]) for part in sentences(paragraph)]
        parts = list(_without_blank_starts(cut))
        units = [piece for part in parts for piece in _units(part, budget_chars, tuple(finer))]
        return SplitText(lead=text[:start], pieces=tuple(units))
    units = list(_units(text[start:], budget_chars, _cutters(lang)))
    return SplitText(lead=text[:start], pieces=tuple(_packed(units, budget_chars)))


Cutter = Callable[[str], list[str]]


def _cutters(lang: str) -> tuple[Cutter, ...]:
    return (
        lambda text: _cut_after(_PARAGRAPH, text),
        lambda text: list(sentencex.segment(lang, text)),
        _WORD.findall,
    )


def _units(text: str, budget_chars: int, cutters: tuple[Cutter, ...]) -> Iterator[Piece]:
    """Pieces that fit, cut no finer than needed; together they are the text."""
    piece = _as_piece(text)
    if len(piece.text) <= budget_chars:
        yield piece
    elif cutters:
        cut, *finer = cutters
        for part in _without_blank_starts(cut(text)):
            yield from _units(part, budget_chars, tuple(finer))
    else:
        for start in range(0, len(piece.text), budget_chars):
            end = start + budget_chars
            last = end >= len(piece.text)
            yield Piece(piece.text[start:end], piece.separator if last else "")


def _packed(units: list[Piece], budget_chars: int) -> Iterator[Piece]:
    """Neighbours joined while they fit together."""
    current: Piece | None = None
    for unit in units:
        if current is None:
            current = unit
        elif len(current.text) + len(current.separator) + len(unit.text) <= budget_chars:
            current = Piece(current.text + current.separator + unit.text, unit.separator)
        else:
            yield current
            current = unit
    if current is not None:
        yield current


def _as_piece(text: str) -> Piece:
    body = text.rstrip()
    return Piece(body, text[len(body) :])


def _cut_after(pattern: re.Pattern[str], text: str) -> list[str]:
    ends = [match.end() for match in pattern.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _without_blank_starts(parts: list[str]) -> Iterator[str]:
    """The same parts, whitespace at a part's start given to the part before it."""
    held = ""
    for part in parts:
        body = part.lstrip()
        blank = part[: len(part) - len(body)]
        if not body:
            held += part
        elif held:
            yield held + blank
            held = body
        else:
            held = part
    if held:
        yield held
