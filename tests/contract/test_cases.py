"""Our own cases: every request gets the status, the content type and the body of Ollama."""

from __future__ import annotations

import pytest

from tests.contract.cases import CASES, Case, read_cases
from tests.contract.target import Target

ALL = [
    pytest.param(case, id=f"{path.stem}: {case.promise}")
    for path in sorted(CASES.glob("*.txt"))
    for case in read_cases(path)
]


@pytest.mark.parametrize("case", ALL)
def test_case(target: Target, case: Case) -> None:
    """What the case promises."""
    if case.unless in target.capabilities:
        pytest.skip(f"the model has {case.unless}")
    target.same_answer(case.named(target.model))
