"""What the corpus may not repeat: six words in a row of the texts the model is examined on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

WORDS_IN_A_ROW = 6
_WORD = re.compile(r"\w+")


def runs(text: str, length: int = WORDS_IN_A_ROW) -> Iterator[tuple[str, ...]]:
    """Every sequence of so many words, in lower case and without punctuation."""
    words = _WORD.findall(text.lower())
    return zip(*(words[start:] for start in range(length)), strict=False)


class Forbidden:
    """The sequences that no made text may have."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs = {run for text in texts for run in runs(text)}

    def touches(self, *texts: str) -> bool:
        """Whether any of the texts has a forbidden sequence."""
        return any(run in self._runs for text in texts for run in runs(text))

    def found(self, text: str) -> list[str]:
        """The forbidden sequences in a text."""
        return [" ".join(run) for run in runs(text) if run in self._runs]
