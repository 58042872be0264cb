"""Token arrays: nothing added, documents at the end of text, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.text.support import ByteTokenizer, PlainTokenizer, documents_of, same
from workbench.errors import UserError
from workbench.text import NoTokenizer, pack, read_sequences

DTYPES = [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64]


def save(folder: Path, array: np.ndarray, suffix: str = ".npy") -> str:
    path = folder / f"ids{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        save_file({"input_ids": array}, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["packed", "documents"])
def test_rows_come_as_they_are(tmp_path: Path, suffix: str, dtype: Any, layout: str) -> None:
    rows = np.arange(60).reshape(12, 5).astype(dtype)
    sequences = read_sequences(ByteTokenizer(), save(tmp_path, rows, suffix), n_ctx=8, layout=layout)
    found = documents_of(sequences)
    assert found == {f"ids{suffix}#{i}": rows[i].tolist() for i in map(int, (k.split("#")[1] for k in found))}
    assert len(found) == 12
    assert list(found) != sorted(found)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_flat_array_is_cut_without_added_tokens(tmp_path: Path, suffix: str) -> None:
    flat = np.array([5, 6, 0, 7, 8, 9, 0, 0, 4, 3, 2], dtype=np.uint16)
    read = list(read_sequences(ByteTokenizer(), save(tmp_path, flat, suffix), n_ctx=5))
    assert [s.tokens.tolist() for s in read] == [[5, 6, 0, 7, 8], [9, 0, 0, 4, 3]]
    assert [s.document.tolist() for s in read] == [[0, 0, 1, 1, 1], [1, 2, 3, 3, 3]]
    name = f"ids{suffix}"
    assert [s.new_documents for s in read] == [(f"{name}#0", f"{name}#1"), (f"{name}#2", f"{name}#3")]


def test_a_flat_array_as_documents(tmp_path: Path) -> None:
    flat = np.array([0, 5, 6, 0, 7, 8, 9, 4, 0, 3])
    read = list(read_sequences(ByteTokenizer(), save(tmp_path, flat), n_ctx=3, layout="documents"))
    assert [s.tokens.tolist() for s in read] == [[0, 5, 6], [0, 7, 8], [9, 4], [0, 3]]
    assert [s.document.tolist()[0] for s in read] == [0, 1, 1, 2]


@given(
    flat=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    n_ctx=st.integers(1, 9),
    layout=st.sampled_from(["packed", "documents"]),
)
def test_cutting_loses_only_the_end(
    tmp_path_factory: pytest.TempPathFactory, flat: list[int], n_ctx: int, layout: str
) -> None:
    source = save(tmp_path_factory.mktemp("ids"), np.array(flat))
    sequences = read_sequences(ByteTokenizer(), source, n_ctx=n_ctx, layout=layout)
    if layout == "packed" and len(flat) < n_ctx:
        with pytest.raises(UserError, match=f"has {len(flat)} tokens, less than one block of {n_ctx}"):
            list(sequences)
        return
    read = list(sequences)
    kept = len(flat) // n_ctx * n_ctx if layout == "packed" else len(flat)
    assert [t for s in read for t in s.tokens.tolist()] == flat[:kept]
    starts = np.array([i == 0 or t == 0 for i, t in enumerate(flat)])
    assert [d for s in read for d in s.document.tolist()] == (np.cumsum(starts) - 1)[:kept].tolist()


def test_without_an_end_of_text_an_array_is_one_document(tmp_path: Path) -> None:
    read = list(read_sequences(PlainTokenizer(), save(tmp_path, np.arange(12)), n_ctx=4))
    assert {int(d) for s in read for d in s.document} == {0}


def test_several_files_and_blocks(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.arange(10) + 10 * i)
    sequences = read_sequences(ByteTokenizer(), str(tmp_path / "*.npy"), n_ctx=4)
    whole = list(sequences)
    assert len(whole) == 6
    assert whole[2].skipped == whole[4].skipped == {"tokens of a last incomplete block": 2}
    assert all(same(a, b) for a, b in zip(sequences, whole, strict=True))
    blocks = pack(ByteTokenizer(), str(tmp_path / "*.npy"), n_tokens=9, n_ctx=4)
    assert blocks.tokens.tolist() == [s.tokens.tolist() for s in whole[:3]]


def test_a_tensor_is_chosen_by_column(tmp_path: Path) -> None:
    save_file({"train": np.arange(8), "test": np.arange(8, 16)}, tmp_path / "ids.safetensors")
    source = str(tmp_path / "ids.safetensors")
    read = list(read_sequences(ByteTokenizer(), source, n_ctx=8, column="test"))
    assert read[0].tokens.tolist() == list(range(8, 16))
    with pytest.raises(UserError, match="has no tensor 'tset'; the nearest: test"):
        read_sequences(ByteTokenizer(), source, n_ctx=8, column="tset")
    with pytest.raises(UserError, match="has 2 tensors: name one as column; known: test, train"):
        read_sequences(ByteTokenizer(), source, n_ctx=8)


REFUSED = {
    "pickled": (np.array([{"a": 1}], dtype=object), "is no plain .npy file"),
    "floats": (np.ones(4), "is a 1-D array of shape .* that holds no integers"),
    "deep": (np.ones((2, 2, 2), dtype=np.int64), "is a 3-D array of shape"),
    "empty": (np.ones((0, 2), dtype=np.int64), "is a 2-D array of shape .* not empty"),
    "wide": (np.ones((2, 9), dtype=np.int64), "has rows of 9 tokens, more than n_ctx 8"),
    "high": (
        np.array([[1, 2], [3, 257]]),
        "holds id 257 at or after index 1, outside the vocabulary of 257 ids",
    ),
    "negative": (np.array([1, 2, 3, 4, 5, 6, 7, -1]), "holds id -1 at or after index 0, outside"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_token_array_is_refused(tmp_path: Path, name: str) -> None:
    array, message = REFUSED[name]
    np.save(tmp_path / "ids.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        list(read_sequences(ByteTokenizer(), str(tmp_path / "ids.npy"), n_ctx=8))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for suffix, message in (
        (".npy", "is no plain .npy file"),
        (".safetensors", "is no whole safetensors file"),
    ):
        (tmp_path / f"bad{suffix}").write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=message):
            read_sequences(ByteTokenizer(), str(tmp_path / f"bad{suffix}"), n_ctx=8)


def test_arrays_of_different_shapes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3), dtype=np.int64))
    np.save(tmp_path / "b.npy", np.ones(3, dtype=np.int64))
    with pytest.raises(UserError, match="differ in more than length"):
        read_sequences(ByteTokenizer(), str(tmp_path / "*.npy"), n_ctx=8)


def test_a_column_of_a_plain_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column 'x' was given, but .* holds a single array"):
        read_sequences(ByteTokenizer(), save(tmp_path, np.arange(8)), n_ctx=8, column="x")


def test_a_model_without_a_tokenizer_takes_token_arrays_only(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.arange(24, dtype=np.int32).reshape(4, 6) % 13)
    sequences = read_sequences(NoTokenizer(13), str(tmp_path / "ids.npy"), n_ctx=6)
    assert sorted(s.tokens.tolist() for s in sequences) == sorted((np.arange(24).reshape(4, 6) % 13).tolist())
    with pytest.raises(UserError, match="needs a tokenizer and this model has none: give token ids"):
        read_sequences(NoTokenizer(13), "stdlib", n_ctx=6)
    with pytest.raises(UserError, match="vocabulary of 12 ids"):
        list(read_sequences(NoTokenizer(12), str(tmp_path / "ids.npy"), n_ctx=6))
