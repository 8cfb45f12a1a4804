"""An engine that takes the time of a language model and answers from a lexicon.

A token is four characters of text, rounded up, or one of the marks `<|...|>`. The template of the
model that comes with this engine puts four marks around every message. The rule is crude on
purpose: anyone can work out the expected count.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from deployments.local_ollama.engine import (
    Completion,
    CompletionRequest,
    LaunchOptions,
    Message,
    OnText,
)
from deployments.local_ollama.lexicon import Lexicon
from deployments.local_ollama.models import Model
from deployments.local_ollama.naming import full_name
from deployments.local_ollama.settings import Settings
from deployments.local_ollama.shared_decoder import Clocks

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
TRAINED_CONTEXT = 32768
TEMPLATE = (
    "{{ range .Messages }}<|message|><|{{ .Role }}|><|content|>{{ .Content }}<|end|>{{ end }}"
)
PIECES_REMEMBERED = 1 << 18
_MARK = re.compile(r"(<\|[^|<>]*\|>)")
_REPORT = re.compile(r"<report>\n?(.*?)\n?</report>", re.DOTALL)


def count_tokens(text: str) -> int:
    """Tokens of a text without marks, by the rule of this module."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def pieces_of(text: str) -> list[str]:
    """The text, token by token."""
    step = CHARACTERS_PER_TOKEN
    pieces: list[str] = []
    for part in _MARK.split(text):
        if _MARK.fullmatch(part):
            pieces.append(part)
        else:
            pieces += [part[at : at + step] for at in range(0, len(part), step)]
    return pieces


def source_text(messages: Sequence[Message]) -> str:
    """The text to translate: the last user message, or the last `<report>` block inside it.

    One line break after the opening tag and one before the closing tag belong to the block, not to
    the report.
    """
    last = next((each.content for each in reversed(messages) if each.role == "user"), "")
    blocks = _REPORT.findall(last) if "<report>" in last else []
    return str(blocks[-1]) if blocks else last


def simulated_model(settings: Settings) -> Model:
    """A model that owns to being simulated."""
    digest = hashlib.sha256(f"timing model {settings.model}".encode()).hexdigest()
    return Model(
        name=full_name(settings.model),
        digest=digest,
        size=1 << 20,
        blob=f"sha256:{hashlib.sha256(digest.encode()).hexdigest()}",
        path=None,
        family="simulated",
        format="simulated",
        parameter_size="0",
        quantization_level="none",
        trained_context=TRAINED_CONTEXT,
        model_info={
            "general.architecture": "simulated",
            "simulated.context_length": TRAINED_CONTEXT,
        },
        template=TEMPLATE,
        license="Simulation: a timing model and a word list, no language model.",
        modified_ns=1_767_225_600_000_000_000,
    )


class Vocabulary(dict[str, int]):
    """The number of every piece seen lately, and back; a number depends on its piece alone."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: dict[int, str] = {}

    def __missing__(self, piece: str) -> int:
        digest = hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=6).digest()
        number = int.from_bytes(digest, "big")
        self[piece] = number
        self._pieces[number] = piece
        return number

    def text(self, numbers: Sequence[int]) -> str:
        """The pieces in a row; of one forgotten the replacement character."""
        known = self._pieces.get
        return "".join([known(number, "\ufffd") for number in numbers])

    def forget_if_full(self) -> None:
        """Begin again where PIECES_REMEMBERED is reached; not between two calls for one text."""
        if len(self) > PIECES_REMEMBERED:
            self.clear()
            self._pieces.clear()


class TimingEngine:
    """The engine of the simulation: deterministic answers, durations from the settings' rates.

    It runs every model alike, whatever its weights.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lexicon = Lexicon.french_to_english()
        self.clocks = Clocks(settings.slowdown)
        self._vocabulary = Vocabulary()
        self.card = simulated_model(settings)

    async def load(
        self,
        model: Model,  # noqa: ARG002 - all are run alike
        launch: LaunchOptions,  # noqa: ARG002
        slots: int,  # noqa: ARG002
    ) -> "TimedModel":
        """Take the time of a load."""
        await asyncio.sleep(self._settings.load_seconds)
        return TimedModel(self._settings, self._lexicon, self.clocks, self._vocabulary)


class TimedModel:
    """A loaded model of the timing engine."""

    def __init__(
        self,
        settings: Settings,
        lexicon: Lexicon,
        clocks: Clocks,
        vocabulary: Vocabulary,
    ) -> None:
        self._settings = settings
        self._lexicon = lexicon
        self._clocks = clocks
        self._vocabulary = vocabulary

    @property
    def alive(self) -> bool:
        """Nothing can end it."""
        return True

    def tokens(self, text: str) -> list[int]:
        """A number for each piece of the text, the same on every server."""
        self._vocabulary.forget_if_full()
        return [self._vocabulary[piece] for piece in pieces_of(text)]

    def text(self, tokens: Sequence[int]) -> str:
        """The pieces with these numbers; of those long forgotten, the replacement character."""
        return self._vocabulary.text(tokens)

    async def close(self) -> None:
        """Nothing is held."""

    async def complete(
        self, request: CompletionRequest, on_text: OnText | None = None
    ) -> Completion:
        """Answer from the lexicon, after the time the rates say."""
        text, reason = self._answer(request)
        started = time.monotonic_ns()
        if self._settings.prefill_rate:
            seconds = len(request.prompt) / self._settings.prefill_rate
            await self._clocks.read(seconds * request.slow_by)
        read = time.monotonic_ns()
        await self._decode(text, request, on_text)
        return Completion(
            text=text,
            prompt_tokens=len(request.prompt),
            output_tokens=count_tokens(text),
            prompt_ns=max(1, read - started),
            output_ns=max(1, time.monotonic_ns() - read),
            done_reason=reason,
        )

    def _answer(self, request: CompletionRequest) -> tuple[str, Literal["stop", "length"]]:
        text = self._lexicon.translate(self._source(request))
        if request.output_format:
            text = _as_json(text, request.output_format)
        ends = [at for at in (text.find(word) for word in request.stop if word) if at >= 0]
        if ends:
            text = text[: min(ends)]
        if count_tokens(text) > request.output_limit:
            return text[: request.output_limit * CHARACTERS_PER_TOKEN], "length"
        return text, "stop"

    def _source(self, request: CompletionRequest) -> str:
        """What the prompt still has of the text to translate: of a cut prompt, all that is left."""
        source, prompt = source_text(request.messages), self.text(request.prompt)
        return source if source in prompt else _MARK.sub("", prompt)

    async def _decode(self, text: str, request: CompletionRequest, on_text: OnText | None) -> None:
        per_token = seconds_per_token(text, self._settings) * request.slow_by
        step = CHARACTERS_PER_TOKEN
        pieces = [text[at : at + step] for at in range(0, len(text), step)]
        with (decoder := self._clocks.decoder).answer() as start:
            if not request.streamed:
                await decoder.until(start + len(pieces) * per_token)
                # Only a text that repeats itself is of interest piece by piece now.
                if all(one.strip() != other.strip() for one, other in pairwise(pieces)):
                    pieces = [text]
            if on_text is None:
                return
            for made, piece in enumerate(pieces, start=1):
                if request.streamed:
                    await decoder.until(start + made * per_token)
                await on_text(piece)


def seconds_per_token(text: str, settings: Settings) -> float:
    """How long a token of this answer takes where nothing else is being made."""
    if not settings.decode_rate:
        return 0.0
    drawn = hashlib.blake2b(f"{settings.seed}\0{text}".encode(errors="replace"))
    share = int.from_bytes(drawn.digest()[:8], "big") / 2**63 - 1.0
    return (1.0 + settings.jitter * share) / settings.decode_rate


def _as_json(text: str, wanted: str | Mapping[str, Any]) -> str:
    """The answer as an object: under the schema's first text property, else under `translation`."""
    name = "translation"
    properties = wanted.get("properties") if isinstance(wanted, Mapping) else None
    if isinstance(properties, Mapping):
        texts = (
            key
            for key, rule in properties.items()
            if isinstance(rule, Mapping) and rule.get("type") == "string"
        )
        name = next(texts, name)
    return json.dumps({name: text}, ensure_ascii=False)
