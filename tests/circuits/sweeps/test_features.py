"""A feature's cell is its activation replaced, the rest of the activation left as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.circuits.sweeps.conftest import random_features, random_pairs
from tests.circuits.sweeps.reference import metric_with, values_of
from workbench.anatomy import Anatomy
from workbench.circuits.sweeps import Swept, attribute_sweep, integrate_sweep, patch_sweep
from workbench.dictionaries import Dictionary, Site
from workbench.errors import UserError

Opened = Callable[[str], Anatomy]


@pytest.mark.parametrize(
    "hook", ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"]
)
@pytest.mark.parametrize("name", ["gemma2", "neox"])
def test_a_feature_is_its_decoder_row_times_its_change(opened: Opened, name: str, hook: str) -> None:
    anatomy, batch, dictionary = opened(name), random_pairs(), random_features(hook)
    sweep = patch_sweep(anatomy, batch, Swept("feature", dictionary=dictionary))
    assert sweep.axes == ("feature",)
    sides = [values_of(anatomy, ids, [hook])[hook] for ids in (batch.clean, batch.counterfactual)]
    dense = []
    for x in sides:
        indices, values = dictionary.encode(x.flatten(0, 1))
        flat = torch.zeros(len(values), dictionary.d_sae).scatter_add_(1, indices, values)
        dense.append(flat.unflatten(0, x.shape[:2]))
        dense[-1][:, 0] = 0  # the first token belongs to the error
    assert list(sweep.labels[0]) == (dense[0] + dense[1]).sum((0, 1)).nonzero().flatten().tolist()
    clean = metric_with(anatomy, batch.clean, batch, {})
    for row, feature in enumerate(sweep.labels[0]):
        change = (dense[1] - dense[0])[..., feature, None] * dictionary.W_dec[feature]
        wanted = clean - metric_with(anatomy, batch.clean, batch, {hook: lambda x, c=change: x + c})
        assert torch.allclose(sweep.effects[row], wanted, atol=1e-5 * max(1.0, float(clean.abs().max())))
    assert float(sweep.effects.abs().max()) > 1e-2


def dense_codes(dictionary: Dictionary, x: torch.Tensor) -> torch.Tensor:
    """Activations of all features, none at the first position."""
    indices, values = dictionary.encode(x.flatten(0, 1))
    found = (
        torch.zeros(len(values), dictionary.d_sae).scatter_add_(1, indices, values).unflatten(0, x.shape[:2])
    )
    found[:, 0] = 0
    return found


@pytest.mark.parametrize("read", ["mlp.hook_in", "ln2.hook_normalized"])
@pytest.mark.parametrize("name", ["gemma2", "neox", "native"])
def test_a_transcoders_feature_reads_the_mlps_input_and_writes_its_output(
    opened: Opened, name: str, read: str
) -> None:
    anatomy, batch = opened(name), random_pairs()
    read, write = f"blocks.1.{read}", "blocks.1.hook_mlp_out"
    dictionary = random_features(read, out=write)
    sweep = patch_sweep(anatomy, batch, Swept("feature", dictionary=dictionary))
    old, new = (
        dense_codes(dictionary, values_of(anatomy, i, [read])[read])
        for i in (batch.clean, batch.counterfactual)
    )
    clean = metric_with(anatomy, batch.clean, batch, {})
    assert list(sweep.labels[0]) == (old + new).sum((0, 1)).nonzero().flatten().tolist()
    for row, feature in enumerate(sweep.labels[0]):
        change = (new - old)[..., feature, None] * dictionary.W_dec[feature]
        wanted = clean - metric_with(anatomy, batch.clean, batch, {write: lambda x, c=change: x + c})
        assert torch.allclose(sweep.effects[row], wanted, atol=1e-5 * max(1.0, float(clean.abs().max())))


def test_estimates_of_features_agree_with_the_exact_effects_in_sum(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    swept = Swept("feature", dictionary=random_features("blocks.1.hook_resid_pre"), positions="each")
    exact, guess = (f(anatomy, batch, swept) for f in (patch_sweep, attribute_sweep))
    along = integrate_sweep(anatomy, batch, swept, n_points=8)
    assert exact.labels == guess.labels == along.labels
    assert exact.axes == ("feature", "pos")
    seen = torch.stack([exact.effects.flatten(), guess.effects.flatten()])
    assert float(torch.corrcoef(seen)[0, 1]) > 0.8
    assert along.completeness_gap_logits < 0.02 * float(along.effects.sum((0, 1)).abs().mean())


def test_chosen_features_are_swept_even_where_they_are_silent(opened: Opened) -> None:
    dictionary = random_features("blocks.1.hook_resid_pre")
    sweep = patch_sweep(
        opened("native"), random_pairs(), Swept("feature", units=(0, 3), dictionary=dictionary)
    )
    assert sweep.labels == ((0, 3),)


def test_dictionaries_that_do_not_fit_are_refused(opened: Opened) -> None:
    anatomy, batch = opened("native"), random_pairs()
    good = random_features("blocks.1.hook_resid_pre")

    def sweep(**changed: object) -> None:
        patch_sweep(anatomy, batch, Swept("feature", dictionary=replace(good, **changed)))

    with pytest.raises(UserError, match="was trained on a model with weights abc, and this one has"):
        sweep(metadata={"model_hash": "abc"})
    with pytest.raises(
        UserError, match=r"writes to 'blocks.1.hook_mlp_out' but does not read that MLP's input"
    ):
        sweep(hook_name="blocks.0.hook_resid_pre", hook_name_out="blocks.1.hook_mlp_out", centred=False)
    with pytest.raises(UserError, match="has several sites"):
        sweep(sites=(Site("a", 16), Site("b", 16)))
    with pytest.raises(UserError, match="does not add to the residual stream"):
        sweep(hook_name="blocks.1.attn.hook_z")
    with pytest.raises(UserError, match="do not fit the dictionary of"):
        patch_sweep(anatomy, batch, Swept("feature", dictionary=random_features(good.hook_name, d_model=16)))
    with pytest.raises(UserError, match="no dictionary was given"):
        patch_sweep(anatomy, batch, Swept("feature"))
    with pytest.raises(UserError, match="units 48 is out of range: there are 48, from 0 to 47"):
        patch_sweep(anatomy, batch, Swept("feature", units=(48,), dictionary=good))
