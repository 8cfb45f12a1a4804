"""From a checked request to what an engine gets: its prompt, rendered and made to fit."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from deployments.local_ollama import prompt as prompts
from deployments.local_ollama.engine import CompletionRequest, EngineError, LoadedModel
from deployments.local_ollama.errors import RequestError
from deployments.local_ollama.models import Model
from deployments.local_ollama.options import Options
from deployments.local_ollama.overflow import Rendered, fitted, newest_that_fit
from deployments.local_ollama.request import Asked

# A client that sets no limit gets at most this many contexts of output, as from Ollama.
CONTEXTS_OF_OUTPUT = 10


def rendered_prompt(asked: Asked, options: Options, model: LoadedModel) -> Rendered:
    """The prompt of a request, without the turns that have no room. Raises RequestError."""
    tokens = partial(_tokens, asked, model)
    messages, text = asked.messages, asked.messages[-1].content
    if asked.raw:
        return Rendered(messages, text, tokens(text))
    if asked.suffix:
        text = prompts.render_insert(
            asked.template or asked.model.template or "", text, asked.suffix
        )
        return Rendered(messages, text, tokens(text))
    if asked.template:
        text = _before(asked, model) + prompts.render(asked.template, messages)
        return Rendered(messages, text, tokens(text))
    render = partial(prompts.render_chat, asked.model)
    length = options.launch.context_length
    if asked.truncate:
        found = newest_that_fit(messages, render, tokens, length)
    else:
        text = render(messages)
        found = Rendered(messages, text, tokens(text))
    if asked.context is None:
        return found
    text = _before(asked, model) + found.text
    return Rendered(found.messages, text, tokens(text))


def _tokens(asked: Asked, model: LoadedModel, text: str) -> list[int]:
    """Tokens of a prompt; a first token that the model adds itself is not written out as well."""
    first = asked.model.special_tokens.get("bos") if _starts_itself(asked.model) else None
    return model.tokens(text.removeprefix(first) if first else text)


def _starts_itself(model: Model) -> bool:
    return model.model_info.get("tokenizer.ggml.add_bos_token") is True


def _before(asked: Asked, model: LoadedModel) -> str:
    """The text of an earlier answer's `context`. Raises RequestError for numbers of no token."""
    if not asked.context:
        return ""
    try:
        return model.text(asked.context)
    except (EngineError, IndexError, KeyError, OverflowError, ValueError) as unknown:
        raise RequestError(500, f"cannot read the context: {unknown}") from unknown


def completion_of(
    asked: Asked,
    options: Options,
    rendered: Rendered,
    output_format: str | Mapping[str, Any] | None,
) -> CompletionRequest:
    """The request to the engine. Raises RequestError for a prompt that may not be cut to fit."""
    launch = options.launch
    length = launch.context_length
    more = 1 if _starts_itself(asked.model) and options.keep_tokens >= 0 else 0
    keep = options.keep_tokens + more
    tokens = fitted(
        rendered.tokens,
        length,
        keep,
        truncate=asked.truncate,
        shift=launch.shift,
        native=asked.chat and prompts.is_native(asked.model),
    )
    wanted = options.output_limit
    limit = CONTEXTS_OF_OUTPUT * length if launch.shift else max(1, length - len(tokens))
    return CompletionRequest(
        prompt=tokens,
        messages=rendered.messages,
        # llama.cpp looks at its limit once it has made a token: of 0, too, comes one.
        output_limit=limit if wanted < 0 else min(max(1, wanted), limit),
        sampling=options.sampling,
        output_format=output_format,
        stop=options.stop,
    )
