"""What a newcomer tries first: the demo, local hosts, and serving deployments."""

from __future__ import annotations

import re
import signal
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import polars as pl
import pytest

from tests.flows.harness import (
    MODEL,
    Command,
    Reports,
    delete,
    french_texts,
    get,
    hosts,
    post,
    until,
    write_csv,
)

SECONDS = 60.0


ENGINES = ("llama", "simulated")
Demo = tuple[Reports, Command]


@pytest.fixture(scope="module", autouse=True)
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Demo]]:
    """Both demos, which take their time: they run beside the other tests of this module."""
    with ExitStack() as stack:
        started = {}
        for engine in ENGINES:
            reports = Reports(tmp_path_factory.mktemp(engine), api=None)
            arguments = ["demo", "--root", reports.root]
            if engine != "llama":
                arguments += ["--engine", engine]
            started[engine] = reports, stack.enter_context(reports.start(*arguments))
        yield started


def test_local_hosts_run_until_interrupted(reports: Reports) -> None:
    """`reports local-hosts` prints URLs and a model that `reports run` takes, until Ctrl-C."""
    arguments = ["local-hosts", "--count", "2", "--slots", "3", "--tokens-per-second", "0"]
    with reports.start(*arguments) as command:
        command.wait_for("Ctrl-C", SECONDS)
        said = command.read()
        given = re.findall(r"^host: (\S+=3)$", said, re.MULTILINE)
        assert len(given) == 2
        [model] = re.findall(r"^model: (.+)$", said, re.MULTILINE)
        assert model == MODEL
        assert "simulate" in said
        assert f"--host {given[0]} --host {given[1]} --model {model}" in said

        source = write_csv(reports.folder / "in.csv", french_texts(10))
        ended = reports("run", source, "--root", reports.root, *hosts(*given), "--model", model)
        assert ended.code == 0, ended.said
        command.signal(signal.SIGINT)
        ended = command.wait()
    assert ended.code == 0, ended.said
    assert ended.err == ""
    for host in given:
        with pytest.raises(urllib.error.URLError):
            get(host.removesuffix("=3") + "/api/version")


def test_serve_needs_a_server(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a Prefect server `reports serve` says which variable to set."""
    ended = Reports(tmp_path, api=None)("serve")
    assert ended.code == 2
    assert "PREFECT_API_URL" in ended.err
    assert ended.err.count("\n") == 1
    assert capsys.readouterr() == ("", "")


def test_serve_serves_until_interrupted(reports: Reports) -> None:
    """`reports serve` offers the deployments without a work pool, and ends quietly on Ctrl-C."""
    assert reports.api is not None
    # Those that another test deployed to a work pool would keep it.
    for deployed in post(f"{reports.api}/deployments/filter", {}):
        delete(f"{reports.api}/deployments/{deployed['id']}")
    url = f"{reports.api}/deployments/name/run-reports/ad-hoc"
    with reports.start("serve") as command:
        command.wait_for("run-reports/ad-hoc", SECONDS)
        until(lambda: get(url)["status"] == "READY", "somebody works on the deployment", SECONDS)
        deployment = get(url)
        assert deployment["work_pool_name"] is None
        assert deployment["entrypoint"].endswith("flows/run_reports.py:run_reports")
        command.signal(signal.SIGINT)
        ended = command.wait()
    assert ended.code == 0, ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize(
    ("engine", "notice"),
    [("llama", "They run a small language model"), ("simulated", "These servers simulate")],
)
def test_demo_shows_the_whole_job(demos: dict[str, Demo], engine: str, notice: str) -> None:
    """`reports demo` works with no Prefect server of ours, and shows what it did and what next."""
    reports, command = demos[engine]
    ended = command.wait()
    assert ended.code == 0, ended.said
    assert ended.err == ""
    assert "\x1b" not in ended.out
    assert notice in ended.out
    assert "temporary Prefect server" in ended.out
    assert "80 reports: 80 translated" in ended.out

    [record] = reports.runs()
    assert len(record["hosts"]) == 2
    table = ended.out[ended.out.index("80 reports: 80 translated") :]
    for url, host in record["hosts"].items():
        assert re.search(rf"^{url} +4 +{host['requests']} +0 ", table, re.MULTILINE)
    # A report of each source format, both languages side by side.
    for suffix in ("csv", "jsonl", "parquet", "txt"):
        assert re.search(rf"\.{suffix},\s+row \d+\)", ended.out), suffix
    assert ended.out.count(" tokens in ") == 4

    # The line that reads the result is one to copy, and so is the command for real hosts.
    [glob] = re.findall(r'pl\.read_parquet\("(.+?)"\)', ended.out)
    rows = pl.read_parquet(glob)
    assert f"# {rows.height} rows, {rows.width} columns" in ended.out
    assert rows.height == 80
    assert set(rows["status"]) == {"ok"}
    [given] = re.findall(r"^  reports (run .+)$", ended.out, re.MULTILINE)
    assert "--host http://gpu1:11434=4 --host http://gpu2:11434=8" in given
    assert "--model " in given


def test_the_language_model_comes_nearer_than_a_lexicon(demos: dict[str, Demo]) -> None:
    """The demo says how near its translations come to those by hand; the model beats the lexicon.

    And it says that the model knows this domain only.
    """
    scores = {engine: _score(command.wait().out) for engine, (_, command) in demos.items()}
    (model, floor), (lexicon, same_floor) = scores["llama"], scores["simulated"]
    assert floor == same_floor
    assert floor + 10 < lexicon
    assert lexicon + 5 < model
    assert "It knows this domain only" in " ".join(demos["llama"][1].wait().out.split())


def _score(out: str) -> tuple[float, float]:
    """ChrF of the translations and of the French itself, as the demo prints them."""
    [(score, floor)] = re.findall(
        r"^chrF against 48 translations by hand: ([\d.]+) \(the French text itself: ([\d.]+);",
        out,
        re.MULTILINE,
    )
    return float(score), float(floor)
