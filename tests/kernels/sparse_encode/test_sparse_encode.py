"""Sparse inference: the same code as encoding at once, in pieces that keep to the budget."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import encode_csr, threshold_encode, topk_encode
from workbench.kernels.sparse_encode import reference


def encoder(d_in=6, d_sae=300):
    W_enc, zeros = torch.randn(d_in, d_sae), (torch.zeros(d_sae), torch.zeros(d_in))
    return lambda x: topk_encode(x, W_enc, *zeros, k=9)


@pytest.mark.parametrize("memory_bytes", [400, 3_000, 10**9])
def test_pieces_equal_the_whole(memory_bytes):
    x, encode = torch.randn(60, 6), encoder()
    found = encode_csr(x, encode, memory_bytes=memory_bytes)
    for ours, whole in zip(
        (found.row_offsets, found.indices, found.values), reference.encode_csr(x, encode), strict=True
    ):
        assert torch.equal(ours, whole)
        assert ours.dtype == whole.dtype
    indices, values = encode(x[47:48])
    assert found.row(47)[0].tolist() == indices[values != 0].tolist()
    assert len(found) == 60


def test_batches_of_any_size_equal_one_tensor():
    x, encode = torch.randn(500, 6), encoder()
    whole = encode_csr(x, encode, memory_bytes=10**6)
    parts = encode_csr(iter([x[:0], x[:3], x[3:400], x[400:]]), encode, memory_bytes=10**4)
    assert torch.equal(whole.values, parts.values)
    assert torch.equal(whole.row_offsets, parts.row_offsets)


def test_pieces_keep_to_the_budget():
    """The widest code so far decides the size of a piece, after a small first one."""
    seen = []
    W_enc, zeros = torch.randn(6, 300), (torch.zeros(300), torch.zeros(6))

    def encode(x):
        code = threshold_encode(x, W_enc, *zeros, threshold=torch.zeros(300))
        seen.append((len(x), code[0].shape[1]))
        return code

    encode_csr(torch.randn(2000, 6), encode, memory_bytes=200_000)
    assert seen[0][0] == 64
    assert len(seen) > 5
    assert all(n_rows * width * 25 <= 200_000 for n_rows, width in seen[1:])
    assert max(n_rows * width * 25 for n_rows, width in seen[1:]) > 50_000


def test_zeros_are_dropped_and_empty_rows_kept():
    def encode(x):
        return torch.tensor([[4, 0], [0, 0], [1, 2]]), torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 3.0]])

    found = encode_csr(torch.zeros(3, 1), encode, memory_bytes=10**6)
    assert found.row_offsets.tolist() == [0, 1, 1, 3]
    assert found.indices.tolist() == [4, 1, 2]
    assert found.values.tolist() == [2.0, -1.0, 3.0]


def test_empty_input_and_refusals():
    assert len(encode_csr(torch.empty(0, 6), encoder(), memory_bytes=10**6)) == 0
    with pytest.raises(ValueError, match="there is no batch to encode"):
        encode_csr([], encoder(), memory_bytes=10**6)
    with pytest.raises(ValueError, match="memory_bytes 10 is less than the 225 that one row's code takes"):
        encode_csr(torch.randn(2, 6), encoder(), memory_bytes=10)
