"""A task that the model cannot do is refused, unless told to go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.causal.conftest import native_model, random_batch
from tests.circuits.validation.beds import bed, wiring
from workbench.anatomy import open_anatomy
from workbench.circuits.validation.solved import check_solved
from workbench.errors import UserError


def test_a_bed_does_its_task() -> None:
    found = check_solved(wiring("chain").anatomy, [bed("chain").batch(20, 0), bed("chain").batch(3, 1)])
    assert found.solved
    assert found.accuracy_frac.value == 1
    assert found.clean_logits.low > 1 > -1 > found.counterfactual_logits.high


def test_a_random_model_does_not() -> None:
    anatomy = open_anatomy(native_model())
    batch = random_batch(n_pairs=60)
    with pytest.raises(
        UserError, match=r"does not do 'ioi': it prefers the answer in \d+% of 60 pairs.*allow_unsolved=True"
    ):
        check_solved(anatomy, [batch], name="ioi")
    found = check_solved(anatomy, [batch], allow_unsolved=True)
    assert not found.solved
    logits = anatomy.model(batch.clean, return_type="logits")[:, -1]
    better = logits.gather(1, batch.answer[:, None]) > logits.gather(1, batch.counterfactual_answer[:, None])
    assert found.accuracy_frac.value == pytest.approx(float(better.float().mean()))


def test_the_wrong_answers_are_refused_and_the_margin_counts() -> None:
    batch = bed("chain").batch(20, 0)
    wrong = replace(batch, answer=batch.counterfactual_answer, counterfactual_answer=batch.answer)
    with pytest.raises(UserError, match="answer in 0% of 20 pairs"):
        check_solved(wiring("chain").anatomy, [wrong])
    half = replace(
        batch,
        answer=torch.where(torch.arange(20) < 13, batch.answer, wrong.answer),
        counterfactual_answer=torch.where(torch.arange(20) < 13, batch.counterfactual_answer, batch.answer),
    )
    with pytest.raises(UserError, match=r"in 65% of 20 pairs.*at least 70% is asked for"):
        check_solved(wiring("chain").anatomy, [half])


def test_few_pairs_are_not_enough_whatever_their_accuracy() -> None:
    """2 of 3 is above 60% and not above chance beyond its interval."""
    batch = bed("chain").batch(3, 0)
    batch.answer[0], batch.counterfactual_answer[0] = (
        int(batch.counterfactual_answer[0]),
        int(batch.answer[0]),
    )
    with pytest.raises(UserError, match="does not do 'task'"):
        check_solved(wiring("chain").anatomy, [batch], margin_frac=0.1)
