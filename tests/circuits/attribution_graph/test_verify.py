"""The freeze under the bridge's own hooks; predicted against intervened effects of edges and nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.circuits.attribution_graph.beds import (
    SHAPES,
    bed,
    bed_anatomy,
    make_cross_layer,
    make_transcoders,
    prompt,
)
from workbench.circuits.attribution_graph import freeze_check as module
from workbench.circuits.attribution_graph.freeze_check import freeze_check
from workbench.circuits.attribution_graph.trace import AttributionTrace, trace_prompt
from workbench.circuits.attribution_graph.verify import verify_edges, verify_nodes
from workbench.errors import UserError

OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"cross": True}),
    ("gemma2", {"cross": True}),
    ("neox", {"skip": True}),
]


@pytest.mark.parametrize(("architecture", "options"), [*((a, {}) for a in SHAPES), *OTHERS])
def test_effects_are_those_under_the_bridges_hooks(architecture: str, options: dict[str, Any]) -> None:
    check = freeze_check(bed(architecture, **options))
    assert check.n_effects > 200
    assert check.worst_frac <= 1e-4
    assert check.median_frac <= 1e-4


@pytest.mark.parametrize("part", ["hook_pattern", "ln1.hook_scale", "ln2_post.hook_scale"])
def test_a_freeze_that_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """A hook that is ignored (here: not set) makes the trace refuse the model."""
    held = module._held
    module._passed.clear()
    monkeypatch.setattr(module, "_held", lambda m, n: [h for h in held(m, n) if part not in h[0]])
    # The MLP's output is put in after its norm, so a scale there cannot matter.
    if part.startswith("ln2_post"):
        assert freeze_check(bed("gemma2")).worst_frac <= 1e-4
        return
    with pytest.raises(
        UserError, match=r"the freeze does not hold .* first seen at blocks\.\d\.hook_resid_mid"
    ):
        freeze_check(bed("gemma2"))


def test_the_check_runs_once_for_a_model_and_its_transcoders(monkeypatch: pytest.MonkeyPatch) -> None:
    module._passed.clear()
    anatomy = bed_anatomy("gpt2")
    given = make_transcoders(anatomy)
    first = trace_prompt(anatomy, prompt(), given).check
    monkeypatch.setattr(module, "_check", lambda model: pytest.fail("checked again"))
    assert trace_prompt(anatomy, prompt(7), given).check == first


@pytest.mark.parametrize(("architecture", "options"), [*((a, {}) for a in SHAPES[:4]), *OTHERS])
def test_predicted_effects_are_those_of_interventions(architecture: str, options: dict[str, Any]) -> None:
    anatomy = bed_anatomy(architecture)
    given = make_cross_layer(anatomy) if "cross" in options else make_transcoders(anatomy, **options)
    found = trace_prompt(anatomy, prompt(), given)
    for checked in (
        verify_edges(found, n_edges=60, n_resamples=50),
        verify_nodes(found, n_nodes=12, n_resamples=50),
    ):
        assert checked.frozen.worst_error_frac <= 1e-4
        assert checked.frozen.median_error_frac.value <= 1e-4
        assert checked.frozen.pearson.low > 0.999
        assert checked.live.pearson.value < 0.9999  # the live model is another one
        assert checked.live.pearson.value > 0.0


def test_the_null_is_far_from_the_agreement(traced: AttributionTrace) -> None:
    found = verify_edges(traced, n_edges=200, n_resamples=300)
    assert found.frozen.shuffled_pearson.high < 0.6 < found.live.pearson.value
    assert found.live.pearson.low < found.live.pearson.value < found.live.pearson.high
    assert verify_edges(traced, n_edges=200, n_resamples=300).frozen == found.frozen


def test_a_wrong_edge_is_seen(traced: AttributionTrace) -> None:
    """Doubling one weight shows in the frozen figure."""
    heavy = int(traced.effects.weight.abs().argmax())
    right = verify_edges(traced, [heavy, 0, 1, 2])
    before = float(traced.effects.weight[heavy])
    traced.effects.weight[heavy] *= 2
    try:
        wrong = verify_edges(traced, [heavy, 0, 1, 2])
    finally:
        traced.effects.weight[heavy] = before
    assert right.frozen.worst_error_frac <= 1e-4
    assert wrong.frozen.worst_error_frac > 0.9


def test_edges_and_nodes_that_are_not_there_are_refused(traced: AttributionTrace) -> None:
    with pytest.raises(UserError, match=r"edges .* are not in the trace: give numbers from 0"):
        verify_edges(traced, [10**9])
    with pytest.raises(UserError, match="are not all sources of the trace"):
        verify_nodes(traced, [10**9])


def test_total_effects_of_a_thinned_trace_are_refused(traced: AttributionTrace) -> None:
    model = traced.model
    few = trace_prompt(model.anatomy, prompt(), model.transcoders, edges_per_target=5)
    with pytest.raises(UserError, match="total effects need every edge"):
        verify_nodes(few)
