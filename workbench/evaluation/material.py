"""What a dictionary is evaluated on: held-out text, the stores' own text, or rows of an array.

Which positions are judged follows the stores: those that their capture would have kept. Text that is not in
them goes through the same token filter; a norm limit of the capture becomes a limit on the activation at each
of the dictionary's hooks that was captured, taken from the store's median norm (known to 1.1%).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from workbench.capture import open_store
from workbench.capture.filters import token_filter
from workbench.capture.shards import row_shard
from workbench.capture.where import captured_hooks
from workbench.dictionaries import Site
from workbench.errors import UserError
from workbench.evaluation.ends import Ends
from workbench.evaluation.passages import Passages
from workbench.store import ActivationStore, Rows
from workbench.text import STDLIB, STDLIB_HELD_OUT, read_sequences

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

GROUP_ROWS = 256


Stores = Mapping[str, ActivationStore]


def open_stores(run: Path, ends: Ends, *, other_run: Path | None = None) -> dict[str, ActivationStore]:
    """The stores of a dictionary's hook points, the first input's first; a target need not have been captured.

    Args:
        run: The run that the dictionary was trained in.
        ends: Its hook points.
        other_run: The run of the second model, for a crosscoder of two.

    Raises:
        UserError: an input was not captured, its run was not given, or a store is damaged or incomplete.
    """
    needed, made = [site.name for site in ends.inputs], captured_hooks(run)
    wanted = [name for name in ends.hooks if name in needed or name in made]
    return {name: _open_site(name, [run, *([other_run] if other_run else [])]) for name in wanted}


def _open_site(name: str, runs: Sequence[Path]) -> ActivationStore:
    """The store of a site; `owner:hook` is that of the run whose model or folder the owner is."""
    owner, _, hook = name.rpartition(":")
    if not owner:
        return open_store(runs[0], hook)
    for run in runs:
        store = open_store(run, hook)
        if owner in (run.name, str(store.description["model"])):
            return store
    raise UserError(
        f"site {name!r} is of a run that was not given: give other_run, the run folder of {owner!r}"
    )


def take_columns(stores: Stores, sites: Sequence[Site], rows: Int64[np.ndarray, " row"]) -> Tensor:
    """Rows of several stores side by side, float32 (row, d).

    Raises:
        StoreError: a file is damaged.
    """
    return torch.cat([stores[site.name].take(rows).float() for site in sites], dim=1)


def drawn_batches(
    stores: Stores, sites: Sequence[Site], *, n_rows: int, batch_rows: int, seed: int
) -> Iterator[Tensor]:
    """Rows drawn without replacement, some at a time (row, d); all of them where the stores hold fewer."""
    n_stored = next(iter(stores.values())).n_rows
    drawn = np.random.default_rng(seed).choice(n_stored, min(n_rows, n_stored), replace=False)
    drawn.sort()
    for start in range(0, len(drawn), batch_rows):
        yield take_columns(stores, sites, drawn[start : start + batch_rows])


def choose_passages(
    stores: Stores, bridge: TransformerBridge, *, n_blocks: int, seed: int
) -> tuple[Passages, dict[str, Any]]:
    """Blocks of text, and where they are from."""
    store = next(iter(stores.values()))
    source = store.description["source"]
    if source == STDLIB:
        return _held_out(stores, bridge, n_blocks, seed), {"source": STDLIB_HELD_OUT, "held_out": True}
    return _own(store, n_blocks, seed), {"source": source, "held_out": False}


def _held_out(stores: Stores, bridge: TransformerBridge, n_blocks: int, seed: int) -> Passages:
    """The first blocks of the held-out part of the default corpus, laid out and filtered as the stores'."""
    store = next(iter(stores.values()))
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
    limits = _max_norms(stores)
    return Passages(torch.from_numpy(tokens), torch.from_numpy(length), torch.from_numpy(kept), limits)


def _max_norms(stores: Stores) -> dict[str, float]:
    """The norm limit at each hook, where the capture had one."""
    limits = {name: store.description["max_norm"] for name, store in stores.items()}
    return {
        name: limit["multiple_of_median"] * stores[name].moments.norm_quantile(0.5)
        for name, limit in limits.items()
        if limit is not None
    }


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
) -> tuple[Int64[np.ndarray, " row"], Int64[Tensor, " row"], dict[str, Any]]:
    """Numbers of rows of a store that no model is behind, their groups, and where they are from.

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
    return drawn, torch.arange(n_rows) // group, origin
