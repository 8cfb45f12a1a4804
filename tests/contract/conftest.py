"""The server that the contract is held against, and the table of what differs.

pytest tests/contract                                        our own server
pytest tests/contract --ollama-url URL --ollama-model NAME   any other
pytest tests/contract --recordings DIR                       recorded traffic too
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from deployments.local_ollama import Settings, local_server
from tests.contract.compare import NotAsOllama
from tests.contract.target import Target, other_server, own_server

OWN = Settings(slots=2, load_seconds=0.3, prefill_rate=40_000, decode_rate=1500)
REPORTS = pytest.StashKey[list[str]]()
DIFFERENCE = "difference"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, read with defaults: pytest knows them only where this folder is named."""
    group = parser.getgroup("contract", "tests of an Ollama server")
    group.addoption("--ollama-url", help="the server to test; without it, one of our own")
    group.addoption("--ollama-model", help="a small model that the server has")
    group.addoption("--ollama-slots", help="its OLLAMA_NUM_PARALLEL (1)", type=int, default=1)
    group.addoption("--recordings", help="a folder of recorded traffic to replay", type=Path)


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Iterator[Target]:
    """The server under test and its model, loaded."""
    url = pytestconfig.getoption("--ollama-url", default=None)
    if url:
        model = pytestconfig.getoption("--ollama-model")
        if not model:
            raise pytest.UsageError("--ollama-url needs --ollama-model, a small model it has")
        yield other_server(url, model, pytestconfig.getoption("--ollama-slots"))
        return
    with local_server(OWN) as server:
        yield own_server(server.url, OWN)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,  # noqa: ARG001 - the hook's
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the differences of a failed check for the table."""
    report = yield
    failure = call.excinfo.value if call.excinfo else None
    if isinstance(failure, NotAsOllama):
        report.user_properties += [(DIFFERENCE, str(each)) for each in failure.differences]
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The reports of replays, then one line for each thing that is not as with Ollama."""
    for report in config.stash.get(REPORTS, []):
        terminalreporter.section("replay")
        terminalreporter.write_line(report)
    rows = [
        (failed.nodeid.rpartition("/")[2], text)
        for failed in terminalreporter.getreports("failed")
        for name, text in getattr(failed, "user_properties", ())
        if name == DIFFERENCE
    ]
    if rows:
        terminalreporter.section(f"{len(rows)} differences from Ollama")
        for test, text in rows:
            terminalreporter.write_line(f"{test}\n    {text}")
