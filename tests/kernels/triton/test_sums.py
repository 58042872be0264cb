"""Decode, loss and latent-major sums by the Triton kernels, each function against its definition."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels import triton_dense
from workbench.kernels.decode_loss import reference as loss_reference
from workbench.kernels.decode_loss import triton as loss_triton
from workbench.kernels.latent_sum import reference as sum_reference
from workbench.kernels.latent_sum import triton as sum_triton
from workbench.kernels.sparse_decode import reference as decode_reference
from workbench.kernels.sparse_decode import triton as decode_triton

SHAPES = [(12, 5, 20, 30), (9, 3, 33, 7), (1, 1, 1, 1)]


@pytest.fixture(autouse=True, params=[1.0, 0.0], ids=["by entries", "by products"])
def full_from(request, monkeypatch):
    """Every code by the kernels, then every code by the products that replace them where it is full."""
    monkeypatch.setattr(triton_dense, "WIDE_FRAC", request.param)
    monkeypatch.setattr(triton_dense, "TILE_ELEMENTS", 100)
    return request.param


@pytest.fixture
def code(latents, normal):
    """Latents with values, some negative, some exactly 0."""

    def make(n_rows, width, d_sae):
        values = normal(n_rows, width)
        return latents(n_rows, width, d_sae), values.where(values > -1, 0)

    return make


@pytest.fixture
def check(assert_within_rounding):
    """Call both on float tensors in float64 and float32, and ours in float32."""

    def compare(ours, definition, *given):
        def at(dtype):
            return tuple(t.to(dtype) if torch.is_tensor(t) and t.is_floating_point() else t for t in given)

        def as_tuple(result):
            return result if isinstance(result, tuple) else (result,)

        results = (as_tuple(ours(*given)), as_tuple(definition(*at(torch.float32))))
        for a, b, c in zip(*results, as_tuple(definition(*at(torch.float64))), strict=True):
            assert_within_rounding(a, b, c)

    return compare


@pytest.mark.parametrize("piece", [2, 128])
@pytest.mark.parametrize(("n_rows", "width", "d", "d_sae"), SHAPES)
def test_latent_sum_in_pieces_of_any_size(n_rows, width, d, d_sae, piece, code, normal, monkeypatch, check):
    monkeypatch.setattr(sum_triton, "SMALLEST_PIECE", piece)
    given = *code(n_rows, width, d_sae), normal(n_rows, d), d_sae
    check(sum_triton.latent_sum, sum_reference.latent_sum, *given)


def test_a_latent_of_every_row_is_summed_in_several_pieces(code, normal, monkeypatch, check):
    monkeypatch.setattr(sum_triton, "SMALLEST_PIECE", 4)
    monkeypatch.setattr(sum_triton, "BLOCK_ELEMENTS", 32)  # two entries, or two pieces, at a time
    indices, values = code(30, 3, 8)
    indices[:, 1] = 5
    assert len(sum_triton.pieces_of(indices, 8).long) > 0
    check(sum_triton.latent_sum, sum_reference.latent_sum, indices, values, normal(30, 10), 8)


@pytest.mark.parametrize("block", [16, 8192])
def test_wide_rows_are_taken_in_blocks(block, code, normal, monkeypatch, check):
    for module in (sum_triton, decode_triton):
        monkeypatch.setattr(module, "WIDEST_BLOCK", block)
    monkeypatch.setattr(decode_triton, "WIDEST_FORWARD_BLOCK", block)
    monkeypatch.setattr(decode_triton, "BLOCK_ELEMENTS", 4 * block)
    (indices, values), W, grad = code(5, 4, 9), normal(9, 40), normal(5, 40)
    check(decode_triton.gradients, decode_reference.gradients, indices, values, grad, W)
    check(decode_triton.sparse_decode, decode_reference.sparse_decode, indices, values, W)


@pytest.mark.parametrize("piece", [2, 128])
def test_totals_and_counts(piece, code, monkeypatch, check):
    monkeypatch.setattr(sum_triton, "SMALLEST_PIECE", piece)
    monkeypatch.setattr(sum_triton, "TOTAL_BLOCK", 4)
    indices, values = code(40, 2, 11)
    indices[:, 0] = 3  # more entries, or more pieces, than a program takes at a time
    check(sum_triton.latent_total, sum_reference.latent_total, indices, values, 11)
    counts = sum_triton.latent_counts(indices, values, 11)
    assert torch.equal(counts, sum_reference.latent_counts(indices, values, 11))


@pytest.mark.parametrize(("n_rows", "width", "d", "d_sae"), SHAPES)
def test_decode_and_its_gradients(n_rows, width, d, d_sae, code, normal, check):
    (indices, values), W, grad = code(n_rows, width, d_sae), normal(d_sae, d), normal(n_rows, d)
    check(decode_triton.sparse_decode, decode_reference.sparse_decode, indices, values, W)
    check(decode_triton.value_gradients, decode_reference.value_gradients, indices, grad, W)
    check(decode_triton.gradients, decode_reference.gradients, indices, values, grad, W)


@pytest.mark.parametrize("block", [16, 8192])
@pytest.mark.parametrize("prefixes", [(9,), (1, 4, 9)])
def test_losses_and_gradients_of_prefixes(prefixes, block, code, normal, monkeypatch, check):
    for module in (sum_triton, decode_triton):
        monkeypatch.setattr(module, "WIDEST_BLOCK", block)
    for name, value in {"WIDEST_FORWARD_BLOCK": block, "BLOCK_ELEMENTS": 4 * block}.items():
        monkeypatch.setattr(loss_triton, name, value)
    (indices, values), W = code(6, 4, 9), normal(9, 20)
    given = indices, values, W, normal(20), normal(6, 20), prefixes
    check(loss_triton.decode_loss, loss_reference.decode_loss, *given)
    upstream = normal(len(prefixes), 6, 20)
    check(loss_triton.gradients, loss_reference.gradients, indices, values, upstream, W, prefixes)


def test_a_value_of_zero_reads_nothing_and_gets_nothing(normal, full_from):
    if full_from == 0:
        pytest.skip("a product reads every decoder row")
    indices = torch.tensor([[1, 0]], device=normal(1).device)
    values, W = torch.tensor([[2.0, 0.0]], device=indices.device), normal(3, 8)
    W[0] = torch.nan
    assert torch.equal(decode_triton.sparse_decode(indices, values, W), 2 * W[1:2])
    for_values, for_decoder = decode_triton.gradients(indices, values, normal(1, 8), W)
    assert for_values[0, 1] == 0
    assert (for_decoder[[0, 2]] == 0).all()


def test_an_empty_batch(normal, latents):
    indices, values = latents(0, 3, 5), normal(0, 3)
    assert torch.equal(
        sum_triton.latent_sum(indices, values, normal(0, 6), 5), torch.zeros(5, 6, device=values.device)
    )
    assert decode_triton.sparse_decode(indices, values, normal(5, 6)).shape == (0, 6)
    losses, x_hat, errors = loss_triton.decode_loss(
        indices, values, normal(5, 6), normal(6), normal(0, 6), (2, 5)
    )
    assert losses.tolist() == [0, 0]
    assert (x_hat.shape, errors.shape) == ((0, 6), (2, 0, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype, code, normal):
    (indices, values), W, grad = code(6, 4, 9), normal(9, 20).to(dtype), normal(6, 20).to(dtype)
    values = values.to(dtype)
    ours = decode_triton.sparse_decode(indices, values, W), *decode_triton.gradients(indices, values, grad, W)
    wide = indices, values.float(), grad.float(), W.float()
    exact = decode_reference.sparse_decode(wide[0], wide[1], wide[3]), *decode_reference.gradients(*wide)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == dtype
        assert torch.equal(a, b.to(dtype)) or torch.allclose(a.float(), b, rtol=2 * torch.finfo(dtype).eps)


def test_strided_inputs_and_repeated_runs_are_bit_equal(code, normal):
    indices, values = (t.T.contiguous().T for t in code(10, 6, 9))
    W, grad = normal(12, 9).T, normal(12, 10).T
    first = decode_triton.gradients(indices, values, grad, W)
    for given in ((indices, values, grad, W), [t.contiguous() for t in (indices, values, grad, W)]):
        assert all(torch.equal(a, b) for a, b in zip(first, decode_triton.gradients(*given), strict=True))
