"""Blocks of text, and which of their positions a dictionary is judged at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor


@dataclass(frozen=True)
class Passages:
    """Blocks of text, and which of their positions a dictionary is judged at.

    Attributes:
        tokens: Token ids; what stands after the end of a shorter block is never read (block, pos).
        length: Tokens of each block (block).
        kept: Positions whose activation is reconstructed and replaced (block, pos).
        max_norms: Positions with longer activations at one of these hooks are left alone too.
    """

    tokens: Int[Tensor, "block pos"]
    length: Int64[Tensor, " block"]
    kept: Bool[Tensor, "block pos"]
    max_norms: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def packed(cls, tokens: Int[Tensor, "block pos"]) -> Passages:
        """Full blocks, judged at every position but the first."""
        kept = torch.ones(tokens.shape, dtype=torch.bool)
        kept[:, 0] = False
        return cls(tokens, torch.full((len(tokens),), tokens.shape[1]), kept)

    def batches(self, n_blocks: int) -> Iterator[Int64[Tensor, " chosen"]]:
        """Numbers of blocks of equal length, at most `n_blocks` at a time, the shorter ones first."""
        for length in self.length.unique():
            yield from (self.length == length).nonzero()[:, 0].split(n_blocks)
