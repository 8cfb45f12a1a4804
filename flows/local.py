"""Local servers to try things on, and the demo that runs on them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import polars as pl

from deployments.local_ollama.process import local_servers
from deployments.local_ollama.settings import Settings as ServerSettings
from flows.running import run_flow
from flows.terminal import console, say
from tasks.core.settings import RunSettings
from tasks.core.storage.publish import translations_folder

CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLE = CHECKOUT / "data" / "sample"
SHOWN_CHARS = 220

SIMULATION = (
    "These servers simulate: they take the time of a model and answer word by word from a "
    "small lexicon. They do not translate."
)


def run_local_hosts(count: int, slots: int, tokens_per_second: float) -> int:
    """Run local servers until interrupted; prints how to use them."""
    settings = ServerSettings(slots=slots, decode_rate=tokens_per_second)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with local_servers([settings] * count) as servers:
        hosts = [f"{server.url}={slots}" for server in servers]
        for host in hosts:
            say(f"host: {host}")
        say(f"model: {settings.model}")
        say(SIMULATION)
        say(f"try: {_command('data/sample', 'out', hosts, settings.model)}")
        say("Ctrl-C stops them.")
        console.file.flush()
        stopped.wait()
    return 0


def run_demo(root: str) -> int:
    """Translate the sample on two local servers and show what came of it."""
    server = ServerSettings(slots=4, decode_rate=200.0, load_seconds=1.0)
    say("Starting two local servers. " + SIMULATION)
    with local_servers([server, server]) as servers:
        settings = RunSettings(
            sources=[str(SAMPLE)],
            root=root,
            text_column="texte",
            hosts=[f"{process.url}={server.slots}" for process in servers],
            model=server.model,
        )
        say(f"Translating {SAMPLE.relative_to(CHECKOUT)} (French reports in {_kinds()}).")
        code = run_flow("run", settings)
    _show_rows(root, settings.dataset, settings.target_lang)
    hosts = ["http://gpu1:11434=4", "http://gpu2:11434=8"]
    say("")
    say("The same with real Ollama servers:")
    say("  " + _command("data/sample", "out", hosts, "translategemma:12b"))
    return code


def _command(source: str, root: str, hosts: list[str], model: str) -> str:
    given = " ".join(f"--host {host}" for host in hosts)
    return f"reports run {source} --root {root} --text-column texte {given} --model {model}"


def _kinds() -> str:
    suffixes = {path.suffix for path in SAMPLE.rglob("*") if path.is_file()}
    return ", ".join(sorted(suffixes))


def _show_rows(root: str, dataset: str, target_lang: str) -> None:
    """A few translations, as anyone would read them."""
    path = f"{root}/{translations_folder(dataset, target_lang)}/*.parquet"
    rows = pl.read_parquet(path)
    say("")
    say(f'>>> pl.read_parquet("{path}")   # {rows.height} rows, {rows.width} columns')
    suffix = pl.col("source_file").str.extract(r"(\.\w+)$").alias("suffix")
    kinds = rows.sort("source_chars").with_columns(suffix).partition_by("suffix")
    for row in (kind.row(kind.height // 3, named=True) for kind in kinds):
        seconds = row["eval_duration_ns"] / 1e9
        say("")
        say(
            f"{row['source_file']}, row {row['source_row']} "
            f"({row['host']}, {row['output_tokens']} tokens in {seconds:.1f} s)"
        )
        say(f"  fr  {_short(row['source_text'])}")
        say(f"  en  {_short(row['translated_text'])}   [simulated]")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARS else flat[:SHOWN_CHARS].rstrip() + " …"
