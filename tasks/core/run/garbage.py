"""Python's search for garbage, kept from taking a third of the dispatcher's time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (20_000, 20, 50)
"""Of the three generations. By default a request or two start a search of the youngest one."""


@contextmanager
def searched_rarely() -> Iterator[None]:
    """Search what is made from now on, and that rarely; before and after as it was.

    A run makes next to no garbage that only a search finds, and what is there when it begins
    (Prefect, Arrow, hundreds of thousands of objects) stays for its time.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
