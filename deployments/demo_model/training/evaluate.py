"""Score the model file as it is used: by llama.cpp, greedily, one sentence at a time.

    python -m deployments.demo_model.training.evaluate data/demo_model/reports-fr-en.gguf

Held out are the shapes that training never saw. The sample is split into sentences, as the pipeline
does for this model, and scored by report.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import sacrebleu
import sentencex
import xllamacpp

from deployments.demo_model import examination
from deployments.demo_model.corpus import Corpus
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.reading import read_grammar

SLOTS = 4
SAMPLING = {"temperature": 0.0, "repeat_penalty": 1.05, "repeat_last_n": 64}
"""As in the pipeline: without the penalty one sentence of the 400 of the sample never ends."""
EXAMINED_SEED = 1_000_003
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_LINE_BREAK = re.compile(r"(\s*\n\s*)")


class Translator:
    """The model file in llama.cpp."""

    def __init__(self, path: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 1024 * SLOTS
        params.n_parallel = SLOTS
        params.cpuparams.n_threads = 2
        params.cpuparams_batch.n_threads = 2
        params.warmup = False
        self._server = xllamacpp.Server(params)

    def sentence(self, text: str) -> str:
        """The translation of one sentence."""
        asked = {"prompt": text + "<sep>", "n_predict": 400, **SAMPLING}
        answer = self._server.handle_completions(asked)
        chosen = answer["choices"][0]
        return str(chosen["text"]).strip()

    def all(self, texts: Iterable[str]) -> list[str]:
        """The translations of many sentences, several at a time."""
        with ThreadPoolExecutor(SLOTS) as pool:
            return list(pool.map(self.sentence, texts))


def sentences(report: str) -> list[str]:
    """A report's sentences and, between them, the white space as it stood."""
    pieces: list[str] = []
    for line in _LINE_BREAK.split(report):
        if not line.strip():
            pieces.append(line)
            continue
        for sentence in sentencex.segment("fr", line):
            body = sentence.strip()
            pieces += [body, sentence[len(sentence.rstrip()) :]]
    return pieces


def numbers(text: str) -> list[str]:
    """Every number of a text, in order of size, as written."""
    return sorted(_NUMBER.findall(text))


def scores(made: list[str], wanted: list[str]) -> dict[str, float]:
    """chrF, the share of texts with exactly the numbers wanted, and of exactly equal texts."""
    right = [numbers(a) == numbers(b) for a, b in zip(made, wanted, strict=True)]
    equal = [a == b for a, b in zip(made, wanted, strict=True)]
    return {
        "chrF": round(sacrebleu.corpus_chrf(made, [wanted]).score, 2),
        "numbers exact, %": round(100 * sum(right) / len(right), 2),
        "texts exact, %": round(100 * sum(equal) / len(equal), 2),
    }


def main() -> int:
    """Print the scores as JSON, and on request the worst translations."""
    parser = argparse.ArgumentParser(description="Score a model file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=2000, help="held-out pairs")
    parser.add_argument("--show", type=int, default=0, help="show so many of each, made and wanted")
    options = parser.parse_args()
    translator = Translator(options.model)
    corpus = Corpus(read_grammar(), Forbidden(examination.all_texts()), EXAMINED_SEED)
    held_out = list(islice(corpus.pairs("held-out"), options.pairs))
    made = translator.all(pair.fr for pair in held_out)
    found = {"held-out": scores(made, [pair.en for pair in held_out])}
    reports = examination.referenced_reports()
    split = [sentences(report.fr) for report in reports]
    texts = [text for pieces in split for text in pieces if text.strip()]
    known = dict(zip(texts, translator.all(texts), strict=True))
    whole = ["".join(known.get(text, text) for text in pieces).strip() for pieces in split]
    found["sample"] = scores(whole, [report.en for report in reports])
    show = sys.stdout.write
    for pair, text in islice(zip(held_out, made, strict=True), options.show):
        if text != pair.en:
            show(f"fr   {pair.fr}\nmade {text}\nref  {pair.en}\n\n")
    for report, text in islice(zip(reports, whole, strict=True), options.show):
        show(f"fr   {report.fr}\nmade {text}\nref  {report.en}\n\n")
    show(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
