"""Steering vectors, their size, and their random controls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.circuits.sweeps.conftest import random_features, random_pairs
from tests.circuits.sweeps.reference import values_of
from workbench.anatomy import Anatomy
from workbench.errors import UserError
from workbench.interventions import (
    SteeringVector,
    decoder_vector,
    difference_of_means,
    intervene,
    random_vector,
    steer,
    steer_by,
    steer_layers,
)

Opened = Callable[[str], Anatomy]


def test_a_difference_of_means_is_that_of_the_hooks_values(opened: Opened) -> None:
    anatomy, batch = opened("gemma2"), random_pairs(n=4)
    hook = "blocks.1.hook_attn_out"
    up, down = (values_of(anatomy, ids, [hook])[hook] for ids in (batch.clean, batch.counterfactual))
    for positions, wanted in (
        ("last", up[:, -1].mean(0) - down[:, -1].mean(0)),
        ("all", up[:, 1:].mean((0, 1)) - down[:, 1:].mean((0, 1))),
    ):
        found = difference_of_means(
            anatomy, batch.clean, batch.counterfactual, layer=1, part="attn_out", positions=positions
        )
        assert torch.allclose(found.vector, wanted, atol=1e-5)
    assert found.origin == "difference of means at all positions"


def test_decoder_rows_and_random_directions(opened: Opened) -> None:
    dictionary = random_features("blocks.1.hook_mlp_out")
    row = decoder_vector(opened("native"), dictionary, 7)
    assert (row.layer, row.part) == (1, "mlp_out")
    assert torch.equal(row.vector, dictionary.W_dec[7])
    drawn, again, other = (random_vector(row, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(drawn.vector, again.vector)
    assert not torch.equal(drawn.vector, other.vector)
    assert torch.allclose(drawn.vector.norm(), row.vector.norm())
    assert (drawn.layer, drawn.part) == (1, "mlp_out")


def unembedding(anatomy: Anatomy, share_of: float = 1.0) -> SteeringVector:
    """The direction that raises the first prompt's answer over the counterfactual answer, before the last norm."""
    batch = random_pairs()
    W_U = anatomy.readout.W_U
    vector = (W_U[:, batch.answer] - W_U[:, batch.counterfactual_answer]).mean(1)
    return SteeringVector(vector * share_of, 2, "resid_post", "unembedding")


def test_a_direction_that_means_something_does_more_than_random_ones_and_a_random_one_does_not(
    opened: Opened,
) -> None:
    anatomy, batch = opened("native"), random_pairs()
    table = steer(anatomy, batch, unembedding(anatomy), shares=(0.1, 1.0), n_random=8).table()
    assert (table["change_logits"] > table["random_largest_logits"]).all()
    assert table["change_logits"][1] > 2 * table["change_logits"][0]
    placebo = steer(
        anatomy, batch, random_vector(unembedding(anatomy), seed=99), shares=(0.1, 1.0), n_random=8
    ).table()
    assert (placebo["change_logits"].abs() < placebo["random_largest_logits"]).all()


def test_only_the_direction_and_the_share_count_and_random_ones_are_as_long(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    one, ten = (
        steer(anatomy, batch, unembedding(anatomy, s), shares=(0.5,), n_random=2) for s in (1.0, 10.0)
    )
    assert torch.allclose(one.change_logits, ten.change_logits, atol=1e-5)
    hook = "blocks.2.hook_resid_post"
    x = values_of(anatomy, batch.clean, [hook])[hook]
    by_hand = []
    for direction in (unembedding(anatomy), random_vector(unembedding(anatomy), seed=0)):
        moved = x + 0.5 * x.norm(dim=-1, keepdim=True) * direction.vector / direction.vector.norm()
        assert torch.allclose((moved - x).norm(dim=-1), 0.5 * x.norm(dim=-1), rtol=1e-4)
        logits = anatomy.logits(moved)[:, -1]
        clean = anatomy.logits(x)[:, -1]
        rows = torch.arange(2)
        by_hand.append(
            (logits - clean)[rows, batch.answer] - (logits - clean)[rows, batch.counterfactual_answer]
        )
    assert torch.allclose(one.change_logits[0], by_hand[0], atol=1e-4)
    assert torch.allclose(one.random_change_logits[0, 0], by_hand[1], atol=1e-4)


def test_a_layer_sweep_uses_each_layers_own_direction(opened: Opened) -> None:
    anatomy, batch = opened("llama"), random_pairs(n=4)
    sweep = steer_layers(anatomy, batch, batch.counterfactual, batch.clean, share=0.4, n_random=2)
    table = sweep.table(n_resamples=100)
    assert table["layer"].tolist() == [0, 1, 2]
    assert sweep.random_change_logits.shape == (3, 2, 4)
    vector = difference_of_means(anatomy, batch.counterfactual, batch.clean, layer=1)
    outcome = intervene(anatomy, batch, steer_by(vector.target, 0.4))
    assert torch.allclose(sweep.change_logits[1], -outcome.effect_logits[1], atol=1e-4)


def test_without_answers_only_divergences_are_known(opened: Opened) -> None:
    anatomy = opened("native")
    found = steer(anatomy, random_pairs().clean, unembedding(anatomy), shares=(0.3,), n_random=1)
    assert found.change_logits.isnan().all()
    assert (found.kl_nats > 0).all()


def test_steering_without_controls_or_direction_is_refused(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    with pytest.raises(
        UserError, match="n_random 0 and 3 shares: steering is reported beside at least one random"
    ):
        steer(anatomy, batch, unembedding(anatomy), n_random=0)
    with pytest.raises(UserError, match="positive and negative have equal means"):
        difference_of_means(anatomy, batch.clean, batch.clean, layer=1)
    with pytest.raises(UserError, match="positions 'first' is not known"):
        difference_of_means(anatomy, batch.clean, batch.counterfactual, layer=1, positions="first")
    with pytest.raises(UserError, match=r"layer 3 of node 'resid_post.3' is out of range"):
        difference_of_means(anatomy, batch.clean, batch.counterfactual, layer=3)
    with pytest.raises(UserError, match="feature 48 is out of range"):
        decoder_vector(anatomy, random_features("blocks.1.hook_mlp_out"), 48)
