"""What is written is read back, by any way of reading; damage is seen; other stores are refused by field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.store.conftest import HOOK, D, row_shard, values, writer
from workbench.store import ROWS, ActivationStore, StoreError

Make = Callable[..., ActivationStore]


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_round_trip(make: Make) -> None:
    store = make()
    assert (store.n_rows, store.n_shards, store.d_model, store.n_sequences) == (320, 4, D, 40)
    assert store.left_out == {"beginning-of-text tokens": 40}
    for index, shard in enumerate(store.shards()):
        row = shard.activations.float()
        assert torch.equal(row[:, 0].int(), shard.tokens[shard.block.long(), shard.pos.long()])
        assert torch.equal(row[:, 1].int(), shard.document)
        assert torch.equal(row[:, 2].int(), shard.pos)
        assert int(row[0, 0]) // 1000 == index


def test_any_row_leads_back_to_its_text(make: Make) -> None:
    store = make()
    numbers = [319, 0, 81, 0]
    rows, table = store.take(numbers), store.locate(numbers)
    assert table["row"].tolist() == numbers
    assert table["token"].tolist() == rows[:, 0].int().tolist()
    assert table["pos"].tolist() == rows[:, 2].int().tolist()
    assert table["document"].tolist() == [f"doc{int(i)}" for i in rows[:, 1]]
    with pytest.raises(StoreError, match="row 320 is not in the store: it has rows 0 to 319"):
        store.take([320])


def test_other_tools_read_the_shards(make: Make) -> None:
    store = make(1)
    loaded = load_file(store.folder / "shard-00000.safetensors")
    assert torch.equal(loaded["activations"], store.activations(0))


def test_bytes_on_disk(tmp_path: Path) -> None:
    """Rows x width x item size, and at most 0.1% beside it; the row index a few bytes a token."""
    out, shard = writer(tmp_path, dtype="bfloat16"), row_shard(0, 2000)
    wide = torch.randn(len(shard.rows.token_of_row), 768).bfloat16()
    out.add(0, shard, {HOOK: wide})
    out.mark(complete=True)
    written = sum(f.stat().st_size for f in (tmp_path / HOOK).iterdir())
    assert wide.nbytes < written <= wide.nbytes * 1.001
    index = sum(f.stat().st_size for f in (tmp_path / ROWS).iterdir())
    assert index < 4.2 * len(shard.rows.tokens) + 40 * len(shard.documents) + 20_000


@pytest.mark.parametrize("column", [HOOK, ROWS])
def test_a_flipped_byte_is_seen_before_use(make: Make, column: str) -> None:
    store = make()
    flip(store.folder.parent / column / "shard-00002.safetensors")
    again = ActivationStore.open(store.folder)
    assert len(again.shard(1).activations) == 80
    for use in (lambda: again.shard(2), again.verify):
        with pytest.raises(
            StoreError, match=r"shard-00002\.safetensors' is damaged \(its SHA-256 is another"
        ):
            use()


def test_verifying_looks_at_the_disk_every_time(make: Make) -> None:
    store = make()
    store.verify()
    flip(store.folder / "shard-00001.safetensors")
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors' is damaged"):
        store.verify()


def test_a_flipped_byte_is_seen_by_a_shuffled_reader_and_by_take(make: Make) -> None:
    store = make()
    flip(store.folder / "shard-00003.safetensors", 500)
    again = ActivationStore.open(store.folder)
    assert len(again.take([5])) == 1
    with pytest.raises(StoreError, match="store repair"):
        again.take([300])
    with pytest.raises(StoreError, match=r"shard-00003\.safetensors' is damaged"):
        again.reader(8)


def test_a_truncated_shard_is_seen_when_the_store_is_opened(make: Make) -> None:
    store = make()
    path = store.folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        StoreError, match=r"shard-00001\.safetensors' is damaged \(it has .* bytes, its header says"
    ):
        ActivationStore.open(store.folder)
    path.unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors' is missing"):
        ActivationStore.open(store.folder)


def test_a_file_of_another_size_is_seen_when_the_store_is_opened(make: Make) -> None:
    """Longer than its header says, and a whole shard in the place of another."""
    store, longer = make(), make(1, n_blocks=11, name="b")
    path = store.folder / "shard-00001.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(StoreError, match="bytes, its header says"):
        ActivationStore.open(store.folder)
    path.write_bytes((longer.folder / "shard-00000.safetensors").read_bytes())
    with pytest.raises(StoreError, match=rf"bytes, {len(whole):,} were written"):
        ActivationStore.open(store.folder)


def test_an_interrupted_store_is_refused_and_continued(tmp_path: Path) -> None:
    shard = row_shard(0)
    writer(tmp_path).add(0, shard, {HOOK: values(shard)})
    with pytest.raises(StoreError, match="was interrupted"):
        ActivationStore.open(tmp_path / HOOK)
    again = writer(tmp_path)
    assert again.lacking(0) == []
    assert again.lacking(1) == [HOOK]
    with pytest.raises(StoreError, match="no activation store"):
        ActivationStore.open(tmp_path / "none")


def test_a_store_of_another_model_is_refused_by_field(make: Make) -> None:
    root = make().folder.parent
    with pytest.raises(StoreError, match="made with another model_hash \\('m', not 'other'\\)"):
        writer(root, model_hash="other")


def test_other_text_for_a_shard_that_exists_is_refused(make: Make) -> None:
    root = make().folder.parent
    second = writer(root, hook="blocks.1.hook_resid_post")
    with pytest.raises(StoreError, match="the text has changed"):
        second.add(1, row_shard(0), {"blocks.1.hook_resid_post": values(row_shard(0))})


def test_a_hook_with_other_rows_than_the_index_is_refused(tmp_path: Path) -> None:
    out, shard = writer(tmp_path), row_shard(0)
    with pytest.raises(StoreError, match=rf"shard 0 of hook '{HOOK}' has 79 rows, the row index 80"):
        out.add(0, shard, {HOOK: values(shard)[1:]})
    assert writer(tmp_path).lacking(0) == [HOOK]


def test_moments_are_those_of_all_rows(make: Make) -> None:
    store = make()
    rows = store.take(range(store.n_rows)).double().numpy()
    found = store.moments
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, rows.var(0), rtol=1e-9, atol=1e-12)
    norms = np.linalg.norm(rows, axis=1)
    assert found.max_norm == pytest.approx(norms.max())
    for q in (0.0, 0.25, 0.5, 0.99, 1.0):
        assert found.norm_quantile(q) == pytest.approx(
            np.quantile(norms, q, method="inverted_cdf"), rel=0.012
        )
