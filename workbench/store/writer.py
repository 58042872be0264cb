"""Writing a store: shard by shard, for all hooks at once, the row index first.

    activations/rows/      the row index (`rows.py`), shared by all hooks of the folder
    activations/<hook>/    one column per hook point

A hook added later is written against the row index that is there, so its rows are those of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import array_equal
from torch import Tensor
from torch import isfinite as isfinite_tensor

from workbench.store.column import Column, check_whole
from workbench.store.errors import StoreError
from workbench.store.files import digest_tensors, map_tensors
from workbench.store.moments import empty_moments, moments
from workbench.store.rows import Rows

ROWS = "rows"


@dataclass(frozen=True)
class Origin:
    """What a column is made from: `description` decides its identity, `about` tells people where it came from."""

    description: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowShard:
    """The row index of one shard, with what is told about it in the log.

    Attributes:
        rows: Sequences and which tokens have a row.
        documents: Names of the documents that first appear here, in order of their numbers.
        left_out: Tokens or sequences left out, counted by reason.
        dropped: Of these, rows left out for what the model made of them.
    """

    rows: Rows
    documents: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    dropped: int = 0


class StoreWriter:
    """Appends shards to the columns of a folder; goes on with what is there if it was made from the same things.

    Args:
        root: Folder of the columns, `run/activations`.
        rows: What the row index is made from; `description` holds `d_vocab` and `n_ctx`.
        hooks: What each hook's column is made from, besides the row index.
        part: Name of this process's share, for instance `"2-of-8"`; None where it writes alone.

    Raises:
        StoreError: a column that is there was made from something else.
    """

    def __init__(
        self, root: Path, rows: Origin, hooks: Mapping[str, Origin], *, part: str | None = None
    ) -> None:
        self.root = root
        self.rows = Column(root / ROWS, rows.description, rows.about, part=part)
        self._d_vocab = int(rows.description["d_vocab"])
        self.hooks = {
            name: Column(
                root / name,
                {**origin.description, **rows.description, "rows": self.rows.manifest["hash"]},
                {**origin.about, **rows.about},
                part=part,
            )
            for name, origin in hooks.items()
        }

    def _columns(self) -> list[Column]:
        return [self.rows, *self.hooks.values()]

    def lacking(self, index: int) -> list[str]:
        """The hooks that do not have shard `index` yet."""
        return [name for name, column in self.hooks.items() if index not in column.entries]

    @property
    def has_gap(self) -> bool:
        """Whether a shard is missing that a later one comes after, in any column."""
        return any(len(column.entries) <= max(column.entries, default=-1) for column in self._columns())

    @property
    def n_rows(self) -> int:
        """Rows of the row index."""
        return sum(entry["rows"] for entry in self.rows.entries.values())

    @property
    def n_candidates(self) -> int:
        """Rows that every hook has, and those that were left out after the model had run."""
        shards = [entry for index, entry in self.rows.entries.items() if not self.lacking(index)]
        return sum(entry["candidates"] for entry in shards)

    def add(self, index: int, shard: RowShard, activations: Mapping[str, Float[Tensor, "row d"]]) -> int:
        """Write shard `index` of the row index, if it is not there, and of some hooks; returns bytes written.

        Raises:
            StoreError: the row index has this shard with other rows, or the numbers of rows differ.
        """
        made = [self._add_rows(index, shard)]
        n_rows = len(shard.rows.token_of_row)
        for name, values in activations.items():
            if len(values) != n_rows:
                raise StoreError(
                    f"shard {index} of hook {name!r} has {len(values)} rows, the row index {n_rows}"
                )
            made.append(self._add_activations(self.hooks[name], index, values.contiguous()))
        return sum(made)

    @staticmethod
    def _add_activations(column: Column, index: int, values: Float[Tensor, "row d"]) -> int:
        """Write a hook's shard; its moments are taken while the activations are on their way to the disk.

        Raises:
            StoreError: a row is not finite; the file does not get its name.
        """
        n_rows, width = values.shape
        statistics = empty_moments(width).to_tensors()
        with ThreadPoolExecutor(1) as thread:
            taken = thread.submit(moments, values)

            def fill() -> None:
                found = taken.result()
                if not isfinite(found.max_norm):
                    raise not_finite(column.folder.name, index, values)
                for name, tensor in found.to_tensors().items():
                    statistics[name].copy_(tensor)

            tensors = {"activations": values, **statistics}
            return column.write(index, tensors, rest=fill, rows=n_rows, width=width)["bytes"]

    def _add_rows(self, index: int, shard: RowShard) -> int:
        tensors = shard.rows.to_tensors(d_vocab=self._d_vocab)
        known = self.rows.entries.get(index)
        if known is not None:
            if known["sha256"] != digest_tensors(tensors):
                raise StoreError(
                    f"shard {index} of the row index in {str(self.root)!r} has other tokens than the text gives now: "
                    "the text has changed; capture into a new run folder"
                )
            return 0
        entry = self.rows.write(index, tensors, **row_fields(shard))
        return entry["bytes"]

    def check_text(self, index: int, rows: Rows) -> None:
        """Compare a shard of the row index that is there with the sequences that the text gives for it now.

        Raises:
            StoreError: the shard is damaged, or they are others, as where parts were captured with different options.
        """
        entry = self.rows.entries[index]
        check_whole(self.rows.folder / entry["file"], entry)
        stored = Rows.from_tensors(map_tensors(self.rows.folder / entry["file"]))
        if not (array_equal(stored.tokens, rows.tokens) and array_equal(stored.offsets, rows.offsets)):
            raise StoreError(
                f"shard {index} of the row index in {str(self.root)!r} has other tokens than the text gives now: its "
                "parts were captured with other n_tokens or shard_tokens; capture into a new run folder"
            )

    def rewrite(
        self, index: int, shard: RowShard, activations: Mapping[str, Float[Tensor, "row d"]], *, accept: bool
    ) -> None:
        """Make logged files of shard `index` again: the row index, and the hooks that are given.

        Raises:
            StoreError: one comes out with other bytes than were logged, and that is not accepted.
        """
        rows = shard.rows.to_tensors(d_vocab=self._d_vocab)
        self.rows.rewrite(index, rows, accept=False)
        for name, values in activations.items():
            tensors = {"activations": values.contiguous(), **moments(values).to_tensors()}
            self.hooks[name].rewrite(index, tensors, accept=accept)

    def merge(self) -> None:
        """Join the logs of all parts."""
        for column in self._columns():
            column.merge()

    @property
    def complete(self) -> bool:
        """Whether every hook's last capture has finished."""
        return all(column.manifest["complete"] for column in self.hooks.values())

    @property
    def exhausted(self) -> bool:
        """Whether every hook holds all that its source has."""
        return all(column.manifest["exhausted"] for column in self.hooks.values())

    def reopen(self, n_rows: int) -> None:
        """Say of the hooks that lack rows that their capture has not finished; the others stay open to readers."""
        for column in self.hooks.values():
            had = sum(self.rows.entries[i]["candidates"] for i in column.entries if i in self.rows.entries)
            whole = column.manifest["exhausted"] or had >= n_rows
            if self.has_gap or not (column.manifest["complete"] and whole):
                column.mark(complete=False, exhausted=False)

    def mark(self, *, complete: bool, exhausted: bool = False) -> None:
        """Say of all columns whether their capture has finished, and whether it came to the end of its source."""
        for column in self._columns():
            column.mark(complete=complete, exhausted=exhausted)


def not_finite(hook: str, shard: int, values: Float[Tensor, "row d"]) -> StoreError:
    """The refusal of rows with infinite numbers or none."""
    row = int((~isfinite_tensor(values)).any(1).nonzero()[0])
    dtype = str(values.dtype).removeprefix("torch.")
    return StoreError(
        f"row {row} of shard {shard} of hook {hook!r} is not finite in {dtype}: store it as float32 if its numbers "
        "are too large, leave it out with max_norm_multiple, or choose another hook; the shards before it are kept"
    )


def row_fields(shard: RowShard) -> dict[str, Any]:
    """What the log tells about a shard of the row index."""
    return {
        "rows": len(shard.rows.token_of_row),
        "candidates": len(shard.rows.token_of_row) + shard.dropped,
        "sequences": shard.rows.n_sequences,
        "tokens": len(shard.rows.tokens),
        "left_out": dict(sorted(shard.left_out.items())),
        "documents": list(shard.documents),
    }
