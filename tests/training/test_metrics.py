"""The log: whole at all times, cheap however long it is, with the parts that an architecture has."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tests.training.test_stage import OPTIONS
from workbench.errors import UserError
from workbench.training import metrics, train
from workbench.training.metrics import Metrics, MetricsLog


def row(step: int, **parts: float) -> Metrics:
    rest = dict.fromkeys(
        ("fvu", "explained_variance", "l0", "dead_frac", "grad_norm", "lr", "wait_frac"), 0.5
    )
    return Metrics(step=step, tokens=100 * step, loss=1.0, parts=parts, tokens_per_s=9.0, **rest)


def test_rows_after_the_step_that_is_gone_back_to_are_forgotten(tmp_path):
    log = MetricsLog(tmp_path / "log.parquet")
    for step in range(1, 8):
        log.add(row(step, a=1.0))
    log.write()
    again = MetricsLog(tmp_path / "log.parquet", after_step=4)
    again.add(row(5, a=2.0, b=3.0))
    again.write()
    found = pq.read_table(tmp_path / "log.parquet").to_pydict()
    assert found["step"] == [1, 2, 3, 4, 5]
    assert found["part_a"] == [1.0] * 4 + [2.0]
    assert found["part_b"] == [None] * 4 + [3.0]
    assert MetricsLog(tmp_path / "none.parquet", after_step=4)._table is None


def test_a_write_takes_at_most_its_share_of_the_time(tmp_path, monkeypatch):
    """With 200,000 rows a write takes long; then the next one is put off."""
    monkeypatch.setattr(metrics, "INTERVAL_S", 0.0)
    log = MetricsLog(tmp_path / "log.parquet")
    log._new = [row(0, a=1.0).row()] * 200_000
    log.write()
    assert pq.read_metadata(log.path).num_rows == 200_000
    log.add(row(200_001, a=1.0))
    started = time.monotonic()
    log.write()
    cost = time.monotonic() - started
    assert cost < 1.0
    assert log._next_write - time.monotonic() > 0.9 * cost / metrics.SHARE - 1
    log.add(row(200_002, a=1.0))
    assert pq.read_metadata(log.path).num_rows == 200_001, "it was written again at once"


def test_the_log_says_how_long_the_training_waited(plant, monkeypatch):
    from workbench.training.source import OneReader

    following = OneReader.__next__

    def slow(self):
        time.sleep(0.02)
        return following(self)

    monkeypatch.setattr(OneReader, "__next__", slow)
    run = plant(n_rows=1_500).run
    train(run, log_every_steps=8, **OPTIONS)
    log = pq.read_table(run / "dictionary" / "metrics.parquet").to_pandas()
    assert log.step.tolist() == [8, 16, 24, 32, 40]
    assert log.wait_frac.between(0.2, 1).all()
    assert (log.grad_norm > 0).all()
    assert (log.explained_variance >= 1 - log.fvu - 1e-6).all()


@pytest.fixture
def fake_tensorboard(monkeypatch):
    scalars: list[tuple[str, float, int]] = []
    opened: list[dict[str, object]] = []

    class SummaryWriter:
        def __init__(self, **options: object) -> None:
            opened.append(options)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((name, value, step))

        def close(self) -> None:
            opened.append({"closed": True})

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    return scalars, opened


def test_rows_go_to_tensorboard_too(plant, fake_tensorboard):
    run, (scalars, opened) = plant(n_rows=1_500).run, fake_tensorboard
    train(run, log_to="tensorboard", **OPTIONS)
    assert opened == [
        {"log_dir": str(run / "dictionary" / "tensorboard"), "purge_step": 1}, {"closed": True},
    ]  # fmt: skip
    assert [step for name, _, step in scalars if name == "part_aux"] == [5, 10, 15, 20, 25, 30, 35, 40]
    log = pq.read_table(run / "dictionary" / "metrics.parquet").to_pandas()
    assert [value for name, value, _ in scalars if name == "loss"] == log.loss.tolist()


def test_rows_go_to_weights_and_biases_too(plant, monkeypatch):
    calls: list[tuple[str, object]] = []
    opened = SimpleNamespace(
        log=lambda row, step: calls.append(("log", step)), finish=lambda: calls.append(("finish", None))
    )
    module = SimpleNamespace(init=lambda **options: calls.append(("init", options)) or opened)
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(plant(n_rows=1_500).run, log_to="wandb", **OPTIONS)
    options = calls[0][1]
    assert isinstance(options, dict)
    assert options["config"]["k"] == 3
    assert options["resume"] == "allow"
    assert calls[1:] == [("log", step) for step in range(5, 41, 5)] + [("finish", None)]


def test_a_tool_that_is_missing_or_unknown_is_refused_before_training(plant, monkeypatch):
    run = plant(n_rows=1_500).run
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match="log_to 'wandb' needs the package wandb: install it, or leave log_to out"
    ):
        train(run, log_to="wandb", **OPTIONS)
    with pytest.raises(UserError, match="log_to 'tensorbord' is not known; the nearest: tensorboard"):
        train(run, log_to="tensorbord", **OPTIONS)


@pytest.mark.parametrize("name", ["log_every_steps", "checkpoint_every_steps"])
def test_numbers_of_steps_are_at_least_one(plant, name):
    with pytest.raises(UserError, match=f"{name} 0 is not at least 1: choose more steps"):
        train(plant(n_rows=1_500).run, **{**OPTIONS, name: 0})
