"""A task of the embedded model: small, faithful, complete circuits of needed nodes, judged on other pairs.

`tests/benchmarks/bench_task_circuits.py` has all eight tasks with more pairs.
"""

from __future__ import annotations

import pytest

from workbench.anatomy import open_anatomy
from workbench.circuits.validation.find import find_circuit
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.eap_ig import eap_ig_inputs
from workbench.models import load_model, load_random_model
from workbench.tasks import make_task


@pytest.fixture(scope="module")
def wiring() -> Wiring:
    return Wiring(open_anatomy(load_model(device="cpu")))


@pytest.fixture(scope="module")
def untrained() -> Wiring:
    return Wiring(open_anatomy(load_random_model(seed=0, device="cpu")))


@pytest.mark.parametrize("name", ["agreement"])
def test_a_task_has_a_small_faithful_complete_circuit(name: str, wiring: Wiring, untrained: Wiring) -> None:
    batches = make_task(name, wiring.anatomy.model.tokenizer, n_pairs=40, seed=0).batches()
    found = find_circuit(
        wiring, batches, eap_ig_inputs, name=name, random_model=untrained, n_random=20, n_resamples=300
    )
    row = found.row()
    assert row["edges_frac"] <= 0.05
    assert row["faithfulness_frac"] >= 0.9
    assert row["completeness_frac"] <= 0.1
    assert row["all_nodes_needed"]
    assert row["beats_controls"]
    assert found.reached
