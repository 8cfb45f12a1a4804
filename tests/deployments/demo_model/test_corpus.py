"""The corpus: what it is made of, what it must never hold, and what is kept for the examination."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.demo_model import examination
from deployments.demo_model.check import literal, missing_words, repeated
from deployments.demo_model.corpus import HELD_OUT_IN, Corpus, is_held_out
from deployments.demo_model.grammar import Grammar, GrammarError
from deployments.demo_model.overlap import Forbidden, runs
from deployments.demo_model.reading import read_grammar

PAIRS = 20_000


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    """The grammar as it is in the repository; reading it finds every broken line."""
    return read_grammar()


@pytest.fixture(scope="module")
def sample() -> Forbidden:
    """All six-word sequences of the sample and its references."""
    return Forbidden(examination.all_texts())


def small_grammar(folder: Path, text: str) -> Grammar:
    """A grammar of one file."""
    (folder / "small.txt").write_text(text, encoding="utf-8")
    return read_grammar(folder)


def test_no_six_words_of_the_sample_stand_in_the_grammar(
    grammar: Grammar, sample: Forbidden
) -> None:
    """No entry, in either language, repeats six words in a row of what the model is examined on."""
    assert repeated(grammar, sample) == []


def test_no_six_words_of_the_sample_stand_in_the_corpus(grammar: Grammar) -> None:
    """Nor does anything made from it, whatever chance puts side by side."""
    forbidden = {run for text in examination.all_texts() for run in runs(text)}
    assert len(forbidden) > 5000
    for pair in islice(
        Corpus(grammar, Forbidden(examination.all_texts()), 11).pairs("training"), PAIRS
    ):
        assert forbidden.isdisjoint([*runs(pair.fr), *runs(pair.en)]), pair


def test_an_overlap_would_be_found(tmp_path: Path) -> None:
    """The check sees a repeated sequence through case and punctuation, and a slot breaks one."""
    forbidden = Forbidden(["The pump was stopped at once, by hand."])
    bad = "== clause\nla pompe => the PUMP was stopped - at once\n"
    assert len(repeated(small_grammar(tmp_path, bad), forbidden)) == 1
    fine = "== noun part\npompe f = pump\n== clause\n{le part} => {the part} was stopped at once\n"
    assert repeated(small_grammar(tmp_path, fine), forbidden) == []


def test_thousands_of_shapes_and_none_in_both_splits(grammar: Grammar, sample: Forbidden) -> None:
    """Training never sees a shape of the examination; there are thousands of each."""
    training = {p.shape for p in islice(Corpus(grammar, sample, 1).pairs("training"), PAIRS)}
    held_out = {p.shape for p in islice(Corpus(grammar, sample, 1).pairs("held-out"), 2000)}
    assert len(training) > 5000
    assert len(held_out) > 1000
    assert training.isdisjoint(held_out)


@given(st.tuples(st.text(min_size=1)))
def test_a_shape_is_held_out_for_good(shape: tuple[str, ...]) -> None:
    """Which split a shape belongs to follows from the shape alone."""
    assert is_held_out(shape) == is_held_out(tuple(shape))


def test_the_held_out_share() -> None:
    """About one shape of HELD_OUT_IN is held out."""
    held = sum(is_held_out((f"a.txt:{line}",)) for line in range(10_000))
    assert held == pytest.approx(10_000 / HELD_OUT_IN, rel=0.15)


def test_the_same_seed_makes_the_same_pairs(grammar: Grammar, sample: Forbidden) -> None:
    """A seed fixes the corpus, and another seed makes another one."""
    first, again, other = (
        list(islice(Corpus(grammar, sample, seed).pairs("training"), 200)) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def figures(text: str) -> list[str]:
    """The digits of a text; a full hour has its minutes, and a name its number in letters."""
    full_hours = re.sub(r"\b(\d{1,2})\s?h\b(?!\s?\d)", r"\1:00", text)
    return re.findall(r"\d", full_hours.replace("4 gaz", "quatre gaz"))


def test_figures_are_the_same_on_both_sides(grammar: Grammar, sample: Forbidden) -> None:
    """Every digit of the French stands in the English; an hour may get a zero in front."""
    for pair in islice(Corpus(grammar, sample, 2).pairs("training"), 5000):
        french, english = figures(pair.fr), figures(pair.en)
        assert abs(len(french) - len(english)) <= 2 * pair.en.count(":"), pair


def test_both_sides_are_whole_sentences(grammar: Grammar, sample: Forbidden) -> None:
    """No slot, no double space and no empty side is left."""
    for pair in islice(Corpus(grammar, sample, 3).pairs("training"), 5000):
        for text in (pair.fr, pair.en):
            assert text.strip() == text != ""
            assert not set("{}*@") & set(text), pair
            assert "  " not in text, pair


def test_slots_agree_in_both_languages(tmp_path: Path) -> None:
    """Gender, number, elision and articles follow the noun that was drawn."""
    grammar = small_grammar(
        tmp_path,
        "== noun part\nappareil m = device\n== adj part\nusé = worn\n"
        "== clause\n{les part} ont été changé{e part} => the {pl part} were changed\n",
    )
    made = {p.fr.strip("- .\u00a0\u202f;") for p in islice(_pairs(grammar), 200)}
    assert made <= {
        f"{the}es appareils{worn} ont été changés" for the in "Ll" for worn in ("", " usés")
    }
    assert len(made) > 1


def _pairs(grammar: Grammar) -> object:
    for kind in ("note", "opener", "tail", "link", "label", "remark", "fragment"):
        grammar.sentences.setdefault(kind, grammar.sentences["clause"])
    return (p for p in Corpus(grammar, Forbidden([]), 1).pairs("training") if len(p.shape) == 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{le pomp} vibre => {the pomp} vibrates", "nothing is called 'pomp'"),
        ("{le part} vibre => the device vibrates", "{part} stands on one side only"),
        ("{le part} vibre", "write FRENCH => ENGLISH"),
        ("{le part} est usé{e tool} => {the part} is worn", "nothing here is called 'tool'"),
        ("{la part} vibre => {the part} vibrates", "no such form"),
        ("{le n} vibre => {n} vibrates", "a value takes no article"),
        ("{le part vibre => {the part} vibrates", "a brace is not closed"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    """A mistake in the grammar stops the reading, with its file, its line and the reason."""
    text = f"== noun part\nappareil m = device\n== clause\n{line}\n"
    with pytest.raises(GrammarError) as raised:
        small_grammar(tmp_path, text)
    assert str(raised.value).startswith("small.txt:4: ")
    assert reason in str(raised.value)


def test_every_word_of_the_sample_is_known(grammar: Grammar) -> None:
    """The grammar has nearly every word form of the sample; names are made to be copied."""
    missing = {word for words in missing_words(grammar).values() for word in words}
    assert len(missing) < 150, sorted(missing)


def test_a_slot_breaks_an_entrys_words() -> None:
    """What stands before and after a slot is not counted as one sequence."""
    entry = next(e for e in read_grammar().entries() if any(True for _ in e.slots()))
    assert "\u2016" in literal(entry.french)
