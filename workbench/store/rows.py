"""The row index: which token, position and document each row of a store belongs to.

Every hook captured in one run shares it, so their rows are aligned by construction, and the text costs its
few bytes a token once. It keeps whole sequences, also the tokens whose rows were left out, because what
stood before a token is needed to understand its activation.

On disk, per shard: `tokens` (two bytes each where the vocabulary allows, else four), `offsets` of the
sequences, `kept` (a bit a token), the document changes, and `role` for conversations (a byte a token).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Whole sequences of token ids, and which of their tokens have a row.

    Attributes:
        tokens: Token ids of all sequences, one after another (token).
        offsets: Where each sequence starts in `tokens`, and the end (sequence + 1).
        kept: Whether a token has a row (token).
        document: Number of the document that each token comes from (token).
        role: Speaker of each token in a conversation (token), or None.
    """

    tokens: Int32[np.ndarray, " token"]
    offsets: Int64[np.ndarray, " edge"]
    kept: Bool[np.ndarray, " token"]
    document: Int32[np.ndarray, " token"]
    role: UInt8[np.ndarray, " token"] | None = None

    @property
    def n_sequences(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " sequence"]:
        """Tokens per sequence."""
        return np.diff(self.offsets)

    @cached_property
    def sequence_of_token(self) -> Int32[np.ndarray, " token"]:
        """Number of each token's sequence."""
        return np.repeat(np.arange(self.n_sequences, dtype=np.int32), self.lengths)

    @cached_property
    def pos_of_token(self) -> Int32[np.ndarray, " token"]:
        """Position of each token in its sequence."""
        starts = np.repeat(self.offsets[:-1], self.lengths)
        return (np.arange(len(self.tokens)) - starts).astype(np.int32)

    @cached_property
    def token_of_row(self) -> Int64[np.ndarray, " row"]:
        """Index into `tokens` of each row."""
        return np.flatnonzero(self.kept)

    def padded(self, n_ctx: int, *, pad: int = 0) -> Int32[np.ndarray, "sequence pos"]:
        """Sequences as the rows of a matrix, filled up with `pad`."""
        filled = np.full((self.n_sequences, n_ctx), pad, np.int32)
        filled[self.sequence_of_token, self.pos_of_token] = self.tokens
        return filled

    def to_tensors(self, *, d_vocab: int) -> dict[str, Tensor]:
        """As they are stored; the ids in the narrower type that holds a vocabulary of `d_vocab`."""
        changes = np.flatnonzero(np.diff(self.document, prepend=-1))
        tokens = self.tokens.astype(np.uint16 if d_vocab <= 2**16 else np.int32)
        stored = {
            "tokens": tokens,
            "offsets": self.offsets.astype(np.int64),
            "kept": np.packbits(self.kept),
            "document_start": changes.astype(np.int64),
            "document_number": self.document[changes].astype(np.int32),
        }
        if self.role is not None:
            stored["role"] = self.role
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in stored.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Rows:
        """As `to_tensors` gave them."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        n_tokens = len(arrays["tokens"])
        spans = np.diff(np.append(arrays["document_start"], n_tokens))
        return cls(
            arrays["tokens"].astype(np.int32),
            arrays["offsets"].copy(),
            np.unpackbits(arrays["kept"], count=n_tokens).astype(bool),
            np.repeat(arrays["document_number"], spans).astype(np.int32),
            arrays["role"].copy() if "role" in arrays else None,
        )
