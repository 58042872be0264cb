"""Interrupted and resumed trainings end in the same bits as uninterrupted ones, or start again and say why."""

from __future__ import annotations

import os
import shutil
import signal

import pyarrow.parquet as pq
import pytest
import torch

from workbench.training import train
from workbench.training.checkpoint import checkpoint_folders, load_checkpoint, save_checkpoint
from workbench.training.step import Trainer

OPTIONS = {"d_sae": 200, "k": 3, "batch_size": 100, "n_tokens": 4_000, "dead_after_tokens": 150, "lr": 3e-3}


class KilledError(Exception):
    """Stands for the end of the process."""


def after_step(monkeypatch, step: int, act) -> None:
    """Call `act` at the end of step number `step`, counted from 1."""
    train_batch = Trainer.train_batch

    def wrapped(self, x):
        losses = train_batch(self, x)
        if self.step == step:
            act()
        return losses

    monkeypatch.setattr(Trainer, "train_batch", wrapped)


def kill() -> None:
    raise KilledError


def assert_equal(first, second) -> None:
    assert first.hash == second.hash
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.fixture
def uninterrupted(plant):
    """The same run twice: one trained to the end, one untouched."""
    planted = plant(n_rows=1_500)
    shutil.copytree(planted.run, planted.run.with_name("second"))
    whole = train(planted.run, **OPTIONS)
    log = pq.read_table(planted.run / "dictionary" / "metrics.parquet").to_pandas()
    assert (log.aux_loss > 0).sum() > 3, "no latent was dead, so the counters of silence did not matter"
    return whole, planted.run.with_name("second")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_the_same_call_continues(uninterrupted, monkeypatch, capsys, number):
    whole, run = uninterrupted
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        after_step(patch, 17, lambda: os.kill(os.getpid(), number))
        expected = KeyboardInterrupt if number == signal.SIGINT else SystemExit
        with pytest.raises(expected):
            train(run, **OPTIONS)
    assert signal.getsignal(number) is before
    assert "stopped after checkpoint step-00000017; the same call continues it" in capsys.readouterr().out
    assert not (run / "dictionary" / "cfg.json").exists()
    steps = []
    after_step(monkeypatch, 18, lambda: steps.append(18))
    after_step(monkeypatch, 1, lambda: steps.append(1))
    assert_equal(train(run, **OPTIONS), whole)
    assert steps == [18], "it started again instead of continuing"
    assert not (run / "dictionary" / "checkpoints").exists()


@pytest.mark.parametrize("at", [9, 10, 11, 39])
def test_a_killed_training_continues_from_the_last_checkpoint(uninterrupted, monkeypatch, at):
    whole, run = uninterrupted
    with monkeypatch.context() as patch:
        after_step(patch, at, kill)
        with pytest.raises(KilledError):
            train(run, checkpoint_every_steps=10, **OPTIONS)
    kept = [path.name for path in checkpoint_folders(run / "dictionary" / "checkpoints")]
    assert kept == [f"step-{step:08d}" for step in (10, 20, 30) if step < at][-2:]
    assert_equal(train(run, checkpoint_every_steps=7, **OPTIONS), whole)
    steps = pq.read_table(run / "dictionary" / "metrics.parquet")["step"].to_pylist()
    assert steps == sorted(set(steps))
    assert steps[-1] == 40


def test_a_damaged_checkpoint_is_left_for_the_one_before(uninterrupted, monkeypatch, capsys):
    whole, run = uninterrupted
    with monkeypatch.context() as patch:
        after_step(patch, 25, kill)
        with pytest.raises(KilledError):
            train(run, checkpoint_every_steps=10, **OPTIONS)
    tensors = run / "dictionary" / "checkpoints" / "step-00000020" / "state.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    assert_equal(train(run, **OPTIONS), whole)
    assert "step-00000020 is not continued: its tensors are damaged" in capsys.readouterr().out


def test_a_checkpoint_of_other_parameters_is_not_continued(uninterrupted, monkeypatch, capsys):
    _, run = uninterrupted
    with monkeypatch.context() as patch:
        after_step(patch, 15, kill)
        with pytest.raises(KilledError):
            train(run, checkpoint_every_steps=10, **{**OPTIONS, "k": 4})
    trained = train(run, **OPTIONS)
    assert "step-00000010 is not continued: it was made with another k (4, not 3)" in capsys.readouterr().out
    assert trained.k == 3


def test_a_checkpoint_of_another_store_is_not_continued(plant, monkeypatch, capsys):
    first, second = plant(n_rows=1_500, name="a"), plant(n_rows=1_500, seed=5, name="b")
    with monkeypatch.context() as patch:
        after_step(patch, 15, kill)
        with pytest.raises(KilledError):
            train(first.run, checkpoint_every_steps=10, **OPTIONS)
    shutil.copytree(first.run / "dictionary", second.run / "dictionary")
    train(second.run, **OPTIONS)
    assert "is not continued: it was made with another store" in capsys.readouterr().out


def test_a_checkpoint_is_whole_or_absent(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {"k": 1}, reader={"start": 1})
    monkeypatch.setattr("workbench.training.checkpoint.write_json", lambda *_: kill())
    with pytest.raises(KilledError):
        save_checkpoint(tmp_path, 2, {"a": torch.ones(2)}, {"k": 1}, reader={"start": 1})
    checkpoint = load_checkpoint(tmp_path, {"k": 1})
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
