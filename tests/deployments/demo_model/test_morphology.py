"""Agreement, articles and plurals, on which every made sentence stands."""

from __future__ import annotations

import pytest

from deployments.demo_model.morphology import (
    Phrase,
    a_or_an,
    adjective_forms,
    agreement,
    english_plural,
    english_starred,
    french_plural,
    starred,
    with_article,
)

PUMP = Phrase("pompe", "pump", "f", plural=False)
DEVICE = Phrase("appareil", "device", "m", plural=False)
TOOL = Phrase("outil", "tool", "m", plural=False)
SHED = Phrase("hangar", "shed", "m", plural=False)
VALVES = Phrase("vannes", "valves", "f", plural=True)
OLD_VALVES = Phrase("anciennes vannes", "old valves", "f", plural=True, adjective_first=True)


@pytest.mark.parametrize(
    ("form", "phrase", "expected"),
    [
        ("le", PUMP, "la pompe"),
        ("le", DEVICE, "l'appareil"),
        ("le", TOOL, "l'outil"),
        ("le", SHED, "le hangar"),
        ("du", PUMP, "de la pompe"),
        ("du", DEVICE, "de l'appareil"),
        ("du", SHED, "du hangar"),
        ("au", PUMP, "à la pompe"),
        ("au", SHED, "au hangar"),
        ("un", PUMP, "une pompe"),
        ("ce", DEVICE, "cet appareil"),
        ("ce", SHED, "ce hangar"),
        ("son", Phrase("attache", "fastening", "f", plural=False), "son attache"),
        ("son", PUMP, "sa pompe"),
        ("de", DEVICE, "d'appareil"),
        ("de", SHED, "de hangar"),
        ("des", VALVES, "des vannes"),
        ("des", OLD_VALVES, "d'anciennes vannes"),
        ("aux", VALVES, "aux vannes"),
    ],
)
def test_articles(form: str, phrase: Phrase, expected: str) -> None:
    """Articles contract with prepositions and lose their vowel, not before an aspirated h."""
    assert with_article(form, phrase) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [("palier", "paliers"), ("bois", "bois"), ("niveau", "niveaux"), ("signal", "signaux")],
)
def test_french_plurals(one: str, many: str) -> None:
    """The regular plurals of French."""
    assert french_plural(one) == many


@pytest.mark.parametrize(
    ("one", "many"),
    [("box", "boxes"), ("assembly", "assemblies"), ("key", "keys"), ("nut", "nuts")],
)
def test_english_plurals(one: str, many: str) -> None:
    """The regular plurals of English."""
    assert english_plural(one) == many


def test_stars_mark_the_words_that_change() -> None:
    """Of several words the starred ones take the plural; in English the last one by itself."""
    assert starred("fissure* verticale*") == ("fissure verticale", "fissures verticales")
    assert starred("joint* de chaussée") == ("joint de chaussée", "joints de chaussée")
    assert english_starred("road joint") == ("road joint", "road joints")
    assert english_starred("point* of view") == ("point of view", "points of view")


def test_adjectives_and_participles_agree() -> None:
    """Forms that are not given follow the rule; the endings are those of a participle."""
    assert adjective_forms("usé") == ("usé", "usée", "usés", "usées")
    assert adjective_forms("neuf/neuve") == ("neuf", "neuve", "neufs", "neuves")
    assert adjective_forms("normal/normale/normaux/normales")[2] == "normaux"
    assert agreement("f", plural=True) == "es"
    assert agreement("m", plural=False) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [("oil leak", "an oil leak"), ("unit", "a unit"), ("hour", "an hour"), ("pump", "a pump")],
)
def test_english_indefinite_article(words: str, expected: str) -> None:
    """`an` goes by the sound, not by the letter."""
    assert a_or_an(words) == expected
