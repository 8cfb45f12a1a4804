from __future__ import annotations

import itertools
from datetime import date

import pyarrow as pa
import pytest

from tasks.core.ingest.cells import (
    STRING,
    UNKNOWN,
    as_text,
    fit_into,
    fits,
    type_name,
    type_named,
    wider,
)
from tasks.core.schema import INSTANT, STRINGS

TYPES = [
    STRING,
    pa.bool_(),
    pa.int16(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.binary(),
    pa.date32(),
    INSTANT,
    STRINGS,
    pa.decimal128(9, 2),
]


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_type_names_come_back(type_: pa.DataType) -> None:
    """Every type of a source column survives being written into the dataset's record."""
    assert type_named(type_name(type_)) == type_


def test_wider_takes_both() -> None:
    """The wider type takes both, or is text; the order does not matter."""
    for one, other in itertools.product([*TYPES, UNKNOWN], repeat=2):
        both = wider(one, other)
        assert both == wider(other, one)
        assert both == STRING or (fits(one, both) and fits(other, both))
    assert wider(pa.int64(), pa.float64()) == pa.float64()


def test_no_integer_is_rounded() -> None:
    """An integer that a float cannot hold exactly is refused."""
    fit = fit_into(pa.int64(), pa.float64())
    assert fit is not None
    assert fit(2**54) == 2.0**54
    with pytest.raises(ValueError, match="9007199254740993 cannot be stored exactly"):
        fit(2**53 + 1)


def test_values_as_text() -> None:
    """Strings stay, dates are ISO, bytes hex, the rest JSON."""
    values = ["é", 1, 1.5, True, date(2020, 1, 2), b"\xff", ["a", b"\x01"]]
    assert [as_text(value) for value in values] == [
        "é",
        "1",
        "1.5",
        "true",
        "2020-01-02",
        "ff",
        '["a", "01"]',
    ]
