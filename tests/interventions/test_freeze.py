"""Frozen patterns and norm scales stay what they were; live ones answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.circuits.sweeps.conftest import ARCHITECTURES, random_pairs
from tests.circuits.sweeps.reference import metric_with, values_of
from workbench.anatomy import Anatomy
from workbench.errors import UserError
from workbench.interventions import ablate, add, intervene, scale

Opened = Callable[[str], Anatomy]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_frozen_attention_equals_a_hook_that_holds_the_pattern(opened: Opened, name: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(3)]
    patterns = values_of(anatomy, batch.clean, names)
    edits = {hook: (lambda x, p=pattern: p) for hook, pattern in patterns.items()}
    wanted = metric_with(anatomy, batch.clean, batch, {**edits, "blocks.0.hook_mlp_out": torch.zeros_like})
    frozen = intervene(anatomy, batch, ablate("m0"), freeze=("attention",)).difference_logits[1]
    live = intervene(anatomy, batch, ablate("m0")).difference_logits[1]
    size = max(1.0, float(wanted.abs().max()))
    assert float((frozen - wanted).abs().max()) <= 1e-4 * size
    assert float((live - wanted).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_freezing_without_an_edit_changes_nothing(opened: Opened, name: str) -> None:
    anatomy, batch = opened(name), random_pairs()
    frozen = intervene(anatomy, batch, scale("m0", 1.0), freeze=("attention", "norms"))
    live = intervene(anatomy, batch, scale("m0", 1.0))
    assert torch.allclose(frozen.logits, live.logits, atol=1e-4 * max(1.0, float(live.logits.abs().max())))


@pytest.mark.parametrize("name", ["gpt2", "llama", "native"])
def test_with_attention_and_norms_frozen_the_last_stream_reads_out_linearly(
    opened: Opened, name: str
) -> None:
    """Twice the change gives twice the effect, which with live norms it does not."""
    anatomy, batch = opened(name), random_pairs()
    step = torch.randn(32, generator=torch.Generator().manual_seed(0))
    columns = {"one": add("resid_post.2", step), "two": add("resid_post.2", 2 * step)}
    ratios = []
    for freeze in (("attention", "norms"), ()):
        effect = intervene(anatomy, batch, columns, freeze=freeze).effect_logits
        ratios.append(float((effect[2] - 2 * effect[1]).abs().max() / effect[1].abs().max()))
    assert ratios[0] < 1e-4
    assert ratios[1] > 1e-2


def test_parts_may_be_held_at_other_prompts_of_the_same_length(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    held = intervene(anatomy, batch, ablate("m1"), freeze=("attention",), freeze_to=batch.counterfactual)
    own = intervene(anatomy, batch, ablate("m1"), freeze=("attention",))
    assert not torch.allclose(held.logits[0], own.logits[0], atol=1e-3)
    same = intervene(anatomy, batch, ablate("m1"), freeze=("attention",), freeze_to=batch.clean)
    assert torch.equal(same.logits, own.logits)


def test_what_cannot_be_held_is_refused(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    with pytest.raises(UserError, match=r"freeze_to has shape \(2, 5\) and the prompts \(2, 6\)"):
        intervene(anatomy, batch, ablate("m1"), freeze=("attention",), freeze_to=batch.clean[:, 1:])
    with pytest.raises(UserError, match="freeze 'norm' is not known; the nearest: norms"):
        intervene(anatomy, batch, ablate("m1"), freeze=("norm",))
