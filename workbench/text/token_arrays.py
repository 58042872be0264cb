"""Token arrays: ids that were made elsewhere, in `.npy` or `.safetensors` files. Nothing is added to them.

A 2-D array gives each row as one sequence and one document (`"ids.npy#17"`, rows from 0), in a permutation
of the file's rows. A 1-D array keeps its order; a document starts at the beginning of the array and at
every end-of-text token (`"ids.npy#17"` is its 18th document). It is cut into blocks of `n_ctx`, the last
incomplete one dropped, or with layout `"documents"` at the documents, long ones into several sequences.
Files come in order of the hash of seed and name. Arrays are read piece by piece; a pickled one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from workbench.errors import UserError, nearest
from workbench.text.files import TextFile, readable
from workbench.text.identity import files_identity
from workbench.text.order import by_hash, permutation
from workbench.text.packing import INCOMPLETE, Stream
from workbench.text.sequence import Ledger, TokenSequence

SCAN_TOKENS = 1 << 22
SAFETENSORS_INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")


@dataclass(frozen=True)
class TokenArray:
    """An integer array on disk; `part(start, stop)` reads a range of its first axis."""

    name: str
    path: Path
    shape: tuple[int, ...]
    part: Callable[[int, int], Any]


def open_array(file: TextFile, tensor: str | None) -> TokenArray:
    """The array of a file.

    Args:
        file: A `.npy` or `.safetensors` file.
        tensor: Name of the tensor in a safetensors file; needed where there are several.

    Raises:
        UserError: the file is damaged or pickled, or holds no 1-D or 2-D integer array of that name.
    """
    with readable(file.path):
        opened = _open_npy if file.path.suffix == ".npy" else _open_safetensors
        shape, kind, part = opened(file.path, tensor)
    if not kind or len(shape) not in (1, 2) or 0 in shape:
        what = f"{len(shape)}-D array of shape {shape}" + ("" if kind else " that holds no integers")
        raise UserError(
            f"token array {str(file.path)!r} is a {what}: give 1-D or 2-D integer token ids, not empty"
        )
    return TokenArray(file.name, file.path, shape, part)


def _open_npy(path: Path, tensor: str | None) -> tuple[tuple[int, ...], bool, Callable[[int, int], Any]]:
    if tensor is not None:
        raise UserError(f"column {tensor!r} was given, but {str(path)!r} holds a single array: leave it out")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"token array {str(path)!r} is no plain .npy file ({error}): save integers with numpy.save, unpickled"
        ) from error
    return array.shape, array.dtype.kind in "iu", lambda start, stop: array[start:stop]


def _open_safetensors(
    path: Path, tensor: str | None
) -> tuple[tuple[int, ...], bool, Callable[[int, int], Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="np")
    except SafetensorError as error:
        raise UserError(f"token array {str(path)!r} is no whole safetensors file ({error})") from error
    names = sorted(opened.keys())
    if tensor not in names and (tensor is not None or len(names) != 1):
        what = f"no tensor {tensor!r}" if tensor is not None else f"{len(names)} tensors: name one as column"
        raise UserError(f"token array {str(path)!r} has {what}; {nearest(tensor or 'input_ids', names)}")
    found = opened.get_slice(tensor if tensor is not None else names[0])
    shape = tuple(found.get_shape())
    integers = found.get_dtype() in SAFETENSORS_INTEGERS
    return shape, integers, lambda start, stop: found[start : min(stop, shape[0])]


@dataclass(frozen=True)
class TokenArrays:
    """Token arrays, all 1-D or all 2-D of one row length."""

    files: list[TextFile]
    column: str | None
    kind: str = "tokens"

    def describe(self) -> dict[str, Any]:
        """What identifies the content."""
        return {"files": files_identity(self.files)}

    def arrays(self) -> list[TokenArray]:
        """The opened arrays.

        Raises:
            UserError: one cannot be read, or they differ in shape.
        """
        arrays = [open_array(file, self.column) for file in self.files]
        for array in arrays[1:]:
            if array.shape[1:] != arrays[0].shape[1:]:
                raise UserError(
                    f"token arrays {arrays[0].name!r} {arrays[0].shape} and {array.name!r} {array.shape} differ in "
                    "more than length: give them as separate sources"
                )
        return arrays

    def check(self, n_ctx: int) -> None:
        """Refuse arrays that do not fit.

        Raises:
            UserError: as in `arrays`, or the rows are longer than `n_ctx`.
        """
        first = self.arrays()[0]
        if len(first.shape) == 2 and first.shape[1] > n_ctx:
            raise UserError(
                f"token array {str(first.path)!r} has rows of {first.shape[1]} tokens, more than n_ctx {n_ctx}: "
                "raise n_ctx or give a 1-D array, which is cut"
            )


def array_stream(
    source: TokenArrays,
    *,
    layout: str,
    n_ctx: int,
    seed: int,
    separator: int | None,
    n_vocabulary: int | None,
) -> Stream:
    """The sequences of token arrays.

    Raises:
        UserError: an id is outside the vocabulary, or no sequence can be made.
    """
    ledger, n_tokens = Ledger(), 0
    for array in by_hash(source.arrays(), seed):
        n_tokens += array.shape[0]
        checked = partial(_checked, array=array, n_vocabulary=n_vocabulary)
        if len(array.shape) == 2:
            yield from _rows(array, checked, ledger, seed)
        elif layout == "packed":
            yield from _blocks(array, checked, ledger, n_ctx, separator)
        else:
            yield from _documents(array, checked, ledger, n_ctx, separator)
    if not ledger.n_sequences:
        names = ", ".join(file.name for file in source.files[:3])
        raise UserError(
            f"text {names!r} has {n_tokens} tokens, less than one block of {n_ctx}: give more text"
        )
    return ledger.rest()


def _checked(ids: np.ndarray, start: int, *, array: TokenArray, n_vocabulary: int | None) -> np.ndarray:
    """The ids as int32, all within the vocabulary; `start` is their place on the first axis."""
    limit = n_vocabulary if n_vocabulary is not None else 2**31
    wrong = np.flatnonzero((ids < 0) | (ids >= limit))
    if len(wrong):
        raise UserError(
            f"token array {str(array.path)!r} holds id {int(ids.flat[wrong[0]])} at or after index {start}, outside "
            f"the vocabulary of {limit} ids: take the tokenizer that made the array"
        )
    return ids.astype(np.int32)


Check = Callable[[np.ndarray, int], np.ndarray]


def _rows(array: TokenArray, checked: Check, ledger: Ledger, seed: int) -> Iterator[TokenSequence]:
    for index in permutation(array.shape[0], f"{seed}|{array.name}"):
        row = int(index)
        tokens = checked(np.asarray(array.part(row, row + 1))[0], row)
        number = ledger.add(f"{array.name}#{row}")
        yield ledger.sequence(tokens, np.full(len(tokens), number, dtype=np.int32))


def _starts(array: TokenArray, separator: int | None) -> Int64[np.ndarray, " document"]:
    """Places where a document starts: 0 and every separator."""
    found = [np.zeros(1, dtype=np.int64)]
    for start in range(0, array.shape[0], SCAN_TOKENS) if separator is not None else ():
        ids = np.asarray(array.part(start, start + SCAN_TOKENS))
        found.append(np.flatnonzero(ids == separator).astype(np.int64) + start)
    return np.unique(np.concatenate(found))


def _blocks(
    array: TokenArray, checked: Check, ledger: Ledger, n_ctx: int, separator: int | None
) -> Iterator[TokenSequence]:
    starts, first, known = _starts(array, separator), ledger.n_documents, 0
    whole = array.shape[0] // n_ctx * n_ctx
    for start in range(0, whole, n_ctx):
        tokens = checked(np.asarray(array.part(start, start + n_ctx)), start)
        local = np.searchsorted(starts, np.arange(start, start + n_ctx), side="right") - 1
        for number in range(known, int(local[-1]) + 1):
            ledger.add(f"{array.name}#{number}")
        known = int(local[-1]) + 1
        yield ledger.sequence(tokens, (local + first).astype(np.int32))
    ledger.skip(INCOMPLETE, array.shape[0] - whole)


def _documents(
    array: TokenArray, checked: Check, ledger: Ledger, n_ctx: int, separator: int | None
) -> Iterator[TokenSequence]:
    edges = np.append(_starts(array, separator), array.shape[0])
    for index in range(len(edges) - 1):
        number = ledger.add(f"{array.name}#{index}")
        for start in range(int(edges[index]), int(edges[index + 1]), n_ctx):
            stop = min(start + n_ctx, int(edges[index + 1]))
            tokens = checked(np.asarray(array.part(start, stop)), start)
            yield ledger.sequence(tokens, np.full(len(tokens), number, dtype=np.int32))
