"""Scratch file of sparse codes: what was encoded in the one pass over the activations, for later look-up.

The context of an example needs the feature's activation at the tokens around its peak, and which firings
become examples is known only at the end. Encoding again would double the work, so the pass writes every
block's code to a scratch folder, 8·k bytes a token (half of the activations' own size for k = 32, d_model =
256, bfloat16), which is read through a memory map and deleted with the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32, Int32, Int64, Num


@dataclass(frozen=True)
class Windows:
    """Text around positions.

    Attributes:
        token: Token ids (window, context).
        activation: The feature's activation, 0 where it is silent (window, context).
        peak: Index of the wanted position in its window (window).
        document: Index of the document that the wanted position comes from (window).
    """

    token: Int32[np.ndarray, "window context"]
    activation: Float32[np.ndarray, "window context"]
    peak: Int32[np.ndarray, " window"]
    document: Int32[np.ndarray, " window"]


class CodeScratch:
    """Writes blocks in order (as a context manager), then reads windows."""

    def __init__(self, folder: Path, *, n_ctx: int) -> None:
        self.folder, self.n_ctx = folder, n_ctx
        self.n_blocks = self._k = 0
        folder.mkdir(parents=True)
        self._files = {name: self._path(name).open("wb") for name in ("index", "value", "token", "document")}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    def append(
        self,
        token: Int32[np.ndarray, "block pos"],
        block: Int64[np.ndarray, " row"],
        pos: Int32[np.ndarray, " row"],
        document: Int32[np.ndarray, " row"],
        indices: Num[np.ndarray, "row k"],
        values: Float32[np.ndarray, "row k"],
    ) -> None:
        """Add whole blocks with their code; `block` counts from 0 within `token`, positions without row get zeros."""
        self._k = indices.shape[1]
        shape = token.shape
        spread = {
            "index": np.zeros((*shape, self._k), np.int32),
            "value": np.zeros((*shape, self._k), np.float32),
            "document": np.zeros(shape, np.int32),
        }
        for name, rows in (("index", indices), ("value", values), ("document", document)):
            spread[name][block, pos] = rows
        for name, array in ({"token": token} | spread).items():
            array.tofile(self._files[name])
        self.n_blocks += len(token)

    def __enter__(self) -> CodeScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ):
        for file in self._files.values():
            file.close()

    def _map(self, name: str, dtype: type, *tail: int) -> np.ndarray:
        return np.memmap(self._path(name), dtype, "r", shape=(self.n_blocks, self.n_ctx, *tail))

    def windows(
        self,
        feature: Int64[np.ndarray, " window"],
        block: Int64[np.ndarray, " window"],
        pos: Int32[np.ndarray, " window"],
        *,
        context: int,
    ) -> Windows:
        """`context` tokens around each position, three quarters of them before it.

        A window never leaves its block and never holds the beginning-of-text position; near an end of the block
        it is shifted, so that all have the same length (shorter than `context` only in shorter blocks).
        """
        width = min(context, self.n_ctx - 1)
        start = np.clip(pos - (3 * width) // 4, 1, self.n_ctx - width).astype(np.int32)
        token, document = self._map("token", np.int32), self._map("document", np.int32)
        positions = start[:, None] + np.arange(width, dtype=np.int32)
        activation = self._activations(feature, block, positions)
        return Windows(token[block[:, None], positions], activation, pos - start, document[block, pos])

    def tokens(self, block: Int64[np.ndarray, " n"], pos: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Token ids at positions."""
        return self._map("token", np.int32)[block, pos]

    def first_tokens(self, n: int) -> Int32[np.ndarray, "block pos"]:
        """Token ids of the first `n` blocks."""
        return np.array(self._map("token", np.int32)[:n])

    def _activations(self, feature: np.ndarray, block: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Activation of one feature per window at its positions: the code entry with that index, if any."""
        index, value = (self._map("index", np.int32, self._k), self._map("value", np.float32, self._k))
        hit = index[block[:, None], positions] == feature[:, None, None]
        return np.where(hit, value[block[:, None], positions], 0).sum(-1, dtype=np.float32)
