"""What every protocol puts in place, on a random model with norms and MLPs and on a hand-compiled bed."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.causal.conftest import native_model, random_batch
from tests.circuits.validation.beds import bed, wiring
from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits.validation.node_runs import node_metrics
from workbench.circuits.validation.optimal import optimal_constants, random_kept
from workbench.circuits.validation.protocol import (
    DENOISE,
    MEAN,
    OPTIMAL,
    POSITION_MEAN,
    RESAMPLE,
    ZERO,
    Protocol,
    Reference,
)
from workbench.circuits.validation.replacements import mean_values, other_prompts, replacement, replacements
from workbench.circuits.wiring.replacement import replacement_run
from workbench.errors import UserError
from workbench.tasks import Batch


@cache
def anatomy() -> Anatomy:
    return open_anatomy(native_model())


def test_resampling_takes_the_paired_prompt_and_denoising_the_clean_one() -> None:
    batch = random_batch()
    for protocol, ids in ((RESAMPLE, batch.counterfactual), (DENOISE, batch.clean)):
        found, wanted = replacement(anatomy(), protocol, batch), replacement_run(anatomy(), ids)
        torch.testing.assert_close(found.z[1], wanted.z[1])
        torch.testing.assert_close(found.mlp[0], wanted.mlp[0])
        torch.testing.assert_close(found.embed, wanted.embed)


def test_means_are_means_of_single_prompts() -> None:
    """One prompt at a time, with TransformerLens' own cache, against the batched sums."""
    batch, model = random_batch(), anatomy().model
    seen = []
    for ids in batch.counterfactual:
        _, cache = model.run_with_cache(ids[None])
        seen.append(cache["blocks.1.attn.hook_z"][0].reshape(6, 4, 4))
    by_hand = torch.stack(seen)
    found = replacement(anatomy(), POSITION_MEAN, batch).z[1]
    torch.testing.assert_close(found, by_hand.mean(0, keepdim=True))
    found = replacement(anatomy(), MEAN, batch).z[1]
    torch.testing.assert_close(found, by_hand.mean((0, 1))[None, None].expand(1, 6, 4, 4))


def test_zero_is_zero_everywhere() -> None:
    found = replacement(anatomy(), ZERO, random_batch())
    assert not any(value.any() for value in (found.embed, *found.z, *found.mlp))


def test_the_reference_set_is_used_and_its_number_and_seed_decide() -> None:
    batch, other = random_batch(), random_batch(n_pairs=20, seed=9)
    whole = replacement(anatomy(), MEAN, batch, [other]).embed
    torch.testing.assert_close(
        whole, mean_values(anatomy(), [other.counterfactual], over_positions=True).embed.expand(1, 6, 16)
    )
    draws = [
        replacement(
            anatomy(),
            Protocol(kind="mean", reference=Reference(name="clean", number=4, seed=s)),
            batch,
            [other],
        ).embed
        for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_means_serve_prompts_of_all_lengths_but_position_means_do_not() -> None:
    short, long = random_batch(n_pos=5), random_batch(n_pos=6)
    one, other = replacements(anatomy(), MEAN, [short, long])
    assert one.embed.shape[1], other.embed.shape[1] == (5, 6)
    torch.testing.assert_close(one.z[0][0, 0], other.z[0][0, -1])
    with pytest.raises(
        UserError, match="no counterfactual prompt of 6 tokens, which kind 'position_mean' needs"
    ):
        replacement(anatomy(), POSITION_MEAN, long, [short])


def test_another_prompt_is_another_prompt() -> None:
    ids = torch.arange(8).repeat_interleave(3).reshape(8, 3)
    for seed in range(5):
        drawn = other_prompts(ids, ids, seed=seed)
        assert (drawn != ids).any(1).all()
    assert torch.equal(other_prompts(ids, ids, seed=2), other_prompts(ids, ids, seed=2))
    with pytest.raises(UserError, match="no prompt other than prompt 0 itself"):
        other_prompts(ids[:1], ids[:1], seed=0)


def test_too_many_reference_prompts_and_wrong_positions_are_refused() -> None:
    batch = random_batch()
    with pytest.raises(UserError, match="number 50 is more than the 5 prompts"):
        replacement(anatomy(), Protocol(kind="mean", reference=Reference(name="clean", number=50)), batch)
    with pytest.raises(UserError, match="position 6 lies outside a prompt of 6 tokens"):
        replacement(anatomy(), Protocol(kind="zero", positions=(6,)), batch)


def yes_pairs(n_pairs: int, seed: int) -> Batch:
    """Pairs of `and_gate` with one answer, so that constants can give it without looking at the prompt."""
    batch = bed("and_gate", 0.05).batch(4 * n_pairs, seed)
    return batch.take((batch.answer == batch.answer.mode().values).nonzero()[:n_pairs, 0])


def test_optimal_constants_do_less_harm_than_means_on_fresh_pairs_and_sets() -> None:
    """Learning in the wrong direction would leave the means, and learning nothing their loss."""
    found, pairs = wiring("and_gate", 0.05), yes_pairs(48, 1)
    start = mean_values(found.anatomy, [pairs.counterfactual], over_positions=True)
    learned, again = (optimal_constants(found.anatomy, [pairs], start, n_steps=60, seed=0) for _ in "12")
    assert torch.equal(learned.constants.embed, again.constants.embed)
    assert learned.optimal_loss_nats < 0.8 * learned.mean_loss_nats
    fresh, kept = yes_pairs(48, 7), random_kept(64, found.n_writers, torch.Generator().manual_seed(5))
    losses = []
    for constants in (start, learned.constants):
        spread = constants.map(lambda v, n=fresh.clean.shape[1]: v.expand(1, n, *v.shape[2:]))
        losses.append(float(torch.nn.functional.softplus(-node_metrics(found, fresh, spread, kept)).mean()))
    assert losses[1] < 0.8 * losses[0]


def test_the_optimal_protocol_uses_the_learned_constants() -> None:
    found, pairs = wiring("two_hop"), bed("two_hop")
    values = replacement(found.anatomy, OPTIMAL, pairs.batch(8, 0), [pairs.batch(16, 1)])
    assert values.embed.shape[:2] == (1, pairs.batch(8, 0).clean.shape[1])
    assert torch.equal(values.embed[0, 0], values.embed[0, -1])
