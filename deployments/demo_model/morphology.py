"""How French and English words change: plurals, agreement, articles, elision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f"]
VOWELS = "aàâeéèêëiîïoôœuùûüyh"
# An h that lets no elision happen; every other one is mute.
ASPIRATED = (
    *("hachoir", "haie", "hall", "halte", "hangar", "harnais", "hausse", "haut", "hauban", "havre"),
    *("herse", "heurt", "hibou", "hors", "hotte", "houille", "huit", "hublot", "hameau", "hache"),
    *("hampe", "hanche", "handicap", "harpon", "hâte", "hérisson", "héron", "hêtre", "housse"),
    *("hayon", "hardware", "hockey", "homard", "honte", "huissier", "hurlement", "hutte"),
)
NO_ELISION = ("onz", "oui", "yaourt", "yo")
BEFORE_THE_NOUN = frozenset(
    {
        *("petit", "grand", "gros", "ancien", "bon", "mauvais", "nouveau", "vieux", "beau"),
        *("autre", "dernier", "premier", "deuxième", "troisième", "second", "simple", "long"),
    }
)


def elides(word: str) -> bool:
    """Whether an article before this French word loses its vowel."""
    low = word.lower()
    return low[:1] in VOWELS and not low.startswith(ASPIRATED) and not low.startswith(NO_ELISION)


def french_plural(word: str) -> str:
    """The regular plural of one French word."""
    if word.endswith(("s", "x", "z")):
        return word
    if word.endswith(("eau", "eu")):
        return word + "x"
    if word.endswith("al"):
        return word[:-2] + "aux"
    return word + "s"


def english_plural(word: str) -> str:
    """The regular plural of one English word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun in both languages; `plural` and `en_plural` are None where it has none."""

    singular: str
    plural: str | None
    gender: Gender
    en: str
    en_plural: str | None


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective: masculine, feminine, and their plurals; one English form."""

    forms: tuple[str, str, str, str]
    en: str

    @property
    def before(self) -> bool:
        """Whether French puts it before the noun."""
        return self.forms[0] in BEFORE_THE_NOUN


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun with what was put to it, as it will stand in one sentence."""

    fr: str
    en: str
    gender: Gender
    plural: bool
    named: bool = False
    adjective_first: bool = False


def starred(text: str) -> tuple[str, str]:
    """Singular and French plural of an entry whose stars mark the words that change."""
    words = text.split()
    if len(words) == 1 and "*" not in text:
        words = [text + "*"]
    singular = " ".join(word.replace("*", "") for word in words)
    plural = " ".join(
        french_plural(word[:-1]) if word.endswith("*") else word.replace("*", "") for word in words
    )
    return singular, plural


def english_starred(text: str) -> tuple[str, str]:
    """Singular and plural of an English entry; the last word changes, or those with a star."""
    words = text.split()
    if "*" not in text:
        words[-1] += "*"
    singular = " ".join(word.replace("*", "") for word in words)
    plural = " ".join(english_plural(word[:-1]) if word.endswith("*") else word for word in words)
    return singular, plural


def adjective_forms(text: str) -> tuple[str, str, str, str]:
    """All four forms from one, two or four given ones."""
    given = text.split("/")
    masculine = given[0]
    feminine = given[1] if len(given) > 1 else _feminine(masculine)
    plurals = given[2:4] if len(given) == 4 else [_agreeing(masculine), _agreeing(feminine)]  # noqa: PLR2004
    return masculine, feminine, plurals[0], plurals[1]


def agreement(gender: Gender, *, plural: bool) -> str:
    """The ending of a regular participle."""
    return ("e" if gender == "f" else "") + ("s" if plural else "")


def with_article(form: str, phrase: Phrase) -> str:
    """The French phrase with the article that `form` names; KeyError for an unknown one."""
    word, elided, feminine = phrase.fr, elides(phrase.fr), phrase.gender == "f"
    if form in ("", "pl"):
        return word
    if form in ("les", "aux", "ces", "ses"):
        return f"{form} {word}"
    if form == "des":
        form = "de" if phrase.adjective_first else form
    return _ARTICLES[form](elided, feminine) + word


# For each form what stands before the noun, by whether it elides and whether it is feminine.
_ARTICLES: dict[str, Callable[[bool, bool], str]] = {
    "des": lambda _elided, _feminine: "des ",
    "de": lambda elided, _feminine: "d'" if elided else "de ",
    "d": lambda elided, _feminine: "d'" if elided else "de ",
    "le": lambda elided, feminine: "l'" if elided else "la " if feminine else "le ",
    "du": lambda elided, feminine: "de l'" if elided else "de la " if feminine else "du ",
    "au": lambda elided, feminine: "à l'" if elided else "à la " if feminine else "au ",
    "un": lambda _elided, feminine: "une " if feminine else "un ",
    "ce": lambda elided, feminine: "cette " if feminine else "cet " if elided else "ce ",
    "son": lambda elided, feminine: "sa " if feminine and not elided else "son ",
}


def english_article(form: str, phrase: Phrase) -> str:
    """The English phrase with the article that `form` names."""
    if form in ("", "pl"):
        return phrase.en
    if form == "the":
        return phrase.en if phrase.named else f"the {phrase.en}"
    if form == "a":
        return a_or_an(phrase.en)
    raise KeyError(form)


def a_or_an(english: str) -> str:
    """The words with the indefinite article before them."""
    low = english.lower()
    if english[:2].isupper():
        vowel = low[:1] in "aefhilmnorsx"
    else:
        vowel = low[:1] in "aeiou" and not low.startswith(("uni", "use", "usu", "uti", "one", "eu"))
    return f"{'an' if vowel or low.startswith('hour') else 'a'} {english}"


def _feminine(masculine: str) -> str:
    return masculine if masculine.endswith("e") else masculine + "e"


def _agreeing(word: str) -> str:
    return word if word.endswith(("s", "x")) else word + "s"
