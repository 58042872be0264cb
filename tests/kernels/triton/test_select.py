"""Selection by the Triton kernels: the definition's indices exactly, its values within rounding."""

from __future__ import annotations

import pytest
import torch

from workbench.kernels.encode import reference, triton, triton_steps
from workbench.kernels.encode.triton_steps import ALL, Operands, Share


@pytest.fixture
def inputs(normal):
    return lambda n, d, f: (normal(n, d), normal(f, d), normal(f))


@pytest.fixture
def check(assert_within_rounding):
    def compare(ours, inputs, name, *more):
        exact = getattr(reference, name)(*(t.double() for t in inputs), *more)
        plain = getattr(reference, name)(*(t.float() for t in inputs), *more)
        assert ours[0].dtype == torch.int64
        assert torch.equal(ours[0], exact[0])
        if ours[1].dtype == torch.float32 and ours[1].numel():
            assert_within_rounding(ours[1], plain[1], exact[1])
        else:
            assert ours[1].shape == exact[1].shape
            assert torch.allclose(ours[1].double(), exact[1], rtol=2**-8, atol=1e-6)

    return compare


def integers(device, *shape):
    """Small integers as floats: every sum is exact, and many are equal."""
    return torch.randint(-2, 3, shape).float().to(device)


SCREENED = [(5, 24, 530, 1), (3, 33, 1100, 17)]
"""At least 16 times the candidates: a running selection of a share, then lists."""


@pytest.mark.parametrize(("n_rows", "d_in", "d_sae", "k"), SCREENED)
def test_topk_by_proposal_and_proof(n_rows, d_in, d_sae, k, inputs, monkeypatch, check):
    given, repeated = inputs(n_rows, d_in, d_sae), spy(monkeypatch, "repeat_failed")
    check(triton.select_topk(*given, k), given, "select_topk", k)
    assert not repeated[0][2].any(), "a row was not proven, so the proof was not tested"


def test_lists_begin_with_the_largest_bounds_of_all_latents(device):
    given = (torch.randint(-50, 51, shape).to(device) / 64 for shape in ((5, 24), (700, 24), (700,)))
    bounds = triton_steps.screened(
        Operands(*given)
    )  # products of integers: the same bits in tiles of any shape
    lists, most = triton_steps.propose(bounds, 32, 256)
    assert (most > 0).all()
    assert (most <= 256).all()
    assert torch.equal(lists[:, :32], triton_steps.running(bounds, 32, ALL))


@pytest.mark.parametrize(
    ("n_rows", "d_in", "d_sae", "k"),
    [(70, 7, 11, 11), (1, 1, 1, 1), (3, 40, 130, 20), (0, 5, 9, 2), (4, 16, 300, 150)],
)
def test_topk_of_small_dictionaries_and_wide_selections(n_rows, d_in, d_sae, k, inputs, check):
    given = inputs(n_rows, d_in, d_sae)
    check(triton.select_topk(*given, k), given, "select_topk", k)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_topk_in_half_precision_selects_by_the_float32_sums(dtype, inputs, check):
    given = [t.to(dtype) for t in inputs(6, 24, 300)]
    check(triton.select_topk(*given, 5), given, "select_topk", 5)


def test_lower_latent_wins_every_tie(device, monkeypatch):
    x, rows, bias = integers(device, 8, 3), integers(device, 530, 3), integers(device, 530)
    x[0] = 0  # all pre-activations of this row are biases
    repeated = spy(monkeypatch, "repeat_failed")
    indices, values = triton.select_topk(x, rows, bias, 9)
    exact = reference.select_topk(x, rows, bias, 9)
    assert torch.equal(indices, exact[0])
    assert torch.equal(values, exact[1])
    assert repeated[0][2][0], "float32 products of the candidates settled a row that is all ties"


def spy(monkeypatch, name):
    """Arguments of every call of a step."""
    calls, original = [], getattr(triton_steps, name)
    monkeypatch.setattr(triton_steps, name, lambda *given: (calls.append(given), original(*given))[1])
    return calls


def test_a_row_that_bfloat16_cannot_order_is_selected_from_all_latents(normal, monkeypatch, check):
    base, detail = normal(1, 24).bfloat16().float(), torch.linspace(0, 1, 24)
    x = normal(5, 24).bfloat16().float()
    rows = base + 2.0**-13 * normal(530, 24) * detail.to(x.device)  # equal in bfloat16
    given, repeated = (x, rows, normal(530) * 2.0**-13), spy(monkeypatch, "repeat_failed")
    check(triton.select_topk(*given, 6), given, "select_topk", 6)
    _, keys, failed, _ = repeated[0]
    assert failed.any()
    proposed = triton.unpacked(keys)[0]
    assert not torch.equal(proposed, reference.select_topk(*given, 6)[0]), "the proposal alone was right"


def test_a_list_that_is_too_short_sends_the_row_to_all_latents(inputs, monkeypatch, check):
    given, repeated = inputs(5, 24, 530), spy(monkeypatch, "repeat_failed")
    given[2][::16] -= 100  # the share that makes the limit says nothing about the others
    monkeypatch.setattr(triton, "LISTED_PER_CANDIDATE", 1)
    check(triton.select_topk(*given, 7), given, "select_topk", 7)
    assert repeated[0][2].all()


def test_bounds_hold_for_every_pair_and_are_not_idle(inputs, device):
    exact = Operands(*inputs(6, 50, 70))
    bounds = triton_steps.screened(exact)
    indices, upper = triton.unpacked(triton_steps.running(bounds, 128, ALL))
    upper = torch.empty(6, 128, device=device).scatter(1, indices.clamp(0, 127), upper)[:, :70]
    values = exact.x.double() @ exact.rows.double().T + exact.bias
    assert (upper >= values).all()
    norms = exact.x.norm(dim=1)[:, None] * exact.rows.norm(dim=1)
    assert (upper - values <= 2**-6 * norms).all()
    rounded = (bounds.x.double() @ bounds.rows.double().T) + exact.bias
    assert (rounded < values).any(), "without the slack nothing would be below"


@pytest.mark.parametrize(("d_sae", "first", "width"), [(70, 1, 3), (64, 4, 12), (17, 1, 3), (16, 0, 1)])
def test_a_share_of_the_latents_is_every_sixteenth(d_sae, first, width, inputs):
    share, exact = Share(first, width, 16), Operands(*inputs(3, 4, d_sae))
    mine = [j for j in range(d_sae) if first <= j % 16 < first + width]
    indices, _ = triton.unpacked(triton_steps.running(exact, 64, share)[:, : share.size(d_sae)])
    assert indices.sort().values.tolist() == [mine] * 3


@pytest.mark.parametrize(("n_rows", "d_in", "d_sae", "k"), [(8, 12, 40, 3), (1, 1, 1, 1), (0, 5, 9, 2)])
def test_batch_topk(n_rows, d_in, d_sae, k, inputs, check):
    given = inputs(n_rows, d_in, d_sae)
    check(triton.select_batch_topk(*given, n_rows * k), given, "select_batch_topk", n_rows * k)


def test_batch_topk_asks_again_where_a_row_keeps_all_its_candidates(inputs, check):
    x, rows, bias = inputs(6, 12, 100)
    x[2] *= 50
    given = x, rows, bias
    check(triton.select_batch_topk(*given, 12), given, "select_batch_topk", 12)
    assert triton.select_batch_topk(*given, 12)[0].shape[1] > 8, "the first question was enough"


def test_batch_topk_keeps_only_positive_ones_and_breaks_ties_by_row_then_latent(device):
    x, rows, bias = integers(device, 12, 3), integers(device, 50, 3), integers(device, 50)
    for n_keep in (0, 7, 100, 12 * 50):
        ours, exact = (m.select_batch_topk(x, rows, bias, n_keep) for m in (triton, reference))
        assert torch.equal(ours[0], exact[0])
        assert torch.equal(ours[1], exact[1])


@pytest.mark.parametrize("capacity", [3, 256])
def test_above_in_lists_of_any_length(capacity, inputs, device, monkeypatch, check):
    monkeypatch.setattr(triton, "LIST_CAPACITY", capacity)
    given, threshold = inputs(7, 20, 60), torch.rand(60).to(device) * 6 - 1
    exact = reference.select_above(*(t.double() for t in given), threshold)
    assert exact[0].shape[1] > 3
    check(triton.select_above(*given, threshold), given, "select_above", threshold)


def test_above_nothing_an_empty_batch_and_exactly_the_threshold(device):
    x, rows, bias = integers(device, 9, 3), integers(device, 40, 3), integers(device, 40)
    for n_rows, level in ((9, 99.0), (0, 0.0), (9, 2.0)):
        threshold = torch.full((40,), level, device=device)
        ours, exact = (m.select_above(x[:n_rows], rows, bias, threshold) for m in (triton, reference))
        assert torch.equal(ours[0], exact[0])
        assert torch.equal(ours[1], exact[1])


@pytest.mark.parametrize(
    ("n_rows", "d_in", "d_sae", "k"), [(70, 12, 140, 2), (5, 9, 140, 7), (5, 9, 28, 14), (0, 5, 9, 3)]
)
def test_group_max(n_rows, d_in, d_sae, k, inputs, check):
    given = inputs(n_rows, d_in, d_sae)
    check(triton.select_group_max(*given, k), given, "select_group_max", k)


def test_group_max_with_lists_that_are_too_short(inputs, monkeypatch, check):
    given = inputs(70, 9, 140)
    monkeypatch.setattr(triton, "LIST_CAPACITY", 2)
    monkeypatch.setattr(triton, "LISTED_PER_CANDIDATE", 1)
    given[0][3], given[2][:] = 0, given[2][0]  # of this row all entries are equal
    check(triton.select_group_max(*given, 2), given, "select_group_max", 2)


def test_a_group_that_bfloat16_cannot_order_is_decided_in_float32(normal, check):
    x = normal(5, 24).bfloat16().float()
    rows = normal(1, 24).bfloat16().float() + 2.0**-13 * normal(160, 24)
    given = x, rows, normal(160) * 2.0**-13
    check(triton.select_group_max(*given, 4), given, "select_group_max", 4)
    rounded = [t.bfloat16().float() for t in given]
    assert not torch.equal(
        reference.select_group_max(*rounded, 4)[0], reference.select_group_max(*given, 4)[0]
    )


@pytest.mark.parametrize("k", [2, 20])
def test_lower_latent_wins_a_tie_in_a_group(k, device):
    x, rows, bias = integers(device, 6, 3), integers(device, 80, 3), integers(device, 80)
    ours, exact = (m.select_group_max(x, rows, bias, k) for m in (triton, reference))
    assert torch.equal(ours[0], exact[0])
    assert torch.equal(ours[1], exact[1])


def test_strided_inputs_and_repeated_runs_are_bit_equal(normal):
    x, rows, bias = normal(24, 2).T, normal(24, 530).T, normal(1060)[::2]
    first = triton.select_topk(x, rows, bias, 4)
    for again in (
        triton.select_topk(x, rows, bias, 4),
        triton.select_topk(x.contiguous(), rows.contiguous(), bias, 4),
    ):
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_negative_selected_values_are_given_as_they_are(normal):
    x, rows = normal(4, 8), normal(40, 8)
    _, values = triton.select_topk(x, rows, torch.full((40,), -1000.0, device=x.device), 3)
    assert (values < 0).all()
