"""Word for word from French to English: no grammar, no choice, the same answer every time."""

import csv
import re
from functools import lru_cache
from pathlib import Path

_FRENCH_ENGLISH = Path(__file__).with_name("lexicon_fr_en.tsv")
# An elided word (l', qu', aujourd'hui is whole) ends at its apostrophe; a word may hold hyphens.
_WORD = re.compile(
    r"aujourd['’]hui|[^\W\d_]+['’](?=[^\W\d_])|[^\W\d_]+(?:-[^\W\d_]+)*", re.IGNORECASE
)
_UNCOUNTABLE = frozenset({"damage", "equipment", "goods", "lightning", "maintenance", "staff"})
_FORMS_REMEMBERED = 16384


class Lexicon:
    """Words and what to put in their place; a word that is not in it stays as it is."""

    def __init__(self, words: dict[str, str], nouns: frozenset[str] = frozenset()) -> None:
        self._words = words
        self._nouns = nouns
        self._form = lru_cache(maxsize=_FORMS_REMEMBERED)(self._look_up)

    @staticmethod
    @lru_cache(maxsize=1)
    def french_to_english() -> "Lexicon":
        """The lexicon that comes with the package: words of inspection and incident reports."""
        with _FRENCH_ENGLISH.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        words = {row["french"]: row["english"] for row in rows}
        return Lexicon(words, frozenset(row["french"] for row in rows if row["kind"] == "n"))

    def __len__(self) -> int:
        return len(self._words)

    def translate(self, text: str) -> str:
        """The text with every known word replaced, its case, spaces and punctuation kept."""
        return _WORD.sub(self._replacement, text)

    def _replacement(self, found: re.Match[str]) -> str:
        return self._form(found[0])

    def _look_up(self, word: str) -> str:
        plain = word.lower().replace("’", "'")
        english = self._words.get(plain)
        if english is None and plain[-1] in "sx":
            english = self._plural(plain[:-1])
        if english is None:
            return word
        if plain.endswith("'"):
            english += " "
        if len(plain.rstrip("'")) > 1 and word.isupper():
            return english.upper()
        return english[:1].upper() + english[1:] if word[0].isupper() else english

    def _plural(self, singular: str) -> str | None:
        english = self._words.get(singular)
        if english is None or singular not in self._nouns or english in _UNCOUNTABLE:
            return english
        if english.endswith(("s", "x", "ch", "sh")):
            return english + "es"
        if english.endswith("y") and english[-2] not in "aeiou":
            return english[:-1] + "ies"
        return english + "s"
