"""The four rules: indices exactly, values and all four gradients against the definition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels import batch_topk_encode, group_max_encode, threshold_encode, topk_encode
from workbench.kernels.encode import reference

SIZES = [(64, 16, 100), (5, 7, 12), (1, 1, 4), (130, 24, 2000)]


def random_inputs(n_rows, d_in, d_sae):
    """Multiples of 1/8, so that float32 products and sums are exact and order entries as float64 does."""
    shapes = (n_rows, d_in), (d_in, d_sae), (d_sae,), (d_in,)
    return tuple((8 * torch.randn(shape)).round() / 8 for shape in shapes)


def run(function, inputs, upstream, dtype, **options):
    leaves = [t.to(dtype).requires_grad_() for t in inputs]
    if "threshold" in options:
        options["threshold"] = options["threshold"].to(dtype)
    indices, values = function(*leaves, **options)
    upstream = upstream[:, : values.shape[1]].to(dtype)
    return indices, (values.detach(), *torch.autograd.grad(values, leaves, upstream))


RULES = {
    "topk": (topk_encode, reference.topk_encode, lambda d_sae: {"k": max(1, d_sae // 12)}),
    "topk_all": (topk_encode, reference.topk_encode, lambda d_sae: {"k": d_sae}),
    "topk_one": (topk_encode, reference.topk_encode, lambda d_sae: {"k": 1}),
    "topk_among": (
        topk_encode,
        reference.topk_encode,
        lambda d_sae: {"k": d_sae // 4, "among": torch.randperm(d_sae)[: d_sae // 2].sort().values},
    ),
    "batch_topk": (batch_topk_encode, reference.batch_topk_encode, lambda d_sae: {"k": d_sae / 13}),
    "batch_topk_rare": (batch_topk_encode, reference.batch_topk_encode, lambda d_sae: {"k": 0.3}),
    "threshold": (
        threshold_encode,
        reference.threshold_encode,
        lambda d_sae: {"threshold": 5 * torch.rand(d_sae)},
    ),
    "relu": (threshold_encode, reference.threshold_encode, lambda d_sae: {"threshold": torch.zeros(d_sae)}),
    "group_max": (group_max_encode, reference.group_max_encode, lambda d_sae: {"k": d_sae // 4}),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_indices_values_and_gradients(rule, size, assert_within_rounding):
    function, definition, options = RULES[rule]
    inputs, chosen = random_inputs(*size), options(size[2])
    upstream = torch.randn(size[0], size[2])
    exact_indices, exact = run(definition, inputs, upstream, torch.float64, **chosen)
    _, plain = run(definition, inputs, upstream, torch.float32, **chosen)
    indices, ours = run(function, inputs, upstream, torch.float32, **chosen)
    assert torch.equal(indices, exact_indices)
    for a, b, c in zip(ours, plain, exact, strict=True):
        assert_within_rounding(a, b, c)
    _, double = run(function, inputs, upstream, torch.float64, **chosen)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(double, exact, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_repeated_strided_and_threaded_runs_are_bit_equal(rule, two_threads):
    function, _, options = RULES[rule]
    x, W_enc, b_enc, b_pre = random_inputs(260, 24, 2000)
    chosen, upstream = options(2000), torch.randn(260, 2000)
    strided = (x.T.contiguous().T, W_enc.T.contiguous().T, b_enc.repeat_interleave(2)[::2], b_pre)
    first = run(function, (x, W_enc, b_enc, b_pre), upstream, torch.float32, **chosen)
    with two_threads():
        threaded = run(function, (x, W_enc, b_enc, b_pre), upstream, torch.float32, **chosen)
    again = run(function, (x, W_enc, b_enc, b_pre), upstream, torch.float32, **chosen)
    for other in (threaded, again, run(function, strided, upstream, torch.float32, **chosen)):
        assert torch.equal(first[0], other[0])
        assert all(torch.equal(a, b) for a, b in zip(first[1], other[1], strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_empty_batch(rule):
    function, _, options = RULES[rule]
    inputs = [t.requires_grad_() for t in random_inputs(0, 3, 12)]
    indices, values = function(*inputs, **options(12))
    assert indices.shape == values.shape
    assert len(indices) == 0
    values.sum().backward()
    assert inputs[1].grad is not None
    assert torch.equal(inputs[1].grad, torch.zeros(3, 12))


def test_ties_among_many_latents_follow_the_definition():
    x = torch.randint(-2, 3, (200, 3)).float()
    W_enc, zeros = torch.randint(-1, 2, (3, 300)).float(), (torch.zeros(300), torch.zeros(3))
    for function, definition, options in (
        (topk_encode, reference.topk_encode, {"k": 20}),
        (batch_topk_encode, reference.batch_topk_encode, {"k": 20}),
        (group_max_encode, reference.group_max_encode, {"k": 20}),
    ):
        ours, expected = function(x, W_enc, *zeros, **options), definition(x, W_enc, *zeros, **options)
        assert torch.equal(ours[0], expected[0])
        assert torch.equal(ours[1], expected[1])
    assert not torch.equal(topk_encode(x, W_enc, *zeros, k=20)[0], (x @ W_enc).topk(20).indices), (
        "the example has no tie that torch breaks otherwise"
    )


def test_negative_selected_entries_are_zero_and_pass_no_gradient():
    x, W_enc = torch.ones(1, 1), torch.tensor([[2.0, -1.0]], requires_grad=True)
    indices, values = topk_encode(x, W_enc, torch.zeros(2), torch.zeros(1), k=2)
    values.sum().backward()
    assert indices.tolist() == [[0, 1]]
    assert values.tolist() == [[2.0, 0.0]]
    assert W_enc.grad is not None
    assert W_enc.grad.tolist() == [[1.0, 0.0]]


def test_padding_follows_the_entries_and_passes_no_gradient():
    x, W_enc = torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[3.0, -2.0, 1.0]], requires_grad=True)
    zeros = torch.zeros(3), torch.zeros(1)
    indices, values = threshold_encode(x, W_enc, *zeros, threshold=torch.zeros(3))
    assert indices.tolist() == [[0, 2], [1, 0], [0, 0]]
    assert values.tolist() == [[3.0, 1.0], [2.0, 0.0], [0.0, 0.0]]
    values.backward(torch.ones(3, 2))
    assert W_enc.grad is not None
    assert W_enc.grad.tolist() == [[1.0, -1.0, 1.0]]
    indices, values = batch_topk_encode(x, W_enc, *zeros, k=2 / 3)
    assert indices.tolist() == [[0], [1], [0]]
    assert values.tolist() == [[3.0], [2.0], [0.0]]


def test_threshold_may_be_negative_and_keeps_the_value():
    _, values = threshold_encode(
        torch.ones(1, 1),
        torch.tensor([[-1.0]]),
        torch.zeros(1),
        torch.zeros(1),
        threshold=torch.tensor([-2.0]),
    )
    assert values.tolist() == [[-1.0]]


@pytest.mark.parametrize("k", [0, 5])
def test_topk_refuses_a_k_out_of_range(k):
    with pytest.raises(ValueError, match=f"k {k} is not between 1 and the 4 latents"):
        topk_encode(*random_inputs(2, 3, 4), k=k)


def test_batch_topk_and_group_max_refuse_a_k_out_of_range():
    with pytest.raises(ValueError, match=r"k 4\.5 is not above 0 and at most the 4 latents"):
        batch_topk_encode(*random_inputs(2, 3, 4), k=4.5)
    with pytest.raises(ValueError, match="k 3 does not divide the 4 latents"):
        group_max_encode(*random_inputs(2, 3, 4), k=3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_rows=st.integers(0, 5), d_in=st.integers(1, 9), d_sae=st.integers(1, 700))
def test_any_size_follows_the_definition(data, n_rows, d_in, d_sae):
    """Small integers: values are exact in both, and most of them tie."""
    seed, k = data.draw(st.integers(0, 2**31)), data.draw(st.integers(1, d_sae))
    generator = torch.Generator().manual_seed(seed)

    def integers(*shape):
        return torch.randint(-3, 4, shape, generator=generator).float()

    given_ = integers(n_rows, d_in), integers(d_in, d_sae), integers(d_sae), integers(d_in)
    for function, definition in (
        (topk_encode, reference.topk_encode),
        (batch_topk_encode, reference.batch_topk_encode),
    ):
        ours, expected = function(*given_, k=k), definition(*given_, k=k)
        assert torch.equal(ours[0], expected[0])
        assert torch.equal(ours[1], expected[1])
