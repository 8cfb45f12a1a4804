from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.dispatch.speed import LENGTH_FADES_TO, SPEED_FADES_TO, Length, Speed

TOKENS = st.integers(min_value=1, max_value=100_000)
SECONDS = st.floats(min_value=1e-3, max_value=10_000)
ANSWERS = st.lists(st.tuples(TOKENS, SECONDS), min_size=1, max_size=20)


def speed_after(*answers: tuple[int, float]) -> float | None:
    """The speed after these answers, each of so many tokens made in so many seconds."""
    speed = Speed()
    for tokens, seconds in answers:
        speed = speed.after(tokens, seconds)
    return speed.tokens_per_s


def ratio_after(*answers: tuple[int, int]) -> float:
    """The ratio after these answers, each predicted and generated."""
    length = Length()
    for predicted, generated in answers:
        length = length.after(predicted, generated)
    return length.ratio


def test_a_speed_is_unknown_until_an_answer_came() -> None:
    """Nothing is assumed of a host that has not answered."""
    assert Speed().tokens_per_s is None


def test_one_answer_tells_the_speed() -> None:
    """The first answer is taken as it is."""
    assert speed_after((100, 5.0)) == 20.0


@pytest.mark.parametrize(("tokens", "seconds"), [(0, 5.0), (100, 0.0), (0, 0.0), (-1, -1.0)])
def test_an_answer_without_length_or_time_tells_nothing(tokens: int, seconds: float) -> None:
    """An empty answer, or one that no time is known of, leaves the speed as it was."""
    assert Speed().after(tokens, seconds) == Speed()
    known = Speed().after(100, 5.0)
    assert known.after(tokens, seconds) == known


def test_long_answers_weigh_more() -> None:
    """A speed is tokens by seconds of all answers, so a short one hardly moves it."""
    assert SPEED_FADES_TO == 0.85
    assert speed_after((1000, 100.0), (10, 10.0)) == pytest.approx((850 + 10) / (85 + 10))
    assert speed_after((10, 10.0), (1000, 100.0)) == pytest.approx((8.5 + 1000) / (8.5 + 100))


def test_a_host_that_slows_down_is_seen_to_within_a_few_answers() -> None:
    """After four answers at another speed, half of what is known is of the new one."""
    before = [(100, 1.0)] * 50
    after = speed_after(*before, *[(100, 4.0)] * 4)
    assert after is not None
    assert 100 / after == pytest.approx((1 + 4) / 2, rel=0.05)
    assert speed_after(*before, *[(100, 4.0)] * 30) == pytest.approx(25, rel=0.01)


@given(ANSWERS)
def test_a_speed_is_one_of_those_seen(answers: list[tuple[int, float]]) -> None:
    """A speed never leaves the range of the answers' own."""
    seen = [tokens / seconds for tokens, seconds in answers]
    speed = speed_after(*answers)
    assert speed is not None
    assert min(seen) * (1 - 1e-9) <= speed <= max(seen) * (1 + 1e-9)


def test_predictions_are_trusted_until_an_answer_came() -> None:
    """Before anything is known a predicted token is a token."""
    assert Length().ratio == 1.0
    assert ratio_after((100, 0)) == 1.0
    assert ratio_after((0, 100)) == 1.0


def test_one_answer_tells_the_ratio() -> None:
    """A model that writes half as much again as predicted is known to."""
    assert ratio_after((100, 150)) == 1.5


def test_lengths_fade_slowly() -> None:
    """They belong to the model, so half of what is known is older than 34 answers."""
    assert LENGTH_FADES_TO == 0.98
    after = ratio_after(*[(100, 100)] * 500, *[(100, 200)] * 34)
    assert after == pytest.approx(1.5, abs=0.01)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=20))
def test_a_ratio_is_one_of_those_seen(answers: list[tuple[int, int]]) -> None:
    """A ratio never leaves the range of the answers' own."""
    seen = [generated / predicted for predicted, generated in answers]
    assert min(seen) * (1 - 1e-9) <= ratio_after(*answers) <= max(seen) * (1 + 1e-9)
