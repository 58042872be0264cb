"""The plain model: the bridge's own tensors, nothing doubled, nothing stale; and where it cannot be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks.conftest import some_ids
from tests.models_on_disk import ARCHITECTURES, architecture_dir, architecture_model
from workbench.errors import UserError
from workbench.hooks import open_forward
from workbench.hooks.plain import PlainModel
from workbench.hooks.tree import original_modules
from workbench.models import load_model

POST = "blocks.1.hook_resid_post"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_is_the_bridges(model_of, architecture: str) -> None:
    model = model_of(architecture)
    inside = {
        id(t)
        for m in original_modules(model).values()
        for t in (*m._parameters.values(), *m._buffers.values())
    }
    plain = PlainModel(model, "eager")
    tensors = [*plain.root.parameters(), *plain.root.buffers()]
    assert {id(t) for t in tensors} <= inside
    assert not any(t.is_meta for t in tensors)
    pointers = {t.data_ptr() for t in model.original_model.parameters()}
    assert {t.data_ptr() for t in plain.root.parameters()} <= pointers


def test_tied_weights_stay_tied(model_of) -> None:
    plain = PlainModel(model_of("gpt2"), "sdpa")
    assert plain.root.lm_head.weight is plain.root.transformer.wte.weight


def test_attention_is_scaled_dot_product(model_of) -> None:
    assert PlainModel(model_of("llama"), "sdpa").root.config._attn_implementation == "sdpa"
    assert model_of("llama").original_model.config._attn_implementation == "eager"


def test_a_change_in_place_is_seen(tmp_path: Path) -> None:
    model = architecture_model(tmp_path, "llama")
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids) as forward:
        before = forward(ids)[POST]
        model.blocks[0].mlp.out.original_component.weight.mul_(2)
        _, cache = model.run_with_cache(ids, names_filter=POST)
        after = forward(ids)[POST]
    assert not torch.allclose(before, after)
    assert torch.allclose(after, cache[POST], rtol=0, atol=1e-5 * float(after.abs().max()))


@pytest.mark.parametrize("kind", ["_parameters", "_buffers"])
def test_replaced_weights_are_refused(tmp_path: Path, kind: str) -> None:
    model = architecture_model(tmp_path, "llama")
    with open_forward(model, [POST], ids=some_ids(model)) as forward:
        tensors = next(getattr(m, kind) for m in original_modules(model).values() if getattr(m, kind))
        name = next(name for name, tensor in tensors.items() if tensor is not None)
        tensors[name] = torch.nn.Parameter(tensors[name].detach().clone(), requires_grad=False)
        with pytest.raises(UserError, match=r"weights were replaced, moved or changed .* after open_forward"):
            forward(some_ids(model))


def test_a_change_of_the_bridges_own_copy_is_refused(tmp_path: Path) -> None:
    """The bridge of GPT-NeoX computes with copies of the fused projection, which the plain model does not have."""
    model = architecture_model(tmp_path, "neox")
    with open_forward(model, [POST], ids=some_ids(model)) as forward:
        model.blocks[0].attn.q.original_component.weight.mul_(1.5)
        with pytest.raises(UserError, match="changed in a copy that only the bridge uses"):
            forward(some_ids(model))
    with open_forward(model, [POST], ids=some_ids(model)) as again:
        assert again.paths == {POST: "bridge"}


def test_processed_weights_go_over_the_bridge(tmp_path: Path) -> None:
    """TransformerLens' folding of norms replaces weights: noticed by an open forward, compared by a new one."""
    model = architecture_model(tmp_path, "llama")
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids) as forward:
        model.enable_compatibility_mode()
        with pytest.raises(UserError, match="weights were replaced"):
            forward(ids)
    with open_forward(model, [POST], ids=ids) as again:
        value = again(ids)[POST]
    assert torch.allclose(value, model.run_with_cache(ids)[1][POST], rtol=0, atol=1e-4)


def test_a_changed_module_has_no_plain_path(tmp_path: Path) -> None:
    class Other(torch.nn.Linear):
        """What an adapter or a quantiser leaves in place of a layer."""

    model: Any = architecture_model(tmp_path, "llama")
    model.blocks[1].mlp.out.original_component.__class__ = Other
    with open_forward(model, [POST], ids=some_ids(model)) as forward:
        assert forward.paths == {POST: "bridge"}
    assert forward.reasons == ("module 'model.layers.1.mlp.down_proj' was changed to a Other",)


def test_device_map(tmp_path: Path) -> None:
    folder = architecture_dir(tmp_path, "llama")
    model, other = load_model(folder, device_map={"": "cpu"}), load_model(folder, device="cpu")
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids) as forward, open_forward(other, [POST], ids=ids) as wanted:
        assert forward.paths == {POST: "plain"}
        assert torch.equal(forward(ids)[POST], wanted(ids)[POST])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_offloaded_weights_go_over_the_bridge(tmp_path: Path) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    parts = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    where = {**dict.fromkeys(parts, "cpu"), "model.layers": "disk"}
    folder = architecture_dir(tmp_path / "model", "llama")
    boot: Any = TransformerBridge.boot_transformers
    model = boot(
        str(folder), device_map=where, offload_folder=str(tmp_path / "off"), dtype=torch.float32
    ).eval()
    whole = load_model(folder, device="cpu")
    ids = some_ids(model)
    with open_forward(model, [POST], ids=ids) as forward, open_forward(whole, [POST], ids=ids) as wanted:
        assert forward.paths == {POST: "bridge"}
        assert "the model is split over several devices" in forward.reasons
        assert torch.allclose(forward(ids)[POST], wanted(ids)[POST], rtol=0, atol=1e-4)
