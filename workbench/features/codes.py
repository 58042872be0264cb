"""Scratch file of sparse codes: what was encoded in the one pass over the activations, for later look-up.

The context of an example needs the feature's activation at the tokens around its peak, and which firings
become examples is known only at the end. Encoding again would double the work, so the pass writes every
block's code to a scratch folder, 8·k bytes a token (half of the activations' own size for k = 32, d_model =
256, bfloat16), which is read through a memory map and deleted with the folder. Blocks of different lengths
lie one after another; nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32, Int32, Int64, Num, Shaped

from workbench.features.reading import BlockBatch

BLOCK = np.dtype([("start", np.int64), ("length", np.int32), ("first", np.int32)])
"""Where a block's tokens lie, how many they are, and the first position that a window may hold."""


@dataclass(frozen=True)
class Windows:
    """Text around positions; entries beyond a window's length mean nothing.

    Attributes:
        token: Token ids (window, context).
        activation: The feature's activation, 0 where it is silent or the token has no row (window, context).
        length: Tokens in each window (window).
        peak: Index of the wanted position in its window (window).
        document: Index of the document that the wanted position comes from (window).
    """

    token: Int32[np.ndarray, "window context"]
    activation: Float32[np.ndarray, "window context"]
    length: Int64[np.ndarray, " window"]
    peak: Int32[np.ndarray, " window"]
    document: Int32[np.ndarray, " window"]


class CodeScratch:
    """Writes blocks in order (as a context manager), then reads windows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_blocks = self.n_tokens = self._k = 0
        folder.mkdir(parents=True)
        names = ("index", "value", "token", "document", "block")
        self._files = {name: self._path(name).open("wb") for name in names}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    def append(
        self,
        batch: BlockBatch,
        indices: Num[np.ndarray, "row k"],
        values: Float32[np.ndarray, "row k"],
    ) -> None:
        """Add whole blocks with their code; positions without row get zeros."""
        self._k = indices.shape[1]
        blocks = self._blocks(batch)
        n_tokens = int(batch.length.sum())
        place = blocks["start"][batch.block] - self.n_tokens + batch.pos
        spread = {
            "index": np.zeros((n_tokens, self._k), np.int32),
            "value": np.zeros((n_tokens, self._k), np.float32),
            "document": np.zeros(n_tokens, np.int32),
        }
        for name, rows in (("index", indices), ("value", values), ("document", batch.document)):
            spread[name][place] = rows
        inside = np.arange(batch.token.shape[1]) < batch.length[:, None]
        for name, array in ({"token": batch.token[inside], "block": blocks} | spread).items():
            array.tofile(self._files[name])
        self.n_blocks, self.n_tokens = self.n_blocks + len(blocks), self.n_tokens + n_tokens

    def _blocks(self, batch: BlockBatch) -> Shaped[np.ndarray, " block"]:
        """The `BLOCK` records of a batch; a window holds position 0 only where that position has a row."""
        blocks = np.empty(len(batch.length), BLOCK)
        blocks["length"], blocks["first"] = batch.length, 1
        blocks["start"] = self.n_tokens + np.cumsum(batch.length, dtype=np.int64) - batch.length
        blocks["first"][batch.block[batch.pos == 0]] = 0
        return blocks

    def __enter__(self) -> CodeScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ):
        for file in self._files.values():
            file.close()

    def _map(self, name: str, dtype: type, *tail: int) -> np.ndarray:
        return np.memmap(self._path(name), dtype, "r", shape=(self.n_tokens, *tail))

    def _block(self, number: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
        """The `BLOCK` records of some blocks."""
        return np.memmap(self._path("block"), BLOCK, "r", shape=(self.n_blocks,))[number]

    def windows(
        self,
        feature: Int64[np.ndarray, " window"],
        block: Int64[np.ndarray, " window"],
        pos: Int32[np.ndarray, " window"],
        *,
        context: int,
    ) -> Windows:
        """`context` tokens around each position, three quarters of them before it.

        A window never leaves its block, and holds the block's first position (most often a beginning-of-text
        token) only where that has a row; near an end of the block it is shifted, so that all have the same length
        (shorter than `context` only in shorter blocks).
        """
        if not len(block):
            none = np.empty((0, 1), np.int32)
            return Windows(none, none.astype(np.float32), np.empty(0, np.int64), none[:, 0], none[:, 0])
        of = self._block(block)
        width = np.minimum(context, of["length"] - of["first"])
        start = np.clip(pos - (3 * width) // 4, of["first"], of["length"] - width).astype(np.int32)
        offset = np.minimum(np.arange(width.max(), dtype=np.int32), width[:, None] - 1)
        place = (of["start"] + start)[:, None] + offset
        activation = self._activations(feature, place)
        document = self._map("document", np.int32)[of["start"] + pos]
        token = self._map("token", np.int32)[place]
        return Windows(token, activation, width.astype(np.int64), (pos - start).astype(np.int32), document)

    def tokens(self, block: Int64[np.ndarray, " n"], pos: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Token ids at positions."""
        if not len(block):
            return np.empty(0, np.int32)
        return self._map("token", np.int32)[self._block(block)["start"] + pos]

    def first_blocks(self, n_tokens: int) -> list[Int32[np.ndarray, " pos"]]:
        """Token ids of the first blocks, until they are `n_tokens` tokens or all."""
        found, total = [], 0
        for number in range(self.n_blocks):
            if total >= n_tokens:
                break
            of = self._block(np.array([number]))
            start, length = int(of["start"][0]), int(of["length"][0])
            found.append(np.array(self._map("token", np.int32)[start : start + length]))
            total += length
        return found

    def _activations(self, feature: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Activation of one feature per window at its tokens: the code entry with that index, if any."""
        index, value = (self._map("index", np.int32, self._k), self._map("value", np.float32, self._k))
        hit = index[place] == feature[:, None, None]
        return np.where(hit, value[place], 0).sum(-1, dtype=np.float32)
