"""When a model is loaded, loaded anew and unloaded, and what the client sees of it."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import pytest

from tests.contract.target import PROSE, Target, eventually, object_of, require

COLD_IS_AT_LEAST = 3
"""How many times longer a load takes than finding the model loaded."""


def load_ns(target: Target, **options: Any) -> int:
    """The load_duration of a request with these options."""
    return int(object_of(target.chat("x", options={"num_predict": 1, **options}))["load_duration"])


def expires(target: Target) -> datetime:
    """When the server is going to unload the model."""
    return datetime.fromisoformat((target.running() or {})["expires_at"])


def moved(target: Target, before: datetime | None) -> bool:
    """Whether the model is to be unloaded at another time than before."""
    return target.running() is not None and expires(target) != before


def test_an_empty_prompt_loads_and_keep_alive_0_unloads(target: Target) -> None:
    """After a load the model is in ps, after an unload it is not; both say what they did."""
    target.unload()
    require("done_reason", "load", object_of(target.chat())["done_reason"])
    eventually("the model is in /api/ps after a load", lambda: target.running() is not None)
    require("done_reason", "unload", object_of(target.generate(keep_alive=0))["done_reason"])
    eventually("the model leaves /api/ps after an unload", lambda: target.running() is None)


def test_keep_alive_0_with_a_prompt_answers_first(target: Target) -> None:
    """The answer is given, then the model goes."""
    body = object_of(target.chat(PROSE, keep_alive=0, options={"num_predict": 1}))
    require("done_reason", "length", body["done_reason"])
    eventually("the model leaves /api/ps after its answer", lambda: target.running() is None)


def test_another_num_ctx_loads_anew(target: Target) -> None:
    """A changed num_ctx costs a load and shows in ps; the same one again costs none."""
    load_ns(target, num_ctx=512)
    warm = min(load_ns(target, num_ctx=512) for _ in range(3))
    cold = load_ns(target, num_ctx=768)
    require("ps.context_length", 768, (target.running() or {}).get("context_length"))
    require(
        "load_duration with another num_ctx",
        f"{COLD_IS_AT_LEAST} times the {warm} ns of a loaded model, or more",
        cold,
        holds=cold >= COLD_IS_AT_LEAST * warm,
    )
    again = min(load_ns(target, num_ctx=768) for _ in range(3))
    require(
        "load_duration with the same num_ctx",
        f"a fraction of the {cold} ns of a load",
        again,
        holds=cold >= COLD_IS_AT_LEAST * again,
    )


def test_sampling_options_load_nothing(target: Target) -> None:
    """Temperature, seed and the like are taken by the model as it is loaded."""
    cold = load_ns(target, num_ctx=512)
    if cold < COLD_IS_AT_LEAST * load_ns(target, num_ctx=512):
        target.unload()
        cold = load_ns(target, num_ctx=512)
    sampling: list[dict[str, Any]] = [
        {"temperature": 0.1, "seed": 1},
        {"temperature": 1.0, "seed": 2, "top_k": 3, "top_p": 0.5, "min_p": 0.1},
        {"repeat_penalty": 1.2, "repeat_last_n": 8, "num_keep": 2, "stop": ["~"]},
    ]
    slowest = max(load_ns(target, num_ctx=512, **options) for options in sampling)
    require(
        "load_duration with other sampling options",
        f"a fraction of the {cold} ns of a load",
        slowest,
        holds=cold >= COLD_IS_AT_LEAST * slowest,
    )


@pytest.mark.parametrize("form", [300, 90.5, "10m", "1h30m", "90s", -1, "-1m"])
def test_keep_alive_has_many_forms(target: Target, form: float | str) -> None:
    """Seconds, Go durations and negative values are all taken."""
    require("done_reason", "load", object_of(target.chat(keep_alive=form))["done_reason"])


def test_keep_alive_is_when_the_model_goes(target: Target) -> None:
    """`expires_at` is that much later; a negative keep_alive is longer than any run."""
    ends = {}
    for form in ("10m", "90m", -1):
        before = expires(target) if target.running() else None
        object_of(target.chat(keep_alive=form))
        eventually(f"expires_at follows keep_alive {form}", partial(moved, target, before))
        ends[form] = expires(target)
    between = (ends["90m"] - ends["10m"]).total_seconds()
    require(
        "the seconds from the end of 10m to that of 90m",
        "4800, give or take a tenth",
        between,
        holds=4320 < between < 5280,
    )
    ages = (ends[-1] - ends["90m"]).days
    require("the days until keep_alive -1 ends", "a year or more", ages, holds=ages > 365)
    object_of(target.chat(keep_alive="5m"))
