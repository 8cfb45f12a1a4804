"""Exit code 2: what is wrong is said in one line that names it and what is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from deployments.local_ollama import ServerProcess, Settings, local_server
from flows import command
from flows.command import BAD_USAGE, DONE, exit_code
from flows.options import Translating
from tasks.core.settings import TranslateSettings
from tests.flows.harness import MODEL, Ended, Reports, french_texts, hosts, write_csv

HOST = "http://127.0.0.1:9"
RUN = ["run", "in.csv", "--root", "root", "--host", HOST, "--model", "m"]


def without(option: str) -> list[str]:
    """The command without an option and its value."""
    at = RUN.index(option)
    return RUN[:at] + RUN[at + 2 :]


def with_host(host: str) -> list[str]:
    """The command with another host."""
    return [*without("--host"), "--host", host]


HOST_FORM = "URL or URL=SLOTS"
CASES: dict[str, tuple[list[str], list[str]]] = {
    "unknown command": (["translat"], ["translat", "run, ingest, translate"]),
    "no source": (["run", *RUN[2:]], ["SOURCE", "file, folder or glob"]),
    "no root": (without("--root"), ["--root FOLDER"]),
    "no host": (without("--host"), ["--host", HOST_FORM, "--hosts-file"]),
    "empty hosts file name": (
        [*without("--host"), "--hosts-file", ""], ["--host", HOST_FORM, "--hosts-file"],
    ),
    "hosts file without a name": ([*RUN, "--hosts-file"], ["--hosts-file PATH", "one host a line"]),
    "host without a value": ([*RUN, "--host"], ["--host", HOST_FORM]),
    "no model": (without("--model"), ["--model NAME"]),
    "no dataset": (["ingest", "in.csv", "--root", "root"], ["--dataset NAME"]),
    "no value": ([*RUN, "--limit"], ["--limit", "whole number from 1"]),
    "unknown option": ([*RUN, "--speed", "3"], ["--speed", "reports run --help"]),
    "option of another command": (
        ["ingest", "in.csv", "--root", "root", "--dataset", "d", "--host", HOST],
        ["--host", "reports ingest --help"],
    ),
    "unknown policy": (
        [*RUN, "--policy", "fastest"],
        ["--policy", "fastest", "'pull', 'random', 'round_robin', 'least_connections'"],
    ),
    "unknown limits": (
        [*RUN, "--limits", "remote"], ["--limits", "remote", "'auto', 'local', 'prefect'"],
    ),
    "no such negative": ([*RUN, "--no-limits"], ["--no-limits", "reports run --help"]),
    "other scheme": (with_host("ftp://gpu1"), ["--host", "ftp://gpu1", HOST_FORM]),
    "no address": (with_host("http://"), ["--host", HOST_FORM]),
    "open bracket": (with_host("http://[::1"), ["--host", "http://[::1", HOST_FORM]),
    "port too high": (with_host("http://gpu1:99999"), ["--host", "99999", HOST_FORM]),
    "no slots": (with_host(f"{HOST}=0"), ["--host", f"{HOST}=0", "whole number from 1"]),
    "slots no number": (with_host(f"{HOST}=many"), ["--host", "many", HOST_FORM]),
    "host twice": ([*RUN, "--host", f"{HOST}/=3"], ["--host", HOST, "twice", "once"]),
    "limit 0": ([*RUN, "--limit", "0"], ["--limit", "whole number from 1"]),
    "limit no number": ([*RUN, "--limit", "few"], ["--limit", "few", "whole number from 1"]),
    "timeout below 0": ([*RUN, "--fleet-timeout", "-1"], ["--fleet-timeout", "seconds"]),
    "no time to load": ([*RUN, "--load-timeout", "0"], ["--load-timeout", "seconds"]),
    "context too short": ([*RUN, "--num-ctx", "12"], ["--num-ctx", "from 256"]),
    "no language code": ([*RUN, "--from", "French"], ["--from", "French", "such as fr"]),
    "no language code to": ([*RUN, "--to", "English"], ["--to", "English", "such as fr"]),
    "dataset no name": ([*RUN, "--dataset", "a/b"], ["--dataset", "a/b", "letters, digits"]),
    "empty root": ([*without("--root"), "--root", ""], ["--root", "--root FOLDER"]),
    "empty model": ([*without("--model"), "--model", ""], ["--model", "--model NAME"]),
    "count 0": (["local-hosts", "--count", "0"], ["--count", "whole number from 1"]),
    "slots 0": (["local-hosts", "--slots", "0"], ["--slots", "whole number from 1"]),
    "slots of local no number": (
        ["local-hosts", "--slots", "x"], ["--slots", "x", "whole number from 1"],
    ),
    "speed below 0": (
        ["local-hosts", "--tokens-per-second", "-1"], ["--tokens-per-second", "-1"],
    ),
    "serve none": (["serve", "--limit", "0"], ["--limit", "whole number from 1"]),
}  # fmt: skip


def assert_one_line(said: str, words: list[str]) -> None:
    """The message is one line of the command's own, with these words in it."""
    assert said.startswith("reports: ")
    assert said.endswith("\n")
    assert said.count("\n") == 1
    for word in words:
        assert word in said
    assert "Traceback" not in said


@pytest.mark.parametrize("case", CASES)
def test_bad_usage_is_said_in_one_line(
    case: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is wrong with the options is found before anything is read, asked or written."""
    monkeypatch.chdir(tmp_path)
    arguments, words = CASES[case]
    assert exit_code(arguments) == BAD_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"hosts": [HOST], "hosts_file": None}),
        (["--host", "gpu2=4"], {"hosts": [HOST, "gpu2=4"]}),
        (["--hosts-file", "hosts.txt"], {"hosts": [HOST], "hosts_file": "hosts.txt"}),
        (["--limits", "local"], {"limits": "local"}),
        (["--hedge"], {"hedge": True}),
        (["--no-hedge"], {"hedge": False}),
        (["--allow-other-weights"], {"other_weights": True}),
        (["--from", "de", "--to", "fr"], {"source_lang": "de", "target_lang": "fr"}),
        (["--fleet-timeout", "7"], {"fleet_timeout_seconds": 7}),
        (["--load-timeout", "8"], {"load_timeout_seconds": 8}),
    ],
)
def test_options_become_settings(
    options: list[str], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option of a translating command ends up in the setting that it names."""
    given: list[BaseModel] = []

    def keep(_name: str, settings: BaseModel, *, verbose: bool) -> int:
        assert not verbose
        given.append(settings)
        return DONE

    monkeypatch.setattr(command, "_run_flow", keep)
    assert exit_code([*RUN, *options, "second.csv"]) == DONE
    translate = ["translate", *RUN[2:], "--dataset", "ds", *options]
    assert exit_code(translate) == DONE
    run, translated = (one.model_dump() for one in given)
    assert run["sources"] == ["in.csv", "second.csv"]
    for one in (run, translated):
        assert settings.items() <= one.items()


def test_options_have_the_defaults_of_the_run_form() -> None:
    """What is left alone is the same for the command as for the run form of Prefect's UI."""
    options = asdict(Translating(hosts=(HOST,), model="m"))
    by_command = TranslateSettings(root="root", dataset="ds", **options)
    assert by_command == TranslateSettings(root="root", dataset="ds", hosts=[HOST], model="m")
    assert options.keys() == TranslateSettings.model_fields.keys() - {"root", "dataset"}


@pytest.mark.parametrize(
    "host",
    [
        "http://user:s3cret@gpu1:11434=4",
        "user:s3cret@gpu1",
        "https://user:s3=cret@gpu1",
        "http://s3cret@gpu1=x",
        "http://user:\ns3cret@gpu1",
    ],
)
def test_password_is_refused_and_shown_nowhere(
    host: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Credentials in a host URL are refused, and are in no message and no file."""
    monkeypatch.chdir(tmp_path)
    assert exit_code(with_host(host)) == BAD_USAGE
    out, err = capsys.readouterr()
    assert_one_line(err, ["--host", HOST_FORM])
    assert "cret" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A host that answers at once."""
    with local_server(Settings().instant()) as process:
        yield process


def refused(ended: Ended, words: list[str]) -> None:
    """The command ended with 2, said one line to standard error and nothing else."""
    assert ended.code == 2, ended.said
    assert ended.out == ""
    assert_one_line(ended.err, words)


def test_password_is_refused_by_the_command_itself(reports: Reports) -> None:
    """The installed command refuses credentials with exit code 2 and writes no root."""
    source = write_csv(reports.folder / "in.csv", french_texts(2))
    ended = reports.alone(
        "run", source, "--root", reports.root, "--model", MODEL,
        *hosts("http://user:s3cret@127.0.0.1:9=2"),
    )  # fmt: skip
    refused(ended, ["--host", "credentials", HOST_FORM])
    assert "s3cret" not in ended.err
    assert not reports.root.exists()


def test_unknown_column_is_named_with_those_there_are(
    reports: Reports, server: ServerProcess
) -> None:
    """A text column that a file lacks: the file, the column and its columns are named."""
    source = write_csv(reports.folder / "in.csv", french_texts(2))
    ended = reports(
        "run", source, "--root", reports.root, *hosts(server.url), "--model", MODEL,
        "--text-column", "Commentaires",
    )  # fmt: skip
    refused(ended, ["in.csv", "--text-column", "Commentaires", "numero, site, texte"])
    assert server.stats()["received"] == 0


def test_missing_source_is_named(reports: Reports, server: ServerProcess) -> None:
    """A source that does not exist is named, with the kinds of files that are read."""
    missing = reports.folder / "nowhere.csv"
    ended = reports("run", missing, "--root", reports.root, *hosts(server.url), "--model", MODEL)
    refused(ended, [str(missing), "no such file", ".csv", ".xlsx"])


def test_unknown_dataset_is_named_with_what_to_do(reports: Reports, server: ServerProcess) -> None:
    """Translating a dataset that was never ingested says how to ingest it."""
    ended = reports(
        "translate", "--dataset", "essais", "--root", reports.root, *hosts(server.url),
        "--model", MODEL,
    )  # fmt: skip
    refused(ended, ["--dataset essais", "reports ingest SOURCE", "--dataset essais"])
    assert not reports.root.exists()


def test_unknown_model_and_profile_are_named(reports: Reports, server: ServerProcess) -> None:
    """A model that no host has and a profile that does not exist: what there is is said."""
    source = write_csv(reports.folder / "in.csv", french_texts(2))
    given = ["run", source, "--root", reports.root, *hosts(server.url)]
    refused(
        reports(*given, "--model", "mistral"),
        ["--model mistral", server.url, f"{MODEL}:latest", "ollama pull mistral"],
    )
    refused(
        reports(*given, "--model", MODEL, "--profile", "formal"),
        ["--profile formal", "plain", "single-turn"],
    )
    assert server.stats()["received"] == 0
    assert not (reports.root / "reports").exists()
    assert [run["state"] for run in reports.runs()] == ["failed"] * len(reports.runs())
