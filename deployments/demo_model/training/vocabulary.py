"""The tokenizer: byte-level BPE in which every digit is a token of its own.

Its pre-tokenizer is the one llama.cpp calls `gpt-2`; since no merge contains a digit, both cut
numbers the same way, and the model can copy them digit by digit.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BEGIN, END, SEPARATOR = "<s>", "</s>", "<sep>"
SPECIAL = (BEGIN, END, SEPARATOR)


def learn(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer of `size` tokens, learnt from texts of both languages."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
