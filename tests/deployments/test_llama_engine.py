"""The engine on llama.cpp itself, with models of random weights: gibberish, but by the rules."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

_MISSING = "needs the extra `llama`: pip install -e '.[llama]'"
pytest.importorskip("xllamacpp", reason=_MISSING, exc_type=ImportError)
pytest.importorskip("gguf", reason="needs the extra `dev`: pip install -e '.[dev]'")

from deployments.local_ollama.engine import (  # noqa: E402
    Completion,
    CompletionRequest,
    EngineError,
    LaunchOptions,
    Sampling,
)
from deployments.local_ollama.llama_engine import LlamaEngine, LlamaModel  # noqa: E402
from deployments.local_ollama.llama_process import LlamaProcess, _UnixConnection  # noqa: E402
from deployments.local_ollama.models import Model  # noqa: E402
from tests.deployments.tiny_llama import SEPARATOR, write_tiny_llama  # noqa: E402

GREEDY = Sampling(temperature=0.0)
LETTERS = {"type": "string", "enum": ["abcdefghij"]}
PROMPTS = ("the other day", "inner", "anthem", "thé")
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama that hardly ever ends an answer by itself."""
    return write_tiny_llama(tmp_path_factory.mktemp("llama") / "endless.gguf", ends=False)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An endless llama that takes a few tenths of a millisecond for a token."""
    path = tmp_path_factory.mktemp("llama") / "slow.gguf"
    return write_tiny_llama(path, width=256, layers=4, ends=False)


@pytest.fixture
async def model(endless: Path) -> AsyncIterator[LlamaModel]:
    """The endless llama in one slot."""
    async with loaded(endless) as ready:
        yield ready


@asynccontextmanager
async def loaded(path: Path, *, slots: int = 1, **launch: Any) -> AsyncIterator[LlamaModel]:
    """A llama that is closed in the end."""
    options = LaunchOptions(**{"context_length": 1024, **launch})
    ready = await LlamaEngine().load(entry(path), options, slots)
    try:
        yield ready
    finally:
        await ready.close()


def entry(path: Path | None) -> Model:
    """The entry of a model store for a file."""
    return Model(name="tiny:latest", digest="0", size=1, blob="sha256:0", path=path)


def request(model: LlamaModel, text: str = "the", limit: int = 30, **more: Any) -> Any:
    """A greedy request, unless it says otherwise."""
    tokens = tuple(model.tokens(text))
    return CompletionRequest(tokens, (), limit, **{"sampling": GREEDY, **more})


async def pieces(model: LlamaModel, asked: CompletionRequest) -> tuple[Completion, list[str]]:
    """An answer, and the pieces it came in."""
    received: list[str] = []

    async def on_text(piece: str) -> None:
        received.append(piece)

    return await model.complete(asked, on_text), received


def decodes(model: LlamaModel) -> int:
    """How many times llama.cpp has run a batch through this model, by its own count."""
    connection = _UnixConnection(model._runner.socket)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return int(next(line.split()[1] for line in lines if line.startswith("llamacpp:n_decode_t")))


def process_of(model: LlamaModel) -> int:
    """The process the model is in."""
    process = model._runner._process
    assert process is not None
    return process.pid


def runs(pid: int) -> bool:
    """Whether a process is there and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def entries(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


def test_the_separator_is_one_token_and_the_first_one_is_added(model: LlamaModel) -> None:
    """Special tokens are found in a text, and the text of tokens is what was tokenised."""
    assert model.tokens("") == [0]
    separated = model.tokens(f"the{SEPARATOR}é")
    assert [separated[0], separated[-2]] == [0, 2]
    assert len(separated) == 4
    assert f"<s>the{SEPARATOR}é" == model.text(separated)


def test_half_a_character_from_json_is_tokenised_like_go_reads_it(model: LlamaModel) -> None:
    """A lone surrogate becomes the replacement character."""
    assert model.tokens("a \ufffd b") == model.tokens("a \ud800 b")


def test_the_text_of_a_number_that_is_no_token_is_an_error(model: LlamaModel) -> None:
    """The process survives it."""
    for unknown in (99_999, -1):
        with pytest.raises(EngineError):
            model.text([unknown])
    assert model.text(model.tokens("the")[1:]) == "the"


async def test_greedy_answers_are_the_same_alone_and_together(endless: Path) -> None:
    """Four prompts at once on four slots get what each gets alone, and a second time too."""
    async with loaded(endless, slots=4) as model:
        asked = [request(model, prompt) for prompt in PROMPTS]
        alone = [await model.complete(each) for each in asked]
        again = [await model.complete(each) for each in asked]
        together = await asyncio.gather(*(model.complete(each) for each in asked))
    texts = [answer.text for answer in alone]
    assert len(set(texts)) > 1
    assert texts == [answer.text for answer in again]
    assert texts == [answer.text for answer in together]


async def test_a_seed_repeats_an_answer_and_no_seed_does_not(model: LlamaModel) -> None:
    """Chance is drawn from the seed; a negative one asks for another answer every time."""

    async def said(seed: int) -> str:
        chance = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=seed)
        return (await model.complete(request(model, sampling=chance))).text

    assert await said(7) == await said(7)
    assert await said(7) != await said(8)
    assert await said(-1) != await said(-1)


async def test_sampling_parameters_reach_llama_cpp(model: LlamaModel) -> None:
    """One candidate leaves no choice at any temperature; a penalty changes a greedy answer."""
    greedy = (await model.complete(request(model, limit=60))).text
    hot = Sampling(temperature=2.0, top_k=1)
    assert greedy == (await model.complete(request(model, limit=60, sampling=hot))).text
    penalised = Sampling(temperature=0.0, repeat_penalty=5.0)
    assert greedy != (await model.complete(request(model, limit=60, sampling=penalised))).text


async def test_an_answer_ends_at_its_limit(model: LlamaModel) -> None:
    """Token counts and times are llama.cpp's, and all of the prompt counts, cached or not."""
    for _ in range(2):
        answer = await model.complete(request(model, "the other", limit=12))
        assert answer.done_reason == "length"
        assert answer.output_tokens == 12
        assert len(model.tokens("the other")) == answer.prompt_tokens
        assert answer.prompt_ns > 0
        assert answer.output_ns > 0


async def test_an_answer_that_is_finished_stops(model: LlamaModel) -> None:
    """A schema that leaves no choice is followed to its end."""
    answer = await model.complete(request(model, output_format=LETTERS))
    assert (answer.text, answer.done_reason) == ('"abcdefghij"', "stop")


async def test_json_is_an_object(model: LlamaModel) -> None:
    """The format `json` allows nothing else; what it starts with shows it."""
    answer = await model.complete(request(model, output_format="json"))
    assert answer.text.startswith("{")


async def test_json_is_not_drowned_in_space(slow: Path) -> None:
    """Left to itself, this model goes on with tabs for ever."""
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "additionalProperties": False,
    }
    async with loaded(slow) as model:
        answer = await model.complete(request(model, limit=200, output_format=schema))
    assert answer.done_reason == "stop"
    assert json.loads(answer.text) == {"a": 1}


async def test_a_stop_word_ends_the_answer_before_it(model: LlamaModel) -> None:
    """It does not show, not even in part."""
    asked = request(model, output_format=LETTERS, stop=("", "ex", "ef"))
    answer, received = await pieces(model, asked)
    assert (answer.text, answer.done_reason) == ('"abcd', "stop")
    assert answer.text == "".join(received)


@pytest.mark.parametrize("streamed", [True, False])
async def test_pieces_make_up_the_text(model: LlamaModel, *, streamed: bool) -> None:
    """In order and each of whole characters, one by one also where nobody watches them come."""
    answer, received = await pieces(model, request(model, limit=200, streamed=streamed))
    assert answer.text == "".join(received)
    assert len(received) > 100


async def test_a_character_of_several_tokens_comes_in_one_piece(model: LlamaModel) -> None:
    """Bytes are held back until they are a character."""
    asked = request(model, output_format={"type": "string", "enum": ["€漢🦙"]})
    answer, received = await pieces(model, asked)
    assert answer.text == '"€漢🦙"'
    assert [piece for piece in received if piece] == ['"', "€", "漢", "🦙", '"']


async def test_answers_at_the_same_time_share_batches(slow: Path) -> None:
    """Four answers of 100 tokens take hardly more batches than one of them does."""
    async with loaded(slow, slots=4) as model:
        asked = [request(model, prompt, limit=100) for prompt in PROMPTS]
        before = decodes(model)
        answers = await asyncio.gather(*(model.complete(each) for each in asked))
        batches = decodes(model) - before
    assert [answer.output_tokens for answer in answers] == [100] * 4
    assert 100 <= batches < 250


async def test_a_cancelled_answer_frees_its_slot(slow: Path) -> None:
    """The next request on the only slot is answered at once, not after the long one."""
    async with loaded(slow, context_length=8192) as model:
        long = asyncio.create_task(model.complete(request(model, limit=50_000)))
        await asyncio.sleep(0.1)
        assert not long.done()
        long.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await long
        await model.complete(request(model, limit=1))
        assert time.monotonic() - started < 2.0


async def test_whoever_refuses_a_piece_ends_the_answer(slow: Path) -> None:
    """The receiver's error comes back as it is, and the slot is free."""

    async def refuse(_: str) -> None:
        raise ConnectionResetError("the client left")

    async with loaded(slow, context_length=8192) as model:
        with pytest.raises(ConnectionResetError, match="the client left"):
            await model.complete(request(model, limit=50_000), refuse)
        async with asyncio.timeout(2.0):
            await model.complete(request(model, limit=1))


async def test_a_full_context_ends_an_answer_or_is_shifted(endless: Path) -> None:
    """With `shift` an answer outgrows the context; without, it ends there."""
    async with loaded(endless, context_length=256, shift=True) as model:
        assert (await model.complete(request(model, limit=400))).output_tokens == 400
    async with loaded(endless, context_length=256, shift=False) as model:
        answer = await model.complete(request(model, limit=400))
        assert answer.done_reason == "length"
        assert answer.prompt_tokens + answer.output_tokens <= 257


async def test_a_refused_request_leaves_the_model_as_it_was(model: LlamaModel) -> None:
    """llama.cpp's own words come back under its status, and the next request is answered."""
    unknown = CompletionRequest((99_999,), (), 5)
    with pytest.raises(EngineError, match="invalid tokens") as refused:
        await model.complete(unknown)
    assert refused.value.status == 400
    assert (await model.complete(request(model, limit=3))).output_tokens == 3


async def test_a_slow_answer_takes_as_many_times_as_long(model: LlamaModel) -> None:
    """It tells the durations that it really took."""
    usual = await model.complete(request(model, limit=50))
    started = time.monotonic_ns()
    answer = await model.complete(request(model, limit=50, slow_by=20.0))
    assert time.monotonic_ns() - started >= answer.prompt_ns + answer.output_ns
    assert answer.output_ns > 2 * usual.output_ns
    assert answer.text == usual.text


@pytest.fixture(params=["empty", "text", "cut off", "length"])
def broken(request: pytest.FixtureRequest, tmp_path: Path, endless: Path) -> Path:
    """A file that is no model: nothing, something else, half of one, a length that cannot be."""
    good = endless.read_bytes()
    contents = {
        "empty": b"",
        "text": b"FROM tiny\n",
        "cut off": good[: len(good) // 2],
        "length": good[:30] + b"\xff" * 8 + good[38:],
    }
    path = tmp_path / "broken.gguf"
    path.write_bytes(contents[request.param])
    return path


async def test_a_broken_file_is_an_error_with_its_cause(broken: Path) -> None:
    """The words are Ollama's, then llama.cpp's."""
    with pytest.raises(EngineError) as failed:
        await LlamaEngine().load(entry(broken), LaunchOptions(256), 1)
    frame = "llama-server process has terminated: exit status 1: "
    assert str(failed.value).startswith(frame)
    assert len(str(failed.value)) > len(frame)
    assert failed.value.status == 500


async def test_a_model_without_a_file_cannot_be_loaded() -> None:
    """The timing engine's own model is such a one."""
    with pytest.raises(EngineError, match="no weights"):
        await LlamaEngine().load(entry(None), LaunchOptions(256), 1)


async def test_a_closed_model_leaves_no_process_and_can_be_loaded_again(endless: Path) -> None:
    """Neither does it leave its folder."""
    texts = set()
    for _ in range(2):
        async with loaded(endless) as model:
            pid, folder = process_of(model), model._runner.socket.parent
            assert folder.stat().st_mode & 0o077 == 0
            texts.add((await model.complete(request(model))).text)
        assert not runs(pid)
        assert not folder.exists()
    assert len(texts) == 1


async def test_two_models_work_side_by_side(endless: Path, slow: Path) -> None:
    """Closing one leaves the other."""
    async with loaded(slow) as other:
        async with loaded(endless) as model:
            both = (model.complete(request(model)), other.complete(request(other)))
            first, second = await asyncio.gather(*both)
        assert first.text != second.text
        assert second.text == (await other.complete(request(other))).text


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1])
async def test_a_cancelled_load_leaves_nothing(
    slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Wherever it is in the loading."""
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*words: Any, **more: Any) -> asyncio.subprocess.Process:
        started.append(await start(*words, **more))
        return started[-1]

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("asyncio.create_subprocess_exec", noted)
    load = asyncio.create_task(LlamaEngine().load(entry(slow), LaunchOptions(8192), 4))
    await asyncio.sleep(seconds)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert not any(runs(process.pid) for process in started)
    assert not entries(tmp_path)


async def test_the_last_words_of_a_process_count_without_a_line_break(tmp_path: Path) -> None:
    """It may end in the middle of a line."""
    said = asyncio.StreamReader()
    said.feed_data(b"0.00.1 E first\n\n0.00.2 E last")
    said.feed_eof()
    process = LlamaProcess(tmp_path)
    await process._listen(said)
    assert list(process._said) == ["first", "last"]


async def test_a_process_that_dies_is_an_error_and_can_be_closed(slow: Path) -> None:
    """For the answer being made as for later questions."""
    async with loaded(slow, context_length=8192) as model:
        assert model.alive
        answer = asyncio.create_task(model.complete(request(model, limit=50_000)))
        await asyncio.sleep(0.1)
        os.kill(process_of(model), signal.SIGKILL)
        with pytest.raises(EngineError, match=r"^llama-server process has terminated: signal: ki"):
            await answer
        with pytest.raises(EngineError, match="does not answer"):
            model.tokens("the")
        assert not model.alive


_PARENT = """
import asyncio, os, sys
from pathlib import Path
from deployments.local_ollama.engine import LaunchOptions
from tests.deployments.test_llama_engine import LlamaEngine, entry, process_of

async def main():
    model = await LlamaEngine().load(entry(Path(sys.argv[1])), LaunchOptions(256), 1)
    print(process_of(model), model._runner.socket, flush=True)
    os._exit(9)

asyncio.run(main())
"""


def test_a_model_does_not_outlive_a_server_that_is_killed(endless: Path) -> None:
    """Its process notices that nobody is there any more, and clears up."""
    command = [sys.executable, "-c", _PARENT, str(endless)]
    ended = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=False)
    assert ended.returncode == 9
    pid, path = ended.stdout.decode().split()
    until = time.monotonic() + 10.0
    while runs(int(pid)) or Path(path).parent.exists():
        assert time.monotonic() < until, "the process of the model is still there"
        time.sleep(0.02)
