"""Sweeps: every member equals its own training, also after an interruption; bad members are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest
import torch

from workbench.errors import UserError
from workbench.training import train
from workbench.training.step import Trainer
from workbench.training.sweep import grid, sweep

COMMON = {"d_sae": 48, "dead_after_tokens": 500, "lr": 1e-2}
STREAM = {"n_tokens": 6_000, "batch_size": 200}
MEMBERS = {
    "k2": {"k": 2},
    "k2-other-start": {"k": 2, "start": {"seed": 9}},
    "k4": {"k": 4, "lr": 3e-3},
    "batch": {"k": 3, "architecture": "batch_topk"},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of torch are cut alike then, whatever runs beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_equal(ours, alone) -> None:
    assert ours.tensors.keys() == alone.tensors.keys()
    assert all(torch.equal(ours.tensors[name], tensor) for name, tensor in alone.tensors.items())


def test_every_member_equals_its_own_training(plant):
    run, other = plant(n_rows=4_000).run, plant(n_rows=4_000, name="alone").run
    made = sweep(run, MEMBERS, **STREAM, **COMMON)
    assert list(made) == list(MEMBERS)
    for name, member in MEMBERS.items():
        alone = train(other, **STREAM, **{**COMMON, **member})
        assert_equal(made[name], alone)
        folder = run / "dictionaries" / name
        assert pq.read_table(folder / "metrics.parquet")["step"].to_pylist()[-1] == 30
    assert not torch.equal(made["k2"].W_dec, made["k2-other-start"].W_dec)
    assert not (run / "dictionaries" / "checkpoints").exists()


def test_two_threads_train_the_same_members(plant):
    run, other = plant(n_rows=2_000).run, plant(n_rows=2_000, name="two").run
    made = sweep(run, MEMBERS, **STREAM, **COMMON)
    torch.set_num_threads(2)
    for name, dictionary in sweep(other, MEMBERS, **STREAM, **COMMON).items():
        assert torch.allclose(dictionary.W_dec, made[name].W_dec, atol=1e-4)


def test_an_interrupted_sweep_goes_on(plant, monkeypatch):
    run, whole = plant(n_rows=2_000).run, plant(n_rows=2_000, name="whole").run
    expected = sweep(whole, MEMBERS, **STREAM, **COMMON)
    train_batch, steps = Trainer.train_batch, []

    def killed(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 40:
            raise RuntimeError("killed")
        return train_batch(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_batch", killed)
        with pytest.raises(RuntimeError, match="killed"):
            sweep(run, MEMBERS, checkpoint_every_steps=10, **STREAM, **COMMON)
    assert not (run / "dictionaries" / "k2" / "cfg.json").exists()
    for name, dictionary in sweep(run, MEMBERS, **STREAM, **COMMON).items():
        assert_equal(dictionary, expected[name])


def test_a_finished_sweep_is_not_trained_again_and_a_new_member_alone(plant, monkeypatch):
    run = plant(n_rows=2_000).run
    sweep(run, {"a": {"k": 2}}, **STREAM, **COMMON)
    trained, train_batch = [], Trainer.train_batch

    def counted(self, *arguments, **options):
        trained.append(self.trainee.architecture.k)
        return train_batch(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "train_batch", counted)
    made = sweep(run, {"a": {"k": 2}, "b": {"k": 3}}, **STREAM, **COMMON)
    assert set(trained) == {3}
    assert [dictionary.k for dictionary in made.values()] == [2, 3]


def test_grid_names_every_combination():
    found = grid(k=[2, 4], start_seed=[0, 1])
    assert found["k4-start_seed1"] == {"k": 4, "start": {"seed": 1}}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "a sweep has no members"),
        ({"a/b": {}}, "'a/b' cannot be the name of a folder"),
        ({"a": {"kk": 3}}, "member 'a' has 'kk', which is not an option of a member; the nearest: k"),
        ({"a": {"n_tokens": 3}}, "member 'a' has 'n_tokens', which is not an option"),
    ],
)
def test_bad_members_are_refused(plant, members, message):
    with pytest.raises(UserError, match=message):
        sweep(plant(n_rows=1_000).run, members, **STREAM)


def test_intervals_of_no_steps_are_refused(plant):
    with pytest.raises(UserError, match="checkpoint_every_steps 0 is not at least 1"):
        sweep(plant(n_rows=1_000).run, {"a": {"k": 2}}, checkpoint_every_steps=0, **STREAM)


def test_a_diverging_member_is_named(plant):
    run = plant(n_rows=2_000).run
    with pytest.raises(UserError, match=r"member 'wild': the loss"):
        sweep(run, {"tame": {"k": 2}, "wild": {"k": 2, "lr": 1e30}}, **STREAM, d_sae=48)
