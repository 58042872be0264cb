"""ActivationStore: what is written is read back, shuffled reading resumes, damage is seen."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from workbench.store import ActivationStore, Shard, StoreError, StoreWriter

DESCRIPTION = {"model_hash": "m", "hook": "h", "n_ctx": 5, "dtype": "float32"}


def shard(index: int, n_blocks: int = 6) -> Shard:
    rows = n_blocks * 4
    values = torch.arange(rows, dtype=torch.float32) + 1000 * index
    return Shard(
        values[:, None].repeat(1, 3),
        torch.zeros(n_blocks, 5, dtype=torch.int32),
        torch.arange(n_blocks, dtype=torch.int32).repeat_interleave(4),
        torch.arange(1, 5, dtype=torch.int32).repeat(n_blocks),
        torch.zeros(rows, dtype=torch.int32),
    )


def made(folder: Path, n_shards: int = 4) -> ActivationStore:
    writer = StoreWriter(folder, DESCRIPTION, ["doc"])
    for index in range(n_shards):
        writer.append(shard(index))
    return writer.finish()


def test_round_trip(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert (store.n_rows, store.d_model, store.n_ctx, store.dtype) == (96, 3, 5, torch.float32)
    for index, read in enumerate(store.shards()):
        for name, value in vars(shard(index)).items():
            assert torch.equal(getattr(read, name), value)


def test_one_pass_gives_every_row_once(tmp_path: Path) -> None:
    rows = torch.cat(list(islice(made(tmp_path).batches(8, seed=1), 12)))
    assert len(rows[:, 0].unique()) == 96


def test_passes_are_ordered_differently(tmp_path: Path) -> None:
    batches = list(islice(made(tmp_path).batches(96, seed=1), 2))
    assert not torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0].sort(0).values, batches[1].sort(0).values)


@pytest.mark.parametrize("window_shards", [1, 2, 3, 16])
def test_reading_resumes_at_any_batch(tmp_path: Path, window_shards: int) -> None:
    store = made(tmp_path, 5)
    straight = list(islice(store.batches(7, seed=4, window_shards=window_shards), 40))
    for start in (0, 1, 9, 23, 39):
        resumed = next(store.batches(7, seed=4, start=start, window_shards=window_shards))
        assert torch.equal(resumed, straight[start])


def test_a_full_window_mixes_all_shards(tmp_path: Path) -> None:
    """Each batch of a uniform shuffle holds rows of several shards; reading in order would hold one."""
    first = next(made(tmp_path).batches(24, seed=0))
    assert len((first[:, 0] // 1000).unique()) == 4


def test_a_flipped_byte_is_seen_before_use(tmp_path: Path) -> None:
    store = made(tmp_path)
    path = tmp_path / "shard-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(store.shard(1).activations) == 24
    with pytest.raises(StoreError, match=r"shard-00002\.safetensors' is damaged"):
        store.shard(2)
    with pytest.raises(StoreError, match="is damaged"):
        store.verify()


def test_an_interrupted_store_is_refused_and_continued(tmp_path: Path) -> None:
    StoreWriter(tmp_path, DESCRIPTION, ["doc"]).append(shard(0))
    with pytest.raises(StoreError, match="was interrupted"):
        ActivationStore.open(tmp_path)
    writer = StoreWriter(tmp_path, DESCRIPTION, ["doc"])
    assert writer.n_shards == 1
    writer.append(shard(1))
    assert writer.finish().n_rows == 48


def test_a_store_of_another_model_is_refused_by_field(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(StoreError, match="made with another model_hash \\('m', not 'other'\\)"):
        StoreWriter(tmp_path, DESCRIPTION | {"model_hash": "other"}, ["doc"])


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no activation store"):
        ActivationStore.open(tmp_path / "none")


def test_batch_larger_than_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="batch_size 97 is larger"):
        next(made(tmp_path).batches(97, seed=0))


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path, DESCRIPTION, ["doc"])
    writer.append(shard(0))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.store.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        writer.append(shard(1))
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "shard-00000.safetensors"]
    assert StoreWriter(tmp_path, DESCRIPTION, ["doc"]).n_shards == 1
