"""The recipe finds the known circuits, is judged on pairs it has not seen, and says so where it does not reach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.circuits.validation.beds import EXACT, bed, judge, true_edges, wiring
from workbench.circuits.validation.find import Goal, candidates, choose, find_circuit
from workbench.circuits.validation.judge import open_judge
from workbench.circuits.validation.pairs import two_halves
from workbench.circuits.validation.protocol import RESAMPLE
from workbench.circuits.validation.ranking import Ranking
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap_ig import eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.two_stage import two_stage
from workbench.errors import UserError

OPTIONS = {"n_resamples": 200}
LEAK = 0.02


@pytest.mark.parametrize("name", EXACT)
def test_the_known_circuit_is_found_in_noise(name: str) -> None:
    found = find_circuit(
        wiring(name, LEAK), [bed(name, LEAK).batch(48, 3)], two_stage,
        name=name, goal=Goal(edges_frac=0.1, faithfulness_frac=0.97), n_random=20, **OPTIONS,
    )  # fmt: skip
    assert set(found.nodes) == bed(name).nodes
    assert torch.equal(found.mask, true_edges(name, LEAK))
    assert found.reached
    assert found.minimality.all_positive
    assert found.random.beats_control
    row = found.row()
    assert row["faithfulness_frac"] > 0.9 > 0.1 > row["completeness_frac"]
    assert row["n_edges"] == int(found.mask.sum())


def noise(wiring: Wiring, _batches) -> EdgeScores:
    """Scores that know nothing."""
    drawn = torch.rand(wiring.allowed.shape, generator=torch.Generator().manual_seed(0))
    return EdgeScores(wiring, drawn, "noise")


def test_noise_finds_nothing_and_says_so() -> None:
    found = find_circuit(
        wiring("chain", 0.05), [bed("chain", 0.05).batch(32, 3)], noise, n_random=20, **OPTIONS
    )
    assert not found.reached
    assert found.judged.faithfulness_frac.value < 0.5
    assert not found.random.beats_control


def test_the_circuit_is_judged_on_pairs_it_was_not_chosen_on() -> None:
    """Every clean prompt is in one half only; the scorer and the choice see the first."""
    seen = []

    def score(model: Wiring, batches) -> EdgeScores:
        seen.extend(row for batch in batches for row in batch.clean.tolist())
        return eap_ig_inputs(model, batches)

    batch = bed("two_hop", 0.05).batch(30, 3)
    found = find_circuit(wiring("two_hop", 0.05), [batch], score, n_random=5, **OPTIONS)
    first, second = two_halves([batch], seed=0)
    assert seen == first[0].clean.tolist() != second[0].clean.tolist()
    for half, reported in ((first, found.chosen), (second, found.judged)):
        metrics = open_judge(wiring("two_hop", 0.05), RESAMPLE, half).metrics(found.mask[None])
        assert reported.circuit_logits.value == pytest.approx(float(metrics.mean()))
        assert reported.n_prompts == 15
    assert found.chosen.circuit_logits != found.judged.circuit_logits


def test_the_smallest_circuit_within_the_goal_is_chosen() -> None:
    model, one = wiring("chain", 0.05), judge("chain", leak=0.05)
    scores = true_edges("chain", 0.05).double() + 1e-3 * torch.rand(
        model.allowed.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    ranking = Ranking(model, scores)
    chosen = choose(one, ranking, Goal(), n_resamples=200, seed=0)
    assert torch.equal(chosen.mask, true_edges("chain", 0.05))
    circuits = candidates(one, ranking, Goal())
    sizes = [int(c.sum()) for c in circuits]
    assert sizes == sorted(set(sizes))
    assert max(sizes) <= 0.05 * model.n_edges
    assert torch.equal(circuits[0], true_edges("chain", 0.05))


def test_what_lacks() -> None:
    goal = Goal()
    assert goal.lacks(0.95, 0.05) == 0
    assert goal.lacks(0.7, 0.05) == pytest.approx(0.2)
    assert goal.lacks(0.7, 0.4) == pytest.approx(0.5)
    assert goal.lacks(float("nan"), 0.0) == np.inf


def test_a_task_that_is_not_done_is_refused() -> None:
    batch = bed("chain").batch(20, 0)
    wrong = replace(batch, answer=batch.counterfactual_answer, counterfactual_answer=batch.answer)
    with pytest.raises(UserError, match="the model does not do 'swapped'"):
        find_circuit(wiring("chain"), [wrong], eap_ig_inputs, name="swapped")
    found = find_circuit(wiring("chain"), [wrong], eap_ig_inputs, allow_unsolved=True, n_random=5, **OPTIONS)
    assert not found.solved.solved
    assert not found.reached


def test_the_same_seed_finds_the_same() -> None:
    pairs = [bed("xor_and", 0.05).batch(32, 3)]
    rows = [
        find_circuit(wiring("xor_and", 0.05), pairs, eap_ig_inputs, n_random=5, seed=s, **OPTIONS).row()
        for s in (0, 0, 1)
    ]
    assert rows[0] == rows[1] != rows[2]
    assert open_judge(wiring("xor_and", 0.05), RESAMPLE, pairs).n_prompts == 32
