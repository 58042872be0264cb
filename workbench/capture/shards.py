"""From a stream of token sequences to the row indices of shards.

Where a shard ends depends on the sequences alone: it takes whole sequences up to `shard_tokens`. A capture
that wants no more than a part of a shard ends with a short one; a later, longer capture goes on after it
and leaves it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from workbench.capture.filters import TokenFilter
from workbench.errors import UserError
from workbench.store import Rows, RowShard
from workbench.text import TokenSequence


def row_shard(
    sequences: Sequence[TokenSequence], keep: TokenFilter, skipped: Mapping[str, int] | None = None
) -> RowShard:
    """The row index of some sequences; `skipped` was left out after the last of them."""
    tokens = np.concatenate([s.tokens for s in sequences])
    document = np.concatenate([s.document for s in sequences])
    offsets = np.concatenate([[0], np.cumsum([len(s.tokens) for s in sequences])]).astype(np.int64)
    roles = [s.role for s in sequences if s.role is not None]
    role = np.concatenate(roles) if roles else None
    kept, left_out = keep(tokens, offsets, role)
    for counted in [*(s.skipped for s in sequences), skipped or {}]:
        for reason, n in counted.items():
            left_out[reason] = left_out.get(reason, 0) + n
    documents = [name for s in sequences for name in s.new_documents]
    return RowShard(Rows(tokens, offsets, kept, document, role), documents, left_out)


class RowShards(Iterator[RowShard]):
    """Shards of a stream in order, until the tokens with a row are `n_rows` or the stream ends.

    Args:
        sequences: The stream, from its start.
        keep: Which tokens get a row.
        n_rows: Rows wanted, before the norm limit; rounded up to whole sequences.
        shard_tokens: Tokens per shard (one sequence at least).
        known: Log of the shards that exist: these end where they ended, whatever the other arguments. One that is
            missing before others is filled whatever `n_rows` says.

    Attributes:
        exhausted: Whether the stream has ended; decided when the last shard has been given.
    """

    def __init__(
        self,
        sequences: Iterable[TokenSequence],
        keep: TokenFilter,
        *,
        n_rows: int,
        shard_tokens: int,
        known: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._stream, self._keep = iter(sequences), keep
        self._n_rows, self._shard_tokens, self._done, self._number = n_rows, shard_tokens, 0, 0
        self._known = {entry["shard"]: entry["sequences"] for entry in known}
        self._ahead: TokenSequence | None = None
        self._skipped: dict[str, int] = {}
        self.exhausted = False

    def __next__(self) -> RowShard:
        group = self._again() if self._number in self._known else self._fill()
        if not group:
            raise StopIteration
        self._number += 1
        shard = row_shard(group, self._keep, self._skipped)
        self._done += len(shard.rows.token_of_row)
        return shard

    def _again(self) -> list[TokenSequence]:
        """The sequences of a shard that exists."""
        wanted = self._known[self._number]
        ahead, self._ahead = [self._ahead] if self._ahead is not None else [], None
        group = list(islice(chain(ahead, self._stream), wanted))
        if len(group) < wanted:
            raise UserError(
                f"the text ends in shard {self._number} of the store: it has changed since; capture into a new run"
            )
        return group

    def _fill(self) -> list[TokenSequence]:
        """The sequences of a new shard; none where there are rows enough or no text."""
        group: list[TokenSequence] = []
        tokens = rows = 0
        wanted = math.inf if self._number < max(self._known, default=0) else self._n_rows
        sequence = self._ahead if self._ahead is not None else self._next()
        while sequence is not None and self._done + rows < wanted:
            if group and tokens + len(sequence.tokens) > self._shard_tokens:
                break
            group.append(sequence)
            tokens += len(sequence.tokens)
            rows += self._rows_of(sequence)
            sequence = self._next()
        self._ahead, self.exhausted = sequence, sequence is None
        return group

    def _next(self) -> TokenSequence | None:
        """The next sequence; at the end of the stream None, and what was left out last."""
        try:
            return next(self._stream)
        except StopIteration as end:
            self._skipped = end.value.skipped if end.value is not None else {}
            return None

    def _rows_of(self, sequence: TokenSequence) -> int:
        edges = np.array([0, len(sequence.tokens)], dtype=np.int64)
        return int(self._keep(sequence.tokens, edges, sequence.role)[0].sum())
