"""What a low-precision product proposes and float32 dot products decide is what they decide alone, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kernels.encode import inputs
from workbench.kernels.encode import bounds, cpu, lists, reference, screen

SIZES = [(70, 33, 2003), (40, 64, 1500), (1, 3, 700)]


def all_values(x, rows, bias):
    """Every value by the loop that decides."""
    return torch.from_numpy(screen.whole(screen.Encoder(x, rows, bias), np.arange(len(x)))[1])


def definition(rule, values, *options):
    """The rule on values that are given: the definition with an identity encoder."""
    none = torch.zeros(values.shape[1], dtype=values.dtype)
    return getattr(reference, rule)(values, torch.eye(values.shape[1]), none, *options)


def definition_of_sort(values, k):
    sorted_values, order = values.sort(dim=1, descending=True, stable=True)
    return order[:, :k], sorted_values[:, :k]


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=str)
def proposal_dtype(request, monkeypatch):
    monkeypatch.setattr(screen, "fast_dtype", lambda: request.param)
    return request.param


@pytest.mark.parametrize("kind", inputs.KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("k", [1, 20])
def test_topk_equals_exact_selection(kind, size, k, proposal_dtype):
    given = kind(*size)
    indices, values = cpu.select_topk(*given, k)
    expected_indices, expected_values = definition_of_sort(all_values(*given), k)
    assert torch.equal(indices, expected_indices)
    assert torch.equal(values, expected_values)


@pytest.mark.parametrize("kind", inputs.KINDS[:-1], ids=lambda f: f.__name__)
def test_batch_topk_equals_exact_selection(kind, proposal_dtype):
    given = kind(300, 33, 1003)
    values = all_values(*given)
    for n_keep in (1, 1777, 300 * 40):
        code = cpu.select_batch_topk(*given, n_keep)
        assert_same_code(code, batch_definition(values, n_keep))


def batch_definition(values, n_keep):
    flat, order = values.flatten().sort(descending=True, stable=True)
    kept = torch.zeros_like(values, dtype=torch.bool)
    kept.view(-1)[order[:n_keep][flat[:n_keep] > 0]] = True
    ordered, indices = values.where(kept, -torch.inf).sort(dim=1, descending=True, stable=True)
    return reference._padded(indices, ordered, kept.sum(1))


def assert_same_code(ours, expected):
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])


@pytest.mark.parametrize("kind", inputs.KINDS[:-1], ids=lambda f: f.__name__)
def test_threshold_equals_exact_selection(kind, proposal_dtype, monkeypatch):
    monkeypatch.setattr(lists, "DENSE_FRAC", 2)  # never: a matrix product has other last bits
    given = kind(70, 33, 2003)
    values = all_values(*given)
    threshold = values.quantile(0.99, dim=0)  # attained values among them: "above" excludes equality
    kept = values > threshold
    indices = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices
    expected = reference._padded(indices, values.gather(1, indices), kept.sum(1))
    assert_same_code(cpu.select_above(*given, threshold), expected)


@pytest.mark.parametrize("kind", inputs.KINDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("k", [1, 17, 2006])
def test_group_max_equals_exact_selection(kind, k, proposal_dtype):
    given = kind(70, 33, 2006)
    grouped = all_values(*given).view(70, k, -1)
    best, places = grouped.sort(dim=2, descending=True, stable=True)
    expected = places[:, :, 0] + torch.arange(k) * (2006 // k)
    assert_same_code(cpu.select_group_max(*given, k), (expected, best[:, :, 0]))


def test_values_do_not_depend_on_the_batch():
    x, rows, bias = inputs.random(300, 64, 1500)
    indices, values = cpu.select_topk(x, rows, bias, 9)
    for part in (slice(7, 8), slice(100, 233)):
        assert_same_code(cpu.select_topk(x[part], rows, bias, 9), (indices[part], values[part]))
    assert_same_code(cpu.select_topk(x.flip(0), rows, bias, 9), (indices.flip(0), values.flip(0)))


@pytest.mark.parametrize("scale", [0.0, 0.02])
def test_a_bound_that_is_too_small_is_seen(scale, monkeypatch):
    """The tests above would fail if the bound did not hold: with a fiftieth of it, they do."""
    given = inputs.nearly_equal_latents(70, 33, 2003)
    expected = definition_of_sort(all_values(*given), 20)
    margin = bounds.margin

    def too_small(*arguments):
        found = margin(*arguments)
        return replace(found, slope=scale * found.slope, row=scale * found.row, floor=scale * found.floor)

    monkeypatch.setattr(bounds, "margin", too_small)
    monkeypatch.setattr(screen, "fast_dtype", lambda: torch.bfloat16)
    assert not torch.equal(cpu.select_topk(*given, 20)[0], expected[0])


def test_usual_rows_are_settled_by_the_first_proposal(monkeypatch):
    """Selection is quick only if the bound is tight enough for trained and random encoders alike."""
    passes = []
    proposed = screen._proposed_pass

    def counted(encoder, rows, dtype, *rest):
        left = proposed(encoder, rows, dtype, *rest)
        passes.append(len(left))
        return left

    monkeypatch.setattr(screen, "_proposed_pass", counted)
    for kind in (inputs.random, inputs.correlated):
        cpu.select_topk(*kind(64, 128, 4096), 16)
    x, rows, bias = inputs.random(64, 128, 4096)
    rows[::5] = 0
    rows[1] = 1e-25
    cpu.select_topk(x, rows, bias, 16)
    assert passes == [0, 0, 0]


def test_a_guess_that_is_too_high_is_corrected(monkeypatch):
    """Rows whose values the sample does not show: the guessed threshold is too high and must fall."""
    x, rows, bias = inputs.random(400, 16, 600)
    tried = []
    at_least = lists._at_least

    def counted(encoder, guess, room):
        tried.append(guess)
        return at_least(encoder, guess, room)

    monkeypatch.setattr(lists, "_at_least", counted)
    monkeypatch.setattr(lists, "SAMPLE_ROWS", 50)
    x[lists.sample_rows(400)] *= 30
    code = cpu.select_batch_topk(x, rows, bias, 400 * 100)
    assert len(tried) > 1
    assert_same_code(code, batch_definition(all_values(x, rows, bias), 400 * 100))
