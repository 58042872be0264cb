"""What a dictionary is evaluated on: held-out text, the store's own text, or rows of an array.

Which positions are judged follows the store: those that its capture would have kept. Text that is not in the
store goes through the same token filter; a norm limit of the capture becomes a limit on the activation at the
dictionary's hook, taken from the store's median norm (known to 1.1%).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.capture.filters import token_filter
from workbench.capture.shards import row_shard
from workbench.evaluation.measure import Passages
from workbench.store import ActivationStore, Rows
from workbench.text import STDLIB, STDLIB_HELD_OUT, read_sequences

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

GROUP_ROWS = 256


def choose_passages(
    store: ActivationStore, bridge: TransformerBridge, *, n_blocks: int, seed: int
) -> tuple[Passages, dict[str, Any]]:
    """Blocks of text, and where they are from."""
    source = store.description["source"]
    if source == STDLIB:
        return _held_out(store, bridge, n_blocks, seed), {"source": STDLIB_HELD_OUT, "held_out": True}
    return _own(store, n_blocks, seed), {"source": source, "held_out": False}


def _held_out(store: ActivationStore, bridge: TransformerBridge, n_blocks: int, seed: int) -> Passages:
    """The first blocks of the held-out part of the default corpus, laid out and filtered as the store's."""
    made = store.description
    sequences = read_sequences(
        bridge.tokenizer, STDLIB_HELD_OUT, n_ctx=store.n_ctx, seed=seed, layout=made["text"]["layout"]
    )
    keep = token_filter(
        bridge.tokenizer,
        leave_out=made["leave_out"],
        positions=made["positions"],
        roles=made["kept_roles"],
        role_names=sequences.roles,
    )
    rows = row_shard(list(islice(sequences, n_blocks)), keep).rows
    tokens, length, kept = _padded(rows, np.arange(rows.n_sequences), store.n_ctx)
    limit = made["max_norm"]
    longest = None if limit is None else limit["multiple_of_median"] * store.moments.norm_quantile(0.5)
    return Passages(torch.from_numpy(tokens), torch.from_numpy(length), torch.from_numpy(kept), longest)


def rows_per_block(store: ActivationStore) -> Int64[np.ndarray, " block"]:
    """Number of rows of every block of the store.

    Raises:
        StoreError: the row index is damaged.
    """

    def counted(rows: Rows) -> np.ndarray:
        return np.bincount(rows.sequence_of_token[rows.kept], minlength=rows.n_sequences)

    return np.concatenate([counted(store.rows(index)) for index in range(store.n_shards)]).astype(np.int64)


def _own(store: ActivationStore, n_blocks: int, seed: int) -> Passages:
    """Blocks of the store that have rows, drawn at random."""
    n_rows = rows_per_block(store)
    drawn = torch.randperm(len(n_rows), generator=torch.Generator().manual_seed(seed)).numpy()
    drawn = drawn[n_rows[drawn] > 0][:n_blocks]
    first = np.concatenate([[0], np.cumsum([entry["sequences"] for entry in store.row_entries])])
    shard = np.searchsorted(first, drawn, side="right") - 1
    tokens, kept = np.zeros((len(drawn), store.n_ctx), np.int32), np.zeros((len(drawn), store.n_ctx), bool)
    length = np.zeros(len(drawn), np.int64)
    for index in np.unique(shard):
        here = np.flatnonzero(shard == index)
        tokens[here], length[here], kept[here] = _padded(
            store.rows(int(index)), drawn[here] - first[index], store.n_ctx
        )
    return Passages(torch.from_numpy(tokens), torch.from_numpy(length), torch.from_numpy(kept))


def _padded(
    rows: Rows, chosen: Int64[np.ndarray, " n"], n_ctx: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, lengths and kept positions of some sequences of a row index."""
    kept = np.zeros((rows.n_sequences, n_ctx), bool)
    kept[rows.sequence_of_token, rows.pos_of_token] = rows.kept
    return rows.padded(n_ctx)[chosen], rows.lengths[chosen], kept[chosen]


def choose_rows(
    store: ActivationStore, *, n_blocks: int, seed: int
) -> tuple[Float[Tensor, "row d"], Int64[Tensor, " row"], dict[str, Any]]:
    """Rows of a store that no model is behind, their groups, and where they are from.

    `n_blocks` groups of `GROUP_ROWS` rows drawn at random, or of fewer where the store is small.
    """
    group = max(1, min(GROUP_ROWS, store.n_rows // n_blocks))
    n_rows = min(n_blocks * group, store.n_rows)
    drawn = np.random.default_rng(seed).choice(store.n_rows, n_rows, replace=False)
    origin = {
        "source": store.description["source"],
        "held_out": False,
        "unit": "rows",
        "sample": f"{n_rows} of {store.n_rows} rows drawn at random, in groups of {group}",
    }
    return store.take(drawn).float(), torch.arange(n_rows) // group, origin
