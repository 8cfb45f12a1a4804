from __future__ import annotations

import gc

import pytest

from tasks.core.run.garbage import THRESHOLDS, searched_rarely


def test_garbage_is_searched_for_rarely_and_then_as_before() -> None:
    """Within the block old objects are left alone; after it all is as it was, errors or not."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()

    def fail() -> None:
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > frozen + 1000
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), searched_rarely():
        fail()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
