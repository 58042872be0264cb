"""What a sweep carries, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.circuits.sweeps.conftest import LENGTH, random_features, random_pairs
from tests.models_on_disk import native_model
from workbench.anatomy import Anatomy, open_anatomy
from workbench.circuits.sweeps import Sweep, Swept, attribute_sweep, integrate_sweep, patch_sweep
from workbench.errors import UserError
from workbench.progress import Progress
from workbench.tasks import Batch, PromptPair, Task

Opened = Callable[[str], Anatomy]


def made(effects: torch.Tensor) -> Sweep:
    """A sweep over two layers and three positions with given effects."""
    m = torch.full(effects.shape[-1:], 2.0)
    labels = ((0, 1), (0, 1, 2))
    return Sweep(effects, ("layer", "pos"), labels, "resid_pre", "exact", "noising", "single", m, -m)


def test_the_table_has_a_row_a_cell_with_an_interval_that_holds_the_mean() -> None:
    sweep = made(torch.randn(2, 3, 4))
    table = sweep.table(n_resamples=500, seed=1)
    assert table[["layer", "pos"]].values.tolist() == [[la, p] for la in (0, 1) for p in (0, 1, 2)]
    assert np.allclose(table["effect_logits"], sweep.effects.mean(-1).flatten())
    assert (table["effect_logits_low"] < table["effect_logits"]).all()
    assert (table["effect_logits"] < table["effect_logits_high"]).all()
    assert table.attrs["protocol"] == "exact, noising from the paired prompt, single positions"
    assert table.equals(sweep.table(n_resamples=500, seed=1))
    assert not table.equals(sweep.table(n_resamples=500, seed=2))


def test_the_interval_is_the_percentile_bootstrap() -> None:
    """With two prompts a resample's mean is a, (a + b) / 2 or b, with probabilities 1/4, 1/2, 1/4."""
    row = made(torch.tensor([0.0, 4.0]).expand(2, 3, 2)).table()
    assert (row["effect_logits_low"] == 0).all()
    assert (row["effect_logits_high"] == 4).all()


def test_grid_largest_and_share() -> None:
    effects = torch.zeros(2, 3, 4)
    effects[1, 2], effects[0, 1] = 4.0, -2.0
    sweep = made(effects)
    assert sweep.grid().loc[1, 2] == 4
    assert sweep.grid().columns.name == "pos"
    assert sweep.largest(2) == [(1, 2), (0, 1)]
    assert float(sweep.share_frac()[1, 2]) == 1
    with pytest.raises(UserError, match="of 0: there is no share of it"):
        replace(sweep, counterfactual_logits=sweep.clean_logits).share_frac()
    with pytest.raises(UserError, match="alone is no grid"):
        replace(sweep, effects=effects[0], axes=("pos",), labels=((0, 1, 2),)).grid()


def task_of(lengths: tuple[int, ...]) -> Task:
    """Pairs of the given lengths."""
    pairs = []
    for i, length in enumerate(lengths):
        batch = random_pairs(n=1, length=length, seed=i)
        ids = tuple(tuple(t[0].tolist()) for t in (batch.clean, batch.counterfactual))
        pairs.append(PromptPair(*ids, 3, 4, "", "", "a", "b"))
    return Task("t", "t", "t", tuple(pairs))


def test_pairs_of_several_lengths_are_swept_over_heads_but_not_over_positions(opened: Opened) -> None:
    task = task_of((5, 6, 5))
    sweep = patch_sweep(opened("native"), task, Swept("head"))
    assert sweep.effects.shape == (3, 4, 3)
    alone = patch_sweep(opened("native"), task.batches()[1], Swept("head"))
    assert torch.allclose(sweep.effects[..., 2:], alone.effects, atol=1e-5)
    with pytest.raises(
        UserError, match=r"prompts have \[5, 6\] tokens, so their positions do not correspond"
    ):
        patch_sweep(opened("native"), task, Swept("resid_pre"))


@pytest.mark.parametrize(
    ("swept", "message"),
    [
        (Swept("head_out"), "kind 'head_out' is not known; the nearest: head"),
        (Swept("head", layers=(3,)), "layers 3 is out of range: there are 3, from 0 to 2"),
        (Swept("head", units=(4,)), "units 4 is out of range"),
        (Swept("resid_pre", positions=(LENGTH,)), f"positions {LENGTH} is out of range"),
        (Swept("resid_pre", positions="some"), "positions 'some' is not known"),
        (Swept("resid_pre", units=(0,)), "kind 'resid_pre' has one unit a layer"),
        (
            Swept("head", dictionary=random_features("blocks.1.hook_resid_pre")),
            "kind 'head' has no dictionary",
        ),
        (
            Swept("feature", layers=(1,), dictionary=random_features("blocks.1.hook_resid_pre")),
            "kind 'feature' has the layer of its dictionary: leave layers out",
        ),
        (Swept("head", units=(1, 1)), r"units \[1, 1\] must name at least one and none twice"),
    ],
)
def test_what_the_model_does_not_have_is_refused(opened: Opened, swept: Swept, message: str) -> None:
    with pytest.raises(UserError, match=message):
        patch_sweep(opened("native"), random_pairs(), swept)


def test_parts_that_an_architecture_lacks_are_refused(opened: Opened) -> None:
    batch = random_pairs()
    with pytest.raises(UserError, match="direction 'noise' is not known; the nearest: noising"):
        patch_sweep(opened("native"), batch, Swept("head"), direction="noise")
    with pytest.raises(UserError, match="'resid_mid' has no meaning in parallel blocks"):
        patch_sweep(opened("neox"), batch, Swept("resid_mid"))
    with pytest.raises(UserError, match="kind 'mlp_out' needs an MLP"):
        patch_sweep(open_anatomy(native_model(attn_only=True)), batch, Swept("mlp_out"))


@pytest.mark.parametrize("sweep", [patch_sweep, attribute_sweep, integrate_sweep])
def test_cells_come_in_the_order_they_were_asked_for(opened: Opened, sweep: Callable[..., Sweep]) -> None:
    anatomy, batch = opened("native"), random_pairs()
    straight = sweep(anatomy, batch, Swept("head", positions="each"))
    turned = sweep(anatomy, batch, Swept("head", layers=(2, 0), units=(3, 2, 1, 0), positions=(5, 2, 4)))
    assert turned.labels == ((2, 0), (3, 2, 1, 0), (5, 2, 4))
    wanted = straight.effects[[2, 0]].flip(1)[:, :, [5, 2, 4]]
    if sweep is not integrate_sweep:  # whose path depends on which cells move together
        assert torch.allclose(turned.effects, wanted, atol=1e-5)
    else:
        again = sweep(anatomy, batch, Swept("head", layers=(0, 2), positions=(2, 4, 5)))
        assert torch.allclose(turned.effects, again.effects.flip(0).flip(1)[:, :, [2, 0, 1]], atol=1e-5)


def test_an_attention_only_model_is_swept() -> None:
    sweep = patch_sweep(open_anatomy(native_model(attn_only=True)), random_pairs(), Swept("head"))
    assert float(sweep.effects.abs().max()) > 0


def test_progress_counts_the_cells_and_an_interrupt_leaves_the_model_as_it_was(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs(first=0)
    progress = Progress(3 * LENGTH, "patching", "cells")
    whole = patch_sweep(anatomy, batch, Swept("resid_pre"), progress=progress, max_tokens=30)
    assert progress.done == 3 * LENGTH

    class Stopped(Progress):
        def advance(self, n: int = 1, note: str = "") -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        patch_sweep(anatomy, batch, Swept("resid_pre"), progress=Stopped(1, "", ""), max_tokens=30)
    assert not any(hook.fwd_hooks for hook in anatomy.model.hook_dict.values())
    again = patch_sweep(anatomy, batch, Swept("resid_pre"), max_tokens=30)
    assert torch.equal(again.effects, whole.effects)


def test_equal_batches_give_equal_bits(opened: Opened) -> None:
    batch = random_pairs(n=3)
    first, second = (patch_sweep(opened("gpt2"), batch, Swept("neuron")) for _ in range(2))
    assert torch.equal(first.effects, second.effects)
    part = Batch(batch.clean[:1], batch.counterfactual[:1], batch.answer[:1], batch.counterfactual_answer[:1])
    alone = patch_sweep(opened("gpt2"), part, Swept("neuron"))
    assert torch.allclose(first.effects[..., :1], alone.effects, atol=1e-4)
