"""The grammar's files, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from deployments.demo_model.grammar import ANY, SENTENCES, Entry, Grammar, GrammarError
from deployments.demo_model.morphology import (
    Adjective,
    Noun,
    adjective_forms,
    english_starred,
    starred,
)
from deployments.demo_model.slots import SlotReader

T = TypeVar("T")
FOLDER = Path(__file__).with_name("grammar")
_NOUN = re.compile(r"(?P<fr>.+?) (?P<gender>[mf])(?: (?P<none>-)| \((?P<plural>[^)]+)\))?")
_ENGLISH = re.compile(r"(?P<en>.+?)(?: \((?P<plural>[^)]+)\))?")
_KINDS = ("noun", "adj", "phrase", *SENTENCES)


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str
    name: str
    text: str
    place: str


def read_grammar(folder: Path = FOLDER) -> Grammar:
    """The grammar in a folder. Raises GrammarError that lists every wrong line."""
    grammar, wrong = read_tolerantly(folder)
    if wrong:
        raise GrammarError("\n".join(wrong))
    return grammar


def read_tolerantly(folder: Path = FOLDER) -> tuple[Grammar, list[str]]:
    """The grammar in a folder without its wrong lines, and what is wrong with those."""
    grammar, wrong = Grammar(), []
    lines = [line for path in sorted(folder.glob("*.txt")) for line in _lines(path)]
    # Slots are resolved by class names, so the classes have to be known before the entries.
    for take in (_take_word, _take_entry):
        for line in lines:
            try:
                take(line, grammar)
            except GrammarError as error:
                wrong.append(str(error))
        if take is _take_word:
            grammar.nouns[ANY] = _distinct(grammar.nouns.values())
            grammar.adjectives[ANY] = _distinct(grammar.adjectives.values())
    return grammar, wrong


def _take_word(line: _Line, grammar: Grammar) -> None:
    if line.kind not in _KINDS:
        raise GrammarError(f"{line.place}: there is no section kind {line.kind!r}")
    if line.kind == "noun":
        grammar.nouns.setdefault(line.name, []).append(_noun(line))
    elif line.kind == "adj":
        grammar.adjectives.setdefault(line.name, []).append(_adjective(line))
    elif line.kind == "phrase":
        grammar.phrases.setdefault(line.name, [])


def _take_entry(line: _Line, grammar: Grammar) -> None:
    if line.kind == "phrase":
        grammar.phrases[line.name].append(_entry(line, grammar))
    elif line.kind in SENTENCES:
        grammar.sentences.setdefault(line.kind, []).append(_entry(line, grammar))


def _distinct(groups: Iterable[Iterable[T]]) -> list[T]:
    return list(dict.fromkeys(each for group in groups for each in group))


def _lines(path: Path) -> Iterator[_Line]:
    kind = name = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = raw.strip()
        if text.startswith("== "):
            words = text[3:].split("#")[0].split()
            kind, name = words[0], words[1] if len(words) > 1 else ""
        elif text and not text.startswith("#"):
            yield _Line(kind, name, text, f"{path.name}:{number}")


def _sides(line: _Line, sign: str) -> tuple[str, str]:
    french, found, english = (side.strip() for side in line.text.partition(sign))
    if not found or not french or not english:
        raise GrammarError(f"{line.place}: write FRENCH {sign.strip()} ENGLISH, not {line.text!r}")
    return french, english


def _noun(line: _Line) -> Noun:
    french, english = _sides(line, " = ")
    uncounted = english.endswith(" -")
    english = english.removesuffix(" -")
    matched, other = _NOUN.fullmatch(french), _ENGLISH.fullmatch(english)
    if matched is None or other is None:
        raise GrammarError(f"{line.place}: {french!r} needs a gender: 'pompe f = pump'")
    uncounted = uncounted or matched["none"] is not None
    singular, plural = starred(matched["fr"])
    en, en_plural = english_starred(other["en"])
    return Noun(
        singular=singular,
        plural=None if uncounted else _plain(matched["plural"]) or plural,
        gender="f" if matched["gender"] == "f" else "m",
        en=en,
        en_plural=None if uncounted else _plain(other["plural"]) or en_plural,
    )


def _plain(plural: str | None) -> str | None:
    return plural and plural.replace("*", "")


def _adjective(line: _Line) -> Adjective:
    french, english = _sides(line, " = ")
    return Adjective(adjective_forms(french), english)


def _entry(line: _Line, grammar: Grammar) -> Entry:
    french, english = _sides(line, "=>")
    slots = SlotReader.of(line.place, french, grammar)
    entry = Entry(
        kind=line.kind,
        place=line.place,
        french=slots.parts(french, french=True),
        english=slots.parts(english, french=False),
    )
    slots.check(entry.french, entry.english)
    return entry
