"""Where activations lie: shared folders, runs that move, and hooks that give no numbers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.capture.conftest import HOOKS, Capture
from tests.models_on_disk import tiny_model_dir
from workbench.capture import CaptureOptions, LiveStore, captured_hooks, harvest, live, open_store
from workbench.errors import UserError


def test_a_run_that_was_moved_is_linked_again(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = tmp_path / "stores"
    made = run_capture(tmp_path / "a" / "deep" / "run", hooks=HOOKS[:1], stores=stores)[HOOKS[0]]
    run = Path(shutil.move(tmp_path / "a" / "deep" / "run", tmp_path / "b"))
    for use in (lambda: open_store(run), lambda: captured_hooks(run), lambda: run_capture(run)):
        with pytest.raises(UserError, match=r"are a link to '.*', which is not there: the same capture"):
            use()
    monkeypatch.setattr(harvest.Harvest, "__call__", None)
    assert run_capture(run, hooks=HOOKS[:1], stores=stores)[HOOKS[0]].hash == made.hash
    assert open_store(run).hash == made.hash


def test_models_and_storage_types_lie_side_by_side(tmp_path: Path, run_capture: Capture) -> None:
    other, stores = str(tiny_model_dir(tmp_path / "other", seed=1)), tmp_path / "stores"
    options = {"hooks": HOOKS[:1], "stores": stores}
    changes = ({}, {"model": other}, {"dtype": "bfloat16"}, {"precision": "bfloat16"})
    made = [run_capture(tmp_path / f"run{i}", **options, **c)[HOOKS[0]] for i, c in enumerate(changes)]
    assert len({store.folder.resolve() for store in made}) == len(list(stores.iterdir())) == 4
    again = run_capture(tmp_path / "again", hooks=HOOKS, stores=stores)
    assert again[HOOKS[1]].folder.resolve().parent == made[0].folder.resolve().parent


def test_two_parts_that_link_at_the_same_time(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one makes the link just before this one does."""
    real = Path.symlink_to

    def second(own: Path, target: str, *, target_is_directory: bool = False) -> None:
        os.symlink(target, own)
        real(own, target, target_is_directory=target_is_directory)

    monkeypatch.setattr(Path, "symlink_to", second)
    assert run_capture(tmp_path / "run", hooks=HOOKS[:1], stores=tmp_path / "stores")


def scaled(monkeypatch: pytest.MonkeyPatch, module: object, factor: float) -> None:
    """As a model with activations that many times as large."""
    real = harvest.per_token
    monkeypatch.setattr(module, "per_token", lambda name, value, *rest: real(name, value, *rest) * factor)


def test_numbers_too_large_for_float16_are_refused(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled(monkeypatch, harvest, 1e8)
    options = {"hooks": HOOKS[:1], "n_tokens": 300}
    with pytest.raises(UserError, match=r"of hook 'blocks.*' is not finite in float16: store"):
        run_capture(tmp_path / "run", **options, dtype="float16")
    with pytest.raises(UserError, match="was interrupted"):
        open_store(tmp_path / "run")
    wide = run_capture(tmp_path / "wide", **options, dtype="bfloat16")[HOOKS[0]]
    assert wide.moments.max_norm > 65504
    scaled(monkeypatch, harvest, float("nan"))
    with pytest.raises(UserError, match="is not finite in float32"):
        run_capture(tmp_path / "none", **options, max_norm_multiple=3.0)


def test_a_live_store_refuses_them_too(model_dir: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CaptureOptions(
        model=model_dir, text=text, hooks=HOOKS[:1], n_ctx=32, batch_tokens=96, dtype="float16"
    )
    with LiveStore(options, capacity_rows=200) as store:
        assert next(store.reader(50)).isfinite().all()
        for factor in (1e8, float("nan")):
            with monkeypatch.context() as patch:
                scaled(patch, live, factor)
                with pytest.raises(UserError, match="is not finite in float16: keep it as float32"):
                    next(store.reader(50))


def test_a_text_of_which_no_token_gets_a_row(tmp_path: Path, run_capture: Capture, model_dir: str) -> None:
    """The ids of one special token: nothing is left, now and when asked again."""
    import numpy as np

    np.save(tmp_path / "ids.npy", np.zeros((40, 32), np.int32))
    options = {"text": str(tmp_path / "ids.npy"), "hooks": HOOKS[:1], "leave_out": ["bos", "special"]}
    for _ in range(2):
        with pytest.raises(UserError, match=r"no token of text .* gets a row: leave_out, positions"):
            run_capture(tmp_path / "run", **options)


def test_a_sequence_longer_than_a_batch(tmp_path: Path, run_capture: Capture) -> None:
    small = run_capture(tmp_path / "small", hooks=HOOKS[:1], batch_tokens=5, shard_tokens=7)[HOOKS[0]]
    whole = run_capture(tmp_path / "whole", hooks=HOOKS[:1])[HOOKS[0]]
    assert small.n_shards == small.n_sequences
    every = range(whole.n_rows)
    torch.testing.assert_close(small.take(every), whole.take(every), atol=1e-5, rtol=0)
