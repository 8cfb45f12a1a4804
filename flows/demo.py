"""The demo: the sample reports on two local servers, and what came of it side by side."""

from __future__ import annotations

import json

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.local_ollama.process import local_servers
from flows.command import DONE, SOME_FAILED
from flows.local import (
    CHECKOUT,
    NOTICES,
    SAMPLE,
    EngineName,
    command_to_try,
    require,
    server_settings,
)
from flows.running import run_flow
from flows.terminal import console, say
from tasks.core.settings import RunSettings
from tasks.core.storage.publish import translations_folder

REFERENCES = CHECKOUT / "data" / "sample-references.jsonl"
SHOWN_CHARS = 220
WIDTH = 118


def run_demo(root: str, engine: EngineName) -> int:
    """Translate the sample on two local servers and show what came of it; returns the exit code.

    Raises `ConfigurationError` where the engine needs packages that are not installed.
    """
    server = server_settings(engine)
    if engine == "llama":
        require("sacrebleu")
    say("Starting two local servers. " + NOTICES[engine])
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
    if code not in (DONE, SOME_FAILED):
        return code
    path = f"{root}/{translations_folder(settings.dataset, settings.target_lang)}/*.parquet"
    rows = pl.read_parquet(path)
    _show_side_by_side(rows)
    _show_score(rows, engine)
    say("")
    say(f'>>> pl.read_parquet("{path}")   # {rows.height} rows, {rows.width} columns')
    hosts = ["http://gpu1:11434=4", "http://gpu2:11434=8"]
    say("")
    say("The same with real Ollama servers:")
    say("  " + command_to_try("data/sample", "out", hosts, "translategemma:12b"))
    return code


def _kinds() -> str:
    suffixes = {path.suffix for path in SAMPLE.rglob("*") if path.is_file()}
    return ", ".join(sorted(suffixes))


def _show_side_by_side(rows: pl.DataFrame) -> None:
    """A report of each format, as anyone would read it."""
    suffix = pl.col("source_file").str.extract(r"(\.\w+)$").alias("suffix")
    done = rows.filter(pl.col("translated_text").is_not_null())
    kinds = done.sort("source_chars").with_columns(suffix).partition_by("suffix")
    table = Table(expand=True, show_lines=True, show_edge=False, pad_edge=False)
    table.add_column("French", ratio=1)
    table.add_column("English", ratio=1)
    for row in (kind.row(kind.height // 3, named=True) for kind in kinds):
        seconds = row["eval_duration_ns"] / 1e9
        origin = f"({row['source_file']}, row {row['source_row']})"
        host = row["host"] or "both hosts"
        made = f"({host}, {row['output_tokens']} tokens in {seconds:.1f} s)"
        table.add_row(
            Text(f"{_short(row['source_text'])}\n{origin}"),
            Text(f"{_short(row['translated_text'])}\n{made}"),
        )
    say("")
    # A pipe has no width of its own, and the console would cut the table at 80 columns.
    wide = console if console.is_terminal else Console(file=console.file, width=WIDTH)
    wide.print(table)


def _show_score(rows: pl.DataFrame, engine: EngineName) -> None:
    """How near the translations are to those made by hand, where there are any."""
    try:
        import sacrebleu
    except ImportError:
        say("")
        say("chrF is not shown: sacrebleu is not installed (`pip install -e '.[demo]'`).")
        return
    wanted = [json.loads(line) for line in REFERENCES.read_text(encoding="utf-8").splitlines()]
    both = pl.DataFrame(wanted).join(
        rows.select("source_file", "source_row", "translated_text", "source_text"),
        on=["source_file", "source_row"],
    )
    references = [both["reference"].to_list()]
    score = sacrebleu.corpus_chrf(both["translated_text"].fill_null("").to_list(), references).score
    floor = sacrebleu.corpus_chrf(both["source_text"].to_list(), references).score
    say("")
    say(
        f"chrF against {both.height} translations by hand: {score:.1f} "
        f"(the French text itself: {floor:.1f}; 100 is the same text)."
    )
    if engine == "llama":
        say(
            "The model has five million parameters, learnt from made-up sentences whose words were "
            "chosen with this sample in view. It knows this domain only: take a real model for "
            "real reports."
        )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARS else flat[:SHOWN_CHARS].rstrip() + " …"
