"""Whether two stores have rows of the same tokens in the same places, and where they first differ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.errors import UserError
from workbench.store import ActivationStore

Tokens = tuple[np.ndarray, np.ndarray, np.ndarray]


def refuse_other_rows(first: ActivationStore, second: ActivationStore) -> None:
    """Refuse two stores whose rows are not those of the same tokens.

    Stores with one row index, or with equal ones, need no look at the tokens.

    Raises:
        UserError: names the first token that differs in its id, its position in the sequence or in having a row,
            or the numbers of rows.
    """
    if _index(first) == _index(second):
        return
    difference = first_difference(first, second)
    if difference is not None:
        raise UserError(
            f"hook {first.description['hook']!r} in {str(first.folder)!r} and hook {second.description['hook']!r} in "
            f"{str(second.folder)!r} are not of the same tokens: {difference}; capture both with the same text and "
            "options"
        )


def _index(store: ActivationStore) -> list[str]:
    return [entry["sha256"] for entry in store.row_entries]


def first_difference(first: ActivationStore, second: ActivationStore) -> str | None:
    """The first difference of two row indices in words; None where every row is of the same token."""
    for start, a, b in _in_step(first, second):
        for what, ours, theirs in zip(("id", "position", "row"), a, b, strict=True):
            if len(wrong := np.flatnonzero(ours != theirs)):
                place = int(wrong[0])
                if what == "row":
                    return f"token {start + place} has a row in one of them only"
                return f"token {start + place} has {what} {ours[place]} and {what} {theirs[place]}"
    if first.n_rows != second.n_rows:
        return f"they have {first.n_rows} and {second.n_rows} rows"
    return None


def _in_step(first: ActivationStore, second: ActivationStore) -> Iterator[tuple[int, Tokens, Tokens]]:
    """Equally long stretches of both token streams, however their shards are divided."""
    streams, start = [_stretches(first), _stretches(second)], 0
    held: list[Tokens | None] = [next(stream, None) for stream in streams]
    while held[0] is not None and held[1] is not None:
        a, b = held[0], held[1]
        n = min(len(a[0]), len(b[0]))
        yield start, _cut(a, 0, n), _cut(b, 0, n)
        start += n
        held = [
            _cut(rest, n, None) if len(rest[0]) > n else next(stream, None)
            for rest, stream in zip((a, b), streams, strict=True)
        ]


def _stretches(store: ActivationStore) -> Iterator[Tokens]:
    """Token ids, positions and whether there is a row, shard by shard."""
    for index in range(store.n_shards):
        rows = store.rows(index)
        yield rows.tokens, rows.pos_of_token, rows.kept


def _cut(tokens: Tokens, start: int, stop: int | None) -> Tokens:
    ids, positions, kept = (column[start:stop] for column in tokens)
    return ids, positions, kept
