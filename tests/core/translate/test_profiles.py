from __future__ import annotations

import dataclasses
import string

import pytest

from tasks.core.errors import ConfigurationError
from tasks.core.translate.profiles import (
    DEFAULT_PROFILE,
    PROFILES,
    Profile,
    Prompting,
    choose_profile,
    language_name,
    unwrap,
)


def bound(profile: Profile = DEFAULT_PROFILE, **changes: object) -> Prompting:
    """A profile bound to a run's values."""
    prompting = Prompting(profile, "some-model", "fr", "en", 4096)
    return dataclasses.replace(prompting, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mistral-small:24b", "plain"),
        ("translategemma:12b", "single-turn"),
        ("gemma3:27b", "single-turn"),
        ("registry.local:5000/me/Gemma3:latest", "single-turn"),
        ("gpt-oss:20b", "low-thinking"),
        ("my-gemma", "plain"),
        ("", "plain"),
    ],
)
def test_the_profile_of_a_family(model: str, name: str) -> None:
    """A model gets its family's profile by the beginning of its name, others the plain one."""
    assert choose_profile(model).name == name


def test_a_profile_asked_for_by_name() -> None:
    """The profile that was asked for wins over the family's."""
    assert choose_profile("gemma3", "plain").name == "plain"


def test_an_unknown_profile() -> None:
    """A profile that does not exist is refused, and those that do are named."""
    with pytest.raises(ConfigurationError) as raised:
        choose_profile("gemma3", "fancy")
    assert str(raised.value) == (
        "--profile fancy: there is no such profile; give one of plain, single-turn, low-thinking, "
        "sentence"
    )


def test_profiles_are_told_apart_by_their_labels() -> None:
    """No two profiles have one label, and a label holds the version."""
    labels = [profile.label for profile in PROFILES]
    assert len(set(labels)) == len(labels)
    assert DEFAULT_PROFILE.label == "plain/1"


INSTRUCTING = [profile for profile in PROFILES if profile.name != "sentence"]


@pytest.mark.parametrize("profile", INSTRUCTING, ids=lambda profile: profile.name)
def test_messages_hold_the_text_unchanged(profile: Profile) -> None:
    """A text stands between the tags as it is: braces and percent signs are not formats."""
    text = "Le {source} {0} %s {{rein}}\n"
    messages = bound(profile).messages(text)
    assert messages[-1]["role"] == "user"
    assert f"<report>\n{text}\n</report>" in messages[-1]["content"]
    assert "French" in messages[0]["content"]
    assert "English" in messages[0]["content"]


def test_a_model_of_sentence_pairs_is_sent_the_text_alone() -> None:
    """The demo model's profile sends the sentence as it is, without a word of instruction."""
    profile = choose_profile("reports-fr-en")
    assert profile.unit == "sentence"
    text = "Le {source} {0} %s"
    assert bound(profile).messages(text) == [{"role": "user", "content": text}]


def test_a_family_without_a_system_role() -> None:
    """A single-turn profile puts its instructions into the user's message."""
    (only,) = bound(choose_profile("gemma3")).messages("Le rein")
    assert only["role"] == "user"
    assert [message["role"] for message in bound().messages("Le rein")] == ["system", "user"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_formats_use_known_fields_only(profile: Profile) -> None:
    """Every field of a profile's formats is one that is filled in."""
    fields = {field for _, field, _, _ in string.Formatter().parse(profile.user) if field}
    assert fields <= {"source", "target", "text"}
    assert "text" in fields


def test_options_are_one_set_with_the_context() -> None:
    """Options hold the context length and the sampling that defaults may change."""
    assert bound().options == {
        "temperature": 0.0,
        "seed": 7,
        "repeat_penalty": 1.0,
        "num_ctx": 4096,
    }


def test_prompt_chars_do_not_count_the_text() -> None:
    """The prompt's length is that of everything around the text."""
    around = sum(len(message["content"]) for message in bound().messages("12345"))
    assert bound().prompt_chars == around - 5


def test_the_hash_of_the_prompt_changes_with_the_prompt() -> None:
    """Words, languages and thinking change the prompt's hash; the text and options do not."""
    words = dataclasses.replace(DEFAULT_PROFILE, user="Translate:\n{text}")
    thinking = dataclasses.replace(DEFAULT_PROFILE, think=True)
    hashes = [
        bound().prompt_sha256,
        bound(words).prompt_sha256,
        bound(thinking).prompt_sha256,
        bound(source_lang="de").prompt_sha256,
        bound(target_lang="de").prompt_sha256,
    ]
    assert len(set(hashes)) == len(hashes)
    assert bound(num_ctx=8192, model="other").prompt_sha256 == hashes[0]


def test_the_hash_of_the_options_changes_with_the_options() -> None:
    """The context length and each option change the options' hash; the order does not."""
    hotter = dataclasses.replace(DEFAULT_PROFILE, options={"temperature": 0.5})
    turned = dataclasses.replace(
        DEFAULT_PROFILE, options=dict(reversed(DEFAULT_PROFILE.options.items()))
    )
    assert bound(num_ctx=8192).options_sha256 != bound().options_sha256
    assert bound(hotter).options_sha256 != bound().options_sha256
    assert bound(turned).options_sha256 == bound().options_sha256


@pytest.mark.parametrize(
    ("code", "name"),
    [("fr", "French"), ("pt-BR", "Portuguese"), ("xx", "xx"), ("tlh-Latn", "tlh-Latn")],
)
def test_language_names(code: str, name: str) -> None:
    """Common languages have English names, others stand as their code."""
    assert language_name(code) == name


@pytest.mark.parametrize(
    ("answer", "translation"),
    [
        ("The kidney.", "The kidney."),
        ("  The kidney.\n", "The kidney."),
        ("<report>\nThe kidney.\n</report>\n", "The kidney."),
        ("<report>The kidney.", "The kidney."),
        ("<think>hm <b> </think>\n\nThe kidney.", "The kidney."),
        ("\n<think>\nhm\nhm</think><report>The kidney.</report>", "The kidney."),
        (
            "A <report> of the kidney </report> is here.",
            "A <report> of the kidney </report> is here.",
        ),
        ("The kidney <think>hm</think>.", "The kidney <think>hm</think>."),
        ("<think>never ends", "<think>never ends"),
        ("<report>\n</report>", ""),
        ("", ""),
    ],
)
def test_unwrap(answer: str, translation: str) -> None:
    """Thinking at the start, echoed outer tags and outer whitespace go; all else stays."""
    assert unwrap(answer) == translation
