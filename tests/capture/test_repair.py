"""A damaged shard is found, named, and made again, alone and with the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.capture.conftest import HOOKS, Capture, content
from tests.store.test_store import flip
from workbench.capture import import_array, repair_stores, verify_stores
from workbench.capture.harvest import Harvest
from workbench.errors import UserError
from workbench.store import ROWS, ActivationStore


def shard(run: Path, column: str, number: int) -> Path:
    return run / "activations" / column / f"shard-{number:05d}.safetensors"


@pytest.mark.parametrize("options", [{}, {"max_norm_multiple": 1.3}], ids=["plain", "norm limit"])
def test_repair_gives_the_same_bytes(tmp_path: Path, run_capture: Capture, options: dict) -> None:
    run = tmp_path / "run"
    run_capture(run, **options)
    before = content(run)
    assert verify_stores(run) == repair_stores(run) == []
    flip(shard(run, HOOKS[0], 1), 300)
    shard(run, HOOKS[1], 2).unlink()
    flip(shard(run, ROWS, 3), -1)
    shard(run, ROWS, 0).write_bytes(b"x" * 40)
    found = {(d.column, d.shard) for d in verify_stores(run)}
    assert found == {(HOOKS[0], 1), (HOOKS[1], 2), (ROWS, 3), (ROWS, 0)}
    untouched = shard(run, HOOKS[0], 0).stat().st_mtime_ns
    assert {(d.column, d.shard) for d in repair_stores(run)} == found
    assert content(run) == before
    assert shard(run, HOOKS[0], 0).stat().st_mtime_ns == untouched


def test_the_fast_check_sees_sizes_only(tmp_path: Path, run_capture: Capture) -> None:
    run = tmp_path / "run"
    run_capture(run)
    flip(shard(run, HOOKS[0], 1))
    assert verify_stores(run, full=False) == []
    path = shard(run, HOOKS[1], 0)
    path.write_bytes(path.read_bytes()[:-1])
    (damage,) = verify_stores(run, full=False)
    assert "its header says" in damage.reason


def test_activations_are_made_again_without_the_text(tmp_path: Path, run_capture: Capture, text: str) -> None:
    run = tmp_path / "run"
    run_capture(run)
    before = content(run)
    for path in Path(text).parent.glob("*.py"):
        path.unlink()
    flip(shard(run, HOOKS[0], 2))
    repair_stores(run)
    assert content(run) == before
    flip(shard(run, ROWS, 2))
    with pytest.raises(UserError, match="matches no file"):
        repair_stores(run)


def test_other_bytes_are_refused_until_accepted(
    tmp_path: Path, run_capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that rounds differently."""
    run = tmp_path / "run"
    before = run_capture(run)[HOOKS[0]].hash
    flip(shard(run, HOOKS[0], 1))
    real = Harvest.__call__

    def rounded(self, *args, **options):  # type: ignore[no-untyped-def]
        return {name: rows * (1 + 1e-6) for name, rows in real(self, *args, **options).items()}

    monkeypatch.setattr(Harvest, "__call__", rounded)
    with pytest.raises(UserError, match=r"comes out with other bytes now .* --accept keeps the new bytes"):
        repair_stores(run)
    repair_stores(run, accept=True)
    assert verify_stores(run) == []
    again = ActivationStore.open(run / "activations" / HOOKS[0])
    again.verify()
    assert again.hash != before


def test_hooks_that_were_captured_otherwise_are_repaired_together(
    tmp_path: Path, run_capture: Capture
) -> None:
    """Each in its storage type and with its batches, although they share the rows."""
    run = tmp_path / "run"
    run_capture(run, hooks=HOOKS[:1], batch_tokens=64)
    run_capture(run, hooks=HOOKS[1:], dtype="bfloat16", precision="bfloat16")
    before = content(run)
    for column in (ROWS, *HOOKS):
        flip(shard(run, column, 1), 300)
    assert {(d.column, d.shard) for d in repair_stores(run)} == {(c, 1) for c in (ROWS, *HOOKS)}
    assert content(run) == before


def test_another_model_under_the_same_name_is_refused(
    tmp_path: Path, run_capture: Capture, model_dir: str
) -> None:
    import shutil

    from tests.models_on_disk import tiny_model_dir

    moved = tmp_path / "moved"
    shutil.copytree(model_dir, moved)
    run_capture(tmp_path / "run", model=str(moved))
    flip(shard(tmp_path / "run", HOOKS[0], 1))
    shutil.rmtree(moved)
    tiny_model_dir(moved, seed=5)
    with pytest.raises(UserError, match="made with another model_hash"):
        repair_stores(tmp_path / "run")


def test_arrays_are_imported_again_by_the_user(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((20, 3), np.float32))
    import_array(tmp_path / "run", tmp_path / "x.npy")
    flip(shard(tmp_path / "run", "array", 0))
    with pytest.raises(
        UserError, match="was copied from an array: delete its folder and import the array again"
    ):
        repair_stores(tmp_path / "run")
    with pytest.raises(UserError, match="has no activations: capture first"):
        verify_stores(tmp_path / "none")
