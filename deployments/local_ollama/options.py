"""The options of a request, over those of its model, over the server's and Ollama's own."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from deployments.local_ollama.engine import LaunchOptions, Sampling
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.models import Model
from deployments.local_ollama.settings import DEFAULT_CONTEXT_LENGTH, LEAST_CONTEXT

KEPT_AT_FRONT = 4
_ANY_GPUS = -1
LAUNCH = {
    "num_batch": 512, "main_gpu": 0, "use_mmap": None, "num_thread": 0, "draft_num_predict": 4,
}  # fmt: skip
"""What a model is loaded with besides its context, with Ollama's own values."""
_INTEGERS = frozenset(
    {
        *("num_ctx", "num_keep", "num_predict", "num_batch", "num_gpu", "num_thread", "main_gpu"),
        *("seed", "top_k", "repeat_last_n", "draft_num_predict"),
    }
)
_FLOATS = frozenset(
    {
        *("temperature", "top_p", "min_p", "typical_p"),
        *("repeat_penalty", "presence_penalty", "frequency_penalty"),
    }
)
_SAMPLING = frozenset(field.name for field in dataclasses.fields(Sampling))
_SMALLEST_INT = -(2**63)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a request may set, resolved. `output_limit` is in tokens, below 0 for none."""

    launch: LaunchOptions
    sampling: Sampling
    output_limit: int
    keep_tokens: int
    stop: tuple[str, ...]


def resolve(
    given: Mapping[str, Any], model: Model, *, shift: bool, server_context: int | None
) -> Options:
    """The options that hold for a request to `model`. Raises RequestError for a wrong type."""
    options = {**checked(model.parameters), **checked(given)}
    return Options(
        launch=_launch(options, model, shift=shift, server_context=server_context),
        sampling=Sampling(**{name: options[name] for name in _SAMPLING & options.keys()}),
        output_limit=options.get("num_predict", -1),
        keep_tokens=options.get("num_keep", KEPT_AT_FRONT),
        stop=tuple(options.get("stop", ())),
    )


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that Ollama knows, as the types it wants; null and unknown ones are left out.

    Raises RequestError for an option of the wrong type.
    """
    known: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _INTEGERS:
            known[name] = _whole(value) if number else _refuse(name, "type integer")
        elif name in _FLOATS:
            known[name] = float(value) if number else _refuse(name, "type float32")
        elif name == "use_mmap":
            known[name] = value if isinstance(value, bool) else _refuse(name, "type boolean")
        elif name == "stop":
            known[name] = _texts(value)
    return known


def _launch(
    options: Mapping[str, Any], model: Model, *, shift: bool, server_context: int | None
) -> LaunchOptions:
    asked = options.get("num_ctx", server_context)
    length = DEFAULT_CONTEXT_LENGTH if asked is None else asked
    if model.trained_context:
        length = min(length, model.trained_context)
    others = (
        (name, json.dumps(options[name]))
        for name, usual in LAUNCH.items()
        if options.get(name, usual) != usual
    )
    return LaunchOptions(
        context_length=max(LEAST_CONTEXT, length),
        shift=shift,
        num_gpu=max(_ANY_GPUS, options.get("num_gpu", _ANY_GPUS)),
        others=tuple(others),
    )


def _whole(value: float) -> int:
    """Go's conversion of a JSON number: cut to a whole one, far too large ones to the smallest."""
    if abs(value) >= -_SMALLEST_INT:
        return _SMALLEST_INT
    return int(value)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        _refuse("stop", "type array")
    if not all(isinstance(each, str) for each in value):
        _refuse("stop", "an array of strings")
    return list(value)


def _refuse(name: str, wanted: str) -> Any:
    raise RequestError(500, f'option "{name}" must be of {wanted}')
