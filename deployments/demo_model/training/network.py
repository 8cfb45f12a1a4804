"""The network: a decoder of the `llama` architecture, small enough for a CPU.

RMSNorm before each block, rotary positions on neighbouring pairs of a head's values (the order that
llama.cpp's `llama` architecture expects), SwiGLU, no biases, output weights of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a network."""

    vocabulary: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    inner: int = 768
    context: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5


class Block(nn.Module):
    """One layer: attention, then the gated feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.width, bias=False)
        self.value = nn.Linear(shape.width, shape.width, bias=False)
        self.output = nn.Linear(shape.width, shape.width, bias=False)
        self.feed_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.up = nn.Linear(shape.width, shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(batch, length, width) to the same."""
        batch, length, width = x.shape
        normed = self.attention_norm(x)

        def split(linear: nn.Linear) -> Tensor:
            return linear(normed).view(batch, length, self.heads, -1).transpose(1, 2)

        query, key = rotated(split(self.query), cos, sin), rotated(split(self.key), cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, split(self.value), is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        normed = self.feed_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Network(nn.Module):
    """Tokens in, scores of the next token out, at the places asked for."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=shape.width**-0.5)
        nn.init.normal_(self.embedding.weight, std=1.0)
        for block in self.blocks:
            nn.init.zeros_(block.output.weight)
            nn.init.zeros_(block.down.weight)
        cos, sin = rotations(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """(batch, length) tokens and a mask of the same shape: (wanted places, vocabulary)."""
        length = tokens.shape[1]
        x = self.embedding(tokens)
        cos, sin = self.cos[:length], self.sin[:length]
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(self.norm(x[wanted]))


def rotations(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position's rotations, (context, head width / 2) each."""
    head = shape.width // shape.heads
    speeds = shape.rope_base ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(shape.context).float(), speeds)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair of neighbouring values turned by its position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
