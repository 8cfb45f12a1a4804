"""Runs the `reports` command as its users do, and reads what it left behind."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest import mock

import polars as pl

from flows.command import exit_code

CHECKOUT = Path(__file__).resolve().parents[2]
REPORTS = Path(sys.executable).with_name("reports")
MODEL = "simulated-fr-en"
COMMAND_S = 100.0
MIDDLE_S = 60.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and all it wrote."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        """Both outputs, for a message."""
        return f"exit code {self.code} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


class Command:
    """A `reports` command in a process of its own."""

    def __init__(self, arguments: Sequence[str], folder: Path, api: str | None) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
        # Read by Prefect; the command has to find its own way to be quiet.
        for name in ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL"):
            environment.pop(name, None)
        if api:
            environment["PREFECT_API_URL"] = api
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = folder / "out.txt", folder / "err.txt"
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self._started = time.monotonic()
            self._child = subprocess.Popen(
                [str(REPORTS), *arguments],
                cwd=CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send this child, and no other process, a signal."""
        self._child.send_signal(number)

    def wait(self, seconds: float = COMMAND_S) -> Ended:
        """Wait for the end."""
        code = self._child.wait(seconds)
        took = time.monotonic() - self._started
        out, err = (path.read_text(encoding="utf-8") for path in self._paths)
        return Ended(code, out, err, took)

    def wait_for(self, words: str, seconds: float) -> None:
        """Wait until the output holds these words."""
        until(lambda: words in self.read(), words, seconds)

    def read(self) -> str:
        """What it wrote up to now."""
        return self._paths[0].read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something holds, while the command runs."""
        until(condition, what, MIDDLE_S, still=lambda: self._child.poll() is None)


def until(
    condition: Callable[[], bool],
    what: str,
    seconds: float,
    still: Callable[[], bool] = lambda: True,
) -> None:
    """Wait until a condition holds; fail after `seconds`, or when it cannot hold any more."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        assert still(), f"the command ended before: {what}"
        time.sleep(0.02)


@dataclass
class Reports:
    """The `reports` command with a Prefect server, its files below one folder."""

    folder: Path
    api: str | None
    _count: int = field(default=0, init=False)

    @property
    def root(self) -> Path:
        """The root that commands are given."""
        return self.folder / "root"

    def start(self, *arguments: object) -> Command:
        """Start a command in a process of its own."""
        self._count += 1
        given = [str(argument) for argument in arguments]
        return Command(given, self.folder / f"command-{self._count}", self.api)

    def alone(self, *arguments: object) -> Ended:
        """Run a command to its end, as its users do."""
        with self.start(*arguments) as command:
            return command.wait()

    def __call__(self, *arguments: object) -> Ended:
        """Run a command to its end in this process, which saves its start of two seconds."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        given = [str(argument) for argument in arguments]
        out, err, started = io.StringIO(), io.StringIO(), time.monotonic()
        with (
            # The command settles what Prefect reads; other tests do not inherit it.
            mock.patch.dict(os.environ),
            temporary_settings({PREFECT_API_URL: self.api}),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = exit_code(given)
        return Ended(code, out.getvalue(), err.getvalue(), time.monotonic() - started)

    def runs(self) -> list[dict[str, Any]]:
        """Every `run.json` of the root, oldest first."""
        runs = [json.loads(path.read_text()) for path in self.root.glob("runs/*/run.json")]
        return sorted(runs, key=lambda run: str(run["started_at"]))

    def table(self, name: str, dataset: str) -> pl.DataFrame:
        """A published table, as an analyst reads it."""
        return pl.read_parquet(f"{self.root}/{name}/{dataset}/**/*.parquet")

    def flow_run(self, run: dict[str, Any]) -> dict[str, Any]:
        """What the Prefect server knows of a run."""
        assert self.api is not None
        flow_run: dict[str, Any] = get(f"{self.api}/flow_runs/{run['flow_run_id']}")
        return flow_run

    def log(self, run: dict[str, Any]) -> str:
        """What the Prefect UI shows as the log of a run."""
        query = {"logs": {"flow_run_id": {"any_": [run["flow_run_id"]]}}}
        return "\n".join(line["message"] for line in post(f"{self.api}/logs/filter", query))


def get(url: str) -> Any:
    """The JSON at a URL of a server of ours."""
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - ours
        return json.load(answer)


def delete(url: str) -> None:
    """Delete what is at a URL of a server of ours."""
    request = urllib.request.Request(url, method="DELETE")  # noqa: S310 - ours
    urllib.request.urlopen(request, timeout=20).close()  # noqa: S310 - ours


def post(url: str, body: object) -> Any:
    """What a server of ours answers to a JSON body: JSON, or nothing."""
    request = urllib.request.Request(  # noqa: S310 - ours
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - ours
        said = answer.read()
    return json.loads(said) if said else None


def hosts(*given: str) -> list[str]:
    """Options that name hosts."""
    return [part for host in given for part in ("--host", host)]


SENTENCES = (
    "Contrôle de l'aiguillage n° {n} effectué le matin ; aucune anomalie constatée.",
    "Usure du rail côté nord : {n} mm, sous le seuil d'intervention.",
    "L’agent a entendu un bruit « anormal » près du pont, puis la vitesse a été réduite.",
    "Coût estimé de la réparation : {n} € hors taxes.",
    "Le cœur de voie a été graissé et la manœuvre vérifiée trois fois.",
    "Fuite d'huile sur le moteur ; la pièce a été remplacée.",
    "Retour à la normale à 14h{m:02}.",
)


def french_texts(count: int, first: int = 0) -> list[str]:
    """Reports that differ, with the line breaks, quotes and signs that real ones have."""
    rng = random.Random(first)
    texts = []
    for number in range(first, first + count):
        chosen = rng.sample(SENTENCES, rng.randint(2, 5))
        separators = [rng.choice((" ", "\n", "\n\n", "\r\n")) for _ in chosen]
        body = "".join(
            sentence.format(n=number, m=number % 60) + separator
            for sentence, separator in zip(chosen, separators, strict=True)
        )
        texts.append(f"Rapport R-{number:04d}. {body.strip()}")
    return texts


PREAMBLE = "Export des rapports d'été ; secteur Vallée-Nord\r\nPériode : 2024\r\n\r\n"


def csv_of(texts: Sequence[str], *, preamble: str = "", more: str = "", first: int = 0) -> str:
    """Texts as a CSV with semicolons, quoted where needed, in the last of three columns."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, delimiter=";", lineterminator="\r\n")
    writer.writerow(("numero", "site", "texte"))
    writer.writerows(
        (f"N-{number}", f"Gare d'Évry {number % 7}", text)
        for number, text in enumerate(texts, start=first)
    )
    return preamble + lines.getvalue() + more


def write_csv(path: Path, texts: Sequence[str], *, encoding: str = "utf-8", **shape: Any) -> Path:
    """Write texts as a CSV file in an encoding."""
    path.write_bytes(csv_of(texts, **shape).encode(encoding))
    return path
