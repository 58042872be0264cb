"""Text under interventions: with a cache, without one, and by TransformerLens hooks, the same tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.circuits.sweeps.conftest import ARCHITECTURES, random_features, random_pairs
from tests.models_on_disk import native_model
from workbench.anatomy import Anatomy, open_anatomy
from workbench.errors import UserError
from workbench.interventions import ablate, add, features, generate, patch, scale, set_to, stream
from workbench.interventions.cached import Cache
from workbench.progress import Progress

Opened = Callable[[str], Anatomy]
N = 5
MLP = "blocks.1.hook_mlp_out"


@torch.no_grad()
def slow_text(anatomy: Anatomy, ids: Tensor, edits: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """Greedy tokens by whole forward passes of the bridge with hooks."""

    def hook_of(edit: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        return lambda value, hook: edit(value)

    text = ids
    with anatomy.model.hooks(fwd_hooks=[(name, hook_of(edit)) for name, edit in edits.items()]):
        for _ in range(N):
            text = torch.cat(
                [text, anatomy.model(text, return_type="logits")[:, -1].argmax(-1, keepdim=True)], 1
            )
    return text[:, ids.shape[1] :]


def prompt_only(value: Tensor) -> Tensor:
    value = value.clone()
    value[:, :6] = 0
    return value


def generated_only(value: Tensor) -> Tensor:
    value = value.clone()
    value[:, 6:] = 0
    return value


@pytest.mark.parametrize("name", [*ARCHITECTURES, "gemma3"])
@pytest.mark.parametrize(
    ("where", "edit"), [("every", torch.zeros_like), ("prompt", prompt_only), ("generated", generated_only)]
)
def test_text_equals_that_of_hooks(
    opened: Opened, name: str, where: str, edit: Callable[[Tensor], Tensor]
) -> None:
    anatomy, ids = opened(name), random_pairs().clean
    found = generate(anatomy, ids, ablate("m1"), n_tokens=N, where=where)
    assert torch.equal(found.tokens[0], slow_text(anatomy, ids, {}))
    assert torch.equal(found.tokens[1], slow_text(anatomy, ids, {MLP: edit}))


def test_somewhere_the_intervention_and_its_reach_matter(opened: Opened) -> None:
    """The comparison above could not fail if nothing changed the text."""
    anatomy, ids = opened("gpt2"), random_pairs(n=8).clean
    texts = [
        generate(anatomy, ids, ablate("m1"), n_tokens=N, where=w).tokens
        for w in ("every", "prompt", "generated")
    ]
    assert not torch.equal(texts[0][0], texts[0][1])
    assert not torch.equal(texts[0][1], texts[1][1])
    assert not torch.equal(texts[0][1], texts[2][1])


@pytest.mark.parametrize("name", [*ARCHITECTURES, "gemma3"])
def test_cache_and_recomputation_give_the_same_logits(opened: Opened, name: str) -> None:
    """Sliding windows of gemma are 8 tokens, so positions 9 to 13 are beyond the first window."""
    anatomy, ids = opened(name), random_pairs(length=13).clean
    wanted = anatomy.logits(anatomy.run(anatomy.embed(ids)))
    cache, x = Cache(anatomy, 13), anatomy.embed(ids)
    parts = [slice(0, 6), *(slice(p, p + 1) for p in range(6, 13))]
    for part in parts:
        found = cache.run(x[:, part], {})
        error = float((found - wanted[:, part.stop - 1]).abs().max())
        assert error <= 2e-5 * max(1.0, float(wanted.abs().max()))


def test_sampling_is_decided_by_the_seed_and_shared_by_the_columns(opened: Opened) -> None:
    anatomy, ids = opened("native"), random_pairs(n=4).clean
    options = {"n_tokens": 8, "temperature": 1.0}
    nothing = {"nothing": scale("m1", 1.0)}
    one, again, other = (generate(anatomy, ids, nothing, seed=seed, **options) for seed in (0, 0, 1))
    assert torch.equal(one.tokens, again.tokens)
    assert not torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.tokens[0], one.tokens[1])
    assert one.same_frac() == {"baseline": 1.0, "nothing": 1.0}
    whole = generate(anatomy, ids, nothing, seed=0, cache=False, **options)
    assert torch.equal(whole.tokens, one.tokens)


def test_samples_follow_the_models_probabilities() -> None:
    anatomy = open_anatomy(native_model(d_vocab=8))
    ids = torch.ones(4000, 3, dtype=torch.long)
    found = generate(anatomy, ids, {}, n_tokens=1, temperature=0.7, seed=3).tokens[0, :, 0]
    probs = (anatomy.last_logits(anatomy.embed(ids[:1]), 0)[0] / 0.7).softmax(-1)
    counts = torch.bincount(found, minlength=8) / len(found)
    assert float((counts - probs).abs().max()) < 4 * 0.5 / len(found) ** 0.5


def test_features_and_directions_reach_generated_positions(opened: Opened) -> None:
    anatomy, ids = opened("native"), random_pairs(n=6).clean
    dictionary = random_features("blocks.1.hook_resid_post")
    columns = {
        "feature": set_to(features(dictionary, 3), 30.0),
        "direction": add(stream(1, direction=torch.ones(32) + torch.arange(32)), 30.0),
    }
    cached, whole = (generate(anatomy, ids, columns, n_tokens=N, cache=c) for c in (True, False))
    assert torch.equal(cached.tokens, whole.tokens)
    assert max(cached.same_frac()[c] for c in columns) < 1
    texts = cached.texts(str)
    assert len(texts["feature"]) == 6


def test_a_patch_reaches_the_prompt_only(opened: Opened) -> None:
    anatomy, batch = opened("gpt2"), random_pairs()
    found = generate(anatomy, batch, {"all": patch("resid_pre.0")}, n_tokens=N, where="prompt")
    assert torch.equal(found.tokens[1], slow_text(anatomy, batch.counterfactual, {}))
    named = generate(anatomy, batch, {"all": patch("resid_pre.0", positions=range(6))}, n_tokens=N)
    assert torch.equal(named.tokens[1], found.tokens[1])
    with pytest.raises(
        UserError, match="'patch m1' takes its values from a prompt, which has none for generated"
    ):
        generate(anatomy, batch, patch("m1"), n_tokens=N)


def test_what_cannot_be_generated_is_refused(opened: Opened) -> None:
    anatomy, ids = opened("native"), random_pairs().clean
    for options, message in (
        (
            {"n_tokens": 59},
            "n_tokens 59 after a prompt of 6 exceeds the model's context of 64 tokens: generate at most 58",
        ),
        ({"n_tokens": 0}, "n_tokens 0 is less than 1"),
        ({"n_tokens": 2, "where": "all"}, "where 'all' is not known"),
        ({"n_tokens": 2, "temperature": -1.0}, "temperature -1 is no temperature"),
    ):
        with pytest.raises(UserError, match=message):
            generate(anatomy, ids, ablate("m1"), **options)
    with pytest.raises(UserError, match="this model looks ahead, so it cannot be continued"):
        generate(open_anatomy(native_model(attention_dir="bidirectional")), ids, ablate("m1"), n_tokens=2)


def test_progress_counts_tokens_and_columns(opened: Opened) -> None:
    progress = Progress(2 * N, "generating", "tokens")
    generate(opened("native"), random_pairs().clean, ablate("m1"), n_tokens=N, progress=progress)
    assert progress.done == 2 * N
