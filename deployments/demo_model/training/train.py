"""Train the demo model from nothing: corpus, tokenizer, network, GGUF.

    python -m deployments.demo_model.training.train --out data/demo_model

Everything follows from the settings below and one seed. It takes about three quarters of an
hour on two quiet cores; the scores are those of `evaluate`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from deployments.demo_model import examination
from deployments.demo_model.corpus import Corpus
from deployments.demo_model.overlap import Forbidden
from deployments.demo_model.reading import read_grammar
from deployments.demo_model.training import export, vocabulary
from deployments.demo_model.training.network import Network, Shape

GENERATORS = 2


@dataclass(frozen=True, slots=True)
class Recipe:
    """All choices of one training."""

    pairs: int = 330_000
    vocabulary: int = 4096
    tokenizer_pairs: int = 120_000
    steps: int = 3200
    tokens_per_batch: int = 4096
    matrix_rate: float = 0.02
    other_rate: float = 2e-3
    warmup: int = 40
    cooldown: float = 0.5
    weight_decay: float = 0.01
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Data:
    """All pairs as one row of tokens: pair i is `tokens[starts[i]:starts[i + 1]]`."""

    tokens: np.ndarray
    starts: np.ndarray


def made_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Training pairs of one generator."""
    corpus = Corpus(read_grammar(), Forbidden(examination.all_texts()), seed)
    return [(pair.fr, pair.en) for pair in islice(corpus.pairs("training"), count)]


def all_pairs(recipe: Recipe) -> list[tuple[str, str]]:
    """The whole corpus, made by several generators side by side."""
    share = recipe.pairs // GENERATORS
    seeds = [recipe.seed * 1000 + number for number in range(GENERATORS)]
    with ProcessPoolExecutor(GENERATORS) as pool:
        return [p for part in pool.map(made_pairs, [share] * GENERATORS, seeds) for p in part]


def encoded(pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> Data:
    """The pairs as tokens: `<s> French <sep> English </s>`."""
    begin, end, separator = (tokenizer.token_to_id(each) for each in vocabulary.SPECIAL)
    parts: list[int] = []
    starts = [0]
    for at in range(0, len(pairs), 20_000):
        chunk = pairs[at : at + 20_000]
        french = tokenizer.encode_batch([fr for fr, _ in chunk], add_special_tokens=False)
        english = tokenizer.encode_batch([en for _, en in chunk], add_special_tokens=False)
        for fr, en in zip(french, english, strict=True):
            parts += [begin, *fr.ids, separator, *en.ids, end]
            starts.append(len(parts))
    return Data(np.array(parts, dtype=np.int32), np.array(starts))


def batches(data: Data, recipe: Recipe) -> Iterator[list[int]]:
    """Batches of pairs of like length, in random order, epoch after epoch without end."""
    lengths = np.diff(data.starts)
    random = Random(recipe.seed)  # noqa: S311 - an order, not a secret
    while True:
        jittered = lengths + np.array([random.random() * 4 for _ in lengths])
        order = np.argsort(jittered)
        made: list[list[int]] = []
        current: list[int] = []
        for index in order:
            if current and (len(current) + 1) * lengths[index] > recipe.tokens_per_batch:
                made.append(current)
                current = []
            current.append(int(index))
        made.append(current)
        random.shuffle(made)
        yield from made


def tensors(data: Data, batch: list[int], separator: int) -> tuple[torch.Tensor, ...]:
    """Inputs, the mask of the places to learn from, and the tokens to be said there."""
    rows = [data.tokens[data.starts[i] : data.starts[i + 1]] for i in batch]
    longest = max(len(row) for row in rows)
    tokens = np.zeros((len(rows), longest), dtype=np.int64)
    wanted = np.zeros((len(rows), longest), dtype=bool)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
        wanted[number, int(np.argmax(row == separator)) : len(row) - 1] = True
    inputs, mask = torch.from_numpy(tokens), torch.from_numpy(wanted)
    return inputs[:, :-1], mask[:, :-1], inputs[:, 1:][mask[:, :-1]]


def rate(step: int, recipe: Recipe) -> float:
    """The share of the full learning rate at a step: up, level, and down in a straight line."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    level_until = recipe.steps * (1 - recipe.cooldown)
    if step < level_until:
        return 1.0
    return max(0.0, (recipe.steps - step) / (recipe.steps - level_until))


def optimizers(network: Network, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    matrices = [p for p in network.blocks.parameters() if p.ndim == 2]  # noqa: PLR2004
    chosen = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(
            others,
            lr=recipe.other_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            fused=True,
        ),
    ]


def fit(network: Network, data: Data, separator: int, recipe: Recipe) -> None:
    """Train in place; prints the loss now and then."""
    makers = optimizers(network, recipe)
    full = [group["lr"] for maker in makers for group in maker.param_groups]
    supply = batches(data, recipe)
    began, losses = time.monotonic(), []
    for step in range(recipe.steps):
        inputs, mask, targets = tensors(data, next(supply), separator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = network(inputs, mask)
        loss = F.cross_entropy(scores.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        groups = [group for maker in makers for group in maker.param_groups]
        for group, whole in zip(groups, full, strict=True):
            group["lr"] = whole * rate(step, recipe)
        for maker in makers:
            maker.step()
            maker.zero_grad()
        losses.append(loss.item())
        if step % 50 == 49:  # noqa: PLR2004
            minutes = (time.monotonic() - began) / 60
            say(f"step {step + 1} loss {sum(losses[-50:]) / 50:.4f} after {minutes:.1f} min")
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss is {losses[-1]} at step {step}: lower the rates")


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Make the corpus, the tokenizer and the model, and write them."""
    parser = argparse.ArgumentParser(description="Train the demo model from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--pairs", type=int, default=Recipe().pairs)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"), help="checkpoint")
    options = parser.parse_args()
    recipe = Recipe(steps=options.steps, pairs=options.pairs, seed=options.seed)
    torch.manual_seed(recipe.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = all_pairs(recipe)
    say(f"{len(pairs)} pairs, {len(set(pairs))} distinct")
    some = islice((text for pair in pairs for text in pair), 2 * recipe.tokenizer_pairs)
    tokenizer = vocabulary.learn(some, recipe.vocabulary)
    tokenizer.save(str(options.work / "tokenizer.json"))
    data = encoded(pairs, tokenizer)
    say(f"{len(data.tokens)} tokens, {len(data.tokens) / len(pairs):.1f} a pair")
    network = Network(Shape(vocabulary=tokenizer.get_vocab_size()))
    say(f"{sum(p.numel() for p in network.parameters())} parameters; {json.dumps(asdict(recipe))}")
    fit(network, data, tokenizer.token_to_id(vocabulary.SEPARATOR), recipe)
    torch.save(network.state_dict(), options.work / "weights.pt")
    export.write(network, tokenizer, options.out / "reports-fr-en.gguf")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
