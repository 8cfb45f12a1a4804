"""Check the grammar: its lines, what they share with the examination, which words are missing."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise

from deployments.demo_model import examination
from deployments.demo_model.corpus import Corpus
from deployments.demo_model.grammar import Entry, Grammar, Part, Slot
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.reading import FOLDER, read_tolerantly

_FRENCH_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*", re.UNICODE)
_BREAK = " \u2016 0 0 0 0 0 0 "


def literal(parts: tuple[Part, ...]) -> str:
    """An entry's own words; a slot breaks them apart, as whatever fills it will."""
    return "".join(part if isinstance(part, str) else _BREAK for part in parts)


def repeated(grammar: Grammar, forbidden: Forbidden) -> list[str]:
    """Entries whose own words repeat the examination, as messages."""
    return [
        f"{entry.place}: six words of the sample: {run!r}"
        for entry in grammar.entries()
        for parts in (entry.french, entry.english)
        for run in forbidden.found(literal(parts))
    ]


def french_words(grammar: Grammar) -> Counter[str]:
    """How often each French word form stands in the grammar."""
    words: Counter[str] = Counter()
    for entry in grammar.entries():
        words.update(_words(literal(entry.french)))
        words.update(_participles(entry))
        for slot in entry.slots():
            if slot.kind == "choice":
                words.update(slot.form.split("/"))
                words.update(form + "s" for form in slot.form.split("/"))
    for nouns in grammar.nouns.values():
        for noun in nouns:
            words.update(_words(f"{noun.singular} {noun.plural or ''}"))
    for adjectives in grammar.adjectives.values():
        for adjective in adjectives:
            words.update(_words(" ".join(adjective.forms)))
    return words


def _participles(entry: Entry) -> list[str]:
    """The forms of the words that a slot for an ending follows."""
    stems = (
        _words(before)[-1:]
        for before, part in pairwise(entry.french)
        if isinstance(before, str) and isinstance(part, Slot) and part.kind == "ending"
    )
    return [stem + ending for stems_ in stems for stem in stems_ for ending in ("e", "s", "es")]


def missing_words(grammar: Grammar) -> dict[str, Counter[str]]:
    """French words of the sample that the grammar lacks, by file."""
    known = french_words(grammar)
    missing: dict[str, Counter[str]] = {}
    for (file, _), text in examination.source_texts().items():
        for word in _words(text):
            if word not in known and len(word) > 1:
                missing.setdefault(file, Counter())[word] += 1
    return missing


def _words(text: str) -> list[str]:
    return _FRENCH_WORD.findall(text.lower().replace("’", "'"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong, what is missing and some examples; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m deployments.demo_model.check")
    parser.add_argument("--missing", action="store_true", help="words of the sample not covered")
    parser.add_argument("--file", default="", help="show only what concerns this grammar file")
    parser.add_argument("--examples", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    grammar, wrong = read_tolerantly(FOLDER)
    forbidden = Forbidden(examination.all_texts())
    wrong = [line for line in wrong + repeated(grammar, forbidden) if line.startswith(options.file)]
    say = sys.stdout.write
    sizes = {kind: len(entries) for kind, entries in grammar.sentences.items()}
    say(f"{sizes}, {sum(map(len, grammar.nouns.values()))} nouns\n")
    if options.missing:
        for file, words in missing_words(grammar).items():
            say(f"not covered, {file}: {' '.join(sorted(words))}\n")
    made = Corpus(grammar, forbidden, options.seed).pairs("training")
    wanted = (p for p in made if not options.file or options.file in "".join(p.shape))
    for pair in islice(wanted, options.examples):
        say(f"{pair.fr}\n    {pair.en}\n")
    say("\n".join(wrong) + ("\n" if wrong else ""))
    say(f"{len(wrong)} lines are wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
