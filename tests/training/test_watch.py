"""A training that goes wrong stops, says where, and leaves the last good checkpoint."""

from __future__ import annotations

import pytest
import torch

from tests.training.test_resume import OPTIONS
from workbench.artifacts import read_json
from workbench.training import train, watch
from workbench.training.checkpoint import checkpoint_folders, load_checkpoint
from workbench.training.step import Trainer
from workbench.training.watch import DivergedError, LossWatch


def watched(losses, *, quiet_steps=0.0) -> LossWatch:
    made = LossWatch(quiet_steps)
    for step, loss in enumerate(losses):
        made.see(step, torch.tensor(loss))
    return made


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once(bad):
    with pytest.raises(
        DivergedError, match="the loss is not finite at step 2, on batch 2 of the shuffled order"
    ):
        watched([1.0, 1.0, bad])


def test_a_loss_far_above_its_median_stops_after_some_steps():
    assert not watched([1.0] * 40 + [101.0] * 4 + [1.0]).suspicious
    assert watched([1.0] * 40 + [101.0] * 4).suspicious
    assert not watched([1.0] * 40 + [99.0] * 20).suspicious
    with pytest.raises(DivergedError, match=r"the loss explodes \(101, 101 times its median\) at step 44"):
        watched([1.0] * 40 + [101.0] * 5)


def test_the_warm_up_and_losses_around_zero_are_not_judged():
    assert not watched([1.0] * 40 + [101.0] * 5 + [1.0] * 55, quiet_steps=100.0).suspicious
    assert not watched([0.0] * 40 + [101.0] * 9).suspicious
    assert not watched([-1.0] * 40 + [101.0] * 9).suspicious


def test_losses_that_are_read_together_are_judged_at_the_latest_when_it_is_asked_for():
    made, seen = LossWatch(together=4), []
    for step, loss in enumerate([1.0, 1.0, float("nan")]):
        made.see(step, torch.tensor(loss))
        seen.append(len(made._last))
    assert seen == [0, 0, 0]
    with pytest.raises(DivergedError, match="at step 2"):
        made.settle()
    made = LossWatch(together=4)
    for step in range(7):
        made.see(step, torch.tensor(float("nan") if step == 5 else 1.0))
    with pytest.raises(DivergedError, match="at step 5"):
        made.see(7, torch.tensor(1.0))


def spoil(monkeypatch, at: int, act) -> None:
    """Do something to the trainer before step `at`, counted from 0."""
    train_batch = Trainer.train_batch

    def wrapped(self, *batch, **options):
        if self.step == at:
            act(self)
        return train_batch(self, *batch, **options)

    monkeypatch.setattr(Trainer, "train_batch", wrapped)


def with_nan(trainer) -> None:
    with torch.no_grad():
        trainer.trainee.parameters["W_enc"][0, 0] = torch.nan


def test_a_training_that_diverges_keeps_its_last_good_checkpoint(plant, monkeypatch):
    run = plant(n_rows=1_500).run
    with monkeypatch.context() as patch:
        spoil(patch, 25, with_nan)
        with pytest.raises(DivergedError, match=r"not finite at step 25.*; checkpoint step-00000020 is kept"):
            train(run, checkpoint_every_steps=10, **OPTIONS)
    folders = checkpoint_folders(run / "dictionary" / "checkpoints")
    assert [path.name for path in folders] == ["step-00000010", "step-00000020"]
    identity = read_json(folders[1] / "state.json")["identity"]
    checkpoint = load_checkpoint(folders[0].parent, identity)
    assert checkpoint is not None
    assert all(bool(t.isfinite().all()) for t in checkpoint.tensors.values() if t.is_floating_point())
    assert train(run, **OPTIONS).d_sae == OPTIONS["d_sae"]


def test_a_bad_weight_never_reaches_a_checkpoint(plant, monkeypatch):
    """The loss of a step is taken before its update, so a good loss does not mean good weights."""
    run, gradients = plant(n_rows=1_500).run, Trainer.gradients

    def broken(self, leaves):
        found = gradients(self, leaves)
        if self.step == 19:
            found["b_dec"][0] = torch.nan
        return found

    monkeypatch.setattr(Trainer, "gradients", broken)
    with pytest.raises(DivergedError, match=r"a weight is not finite after the step at step 19"):
        train(run, checkpoint_every_steps=10, **OPTIONS)
    names = [path.name for path in checkpoint_folders(run / "dictionary" / "checkpoints")]
    assert names == ["step-00000010"]


def test_no_checkpoint_is_written_while_the_loss_is_too_large(plant, monkeypatch):
    run = plant(n_rows=1_500).run

    def larger(trainer) -> None:
        trainer.watch._last.extend([1e-9] * 128)

    monkeypatch.setattr(watch, "IN_A_ROW", 10**6)
    spoil(monkeypatch, 8, larger)
    monkeypatch.setattr("workbench.training.finish.shutil.rmtree", lambda *_, **__: None)
    train(run, checkpoint_every_steps=10, **OPTIONS)
    assert checkpoint_folders(run / "dictionary" / "checkpoints") == []
