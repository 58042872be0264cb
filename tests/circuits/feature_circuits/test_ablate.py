"""Faithfulness: exact ends, the same metric as hooks on the bridge, sets in one batch as each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.circuits.feature_circuits.beds import random_pairs
from workbench.circuits.feature_circuits import (
    FeatureSites,
    NodeRef,
    ablate_sets,
    faithfulness,
    find_circuit,
    make_replacement,
    node_sets,
    paired,
    refs_of,
    unpaired,
)
from workbench.circuits.feature_circuits.node_sets import NodeSets, everything, nothing
from workbench.circuits.feature_circuits.replacement import KINDS
from workbench.errors import UserError


@pytest.fixture(scope="module")
def circuit(models: dict[str, FeatureSites]) -> list[NodeRef]:
    """A circuit of GPT-2, without positions."""
    sites = models["gpt2"]
    found = find_circuit(sites, [paired(sites.anatomy, random_pairs())], node_threshold=0.2, n_checked=0)
    return refs_of(sites, found.graph)


def replaced(sites: FeatureSites, kind: str) -> Any:
    return make_replacement(sites, random_pairs().counterfactual, kind=kind)


def check_ends(sites: FeatureSites, kind: str) -> None:
    """faith(full) = 1, faith(empty) = 0, completeness(full) = 0, exactly."""
    prompts, fill = paired(sites.anatomy, random_pairs()), replaced(sites, kind)
    for ends in (everything(sites), nothing(sites)):
        got = faithfulness([ablate_sets(sites, prompts, fill, ends, start_layer=-1)])
        whole = float(ends.others[0])
        assert float(got.faithfulness_frac[0]) == whole
        assert float(got.completeness_frac[0]) == 1 - whole


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_are_exact(gpt2: FeatureSites, kind: str) -> None:
    """CHECK A1.4, with errors as the sets say."""
    check_ends(gpt2, kind)


def test_the_ends_are_exact_in_every_architecture(sites: FeatureSites) -> None:
    check_ends(sites, "mean")


def test_sets_that_name_everything_one_by_one_are_run_and_agree(gpt2: FeatureSites) -> None:
    """The ends are exact because x' is x, not because they are never computed."""
    every = [NodeRef(i, f) for i in range(len(gpt2)) for f in range(-1, 64)]
    named = node_sets(gpt2, [every, []])
    assert named.all_are(True).tolist() == [False, False]  # unnamed features could exist
    got = ablate_sets(
        gpt2, paired(gpt2.anatomy, random_pairs()), replaced(gpt2, "mean"), named, start_layer=-1
    )
    assert torch.allclose(got.circuit[0], got.model, atol=1e-4)
    assert torch.allclose(got.complement[0], got.empty, atol=1e-4)


def test_keeping_everything_is_the_model(sites: FeatureSites) -> None:
    """Through all the edits, to the last bit of a run without any."""
    prompts = paired(sites.anatomy, random_pairs())
    got = ablate_sets(sites, prompts, replaced(sites, "mean"), everything(sites), start_layer=-1)
    stream = sites.anatomy.run(sites.anatomy.embed(prompts.clean))
    assert torch.allclose(got.model, prompts.metric(stream), atol=2e-5)
    logits = sites.anatomy.model(prompts.clean)[:, -1]
    batch, rows = random_pairs(), torch.arange(4)
    wanted = logits[rows, batch.answer] - logits[rows, batch.counterfactual_answer]
    assert torch.allclose(got.model, wanted, atol=1e-4)


def by_hand(sites: FeatureSites, kept: list[NodeRef], *, errors: bool) -> Tensor:
    """Mean over reference prompts by position, feature by feature, in dense codes, with the bridge's own hooks."""
    model: Any = sites.anatomy.model
    batch = random_pairs()
    hooks = [s.site.hook for s in sites if s.site.layer >= 0]
    _, reference = model.run_with_cache(batch.counterfactual, names_filter=hooks)

    def dense(at: Any, x: Tensor) -> Tensor:
        indices, values = at.dictionary.encode(x.flatten(0, 1))
        codes = torch.zeros(len(indices), at.dictionary.d_sae).scatter_add_(1, indices, values)
        codes = codes.view(*x.shape[:2], -1)
        codes[:, 0] = 0
        return codes

    def edit_of(index: int) -> Any:
        at = sites[index]
        there = reference[at.site.hook]
        means = dense(at, there).mean(0)
        error = (there - dense(at, there) @ at.dictionary.W_dec - at.dictionary.b_dec).mean(0)
        keep = torch.zeros(at.dictionary.d_sae, dtype=torch.bool)
        keep[[ref.feature for ref in kept if ref.site == index and ref.feature >= 0]] = True
        with_error = errors or NodeRef(index) in kept

        def edit(x: Tensor, hook: Any) -> Tensor:
            codes = dense(at, x)
            left = x - codes @ at.dictionary.W_dec - at.dictionary.b_dec
            new = torch.where(keep, codes, means) @ at.dictionary.W_dec + at.dictionary.b_dec
            return new + (left if with_error else error)

        return edit

    edits = [(sites[i].site.hook, edit_of(i)) for i in range(len(sites)) if sites[i].site.layer >= 0]
    logits = model.run_with_hooks(batch.clean, fwd_hooks=edits)[:, -1]
    rows = torch.arange(len(logits))
    return logits[rows, batch.answer] - logits[rows, batch.counterfactual_answer]


@pytest.mark.parametrize("errors", ["default", "keep"])
def test_sparse_ablation_equals_dense_hooks(gpt2: FeatureSites, circuit: list[NodeRef], errors: str) -> None:
    sets = node_sets(gpt2, [circuit, circuit[: len(circuit) // 2]])
    prompts = paired(gpt2.anatomy, random_pairs())
    got = ablate_sets(gpt2, prompts, replaced(gpt2, "position_mean"), sets, errors=errors)
    for row, refs in enumerate((circuit, circuit[: len(circuit) // 2])):
        assert torch.allclose(got.circuit[row], by_hand(gpt2, refs, errors=errors == "keep"), atol=1e-3)
    assert not torch.allclose(got.circuit[0], got.circuit[1], atol=1e-2)


def test_a_complement_is_the_set_of_all_others(gpt2: FeatureSites) -> None:
    """Naming the rest one by one gives the same."""
    some = [NodeRef(i, f) for i in range(len(gpt2)) for f in range(20)] + [NodeRef(2)]
    rest = [NodeRef(i, f) for i in range(len(gpt2)) for f in range(-1, 64) if NodeRef(i, f) not in set(some)]
    prompts = paired(gpt2.anatomy, random_pairs())
    for kind in ("mean", "resample"):
        got = ablate_sets(gpt2, prompts, replaced(gpt2, kind), node_sets(gpt2, [some, rest]), start_layer=-1)
        assert torch.allclose(got.complement[0], got.circuit[1], atol=1e-3)
        assert torch.allclose(got.complement[1], got.circuit[0], atol=1e-3)


def test_sets_do_not_see_each_other(gpt2: FeatureSites, circuit: list[NodeRef]) -> None:
    prompts = paired(gpt2.anatomy, random_pairs())
    lists = [circuit, circuit[5:]]
    together = ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), node_sets(gpt2, lists), max_tokens=56)
    for row, refs in enumerate(lists):
        alone = ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), node_sets(gpt2, [refs]))
        assert torch.allclose(together.circuit[row], alone.circuit[0], atol=1e-4)


def test_positions_of_a_set(gpt2: FeatureSites, circuit: list[NodeRef]) -> None:
    """A node at all positions is the node at each of them."""
    prompts = paired(gpt2.anatomy, random_pairs())
    spread = [ref._replace(pos=pos) for ref in circuit if ref.site < len(gpt2) for pos in range(7)]
    sets = [node_sets(gpt2, [refs], n_pos=7) for refs in (circuit, spread, spread[::2])]
    got = [ablate_sets(gpt2, prompts, replaced(gpt2, "zero"), chosen).circuit for chosen in sets]
    assert torch.allclose(got[0], got[1], atol=1e-4)
    assert not torch.allclose(got[0], got[2], atol=1e-2)


def test_errors_are_kept_or_removed_for_all(gpt2: FeatureSites) -> None:
    prompts = paired(gpt2.anatomy, random_pairs())
    found = {
        e: ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), everything(gpt2), errors=e)
        for e in ("keep", "remove")
    }
    assert torch.equal(found["keep"].circuit[0], found["keep"].model)
    assert not torch.allclose(found["remove"].circuit[0], found["remove"].model, atol=1e-2)
    assert torch.equal(found["remove"].complement[0], found["remove"].empty)


def test_early_layers_are_given_for_free(gpt2: FeatureSites) -> None:
    """From layer 2 on, sets that differ below it are one set."""
    early = [NodeRef(gpt2.index("attn_out0"), f) for f in range(64)]
    prompts = paired(gpt2.anatomy, random_pairs())
    sets = node_sets(gpt2, [early, []]).complement
    late = ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), sets, start_layer=2)
    assert torch.allclose(late.circuit[0], late.circuit[1], atol=1e-5)
    all_of_it = ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), sets)
    assert not torch.allclose(all_of_it.circuit[0], late.circuit[0], atol=1e-2)


def test_unpaired_prompts_are_ablated_too(gpt2: FeatureSites) -> None:
    batch = random_pairs()
    prompts = unpaired(gpt2.anatomy, batch.clean, batch.answer)
    got = faithfulness([ablate_sets(gpt2, prompts, replaced(gpt2, "mean"), everything(gpt2))] * 2)
    assert float(got.faithfulness_frac[0]) == 1


def test_bad_input(gpt2: FeatureSites, circuit: list[NodeRef]) -> None:
    prompts = paired(gpt2.anatomy, random_pairs())
    fill, sets = replaced(gpt2, "mean"), node_sets(gpt2, [circuit])
    with pytest.raises(UserError, match="errors 'all' is not known"):
        ablate_sets(gpt2, prompts, fill, sets, errors="all")
    with pytest.raises(UserError, match="start_layer 7 lies after all sites"):
        ablate_sets(gpt2, prompts, fill, sets, start_layer=7)
    with pytest.raises(UserError, match="kind 'median' is not known"):
        make_replacement(gpt2, prompts.clean, kind="median")
    with pytest.raises(UserError, match="cannot serve 4 of 7"):
        ablate_sets(gpt2, prompts, make_replacement(gpt2, prompts.clean[:, :5]), sets)
    with pytest.raises(UserError, match="cannot serve 4 of 7"):
        ablate_sets(gpt2, prompts, make_replacement(gpt2, prompts.clean[:2], kind="resample"), sets)
    with pytest.raises(UserError, match="a node has position 5 and the prompts 1 positions"):
        node_sets(gpt2, [[NodeRef(0, 3, 5)]])
    same = make_replacement(gpt2, prompts.clean, kind="resample")
    with pytest.raises(UserError, match="the replacements are the clean values"):
        faithfulness([exactly_model(ablate_sets(gpt2, prompts, same, sets))])


def exactly_model(ablated: Any) -> Any:
    """What replacing clean values by themselves gives, without rounding."""
    from dataclasses import replace

    return replace(ablated, empty=ablated.model.clone())


def test_sets_can_be_sliced(gpt2: FeatureSites, circuit: list[NodeRef]) -> None:
    sets = node_sets(gpt2, [circuit, [], circuit[:3]])
    part: NodeSets = sets[1:3]
    assert len(part) == 2
    assert part.all_are(False).tolist() == [True, False]
    assert part.complement.all_are(True).tolist() == [True, False]
