"""Packed blocks as one array: the first tokens of a corpus, for whoever wants a fixed number at once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor

from workbench.errors import UserError
from workbench.text.encoder import TokenizerLike
from workbench.text.sequence import TokenSequence
from workbench.text.sequences import Sequences, read_sequences


@dataclass(frozen=True)
class Blocks:
    """Packed token ids with their origin.

    Attributes:
        tokens: Token ids (block, pos); position 0 is the beginning-of-text token.
        document: Index into `documents` of the text that each token comes from (block, pos).
        documents: Names of the texts.
        description: Source, seed and a digest of the ids: equal descriptions mean equal blocks.
    """

    tokens: Int32[Tensor, "block pos"]
    document: Int32[Tensor, "block pos"]
    documents: list[str]
    description: dict[str, Any] = field(default_factory=dict)


def pack(tokenizer: TokenizerLike, source: str, *, n_tokens: int, n_ctx: int, seed: int = 0) -> Blocks:
    """Blocks of `n_ctx` ids from a corpus: the first `n_tokens` tokens of its documents in seeded order.

    Args:
        tokenizer: Hugging Face tokenizer; one without a beginning-of-text token begins blocks as in
            `SpecialTokens.of`.
        source: As in `read_sequences`. Blocks of token arrays begin with their own tokens.
        n_tokens: Text tokens wanted (added tokens not counted); a smaller corpus gives all.
        n_ctx: Block length, added tokens included.
        seed: Decides the order of the documents.

    Raises:
        UserError: no text, an unreadable file, or less text than one block.
    """
    if n_tokens < 1:
        raise UserError(f"n_tokens {n_tokens} must be at least 1")
    rows, names = _take(read_sequences(tokenizer, source, n_ctx=n_ctx, seed=seed), n_tokens)
    tokens = np.stack([row.tokens for row in rows])
    document = np.stack([row.document for row in rows])
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    description = {"source": source, "seed": seed, "tokens_sha256": digest}
    return Blocks(torch.from_numpy(tokens), torch.from_numpy(document), names, description)


def _take(sequences: Sequences, n_tokens: int) -> tuple[list[TokenSequence], list[str]]:
    """Sequences with at least `n_tokens` tokens of text, or all, and the names of the documents read."""
    rows: list[TokenSequence] = []
    names: list[str] = []
    stream, total = iter(sequences), 0
    while total < n_tokens:
        try:
            row = next(stream)
        except StopIteration as end:
            return rows, [*names, *end.value.documents]
        rows.append(row)
        names += row.new_documents
        total += len(row.tokens) - sequences.special.n_added
    return rows, names
