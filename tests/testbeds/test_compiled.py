"""Hand-compiled beds: they solve their tasks, and their edges are all that carries the difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.testbeds.edge_patching import auroc, edge_effects
from workbench.errors import UserError
from workbench.testbeds import TESTBEDS, TestBed, make_testbed
from workbench.testbeds.plain import plain
from workbench.testbeds.truth import all_edges, edges_of, nodes_of

NAMES = [name for name in TESTBEDS if name.startswith("compiled.")]


def wrong_edges(bed: TestBed) -> set[tuple[str, str]]:
    """Edges whose effects contradict the truth, on pairs of every kind."""
    assert bed.edges is not None
    effects = edge_effects(bed.model, bed.batch(16, 1), edges_of(bed.model))
    carries = {edge for edge, effect in effects.items() if float(effect.abs().max()) > 1e-9}
    return carries ^ bed.edges


@pytest.mark.parametrize("name", NAMES)
def test_without_leaks_exactly_the_true_edges_have_an_effect(name: str) -> None:
    bed = make_testbed(name, leak=0.0)
    assert wrong_edges(bed) == set()
    assert bed.edges is not None
    assert bed.nodes == nodes_of(bed.edges)
    assert 2 <= len(bed.edges) < 0.1 * len(edges_of(bed.model))


def test_a_wrong_truth_is_found() -> None:
    """The check above sees an edge too few and an edge too many."""
    bed = make_testbed("compiled.induction", leak=0.0)
    assert bed.edges is not None
    missing, extra = ("a0.h1", "a1.h2.k"), ("a0.h1", "a1.h2.q")
    assert wrong_edges(replace(bed, edges=bed.edges - {missing})) == {missing}
    assert wrong_edges(replace(bed, edges=bed.edges | {extra})) == {extra}


def test_a_broken_weight_is_found() -> None:
    """Without its key the induction head finds nothing: accuracy and truth both see it."""
    bed = make_testbed("compiled.induction", leak=0.0)
    weight = bed.model.original_model.get_parameter(
        "layers.1._original_component.attn._original_component.k._original_component.weight"
    )
    weight.zero_()
    assert bed.accuracy_frac() < 0.6
    assert ("a0.h1", "a1.h2.k") in wrong_edges(bed)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_prompt_is_answered(name: str, seed: int) -> None:
    bed = make_testbed(name, seed=seed)
    assert bed.accuracy_frac(n_pairs=128, seed=seed) == 1.0


@pytest.mark.parametrize("name", ["compiled.ioi", "compiled.suppression"])
def test_leaks_leave_the_truth_on_top(name: str) -> None:
    bed = make_testbed(name, sharpness=50.0, seed=2)
    assert bed.edges is not None
    effects = edge_effects(bed.model, bed.batch(16, 1), edges_of(bed.model))
    scores = [abs(float(e.mean())) for e in effects.values()]
    assert sum(score > 1e-6 for score in scores) > 0.8 * len(scores)
    assert auroc(scores, [edge in bed.edges for edge in effects]) >= 0.99


def test_same_seed_same_model_and_prompts() -> None:
    first, again, other = (make_testbed("compiled.two_hop", seed=seed) for seed in (4, 4, 5))
    for a, b, c in zip(*(bed.model.parameters() for bed in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert torch.equal(first.batch(9, 1).clean, again.batch(9, 1).clean)
    assert not torch.equal(first.batch(9, 1).clean, first.batch(9, 2).clean)


def test_distractors_are_active() -> None:
    """Heads outside the circuit write about as much as those in it: activity does not give the truth away."""
    bed = make_testbed("compiled.two_hop", leak=0.0)
    _, written = plain(bed.model).run(bed.batch(16, 0).clean)
    sizes = {name: float(part.norm(dim=-1).mean()) for name, part in written.items() if name[0] in "am"}
    assert sizes["a0.h1"] == pytest.approx(1.0, abs=0.05)
    assert min(sizes.values()) > 0.5


def test_all_edges_counts_writers_before_readers() -> None:
    edges = all_edges(n_layers=12, n_heads=12)
    assert len(edges) == len(set(edges)) == 32491
    assert ("m11", "logit") in edges
    assert ("a1.h0", "a1.h1.q") not in edges
    assert ("a1.h0", "m1") in edges


def test_bad_options_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"test bed 'compiled\.inductoin' is not known; the nearest: compiled"
    ):
        make_testbed("compiled.inductoin")
    with pytest.raises(UserError, match="has no option 'sharpnes'; the nearest: sharpness"):
        make_testbed("compiled.induction", sharpnes=3.0)
    with pytest.raises(UserError, match=r"sharpness 0\.0 is not above 0"):
        make_testbed("compiled.induction", sharpness=0.0)
    with pytest.raises(UserError, match=r"leak -1\.0 is not a size of noise"):
        make_testbed("compiled.induction", leak=-1.0)
    with pytest.raises(UserError, match="n_pairs 0 is less than 1"):
        make_testbed("compiled.induction").batch(0, 0)
