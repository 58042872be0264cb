"""Every architecture: which path each hook goes, and that its value is TransformerLens' and Hugging Face's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.hooks.conftest import core_hooks, some_ids
from tests.models_on_disk import ARCHITECTURES
from workbench.errors import UserError
from workbench.hooks import open_forward

FUSED = ("gpt2", "neox")  # one projection for q, k and v
QKV = [f"blocks.1.attn.hook_{name}" for name in "qkv"]


def close_enough(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Same shape, every element within 1e-5 of the largest."""
    return got.shape == wanted.shape and bool((got - wanted).abs().max() <= 1e-5 * wanted.abs().max())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "native"])
def test_core_hooks_equal_run_with_cache(model_of, architecture: str) -> None:
    model = model_of(architecture)
    names, ids = core_hooks(model), some_ids(model, 3, 24)
    with open_forward(model, names, ids=some_ids(model)) as forward:
        values = forward(ids)
        assert set(forward.paths.values()) == {"bridge" if architecture == "native" else "plain"}
    _, cache = model.run_with_cache(ids, names_filter=names)
    assert list(values) == names
    assert [name for name in names if not close_enough(values[name], cache[name])] == []
    assert values["blocks.2.attn.hook_z"].ndim == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_residual_stream_is_hugging_faces(model_of, folder_of, architecture: str) -> None:
    import transformers

    model: Any = model_of(architecture)
    ids = some_ids(model)
    kind = getattr(transformers, type(model.original_model).__name__)
    plain = kind.from_pretrained(folder_of(architecture), attn_implementation="eager").eval()
    with torch.no_grad():
        states = plain(ids, output_hidden_states=True).hidden_states
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
    with open_forward(model, names, ids=ids) as forward:
        values = forward(ids)
    assert [
        name for name, state in zip(names, states, strict=False) if not close_enough(values[name], state)
    ] == []


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "native"])
def test_split_projections_go_the_plain_way_where_they_are_modules(model_of, architecture: str) -> None:
    model = model_of(architecture)
    with open_forward(model, QKV, ids=some_ids(model)) as forward:
        on_bridge = architecture in (*FUSED, "native")
        assert set(forward.paths.values()) == {"bridge" if on_bridge else "plain"}
        shapes = [value.shape for value in forward(some_ids(model)).values()]
    heads = 2 if architecture in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3") else 4
    assert [shape[2] for shape in shapes] == [4, heads, heads]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "native"])
def test_one_bridge_hook_takes_all_along(model_of, architecture: str) -> None:
    model, ids = model_of(architecture), some_ids(model_of(architecture), 2, 9)
    names = ["blocks.1.hook_resid_post", "blocks.1.attn.hook_pattern", "blocks.1.ln1.hook_scale"]
    with open_forward(model, names, ids=ids) as forward:
        values = forward(ids)
        assert forward.paths == dict.fromkeys(names, "bridge")
        assert forward.reasons
    _, cache = model.run_with_cache(ids, names_filter=names)
    assert all(torch.equal(values[name], cache[name]) for name in names)
    assert values["blocks.1.attn.hook_pattern"].shape == (2, 4, 9, 9)


@pytest.mark.parametrize("architecture", ["bert", "native"])
def test_patterns_under_the_name_of_scores_are_refused(model_of, architecture: str) -> None:
    model = model_of(architecture)
    with pytest.raises(
        UserError, match=r"hook_attn_scores' holds the pattern after the softmax .*hook_pattern'"
    ):
        open_forward(model, ["blocks.1.attn.hook_attn_scores"], ids=some_ids(model))


def test_real_scores_are_served(model_of) -> None:
    model, name = model_of("llama"), "blocks.1.attn.hook_attn_scores"
    with open_forward(model, [name], ids=some_ids(model)) as forward:
        scores = forward(some_ids(model))[name]
    assert (scores < 0).any()


def test_what_transformer_lens_calls_attn_out_on_bert(model_of) -> None:
    """Its attention part is Hugging Face's, norm included: `hook_attn_out` is the norm's output, and
    `hook_resid_mid` is the sum before the second norm, MLP included."""
    model = model_of("bert")
    names = [f"blocks.1.{n}" for n in "hook_attn_out ln1.hook_out hook_resid_mid hook_mlp_out".split()]
    with open_forward(model, names, ids=some_ids(model)) as forward:
        attn_out, norm, mid, mlp_out = forward(some_ids(model)).values()
    assert torch.equal(attn_out, norm)
    assert close_enough(mid, norm + mlp_out)


def test_a_soft_cap_on_the_scores_is_kept(model_of) -> None:
    """Scaled-dot-product attention has no soft cap; the plain path must not lose it."""
    model, name = model_of("gemma2"), "blocks.0.attn.hook_z"
    ids = some_ids(model)
    with open_forward(model, [name], ids=ids) as forward:
        capped = forward(ids)[name]
        for part in forward._path.plain.root.model.layers:  # pyright: ignore[reportAttributeAccessIssue]
            part.self_attn.attn_logit_softcapping = None
        assert not close_enough(forward(ids)[name], capped)
