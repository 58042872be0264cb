"""Shard files, moments and the row index: properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from workbench.artifacts import sha256_file
from workbench.store import Rows, merge_moments, moments
from workbench.store.files import digest_tensors, map_tensors, read_header, write_tensors

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
def test_files_round_trip_and_are_safetensors(
    tmp_path_factory: pytest.TempPathFactory, n: int, d: int, dtype: torch.dtype, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)
    tensors = {"activations": x, "counts": torch.arange(n)}
    written = write_tensors(folder / "a.safetensors", tensors)
    assert written.sha256 == sha256_file(folder / "a.safetensors") == digest_tensors(tensors)
    assert written.bytes == (folder / "a.safetensors").stat().st_size
    for found in (map_tensors(folder / "a.safetensors"), load_file(folder / "a.safetensors")):
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    save_file({"activations": x}, folder / "theirs.safetensors")
    assert torch.equal(map_tensors(folder / "theirs.safetensors")["activations"], x)


def test_tensors_start_aligned(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"x": torch.ones(3)})
    assert read_header(tmp_path / "a")["x"].offset % 64 == 0


def test_a_mapping_never_writes_to_the_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"x": torch.ones(3)})
    before = sha256_file(tmp_path / "a")
    map_tensors(tmp_path / "a")["x"].zero_()
    assert sha256_file(tmp_path / "a") == before


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "a", {"x": torch.ones(3)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.store.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "b", {"x": torch.zeros(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.sampled_from(DTYPES[:3]), st.integers(0, 999))
def test_moments_merge_to_those_of_the_whole(sizes: list[int], dtype: torch.dtype, seed: int) -> None:
    """Also far from zero, where a sum of squares would lose every figure."""
    g = torch.Generator().manual_seed(seed)
    parts = [(torch.randn(n, 4, generator=g) + torch.tensor([0.0, 1e3, -5.0, 40.0])).to(dtype) for n in sizes]
    whole = torch.cat(parts).double().numpy()
    found = merge_moments([moments(part) for part in parts])
    assert found.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.variance, whole.var(0), rtol=1e-8, atol=1e-10)
        assert found.mean_squared_norm == pytest.approx(float((whole**2).sum(1).mean()))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 999), st.sampled_from([300, 70_000])
)
def test_the_row_index_round_trips(lengths: list[int], seed: int, d_vocab: int) -> None:
    g = np.random.default_rng(seed)
    n = sum(lengths)
    rows = Rows(
        g.integers(0, d_vocab, n).astype(np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        g.random(n) < 0.6,
        np.sort(g.integers(0, 4, n)).astype(np.int32),
        g.integers(0, 3, n).astype(np.uint8) if seed % 2 else None,
    )
    tensors = rows.to_tensors(d_vocab=d_vocab)
    assert tensors["tokens"].itemsize == (2 if d_vocab == 300 else 4)
    again = Rows.from_tensors(tensors)
    for name in ("tokens", "offsets", "kept", "document"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
    assert (again.role is None) == (rows.role is None)
    padded = rows.padded(12, pad=-1)
    assert [row[row >= 0].tolist() for row in padded] == [
        rows.tokens[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
    ]
