"""The embedded model's tasks as beds: batches of one length, and no claim of a truth."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import UserError
from workbench.models import load_model
from workbench.tasks import TASKS, make_task
from workbench.testbeds import make_testbed


@pytest.fixture(scope="module")
def model() -> object:
    return load_model(device="cpu")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_a_bed_without_truth(name: str, model: object) -> None:
    bed = make_testbed(f"task.{name}", model=model)
    assert bed.nodes is bed.edges is bed.feature_nodes is bed.feature_edges is None
    assert "No truth is known" in bed.note
    batch = bed.batch(12, 0)
    assert batch.clean.shape == batch.counterfactual.shape
    assert len(batch.clean) == len(batch.answer) == 12
    assert torch.equal(batch.clean, bed.batch(12, 0).clean)
    pairs = make_task(name, bed.model.tokenizer, n_pairs=12 * 16, seed=0).pairs
    known = {(p.clean_ids, p.answer_id, p.counterfactual_answer_id) for p in pairs}
    rows = zip(batch.clean.tolist(), batch.answer.tolist(), batch.counterfactual_answer.tolist(), strict=True)
    assert {(tuple(ids), answer, other) for ids, answer, other in rows} <= known


def test_the_embedded_model_prefers_the_answer(model: object) -> None:
    bed = make_testbed("task.induction", model=model)
    assert bed.accuracy_frac(n_pairs=20, among_all=False) >= 0.9


def test_more_pairs_than_there_are(model: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.testbeds import task

    monkeypatch.setattr(task, "_commonest_length", lambda name, tokenizer: 3)
    with pytest.raises(UserError, match=r"n_pairs 2 is more than task 'ioi' has at 3 tokens a prompt"):
        make_testbed("task.ioi", model=model).batch(2, 0)
