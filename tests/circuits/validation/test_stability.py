"""Overlap of the k best under resampling and rephrasing: certain scores 1, noise near what chance gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.circuits.validation.phrasings import FRAMES, phrasings
from workbench.circuits.validation.stability import rephrasing_stability, resampling_stability
from workbench.errors import UserError
from workbench.models import load_model
from workbench.tasks import make_task


def noise(seed: int, *, n_prompts: int = 30, n_parts: int = 200) -> torch.Tensor:
    return torch.randn(n_prompts, n_parts, generator=torch.Generator().manual_seed(seed))


def clear(seed: int) -> torch.Tensor:
    """The first 10 parts stand out in every prompt."""
    scores = 0.1 * noise(seed)
    scores[:, :10] += 1
    return scores


def test_a_clear_circuit_always_comes_again() -> None:
    found = resampling_stability(clear(0), 10)
    assert (found.jaccard.value, found.jaccard.low, found.jaccard.high) == (1, 1, 1)
    other = rephrasing_stability(clear(0), clear(1)[:20], 10)
    assert other.jaccard.value == other.jaccard.low == 1
    assert other.n_prompts == (30, 20)
    assert other.random_jaccard == pytest.approx(10 / 390, abs=0.01)


def test_noise_does_not() -> None:
    found = resampling_stability(noise(0), 10)
    assert found.jaccard.value < 0.6
    other = rephrasing_stability(noise(0), noise(1), 10)
    assert other.jaccard.low <= other.jaccard.value <= other.jaccard.high + 0.1
    assert other.jaccard.value < 0.2


def test_overlap_by_hand() -> None:
    """Parts 0 and 1 are best in the one phrasing, 1 and 2 in the other: one of three."""
    first = torch.tensor([[3.0, 2, 0, 0]] * 4)
    second = torch.tensor([[0.0, 2, 3, 0]] * 4)
    assert rephrasing_stability(first, second, 2).jaccard.value == pytest.approx(1 / 3)
    assert rephrasing_stability(first, -first, 2, order="absolute").jaccard.value == 1
    assert rephrasing_stability(first, -first, 2, order="signed").jaccard.value < 1


def test_resamples_are_of_prompts() -> None:
    """One prompt in twenty carries part 1 high enough to be second: it is missed whenever that prompt is not drawn."""
    scores = torch.zeros(20, 5)
    scores[:, 0], scores[:, 2], scores[0, 1] = 1.0, 0.01, 1.0
    found = resampling_stability(scores, 2, n_resamples=2000)
    missed = (1 - 1 / 20) ** 20
    assert found.jaccard.value == pytest.approx((1 - missed) + missed / 3, abs=0.03)
    again = resampling_stability(scores, 2, n_resamples=2000)
    assert again == found


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="k 0 is not between 1 and the 200"):
        resampling_stability(noise(0), 0)
    with pytest.raises(UserError, match="scores of 1 prompt cannot be resampled"):
        resampling_stability(noise(0)[:1], 3)
    with pytest.raises(UserError, match="first scores 200 parts and second 100"):
        rephrasing_stability(noise(0), noise(0)[:, :100], 3)
    with pytest.raises(UserError, match="not finite"):
        resampling_stability(noise(0).index_fill(1, torch.tensor([0]), np.nan), 3)


@pytest.mark.parametrize("name", FRAMES)
def test_every_pair_has_one_wording(name: str) -> None:
    task = make_task(name, load_model().tokenizer, n_pairs=80, seed=0)
    found = phrasings(task)
    assert sum(len(part.pairs) for part in found.values()) == 80
    assert len(found) == len(FRAMES[name])
    for frame, part in found.items():
        start = frame.split("{")[0]
        assert all(pair.clean_text.startswith(start) for pair in part.pairs)


def test_tasks_of_one_wording_are_refused() -> None:
    task = make_task("quotes", load_model().tokenizer, n_pairs=4, seed=0)
    with pytest.raises(UserError, match="task 'quotes' has one wording: compare pairs of two seeds"):
        phrasings(task)
