"""Interrupted and resumed trainings end in the same bits as uninterrupted ones, or start again and say why."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch

from tests.training.conftest import make_planted
from workbench.training import checkpointer, train
from workbench.training.checkpoint import checkpoint_folders, load_checkpoint, remove_remains, save_checkpoint
from workbench.training.step import Trainer

OPTIONS = {"d_sae": 200, "k": 3, "batch_size": 100, "n_tokens": 4_000, "dead_after_tokens": 150, "lr": 3e-3}


class KilledError(Exception):
    """Stands for the end of the process."""


def after_step(monkeypatch, step: int, act) -> None:
    """Call `act` at the end of step number `step`, counted from 1."""
    train_batch = Trainer.train_batch

    def wrapped(self, *batch, **options):
        losses = train_batch(self, *batch, **options)
        if self.step == step:
            act()
        return losses

    monkeypatch.setattr(Trainer, "train_batch", wrapped)


def kill() -> None:
    raise KilledError


def assert_equal(first, second) -> None:
    assert first.hash == second.hash
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run as it was before training, and the dictionary of a training that nothing interrupted."""
    run = make_planted(tmp_path_factory.mktemp("resume") / "run", n_rows=1_500).run
    shutil.copytree(run, run.with_name("untouched"))
    made = train(run, **OPTIONS)
    log = pq.read_table(run / "dictionary" / "metrics.parquet").to_pandas()
    assert (log.part_aux > 0).sum() > 3, "no latent was dead, so the counters of silence did not matter"
    return made, run.with_name("untouched")


@pytest.fixture
def uninterrupted(whole, tmp_path):
    """The dictionary, and the run once more, untouched."""
    made, untouched = whole
    return made, Path(shutil.copytree(untouched, tmp_path / "second"))


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


def test_what_a_killed_process_left_is_removed(tmp_path):
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {"k": 1}, reader={"start": 1})
    (tmp_path / ".step-00000002.77.tmp").mkdir()
    (tmp_path / "step-00000000").mkdir()  # it was being deleted
    remove_remains(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    remove_remains(tmp_path / "missing")


def test_a_process_killed_between_weights_and_configuration_of_a_second_training(uninterrupted, monkeypatch):
    """The configuration of the first training never stands beside the weights of the second."""
    whole, run = uninterrupted
    train(run, **{**OPTIONS, "k": 4})
    with monkeypatch.context() as patch:
        patch.setattr("workbench.dictionaries.formats.saelens.write_json", lambda *_: kill())
        with pytest.raises(KilledError):
            train(run, **OPTIONS)
    assert not (run / "dictionary" / "cfg.json").exists()
    assert_equal(train(run, **OPTIONS), whole)


def test_a_matrix_keeps_its_memory_order_and_its_bits(tmp_path):
    turned = torch.randn(5, 3).T
    tensors = {"turned": turned, "half": torch.randn(4, 2).bfloat16(), "number": torch.tensor(7)}
    save_checkpoint(tmp_path, 3, tensors, {}, reader={"seed": 1, "window": [2, 3]})
    found = load_checkpoint(tmp_path, {})
    assert found is not None
    assert found.reader == {"seed": 1, "window": [2, 3]}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert found.tensors["turned"].stride() == turned.stride()


def test_a_checkpoint_is_due_by_the_clock_or_by_steps_and_costs_at_most_its_share(tmp_path, monkeypatch):
    clock, trainer = [100.0], SimpleNamespace(
        step=1, watch=SimpleNamespace(suspicious=False), settle=lambda: None, state=lambda: {"a": torch.ones(1)}
    )  # fmt: skip
    reader = SimpleNamespace(state=lambda: {})
    monkeypatch.setattr(checkpointer.time, "monotonic", lambda: clock[0])
    made = checkpointer.Checkpointer.__new__(checkpointer.Checkpointer)
    made.folder, made.identity, made.trainer, made.reader = tmp_path, {}, trainer, reader  # type: ignore[assignment]
    made.every_steps, made._next = None, clock[0] + checkpointer.INTERVAL_S
    write = made.write

    def slow(*given):
        clock[0] += 2.0
        return write(*given)

    monkeypatch.setattr(made, "write", slow)
    clock[0] = 129.9
    assert not made.due()
    clock[0] = 130.0
    assert made.due()
    made.save()
    assert made._next == pytest.approx(132.0 + 2.0 / checkpointer.SHARE)
    trainer.watch.suspicious = True
    clock[0] = 1e6
    assert not made.due()
    trainer.watch.suspicious, made.every_steps = False, 3
    assert [step for step in range(1, 10) if setattr(trainer, "step", step) or made.due()] == [3, 6, 9]
