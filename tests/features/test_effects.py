"""Direct logit effects against interventions on a running model; neighbours against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.models_on_disk import tiny_model_dir
from workbench.errors import UserError
from workbench.features.effects import (
    decoder_neighbours,
    final_norm,
    logit_effects,
    residual_directions,
    top_effects,
)
from workbench.models import load_model

STEP = 0.5
pytestmark = pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")  # which is what we want


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    """Two layers with a gain of the final norm far from 1, and an unembedding with a mean far from 0."""
    made = load_model(str(tiny_model_dir(tmp_path_factory.mktemp("effects") / "model")))
    norm = dict(made.ln_final.named_parameters())["_original_component.weight"]
    norm.copy_(torch.linspace(-1, 2, len(norm)))
    made.original_model.lm_head.weight.add_(torch.linspace(0, 0.1, len(norm)))
    return made


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(1, 4096, (3, 10), generator=torch.Generator().manual_seed(0))


def frozen_logits(model, ids: Tensor, hook: str, added: Tensor, scale: Tensor) -> Tensor:
    """Logits with a vector added at `hook` and the final norm's scale held at `scale`."""
    hooks = [(hook, lambda value, hook: value + added), ("ln_final.hook_scale", lambda value, hook: scale)]
    with torch.no_grad():
        return model.run_with_hooks(ids, fwd_hooks=hooks)


def measured(model, ids: Tensor, hook: str, direction: Tensor) -> Tensor:
    """Change of the logits beyond their mean per unit of `direction`, averaged over positions after the first."""
    _, cache = model.run_with_cache(ids, names_filter=["ln_final.hook_scale"])
    scale = cache["ln_final.hook_scale"]
    after = frozen_logits(model, ids, hook, STEP * direction, scale)
    change = (after - frozen_logits(model, ids, hook, 0 * direction, scale)) / STEP
    return (change - change.mean(-1, keepdim=True))[:, 1:].mean((0, 1))


def test_effects_are_what_an_intervention_does(model, ids: Tensor) -> None:
    directions = torch.nn.functional.normalize(torch.randn(4, 32) + 0.5, dim=1)
    predicted = logit_effects(directions, model.W_U, final_norm(model, ids))
    for direction, effect in zip(directions, predicted, strict=True):
        done = measured(model, ids, "blocks.1.hook_resid_post", direction)
        # float32 differences of logits of size 10 over a step of 0.5
        torch.testing.assert_close(effect, done, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("change", ["uncentred", "no gain", "no scale", "not demeaned"])
def test_a_wrong_formula_is_seen(model, ids: Tensor, change: str) -> None:
    norm, direction = final_norm(model, ids), torch.nn.functional.normalize(torch.randn(32) + 0.5, dim=0)
    assert norm.centred
    options = {"uncentred": {"centred": False}, "no gain": {"gain": torch.ones(32)}}
    options |= {"no scale": {"mean_inverse_scale": 1.0}, "not demeaned": {}}
    broken = type(norm)(**{**vars(norm), **options[change]})
    effect = logit_effects(direction[None], model.W_U, broken)[0]
    if change == "not demeaned":
        effect = broken(direction[None])[0] @ model.W_U
    done = measured(model, ids, "blocks.1.hook_resid_post", direction)
    assert (effect - done).abs().max() > 0.01 * done.abs().max()


def test_gain_is_the_modules_weight(model, ids: Tensor) -> None:
    weight = dict(model.ln_final.named_parameters())["_original_component.weight"]
    torch.testing.assert_close(final_norm(model, ids).gain, weight.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "centred"), [("LN", True), ("RMS", False), (None, False)])
def test_norms_of_other_models(kind: str | None, centred: bool) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    shape = {
        "n_layers": 1,
        "d_model": 16,
        "n_heads": 2,
        "d_head": 8,
        "n_ctx": 12,
        "d_vocab": 11,
        "act_fn": "gelu",
    }
    native = TransformerBridge.boot_native({**shape, "normalization_type": kind, "seed": 0}).eval()
    native.requires_grad_(False)
    if kind:
        dict(native.ln_final.named_parameters())["_original_component.weight"].uniform_(-1, 2)
    ids, direction = torch.randint(0, 11, (2, 12)), torch.nn.functional.normalize(torch.randn(16) + 1, dim=0)
    norm = final_norm(native, ids)
    assert norm.centred == centred
    effect = logit_effects(direction[None], native.W_U, norm)[0]
    if kind:
        done = measured(native, ids, "blocks.0.hook_resid_post", direction)
    else:
        with torch.no_grad():
            added = native.run_with_hooks(
                ids, fwd_hooks=[("blocks.0.hook_resid_post", lambda v, hook: v + direction)]
            )
            change = (added - native(ids))[0, 0]
            done = change - change.mean()
    torch.testing.assert_close(effect, done, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("hook", "written"),
    [("blocks.0.attn.hook_z", "blocks.0.hook_attn_out"), ("blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out")],
)
def test_inner_hooks_write_through_their_output_matrix(model, ids: Tensor, hook: str, written: str) -> None:
    _, cache = model.run_with_cache(ids, names_filter=[hook, written])
    width = cache[hook].flatten(2).shape[-1]
    direction = torch.randn(1, width)
    added = direction.reshape(cache[hook].shape[2:])
    seen = {}
    hooks = [(hook, lambda value, hook: value + added), (written, lambda value, hook: seen.update(out=value))]
    with torch.no_grad():
        model.run_with_hooks(ids, fwd_hooks=hooks)
    expected = (seen["out"] - cache[written])[0, 3]
    torch.testing.assert_close(residual_directions(model, hook, direction)[0], expected, atol=1e-5, rtol=1e-4)


def test_a_hook_that_writes_nothing_linear_is_refused(model) -> None:
    with pytest.raises(UserError, match=r"hook 'blocks.0.attn.hook_q' .* logit_effects=False"):
        residual_directions(model, "blocks.0.attn.hook_q", torch.zeros(1, 32))


def test_top_effects_are_the_extremes(model, ids: Tensor) -> None:
    directions, norm = torch.randn(5, 32), final_norm(model, ids)
    effects, top = logit_effects(directions, model.W_U, norm), top_effects(directions, model.W_U, norm, n=3)
    order = effects.sort(dim=1, descending=True)
    assert top.up_token.tolist() == order.indices[:, :3].tolist()
    assert top.down_token.tolist() == order.indices[:, -3:].flip(1).tolist()
    torch.testing.assert_close(top.down_logits, order.values[:, -3:].flip(1))


@pytest.mark.parametrize("chunk", [4, 1024])
def test_neighbours(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("workbench.features.effects.CHUNK_FEATURES", chunk)
    W = torch.randn(11, 5)
    neighbour, cosine = decoder_neighbours(W, n=10)
    exact = torch.nn.functional.cosine_similarity(W.double()[:, None], W.double()[None], dim=-1)
    for f in range(11):
        assert sorted(neighbour[f].tolist()) == [g for g in range(11) if g != f]
        torch.testing.assert_close(cosine[f].double(), exact[f, neighbour[f]], atol=1e-6, rtol=0)
        assert (cosine[f].diff() <= 0).all()
    assert decoder_neighbours(W[:3], n=10)[0].shape == (3, 2)
