from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.core.translate.segments import (
    Piece,
    SplitText,
    char_budget,
    has_nothing_to_translate,
    predicted_tokens,
    split,
)

BUDGETS = st.integers(min_value=1, max_value=60)
WORDS = st.text("abé.!?» \n\t\u00a0\u2028\r", max_size=200)
TEXTS = WORDS | st.text(max_size=120)


def restored(parts: SplitText) -> str:
    """The pieces put back together untranslated."""
    return parts.joined([piece.text for piece in parts.pieces])


@given(TEXTS, BUDGETS, st.sampled_from(["fr", "en", "de", "ja", "xx"]))
@example("a\u2028b", 1, "fr")
@example("\u00a0M. Dupont.\u00a0\n\n", 4, "fr")
def test_splitting_loses_nothing(text: str, budget: int, lang: str) -> None:
    """The pieces put together are the text, character for character, whatever the budget."""
    assert restored(split(text, budget, lang)) == text


@given(TEXTS, BUDGETS)
def test_pieces_are_fit_to_be_sent(text: str, budget: int) -> None:
    """Pieces fit the budget, are never empty and have no whitespace around them."""
    for piece in split(text, budget, "fr").pieces:
        assert 0 < len(piece.text) <= budget
        assert piece.text == piece.text.strip()
        assert piece.separator.strip() == ""


@given(TEXTS, BUDGETS)
def test_neighbours_that_fit_together_are_together(text: str, budget: int) -> None:
    """No two neighbours would have fitted one request."""
    pieces = split(text, budget, "fr").pieces
    for first, second in itertools.pairwise(pieces):
        assert len(first.text) + len(first.separator) + len(second.text) > budget


@given(TEXTS, BUDGETS)
def test_single_sentences_lose_nothing_and_fit(text: str, budget: int) -> None:
    """Sentence by sentence, the same promises hold: nothing is lost, everything fits."""
    parts = split(text, budget, "fr", "sentence")
    assert restored(parts) == text
    assert all(0 < len(piece.text) <= budget for piece in parts.pieces)
    assert all(piece.text == piece.text.strip() for piece in parts.pieces)


def test_single_sentences_are_not_joined() -> None:
    """Where a model wants single sentences, neighbours stay apart although they would fit."""
    parts = split("Pompe arrêtée. Le palier vibre.\n\n- joint usé ;\n", 500, "fr", "sentence")
    assert [piece.text for piece in parts.pieces] == [
        "Pompe arrêtée.",
        "Le palier vibre.",
        "- joint usé ;",
    ]


def test_a_short_text_is_one_piece() -> None:
    """A text that fits is not split, and its outer whitespace is kept aside."""
    assert split("  Le rein.\n\nLe foie. \n", 100, "fr") == SplitText(
        "  ", (Piece("Le rein.\n\nLe foie.", " \n"),)
    )


@pytest.mark.parametrize("text", ["", " ", "\n\n\t "])
def test_a_blank_text_has_no_pieces(text: str) -> None:
    """There is nothing to send for a text of whitespace."""
    assert split(text, 10, "fr") == SplitText(text, ())


def test_paragraphs_before_sentences_before_words() -> None:
    """Text is cut at paragraphs where they fit, then at sentences, then at words."""
    text = "Un. Deux.\n\nLe rein est normal. Le foie aussi.\nTroisième quatrième cinquième"
    assert [piece.text for piece in split(text, 20, "fr").pieces] == [
        "Un. Deux.",
        "Le rein est normal.",
        "Le foie aussi.",
        "Troisième quatrième",
        "cinquième",
    ]


def test_a_word_longer_than_the_budget_is_cut() -> None:
    """A word without end is cut where it must be, and joined without a space."""
    parts = split("abcdefgh ij", 3, "fr")
    assert parts.pieces == (
        Piece("abc", ""),
        Piece("def", ""),
        Piece("gh", " "),
        Piece("ij", ""),
    )


def test_translations_get_the_whitespace_of_the_source() -> None:
    """Between translated pieces stands what stood between the sources."""
    parts = split("\tUn deux.\n\n\nTrois quatre. ", 13, "fr")
    assert parts.joined(["One.", "Two."]) == "\tOne.\n\n\nTwo. "


def test_every_piece_needs_its_translation() -> None:
    """A translation too few is an error, not a shorter report."""
    with pytest.raises(ValueError, match="argument 2 is longer"):
        split("Un deux.\n\nTrois quatre.", 13, "fr").joined(["One."])


@given(st.integers(-100, 200_000), st.integers(0, 200_000))
def test_the_budget_is_always_positive(num_ctx: int, prompt_chars: int) -> None:
    """However small the context and long the prompt, a piece has a character at least."""
    assert char_budget(num_ctx, prompt_chars) >= 1


@given(st.integers(256, 100_000), st.integers(0, 5_000), st.integers(0, 1_000))
def test_the_budget_follows_context_and_prompt(num_ctx: int, prompt: int, more: int) -> None:
    """A larger context never means a smaller budget, nor a longer prompt a larger one."""
    budget = char_budget(num_ctx, prompt)
    assert char_budget(num_ctx + more, prompt) >= budget >= char_budget(num_ctx, prompt + more)


def test_the_budget_leaves_room_for_the_answer() -> None:
    """Source, prompt and the predicted answer fit the context together."""
    budget = char_budget(4096, 600)
    source_tokens = budget / 3.0
    assert 600 / 3.0 + 64 + source_tokens * 2.3 <= 4096
    assert budget > 4000


def test_predicted_tokens() -> None:
    """A prediction is at least one token and grows with the text."""
    assert [predicted_tokens("x" * length) for length in (0, 1, 3, 300)] == [1, 1, 1, 100]


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("", True), (" 12,5 - 3/4 \n", True), ("± 3 %", True), ("3 mm", False), ("é", False)],
)
def test_nothing_to_translate(text: str, *, nothing: bool) -> None:
    """Only a text without any letter has nothing to translate."""
    assert has_nothing_to_translate(text) is nothing
