"""Trained beds: the committed weights do what their record says, and the program's edges stand above all others."""

from __future__ import annotations

import pytest
import torch

from tests.testbeds.edge_patching import auroc, edge_effects
from workbench.errors import UserError
from workbench.testbeds import TESTBEDS, make_testbed, siit
from workbench.testbeds.plain import plain
from workbench.testbeds.siit import train as training
from workbench.testbeds.siit.high_level import PROGRAMS
from workbench.testbeds.siit.train import DISTURBANCE_FRAC, TARGET_FRAC, measure, other_nodes, train
from workbench.testbeds.truth import edges_of, nodes_of

NAMES = [name.partition(".")[2] for name in TESTBEDS if name.startswith("siit.")]


@pytest.mark.parametrize("name", NAMES)
def test_accuracies_hold_on_fresh_prompts(name: str) -> None:
    bed, recorded = make_testbed(f"siit.{name}"), siit.accuracies(name)
    found = measure(PROGRAMS[name], plain(bed.model), seed=77)
    for accuracy in (found, recorded):
        assert min(accuracy.behaviour_frac, accuracy.iit_frac, accuracy.strict_frac) >= TARGET_FRAC
        assert accuracy.disturbance_frac <= 1.1 * DISTURBANCE_FRAC
    assert bed.accuracy_frac() >= TARGET_FRAC


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_answered_as_the_program_does(name: str) -> None:
    bed, program = make_testbed(f"siit.{name}"), PROGRAMS[name]
    inputs = program.inputs()
    found = bed.model(program.prompts(inputs), return_type="logits")[:, -1].argmax(-1)
    assert float((found == program.answer(inputs)).float().mean()) >= TARGET_FRAC


def test_a_node_that_matters_is_seen() -> None:
    """With a variable's node taken for one without effect, and the reverse, the measures fall."""
    bed, program = make_testbed("siit.two_hop"), PROGRAMS["two_hop"]
    swapped = {**program.nodes, "y": "a1.h0"}
    wrong = type(program)(**{**vars(program), "nodes": swapped})
    assert "a1.h3" in other_nodes(wrong)
    found = measure(wrong, plain(bed.model), seed=1)
    assert found.behaviour_frac >= TARGET_FRAC
    assert found.iit_frac < 0.6
    assert found.strict_frac < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_true_edges_are_the_programs_and_stand_above_the_others(name: str) -> None:
    bed, program = make_testbed(f"siit.{name}"), PROGRAMS[name]
    assert bed.edges is not None
    assert {(u, v.rsplit(".", 1)[0] if v.count(".") == 2 else v) for u, v in bed.edges} == set(program.edges)
    assert bed.nodes == nodes_of(bed.edges) == {u for u, _ in program.edges}
    assert len(bed.edges) < 0.1 * len(edges_of(bed.model))
    effects = edge_effects(bed.model, bed.batch(64, 1), edges_of(bed.model))
    scores = [float(e.abs().mean()) for e in effects.values()]
    assert auroc(scores, [edge in bed.edges for edge in effects]) >= 0.95


def test_the_split_over_query_key_and_value_is_the_measured_one() -> None:
    bed, record = make_testbed("siit.choice"), siit.load("choice")[1]
    again = siit.split_edges(PROGRAMS["choice"], plain(bed.model), seed=record["seed"] + 10**6)
    assert {(u, v) for u, v, _ in again} == bed.edges
    wanted = {(u, v): size for u, v, size in record["edges"]}
    assert all(size == pytest.approx(wanted[u, v], rel=1e-3) for u, v, size in again)


def test_training_is_reproducible_and_refuses_when_it_does_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"4 steps reached .* give another seed or more steps"):
        train(PROGRAMS["clamp"], seed=0, n_steps=4)
    monkeypatch.setattr(training, "TARGET_FRAC", 0.0)
    monkeypatch.setattr(training, "DISTURBANCE_FRAC", 10.0)
    monkeypatch.setattr(training, "CHECK_EVERY", 4)
    first, again, other = (train(PROGRAMS["clamp"], seed=s, n_steps=4)[0].weights for s in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_interventions_on_a_program() -> None:
    """y given as 2: the answer is the table's entry 2, whatever the pointer says."""
    program = PROGRAMS["two_hop"]
    inputs = torch.tensor([[3, 1, 0, 3, 2]])
    assert program.answer(inputs).item() == 3
    assert program.answer(inputs, {"y": torch.tensor([0])}).item() == 1
    assert program.answer(inputs, {"x": torch.tensor([1])}).item() == 1
    assert program.answer(inputs, {"out": torch.tensor([0])}).item() == 0
