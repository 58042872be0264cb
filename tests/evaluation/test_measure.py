"""Quality measures against dictionaries whose quality is known, and against the equations."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from workbench.dictionaries.topk import TopKDictionary
from workbench.errors import UserError
from workbench.evaluation import Passages, measure_quality
from workbench.evaluation.fidelity import dead_frac, row_sums, spread
from workbench.evaluation.splice import clean_run, spliced_run

HOOK = "blocks.0.hook_resid_post"


def signed_identity(*, hook_name: str = HOOK, d: int = 16, k: int | None = None) -> TopKDictionary:
    """+e_i and -e_i for every coordinate: with k = d it reconstructs exactly."""
    W_dec = torch.cat([torch.eye(d), -torch.eye(d)])
    zeros = {"b_enc": torch.zeros(2 * d), "b_dec": torch.zeros(d)}
    return TopKDictionary(W_enc=W_dec.T, W_dec=W_dec, **zeros, k=k or d, hook_name=hook_name)


@pytest.mark.parametrize("hook", [HOOK, "blocks.1.hook_mlp_out", "blocks.1.attn.hook_z"])
def test_perfect_dictionary_recovers_all_and_silent_one_nothing(model, tokens, hook):
    perfect = signed_identity(hook_name=hook)
    silent = dataclasses.replace(perfect, b_enc=torch.full((32,), -1e4))
    measured = measure_quality(model, {"perfect": perfect, "silent": silent}, tokens)
    assert measured["perfect"].fvu == pytest.approx(0, abs=1e-10)
    assert measured["perfect"].ce_recovered_frac == pytest.approx(1, abs=1e-4)
    assert measured["perfect"].ce_spliced_nats == pytest.approx(measured["perfect"].ce_nats, abs=1e-6)
    assert measured["perfect"].l0 == pytest.approx(16, abs=0.01)
    assert measured["silent"].l0 == 0
    assert measured["silent"].fvu >= 1
    assert measured["silent"].ce_recovered_frac == pytest.approx(0, abs=1e-9)
    assert measured["silent"].n_tokens == 40 * 15


def test_sparser_is_worse(model, tokens):
    measured = measure_quality(model, {str(k): signed_identity(k=k) for k in (2, 6, 12)}, tokens)
    fvu = [measured[k].fvu for k in ("2", "6", "12")]
    assert fvu == sorted(fvu, reverse=True)
    assert measured["2"].l0 == 2


def test_losses_are_the_models_own(model, tokens):
    ids = tokens.long()
    losses, x = clean_run(model, ids, HOOK)
    logits = model(ids, return_type="logits")
    own = functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    assert torch.allclose(losses, own, atol=1e-6)
    everywhere = torch.ones(ids.shape, dtype=torch.bool)
    assert torch.allclose(spliced_run(model, ids, HOOK, x, everywhere), losses, atol=1e-6)


def test_only_chosen_positions_are_replaced(model, tokens):
    ids, seen = tokens[:4].long(), {}
    chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda v, hook: seen.update(v=v.clone()))]):
        spliced_run(model, ids, HOOK, torch.full((4, 16, 16), 7.0), chosen)
    _, clean = clean_run(model, ids, HOOK)
    assert (seen["v"][chosen] == 7).all()
    assert torch.allclose(seen["v"][~chosen], clean[~chosen], atol=1e-6)
    assert not torch.allclose(clean[chosen], seen["v"][chosen])


def test_the_first_position_of_plain_blocks_stays_clean(model, tokens):
    kept = Passages.packed(tokens).kept
    assert kept[:, 1:].all()
    assert not kept[:, 0].any()


def test_fidelity_sums_equal_the_dense_equations():
    dictionary, x = signed_identity(d=4, k=2), torch.randn(15, 4) + 1
    sums = row_sums(dictionary, x)
    keep = x.abs() >= x.abs().topk(2, dim=1).values[..., -1:]
    assert torch.allclose(sums.reconstruction, x * keep)
    assert torch.allclose(sums.squared_error, (x * ~keep).double().square().sum(1))
    assert (sums.n_firings == 2).all()
    assert float(spread(x).sum()) == pytest.approx(float(x.var(0, correction=0).sum() * 15), rel=1e-5)


def test_dead_fraction_counts_latents_that_never_fire():
    dictionary = signed_identity(d=4, k=2)
    positive = torch.tensor([[3.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert dead_frac(dictionary, [positive[:1], positive[1:]]) == pytest.approx(5 / 8)
    assert dead_frac(dictionary, [-positive, positive]) == pytest.approx(2 / 8)


def test_width_and_hook_are_checked(model, tokens):
    with pytest.raises(UserError, match=r"activations of width 16 do not fit .* d_in is 8"):
        measure_quality(model, {"a": signed_identity(d=8)}, tokens)
    with pytest.raises(UserError, match=r"hook 'blocks\.0\.hook_resid_pos' is not a hook point"):
        measure_quality(model, {"a": signed_identity(hook_name="blocks.0.hook_resid_pos")}, tokens)
