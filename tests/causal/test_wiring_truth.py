"""Scores of edges against models whose circuits are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from workbench.anatomy import open_anatomy
from workbench.circuits.scoring import auroc
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap import eap
from workbench.circuits.wiring.eap_ig import eap_ig_activations, eap_ig_inputs
from workbench.circuits.wiring.edge_scores import EdgeScores
from workbench.circuits.wiring.exact import exact_edges
from workbench.circuits.wiring.two_stage import two_stage
from workbench.tasks import Batch
from workbench.testbeds.truth import FAMILIES, make_testbed

Scorer = Callable[[Wiring, Batch], EdgeScores]
COMPILED, TRACR, SIIT = (
    [f"{family}.{bed}" for bed in FAMILIES[family]] for family in ("compiled", "tracr", "siit")
)
SATURATED = ("compiled.induction", "compiled.pointer", "compiled.ioi", "compiled.greater_than")


@cache
def opened(name: str, **options: float) -> tuple[Wiring, Batch, frozenset[tuple[str, str]]]:
    """A bed's wiring, some pairs and its true edges."""
    bed = make_testbed(name, **options)
    assert bed.edges
    wiring = Wiring(open_anatomy(bed.model))
    assert bed.edges < set(wiring.edges)
    return wiring, bed.batch(24, 0), bed.edges


@cache
def area(name: str, score: Scorer, **options: float) -> float:
    """AUROC of the size of the scores."""
    wiring, pairs, edges = opened(name, **options)
    found = score(wiring, pairs).of_edges().abs().double().numpy()
    return auroc(found, np.array([edge in edges for edge in wiring.edges]))


@pytest.mark.parametrize("name", [*COMPILED, *TRACR, *(f"wired.{bed}" for bed in FAMILIES["wired"])])
def test_exact_patching_finds_every_circuit(name: str) -> None:
    assert area(name, exact_edges) >= 0.99


def test_exact_patching_without_its_edges_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails when effects go to the wrong edges."""
    wiring, pairs, _ = opened("compiled.induction")
    turned = exact_edges(wiring, pairs)
    turned.scores[:] = turned.scores.roll(1, 0).masked_fill(~wiring.allowed, float("nan")).nan_to_num(0.0)
    assert area("compiled.induction", lambda *_: turned) < 0.9


def test_integrated_gradients_find_compiled_circuits() -> None:
    for score in (eap_ig_inputs, eap_ig_activations):
        assert np.mean([area(name, score) for name in COMPILED]) >= 0.95


def test_integrated_gradients_on_all_compiled_programs() -> None:
    """Along each writer's own path they reach the goal; along the inputs' path Tracr's steps hide some edges."""
    own = {name: area(name, eap_ig_activations) for name in (*COMPILED, *TRACR)}
    inputs = {name: area(name, eap_ig_inputs) for name in TRACR}
    assert np.mean(list(own.values())) >= 0.95
    assert np.mean([own[name] for name in TRACR]) >= 0.9
    assert 0.8 <= np.mean(list(inputs.values())) < np.mean([own[name] for name in TRACR])


def test_saturation_hides_edges_from_the_gradient_at_the_clean_prompt() -> None:
    """The sharper the attention, the less EAP sees; integrated gradients and patching do not mind."""
    scorers: dict[str, Scorer] = {"eap": eap, "ig": eap_ig_inputs, "exact": exact_edges}
    found = {
        (name, sharpness): np.mean([area(bed, score, sharpness=sharpness, leak=0.05) for bed in SATURATED])
        for name, score in scorers.items()
        for sharpness in (3.0, 50.0)
    }
    assert found["eap", 3.0] >= 0.95
    assert found["eap", 50.0] <= 0.9
    assert min(found["ig", 3.0], found["ig", 50.0]) >= 0.97
    assert min(found["exact", 3.0], found["exact", 50.0]) >= 0.99


def test_two_stages_are_as_good_as_patching_everything() -> None:
    """A fifth of the edges patched, at least ten, where attention is sharp and other edges leak."""

    def stages(wiring: Wiring, pairs: Batch) -> EdgeScores:
        return two_stage(wiring, pairs, top_frac=0.2, at_least=10)

    found = [area(bed, stages, sharpness=50.0, leak=0.05) for bed in SATURATED]
    assert np.mean(found) >= 0.99


def test_trained_models_with_an_imposed_circuit() -> None:
    """Models trained by interchange interventions: natural weights, noise on every edge; 30% of the edges patched."""

    def stages(wiring: Wiring, pairs: Batch) -> EdgeScores:
        return two_stage(wiring, pairs, top_frac=0.3, at_least=1)

    assert min(area(name, eap_ig_inputs) for name in SIIT) >= 0.9
    assert min(area(name, stages) for name in SIIT) >= 0.95
    assert min(area(name, exact_edges) for name in SIIT) >= 0.99
