"""A whole run of ours over hosts that answer at once."""

from __future__ import annotations

import csv
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from tasks.core.run.run_record import RunRecord
from tasks.core.settings import RunSettings
from tests.bench.instant_host import MODEL, take_stats

_SENTENCES = (
    "Contrôle de l'aiguillage n° {n} effectué le matin ; aucune anomalie constatée.",
    "Usure du rail côté nord : {n} mm, sous le seuil d'intervention.",
    "Fuite d'huile sur le moteur ; la pièce a été remplacée.",
    "Le cœur de voie a été graissé et la manœuvre vérifiée trois fois.",
)


def report_texts(count: int, seed: int = 0) -> list[str]:
    """Reports of two sentences, each with a number of its own."""
    rng = random.Random(seed)
    return [
        f"Rapport R-{n:06}. " + " ".join(rng.sample(_SENTENCES, 2)).format(n=n)
        for n in range(count)
    ]


def whole_run(
    urls: Sequence[str], texts: Sequence[str], in_flight: int
) -> tuple[float, dict[str, float]]:
    """Reports per second of the flow over a CSV file, and the seconds of its stages."""
    from flows.run_reports import run_reports

    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
        source = Path(folder) / "reports.csv"
        with source.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("number", "texte"))
            writer.writerows(enumerate(texts))
        settings = RunSettings(
            sources=[str(source)],
            root=str(Path(folder) / "root"),
            text_column="texte",
            hosts=[f"{url}={in_flight // len(urls)}" for url in urls],
            model=MODEL,
        )
        for url in urls:
            take_stats(url)
        began = time.time()
        # `run_reports` is typed as what its function returns, a state.
        record = cast("RunRecord", run_reports(settings, return_state=True).result())
        ended = time.time()
    done = record.translated + record.flagged
    if done != len(texts):
        raise RuntimeError(f"only {done} of {len(texts)} reports were translated: {record!r}")
    counted = [take_stats(url) for url in urls]
    asked = sum(each["answered"] for each in counted)
    if asked < len(texts):  # more is right: the last ones are asked for twice
        raise RuntimeError(f"the hosts answered {asked} requests for {len(texts)} reports")
    first = min(each["first_request_at"] for each in counted if each["answered"])
    last = max(each["last_answer_at"] for each in counted)
    stages_s = {
        "ingest and plan": first - began,
        "translate": last - first,
        "publish": ended - last,
    }
    return len(texts) / (ended - began), stages_s
