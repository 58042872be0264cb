"""The latent-major order: a stable sort, built once per step, and again when the indices change."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels import decode_loss, gather_latents, latent_counts, latent_major, topk_encode
from workbench.kernels.latent_sum import order


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=300))
def test_members_are_sorted_stably(latents):
    built = order.build(torch.tensor(latents)[:, None], 201)
    assert built.members.tolist() == np.argsort(np.array(latents), kind="stable").tolist()
    assert built.offsets.diff().tolist() == np.bincount(latents, minlength=201).tolist()
    assert built.d_sae == 201


@pytest.fixture
def builds(monkeypatch):
    """Every order that is built."""
    found, build = [], order.build
    monkeypatch.setattr(order, "build", lambda *a: (found.append(a), build(*a))[1])
    return found


def training_step(x, W_enc, b_enc, W_dec, b_dec):
    indices, values = topk_encode(x, W_enc, b_enc, b_dec, k=8)
    values = values * gather_latents(b_enc + 1, indices)
    losses, _ = decode_loss(indices, values, W_dec, b_dec, x)
    losses.sum().backward()
    return indices, values.detach()


def test_one_order_serves_a_whole_step(builds):
    x = torch.randn(50, 12)
    parameters = [torch.randn(12, 300), torch.randn(300), torch.randn(300, 12), torch.randn(12)]
    leaves = [p.requires_grad_() for p in parameters]
    indices, values = training_step(x, *leaves)
    latent_counts(indices, values, 300)
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert len(builds) == 1


def test_written_indices_and_other_sizes_get_an_order_of_their_own(builds):
    indices = torch.tensor([[0, 2], [2, 1]])
    assert latent_major(indices, 3) is latent_major(indices, 3)
    indices[0, 0] = 1
    assert latent_major(indices, 3).offsets.tolist() == [0, 0, 2, 4]
    assert latent_major(indices, 4).offsets.tolist() == [0, 0, 2, 4, 4]
    assert len(builds) == 3


def test_the_order_goes_with_its_indices():
    indices = torch.randint(9, (4, 2))
    gc.collect()
    latent_major(indices, 9)
    before = len(order._cache)
    del indices
    gc.collect()
    assert len(order._cache) == before - 1


def test_orders_of_inference_tensors():
    with torch.inference_mode():
        indices = torch.randint(9, (4, 2))
        assert latent_major(indices, 9).members.tolist() == indices.flatten().argsort(stable=True).tolist()


def test_too_many_entries_are_refused():
    with pytest.raises(ValueError, match="are more than 2147483647: use smaller batches"):
        latent_major(torch.zeros(1, dtype=torch.int64).expand(2**16, 2**16), 3)
