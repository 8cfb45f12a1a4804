from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.translate.profiles import DEFAULT_PROFILE, Prompting
from tasks.core.translate.reuse_key import Recipe

RECIPE = Recipe("digest", "fr", "en", "prompt", "options")
PROMPTING = Prompting(DEFAULT_PROFILE, "some-model", "fr", "en", 4096)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def test_the_key_of_a_translation_is_fixed() -> None:
    """The key of a recipe and a text never changes between versions: rows are known by it."""
    assert RECIPE.reuse_key("Le rein") == (
        "6b9234988eed046055c2183eec684224449d23c670ebe7df50a5272116d734e9"
    )


def test_each_part_changes_the_key() -> None:
    """Another text, model, language, prompt, option set or glossary is another key."""
    names = [field.name for field in dataclasses.fields(Recipe)]
    assert len(names) == 6
    others = [dataclasses.replace(RECIPE, **{name: "other"}) for name in names]
    keys = {one.reuse_key("Le rein") for one in [RECIPE, *others]}
    assert len(keys) == 7
    assert RECIPE.reuse_key("Le rein.") not in keys


def test_only_the_parts_change_the_key() -> None:
    """The name under which the same weights are asked for changes no key."""
    other_name = dataclasses.replace(PROMPTING, model="copy-of-it")
    first, second = Recipe.of(PROMPTING, "d"), Recipe.of(other_name, "d")
    assert first == second
    assert first.reuse_key("Le rein") == second.reuse_key("Le rein")
    assert first.glossary_sha256 is None


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_parts_do_not_run_into_each_other(one: str, two: str, three: str, four: str) -> None:
    """Moving characters from one part to the next makes another key."""
    first = dataclasses.replace(RECIPE, source_lang=one, target_lang=two)
    second = dataclasses.replace(RECIPE, source_lang=three, target_lang=four)
    assert (first.reuse_key("x") == second.reuse_key("x")) == ((one, two) == (three, four))
