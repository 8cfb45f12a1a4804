"""Gives up an answer that says the same thing again and again, as Ollama does."""

MOST_REPEATS = 30


class RepeatedError(Exception):
    """The same piece came too many times in a row."""


class Repetition:
    """Watches the pieces of one answer and keeps those that came."""

    def __init__(self) -> None:
        self._last = ""
        self._repeats = 0
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._pieces)

    def watch(self, piece: str) -> None:
        """Take one piece. Raises RepeatedError for one too many of the same, spaces aside."""
        plain = piece.strip()
        self._repeats = self._repeats + 1 if plain == self._last else 0
        self._last = plain
        if self._repeats > MOST_REPEATS:
            raise RepeatedError
        self._pieces.append(piece)
