"""Running the model over the sequences of a shard and keeping the rows.

Sequences are sorted by length and batched by a budget of tokens, so that padding is rare; where a row goes
does not depend on its batch. The rows of all hooks of a shard go straight into memory of the stored dtype
that is allocated once: the only copy is the one that converts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from workbench.errors import UserError
from workbench.hooks import Forward
from workbench.store import Rows


@dataclass(frozen=True)
class Batch:
    """Some sequences of a shard, padded to the longest of them.

    Attributes:
        ids: Token ids (sequence, pos).
        mask: Which positions are tokens, or None where all are (sequence, pos).
        source: Where rows lie in the flattened batch (row).
        target: Which rows of the shard they are (row).
    """

    ids: Int64[Tensor, "sequence pos"]
    mask: Bool[Tensor, "sequence pos"] | None
    source: Int64[Tensor, " row"]
    target: Int64[Tensor, " row"]


def batches(rows: Rows, *, batch_tokens: int, pad: int) -> Iterator[Batch]:
    """The sequences of a shard, the shorter ones first, at most `batch_tokens` padded tokens at a time."""
    order = np.argsort(rows.lengths, kind="stable")
    row_of_token = np.cumsum(rows.kept) - 1
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and rows.lengths[order[stop]] * (stop + 1 - start) <= batch_tokens:
            stop += 1
        yield _batch(rows, order[start:stop], row_of_token, pad)
        start = stop


def _batch(rows: Rows, chosen: np.ndarray, row_of_token: np.ndarray, pad: int) -> Batch:
    lengths = rows.lengths[chosen]
    width = int(lengths.max())
    inside = np.arange(width) < lengths[:, None]
    token = np.minimum(rows.offsets[chosen][:, None] + np.arange(width), len(rows.tokens) - 1)
    ids = np.where(inside, rows.tokens[token], pad).astype(np.int64)
    wanted = np.flatnonzero(inside & rows.kept[token])
    mask = None if inside.all() else torch.from_numpy(inside)
    target = row_of_token[token.reshape(-1)[wanted]]
    return Batch(torch.from_numpy(ids), mask, torch.from_numpy(wanted), torch.from_numpy(target))


class Harvest:
    """Fills memory with the rows of one shard after another.

    Args:
        forward: The model, up to its deepest hook.
        dtype: Stored dtype; None keeps the one that the model computes in.
        n_ctx: Longest sequence.
        batch_tokens: Padded tokens per forward.
        pad: Id that fills shorter sequences.
        device: Where the model takes its ids.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        dtype: torch.dtype | None,
        n_ctx: int,
        batch_tokens: int,
        pad: int,
        device: str,
    ) -> None:
        self.forward, self.dtype, self.n_ctx = forward, dtype, n_ctx
        self.batch_tokens, self.pad, self.device = batch_tokens, pad, device

    def __call__(
        self,
        rows: Rows,
        names: Sequence[str],
        memory: dict[str, Tensor],
        *,
        advance: Callable[[int], None] | None = None,
    ) -> dict[str, Float[Tensor, "row d"]]:
        """The rows of a shard per hook, in `memory` (by hook; made or enlarged where it is too small).

        Args:
            rows: Sequences and which of their tokens have a row.
            names: Hooks to keep.
            memory: Reused from shard to shard; the result is a view of it.
            advance: Called with the number of rows after each batch.

        Raises:
            UserError: a hook gives something else than a vector per token.
        """
        n_rows = len(rows.token_of_row)
        for batch in batches(rows, batch_tokens=self.batch_tokens, pad=self.pad):
            mask = None if batch.mask is None else batch.mask.to(self.device)
            values = self.forward(batch.ids.to(self.device), mask)
            for name in names:
                vectors = per_token(name, values[name], batch.ids.shape, self.n_ctx)
                self._keep(memory, name, vectors, batch, n_rows)
            if advance is not None:
                advance(len(batch.target))
        return {name: memory[name][:n_rows] for name in names}

    def _keep(self, memory: dict[str, Tensor], name: str, vectors: Tensor, batch: Batch, n_rows: int) -> None:
        dtype = self.dtype or vectors.dtype
        if name not in memory or len(memory[name]) < n_rows:
            memory[name] = torch.empty(n_rows, vectors.shape[1], dtype=dtype)
        chosen = vectors.index_select(0, batch.source.to(vectors.device))
        memory[name].index_copy_(0, batch.target, chosen.to("cpu", dtype))


def per_token(name: str, value: Tensor, shape: Sequence[int], n_ctx: int) -> Num[Tensor, "token d"]:
    """One vector per token: heads side by side; of an attention pattern, the queries' rows of all heads.

    Raises:
        UserError: the value has no vector per token.
    """
    batch, width = shape
    if (
        value.ndim == 4
        and value.shape[0] == batch
        and value.shape[2:] == (width, width)
        and _is_pattern(name)
    ):
        padded = torch.nn.functional.pad(value.transpose(1, 2), (0, n_ctx - width))
        return padded.reshape(batch * width, -1)
    if value.ndim not in (3, 4) or tuple(value.shape[:2]) != (batch, width):
        raise UserError(
            f"hook {name!r} gives {tuple(value.shape)}, not one vector per token: choose another hook"
        )
    return value.reshape(batch * width, -1)


def _is_pattern(name: str) -> bool:
    return name.endswith(("hook_pattern", "hook_attn_scores"))


def widths(values: Mapping[str, Tensor], shape: Sequence[int], n_ctx: int) -> dict[str, int]:
    """Numbers per row at each hook, from one forward.

    Raises:
        UserError: a hook gives something else than a vector per token.
    """
    return {name: per_token(name, value, shape, n_ctx).shape[1] for name, value in values.items()}
