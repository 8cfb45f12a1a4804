"""What stands in a value slot: numbers, dates, measures, as each language writes them.

Every maker draws from the given generator and returns the French and the English text. A no-break
space stands where French typography may have one; the corpus varies it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from deployments.demo_model.names import (
    NBSP,
    Pair,
    code,
    kilometre_point,
    number_sign,
    person,
    place,
    street,
)

Maker = Callable[[Random], Pair]

MONTHS = (
    ("janvier", "January"), ("février", "February"), ("mars", "March"), ("avril", "April"),
    ("mai", "May"), ("juin", "June"), ("juillet", "July"), ("août", "August"),
    ("septembre", "September"), ("octobre", "October"), ("novembre", "November"),
    ("décembre", "December"),
)  # fmt: skip
WEEKDAYS = (
    ("lundi", "Monday"), ("mardi", "Tuesday"), ("mercredi", "Wednesday"), ("jeudi", "Thursday"),
    ("vendredi", "Friday"), ("samedi", "Saturday"), ("dimanche", "Sunday"),
)  # fmt: skip
COUNTS = (
    ("deux", "two"), ("trois", "three"), ("quatre", "four"), ("cinq", "five"), ("six", "six"),
    ("sept", "seven"), ("huit", "eight"), ("neuf", "nine"), ("dix", "ten"), ("onze", "eleven"),
    ("douze", "twelve"), ("treize", "thirteen"), ("quatorze", "fourteen"), ("quinze", "fifteen"),
    ("seize", "sixteen"), ("dix-sept", "seventeen"), ("dix-huit", "eighteen"),
    ("dix-neuf", "nineteen"), ("vingt", "twenty"),
)  # fmt: skip
ORDINALS = (
    ("deuxième", "second"), ("troisième", "third"), ("quatrième", "fourth"), ("cinquième", "fifth"),
    ("sixième", "sixth"), ("septième", "seventh"), ("huitième", "eighth"), ("dixième", "tenth"),
)  # fmt: skip
_SPANS = (
    ("minutes", "minutes"), ("heures", "hours"), ("jours", "days"), ("semaines", "weeks"),
    ("mois", "months"), ("ans", "years"),
)  # fmt: skip


def whole(low: int, high: int) -> Maker:
    """A small whole number, the same in both languages."""

    def make(random: Random) -> Pair:
        number = str(random.randint(low, high))
        return number, number

    return make


def big(random: Random) -> Pair:
    """A whole number with its thousands set apart."""
    number = random.choice(
        (random.randint(100, 999), random.randint(1000, 9999), random.randint(1000, 99999))
    )
    english = f"{number:,}"
    return english.replace(",", NBSP), english


def decimal(low: float, high: float, places: tuple[int, ...] = (1,)) -> Maker:
    """A decimal number: a comma in French, a point in English."""

    def make(random: Random) -> Pair:
        english = f"{random.uniform(low, high):.{random.choice(places)}f}"
        return english.replace(".", ","), english

    return make


def measured(unit: str, *makers: Maker, english_unit: str | None = None) -> Maker:
    """A number with its unit."""

    def make(random: Random) -> Pair:
        french, english = random.choice(makers)(random)
        return f"{french}{NBSP}{unit}", f"{english} {english_unit or unit}"

    return make


def one_of(*makers: Maker) -> Maker:
    """Any of several kinds of value."""
    return lambda random: random.choice(makers)(random)


def listed(pairs: tuple[Pair, ...]) -> Maker:
    """One of a fixed list."""
    return lambda random: random.choice(pairs)


def percentage(random: Random) -> Pair:
    """A share of a hundred."""
    french, english = random.choice((whole(1, 100), decimal(0.1, 99.9)))(random)
    return f"{french}{NBSP}%", f"{english}%"


def time_of_day(random: Random) -> Pair:
    """A time of day."""
    hour, minute = random.randint(0, 23), random.randint(0, 59)
    if random.random() < 0.15:  # noqa: PLR2004 - shares of forms are choices
        return f"{hour}{NBSP}h", f"{hour:02d}:00"
    french = random.choice(
        (f"{hour:02d}h{minute:02d}", f"{hour}{NBSP}h{NBSP}{minute:02d}", f"{hour}h{minute:02d}")
    )
    return french, f"{hour:02d}:{minute:02d}"


def duration(random: Random) -> Pair:
    """A span of time, in figures or in words."""
    kind = random.randint(0, 4)
    minutes = random.randint(1, 59)
    if kind == 0:
        text = f"{random.randint(1, 12)}{NBSP}h{NBSP}{minutes:02d}{NBSP}min"
        return text, text.replace(NBSP, " ")
    if kind == 1:
        return f"{minutes}{NBSP}min", f"{minutes} min"
    if kind == 2:  # noqa: PLR2004
        seconds = random.randint(1, 59)
        return f"{minutes}{NBSP}min{NBSP}{seconds}{NBSP}s", f"{minutes} min {seconds} s"
    french, english = random.choice(_SPANS)
    count = random.choice((whole(2, 90), listed(COUNTS)))(random)
    return f"{count[0]} {french}", f"{count[1]} {english}"


def day_month(random: Random) -> Pair:
    """A day of a month."""
    day, (french, english) = random.randint(1, 31), random.choice(MONTHS)
    return f"{'1er' if day == 1 else day} {french}", f"{day} {english}"


def date(random: Random) -> Pair:
    """A date as reports write it, without article."""
    kind = random.random()
    if kind < 0.2:  # noqa: PLR2004
        numbers = f"{random.randint(1, 31):02d}/{random.randint(1, 12):02d}/{year(random)[0]}"
        return numbers, numbers
    french, english = day_month(random)
    if kind < 0.4:  # noqa: PLR2004
        day = random.choice(WEEKDAYS)
        return f"{day[0]} {french}", f"{day[1]} {english}"
    if kind < 0.6:  # noqa: PLR2004
        which = year(random)[0]
        return f"{french} {which}", f"{english} {which}"
    return french, english


def year(random: Random) -> Pair:
    """A year."""
    text = str(random.randint(1925, 2035))
    return text, text


def week(random: Random) -> Pair:
    """A week of the year."""
    number = random.randint(1, 52)
    return f"semaine {number}", f"week {number}"


def dimensions(random: Random) -> Pair:
    """Two lengths and a unit."""
    unit = random.choice(("cm", "mm", "m"))
    first, second = random.randint(2, 900), random.randint(2, 900)
    sign = random.choice(("×", "x"))
    return f"{first} {sign} {second}{NBSP}{unit}", f"{first} {sign} {second} {unit}"


def money(random: Random) -> Pair:
    """An amount in euros: the sign after the number in French, before it in English."""
    french, english = random.choice((whole(2, 999), big))(random)
    return f"{french}{NBSP}€", f"€{english}"


_FINE = (1, 2)
MAKERS: dict[str, Maker] = {
    "n": whole(2, 99),
    "big": big,
    "dec": decimal(0.1, 99, _FINE),
    "pct": percentage,
    "count": listed(COUNTS),
    "ordinal": listed(ORDINALS),
    "time": time_of_day,
    "duration": duration,
    "date": date,
    "month": listed(MONTHS),
    "year": year,
    "weekday": listed(WEEKDAYS),
    "week": week,
    "length": one_of(
        measured("mm", whole(1, 950), decimal(0.1, 99)),
        measured("cm", whole(1, 300), decimal(0.5, 50)),
        measured("m", whole(1, 950), decimal(0.1, 99, _FINE), big),
        measured("km", whole(1, 90), decimal(0.1, 90)),
    ),
    "mm": measured("mm", whole(1, 950), decimal(0.1, 99, _FINE)),
    "area": one_of(
        measured("m²", whole(1, 950), big), measured("ha", whole(1, 90), decimal(0.1, 90))
    ),
    "volume": one_of(
        measured("m³", whole(1, 950), decimal(0.1, 90), big),
        measured("l", whole(1, 900), decimal(0.1, 9)),
    ),
    "mass": one_of(
        measured("kg", whole(1, 950), big, decimal(0.1, 90)),
        measured("t", whole(1, 90), decimal(0.1, 90)),
    ),
    "speed": measured("km/h", whole(5, 160)),
    "pressure": one_of(
        measured("bar", decimal(0.1, 16, _FINE), whole(1, 40)), measured("mbar", whole(5, 900))
    ),
    "flow": one_of(
        measured("m³/h", whole(1, 950), decimal(0.1, 90)),
        measured("l/min", whole(1, 90), decimal(0.1, 30)),
        measured("l/s", whole(1, 90), decimal(0.1, 30)),
    ),
    "voltage": one_of(
        measured("V", whole(2, 690), decimal(1, 60)),
        measured("kV", whole(1, 400), decimal(0.4, 63)),
    ),
    "current": one_of(
        measured("A", whole(1, 900), decimal(0.1, 60)), measured("mA", whole(1, 500))
    ),
    "power": one_of(
        measured("kW", whole(1, 900), decimal(0.5, 90)), measured("kVA", whole(10, 900))
    ),
    "temp": measured("°C", whole(-15, 120), decimal(0.5, 90)),
    "vibration": measured("mm/s", decimal(0.2, 14, _FINE)),
    "torque": measured("N·m", whole(5, 900)),
    "conc": one_of(
        measured("mg/l", decimal(0.01, 9, _FINE), whole(1, 90)),
        measured("ppm", whole(1, 950), decimal(0.1, 20), big),
        measured("µS/cm", whole(100, 900), big),
        measured("NFU", decimal(0.1, 9)),
    ),
    "noise": one_of(measured("dB(A)", whole(40, 110)), measured("dB", whole(40, 110))),
    "money": money,
    "code": code,
    "kp": kilometre_point,
    "no": number_sign,
    "person": person,
    "place": place,
    "street": street,
    "dim": dimensions,
}
