"""Invented names and codes: what a translation has to copy."""

from __future__ import annotations

from random import Random

Pair = tuple[str, str]
"""A text in French and in English."""

NBSP = "\u00a0"
"""Where French typography may have a no-break space; the corpus varies it."""

_SYLLABLES = (
    *("ba", "bel", "bra", "bri", "bro", "cha", "cla", "clo", "cor", "dal", "do", "du", "fa", "flo"),
    *("fon", "gar", "gla", "gre", "jo", "la", "lan", "lu", "ma", "mar", "mel", "mo", "nan", "ne"),
    *("no", "per", "pla", "pra", "que", "ra", "ri", "ro", "ru", "sa", "ser", "so", "ta", "ter"),
    *("tho", "tri", "va", "ver", "vi", "vo"),
)
_NAME_ENDS = (
    *("court", "dières", "gny", "lon", "mont", "nard", "ne", "nelle", "nières", "on", "rac", "rel"),
    *("rive", "rot", "ssin", "teau", "tier", "val", "verot", "ville", "vin", "zac", "let", "y"),
)
_FIRST_WORDS = ("Saint", "Val", "Pont", "Roche", "Mont", "Bois", "Champ", "Trois", "Grand", "Font")


def code(random: Random) -> Pair:
    """An equipment code; copied as it is."""
    letters = "".join(random.choice("ABCDEFGHKLMNPRSTVX") for _ in range(random.randint(1, 4)))
    number = random.choice(
        (random.randint(1, 9), random.randint(10, 99), random.randint(100, 4999))
    )
    text = random.choice(
        (
            f"{letters}-{number}",
            f"{letters}-{number:02d}",
            f"{letters}-{number}",
            f"{letters}{number}",
            f"{letters}-{number}-{random.randint(1, 40):02d}",
            f"{letters}-{number}{random.choice('ABC')}",
            f"{random.randint(10, 999)}-{random.randint(1, 40)}",
            f"{number}{random.choice('ABCD')}",
            (
                f"{letters}-{random.choice(('CL', 'NB', 'TR'))}"
                f"{random.randint(1, 9)}-{random.randint(1, 20):02d}"
            ),
        )
    )
    return text, text


def kilometre_point(random: Random) -> Pair:
    """A place on a line."""
    metres = random.choice((f"{random.randint(0, 999):03d}", str(random.randint(1, 9))))
    kilometre = random.randint(1, 240)
    return f"PK {kilometre},{metres}", f"KP {kilometre}.{metres}"


def number_sign(random: Random) -> Pair:
    """A number as a name."""
    number = random.choice((random.randint(1, 12), random.randint(1, 999)))
    return f"n°{NBSP}{number}", f"no. {number}"


def name(random: Random) -> str:
    """An invented name; it begins with a consonant, so that nothing elides before it."""
    middle = "".join(random.choice(_SYLLABLES) for _ in range(random.randint(1, 2)))
    return (middle + random.choice(_NAME_ENDS)).capitalize()


def person(random: Random) -> Pair:
    """A person, with an initial or a title."""
    last = name(random)
    initial = random.choice("ABCDEFGHJKLNPRSTV")
    return random.choice(
        (
            (f"{initial}. {last}", f"{initial}. {last}"),
            (f"M. {last}", f"Mr {last}"),
            (f"Mme {last}", f"Ms {last}"),
        )
    )


def place(random: Random) -> Pair:
    """An invented place."""
    text = name(random)
    if random.random() < 0.3:  # noqa: PLR2004
        text = f"{random.choice(_FIRST_WORDS)}-{text}"
    return text, text


def street(random: Random) -> Pair:
    """An invented street; its name stays as it is."""
    kind = random.choice(("rue", "avenue", "place", "chemin", "quai"))
    joint = random.choice(("des", "du", "de la", "de"))
    text = f"{kind} {joint} {name(random)}{'s' if joint == 'des' else ''}"
    return text, text
