"""One token sequence of a stream, and the account of what the stream read and left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, UInt8

EMPTY = "empty documents"


@dataclass(frozen=True)
class TokenSequence:
    """Tokens for one row of a batch.

    Attributes:
        tokens: Token ids (pos).
        document: Number of the document that each token comes from (pos); documents count 0, 1, 2, ... in
            order of first appearance in the stream.
        role: Index into `Sequences.roles` of each token (pos); None without chat.
        new_documents: Names of the documents that first appear here, in order of their numbers.
        skipped: What was left out since the previous sequence, counted by reason.
    """

    tokens: Int32[np.ndarray, " pos"]
    document: Int32[np.ndarray, " pos"]
    role: UInt8[np.ndarray, " pos"] | None = None
    new_documents: tuple[str, ...] = ()
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rest:
    """What a stream left out after its last sequence: the value that its generator returns.

    Attributes:
        skipped: Counted by reason.
        documents: Names of documents of which no token appeared, in order of their numbers.
    """

    skipped: dict[str, int]
    documents: tuple[str, ...] = ()


class Ledger:
    """Numbers documents and keeps what the next sequence has to tell."""

    def __init__(self) -> None:
        self.n_documents = 0
        self.n_sequences = 0
        self._unannounced: list[str] = []
        self._skipped: Counter[str] = Counter()
        self._all_skipped: Counter[str] = Counter()

    def add(self, name: str) -> int:
        """The number of a new document."""
        self._unannounced.append(name)
        self.n_documents += 1
        return self.n_documents - 1

    def skip(self, reason: str, count: int = 1) -> None:
        """Count something that is left out."""
        if count:
            self._skipped[reason] += count
            self._all_skipped[reason] += count

    def sequence(
        self,
        tokens: Int32[np.ndarray, " pos"],
        document: Int32[np.ndarray, " pos"],
        role: UInt8[np.ndarray, " pos"] | None = None,
    ) -> TokenSequence:
        """The next sequence, with the news since the one before."""
        n_known = self.n_documents - len(self._unannounced)
        n_new = max(0, int(document[-1]) + 1 - n_known)
        names, self._unannounced = tuple(self._unannounced[:n_new]), self._unannounced[n_new:]
        skipped, self._skipped = dict(self._skipped), Counter()
        self.n_sequences += 1
        return TokenSequence(tokens, document, role, names, skipped)

    def rest(self) -> Rest:
        """What is left to tell after the last sequence."""
        return Rest(dict(self._skipped), tuple(self._unannounced))

    def reasons(self) -> str:
        """Everything that was left out, in words."""
        return ", ".join(f"{count} {reason}" for reason, count in self._all_skipped.items()) or "it is empty"
