"""Completes recorded requests of which only the beginning was written down.

What is missing is known from the beginning, from the order in which the recorder asked and
from the answer; what is not clear from these stays cut, and is not replayed. Prompts that were
too long for the context are replaced by others, too long for any way of counting tokens.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from tests.contract.exchange import Exchange

# Each endpoint was asked so, in this order, with the same prompt that is too long.
VARIANTS: tuple[dict[str, bool], ...] = ({}, {"truncate": False}, {"shift": False})
BOTH = {"shift": False, "truncate": False}
SMALL: dict[str, Any] = {"num_ctx": 64}
REAL_RUNNER: dict[str, Any] = {"temperature": 0, "seed": 1, "num_predict": 12, "num_ctx": 256}
"""The options of every other request to the models that a real runner ran."""
WORDS_FOR_EACH_TOKEN = 4
CONVERSATION = [
    {"role": "system", "content": "keep"},
    # Numbered, so that a model that echoes it is not stopped for repeating itself.
    {"role": "user", "content": "".join(f"o{number:02d} " for number in range(100))},
    {"role": "user", "content": "".join(f"n{number:02d} " for number in range(45))},
]
_MODEL = re.compile(r'^\{"model": "([^"]+)", ')
_REPEATED = re.compile(r'"(?:prompt|content)": "(\w+) (?:\1 ){20,}')


def rebuilt(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """The exchanges, with the requests completed of which it is clear how they went on."""
    asked: Counter[tuple[str, str]] = Counter()
    done = []
    for exchange in exchanges:
        body = _too_long(exchange)
        if exchange.body_cut:
            key = (_model(exchange), exchange.path)
            body = _completed(exchange, asked[key])
            asked[key] += 1
        if body is None:
            done.append(exchange)
        else:
            raw = json.dumps(body).encode()
            done.append(
                dataclasses.replace(exchange, body=raw, body_cut=False, note="request rebuilt")
            )
    return done


def _too_long(exchange: Exchange) -> dict[str, Any] | None:
    """A whole request with a prompt that is too long, or None where it is another."""
    text, sent = exchange.body.decode(errors="replace"), exchange.request
    if not sent or _repeated(text) is None:
        return None
    return {**sent, **_content(exchange.path, text, sent["options"]["num_ctx"])}


def _completed(exchange: Exchange, number: int) -> dict[str, Any] | None:
    text = exchange.body.decode(errors="replace")
    head: dict[str, Any] = {"model": _model(exchange), "stream": False}
    if '"role": "system", "content": "keep"' in text:
        return {**head, "messages": CONVERSATION, "options": SMALL}
    match _repeated(text), exchange.path:
        case "x", "/api/generate":
            options, flags = SMALL, _flags_of(text)
        case "x", _:
            options, flags = SMALL, VARIANTS[number] if number < len(VARIANTS) else None
        case "mot", _:
            # What was not cut in silence was refused, which takes truncate: false.
            silent = exchange.status == HTTPStatus.OK
            options, flags = REAL_RUNNER, VARIANTS[0] if silent else VARIANTS[1]
        case _:
            return None
    if flags is None:
        return None
    return {
        **head,
        **_content(exchange.path, text, options["num_ctx"]),
        "options": options,
        **flags,
    }


def _content(path: str, text: str, num_ctx: int) -> dict[str, Any]:
    # Numbered, so that a model that echoes it is not stopped for repeating itself.
    word, count = _repeated(text), WORDS_FOR_EACH_TOKEN * num_ctx
    prompt = "".join(f"{word}{number} " for number in range(count))
    if path == "/api/generate":
        return {"prompt": prompt}
    return {"messages": [{"role": "user", "content": prompt}]}


def _flags_of(text: str) -> dict[str, bool] | None:
    """The one set of flags that begins as what is left of them does."""
    left = text.partition(f'"options": {json.dumps(SMALL)}, ')[2]
    fitting = [flags for flags in (*VARIANTS[1:], BOTH) if json.dumps(flags)[1:].startswith(left)]
    return fitting[0] if left and len(fitting) == 1 else None


def _model(exchange: Exchange) -> str:
    found = _MODEL.match(exchange.body.decode(errors="replace"))
    return found[1] if found else ""


def _repeated(text: str) -> str | None:
    """The word that a long prompt repeats."""
    found = _REPEATED.search(text)
    return found[1] if found else None
