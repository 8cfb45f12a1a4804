"""What a newcomer tries first: the demo, local hosts, and serving deployments."""

from __future__ import annotations

import re
import signal
import urllib.error
from collections.abc import Iterator
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


@pytest.fixture(scope="module", autouse=True)
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reports, Command]]:
    """The demo, which takes its time: it runs beside the other tests of this module."""
    reports = Reports(tmp_path_factory.mktemp("demo"), api=None)
    with reports.start("demo", "--root", reports.root) as command:
        yield reports, command


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


def test_demo_shows_the_whole_job(demo: tuple[Reports, Command]) -> None:
    """`reports demo` works with no Prefect server of ours, and shows what it did and what next."""
    reports, command = demo
    ended = command.wait()
    assert ended.code == 0, ended.said
    assert ended.err == ""
    assert "\x1b" not in ended.out
    assert "These servers simulate" in ended.out
    assert "temporary Prefect server" in ended.out
    assert "80 reports: 80 translated" in ended.out

    [record] = reports.runs()
    assert len(record["hosts"]) == 2
    table = ended.out[ended.out.index("80 reports: 80 translated") :]
    for url, host in record["hosts"].items():
        assert re.search(rf"^{url} +4 +{host['requests']} +0 ", table, re.MULTILINE)
    # A row of French and one of marked English for each source format.
    shown = re.findall(r"^  fr  (.+)\n  en  (.+?)   (.*)$", ended.out, re.MULTILINE)
    assert len(shown) == 4
    for french, english, mark in shown:
        assert mark == "[simulated]"
        assert french != english
    assert len(re.findall(r"\.(?:csv|jsonl|parquet|txt), row \d+ \(http://", ended.out)) == 4

    # The line that reads the result is one to copy, and so is the command for real hosts.
    [glob] = re.findall(r'pl\.read_parquet\("(.+?)"\)', ended.out)
    rows = pl.read_parquet(glob)
    assert f"# {rows.height} rows, {rows.width} columns" in ended.out
    assert rows.height == 80
    assert set(rows["status"]) == {"ok"}
    [given] = re.findall(r"^  reports (run .+)$", ended.out, re.MULTILINE)
    assert "--host http://gpu1:11434=4 --host http://gpu2:11434=8" in given
    assert "--model " in given
