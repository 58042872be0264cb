"""What says what a store holds is believed only where it is what was written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.store.conftest import HOOK, row_shard, values, writer
from workbench.artifacts import read_json, write_json
from workbench.store import ROWS, ActivationStore, StoreError, moments
from workbench.store.logs import LOG, read_log

Make = Callable[..., ActivationStore]
OTHER = "blocks.1.hook_resid_post"


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 2, "complete": true}'])
def test_a_damaged_manifest_is_refused_by_name(make: Make, text: str) -> None:
    folder = make(1).folder
    (folder / "manifest.json").write_text(text)
    for use in (lambda: ActivationStore.open(folder), lambda: writer(folder.parent)):
        with pytest.raises(StoreError, match=r"manifest\.json' is damaged \(it is not what was written\)"):
            use()


def test_a_description_that_was_edited_is_refused(make: Make) -> None:
    folder = make(1).folder
    manifest = read_json(folder / "manifest.json")
    manifest["description"]["model_hash"] = "other"
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(StoreError, match="it is not what was written"):
        ActivationStore.open(folder)


def test_a_store_of_another_version_is_refused(make: Make) -> None:
    folder = make(1).folder
    write_json(folder / "manifest.json", {"format": 1})
    with pytest.raises(StoreError, match="has format 1, this version reads 2"):
        ActivationStore.open(folder)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"shard":0}', '{"shard":"0"}', "\udcff"])
def test_a_damaged_log_is_refused_by_name(make: Make, line: str) -> None:
    folder = make(2).folder
    with (folder / LOG).open("ab") as log:
        log.write(line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(StoreError, match=r"shards\.jsonl' is damaged \(a line is not what was written\)"):
        ActivationStore.open(folder)


def test_an_unfinished_line_is_no_line(make: Make) -> None:
    folder = make(2).folder
    with (folder / LOG).open("ab") as log:
        log.write(b'{"shard":1,"fi')
    assert ActivationStore.open(folder).n_shards == 2
    writer(folder.parent)
    assert (folder / LOG).read_bytes().endswith(b"}\n")


def test_lines_out_of_order_are_read_in_order_and_the_later_of_two_counts(make: Make) -> None:
    """As after a gap was filled, and after an accepted repair."""
    store = make(3)
    log = store.folder / LOG
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([lines[0].replace('"rows":80', '"rows":1'), *lines[::-1]]))
    again = ActivationStore.open(store.folder)
    assert torch.equal(again.take(range(240)), store.take(range(240)))


def test_an_emptied_log_is_refused(make: Make) -> None:
    folder = make(1).folder
    (folder / LOG).write_text("")
    with pytest.raises(StoreError, match="has other shards: capture again"):
        ActivationStore.open(folder)


def test_shards_without_a_manifest_are_not_taken_for_those_of_any_model(make: Make) -> None:
    folder = make(1).folder
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"has shards and no manifest\.json that says what they are"):
        writer(folder.parent, model_hash="other")


def test_the_row_index_of_another_text_is_refused(make: Make) -> None:
    """The shards are as many and as long; only the text is another."""
    store, second = make(2), make(2, name="b")
    manifest = read_json(second.folder.parent / ROWS / "manifest.json")
    manifest["hash"] = "0" * 64
    shutil.rmtree(store.folder.parent / ROWS)
    shutil.copytree(second.folder.parent / ROWS, store.folder.parent / ROWS)
    ActivationStore.open(store.folder)
    rows = store.folder.parent / ROWS / "manifest.json"
    from workbench.store.column import new_manifest

    write_json(rows, new_manifest({**manifest["description"], "text": "another"}, {}) | {"complete": True})
    with pytest.raises(StoreError, match="is that of another text: capture again"):
        ActivationStore.open(store.folder)


@pytest.mark.parametrize("column", [HOOK, ROWS])
def test_a_shard_missing_between_others_is_refused(make: Make, column: str) -> None:
    """Also where the row index has just as many: its shards would be those of other rows."""
    store = make(4)
    for name in (HOOK, ROWS):
        log = store.folder.parent / name / LOG
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:2] + lines[3:] if name == column else lines[:3]))
    with pytest.raises(StoreError, match=r"shard 2 of .* was never captured, later ones were"):
        ActivationStore.open(store.folder)
    assert writer(store.folder.parent).has_gap


def test_a_line_is_written_whole_where_the_disk_takes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `write` does on a disk that is nearly full: it writes less and says so, and is no error."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    out = writer(tmp_path)
    for index in range(2):
        out.add(index, row_shard(index), {HOOK: values(row_shard(index))})
    monkeypatch.undo()
    assert [entry["shard"] for entry in read_log(tmp_path / HOOK / LOG)] == [0, 1]


def test_the_order_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is on the disk before it has its name, has its name before its line, and that is on the disk too."""
    calls: list[str] = []
    for name in ("fsync", "replace", "write"):
        real = getattr(os, name)

        def recorded(*args: object, name: str = name, real: Callable = real) -> object:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, recorded)
    out = writer(tmp_path)
    calls.clear()
    out.add(0, row_shard(0), {HOOK: values(row_shard(0))})
    assert calls == ["fsync", "replace", "write", "fsync"] * 2  # the row index, then the hook


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_that_are_not_finite_are_never_stored(tmp_path: Path, bad: float, dtype: torch.dtype) -> None:
    out, shard = writer(tmp_path), row_shard(0, 400)
    rows = values(shard, dtype)
    rows[2500, 3] = bad
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(StoreError, match=rf"row 2500 of shard 0 of hook '{HOOK}' is not finite in {name}"):
        out.add(0, shard, {HOOK: rows})
    assert not list((tmp_path / HOOK).glob("*shard-*"))
    assert writer(tmp_path).lacking(0) == [HOOK]


def test_moments_of_float64_rows_keep_their_figures() -> None:
    """A spread of 1e-6 around 1e6 is lost in float32."""
    rows = 1e6 + 1e-6 * torch.randn(3000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = moments(rows)
    np.testing.assert_allclose(found.variance, rows.numpy().var(0), rtol=1e-3)


def test_shards_without_rows(tmp_path: Path) -> None:
    """First, between others, and last: every way of reading goes past them."""
    out, sizes, first = writer(tmp_path), (0, 3, 0, 2, 0), 0
    for index, size in enumerate(sizes):
        shard = row_shard(index, max(size, 1), first_document=first)
        first += len(shard.documents)
        if not size:
            shard.rows.kept[:] = False
        out.add(index, shard, {HOOK: values(shard)})
    out.mark(complete=True)
    store = ActivationStore.open(tmp_path / HOOK)
    assert store.n_rows == 40
    rows = store.take(range(40))
    assert store.locate(range(40))["token"].tolist() == rows[:, 0].int().tolist()
    assert set(rows[:, 0].int().tolist()) == {t + 1000 * i for i, n in ((1, 3), (3, 2)) for t in _kept(n)}
    batch = next(store.reader(40))
    assert torch.equal(batch[batch[:, 0].argsort()], rows)
    assert store.moments.count == 40
    store.verify()


def _kept(n_blocks: int) -> list[int]:
    return [t for t in range(9 * n_blocks) if t % 9]


def test_a_store_that_grows_under_a_reader(make: Make) -> None:
    """A store that was opened stays what it was; one opened while it grows is refused."""
    store = make(2)
    reader, again = store.reader(16, seed=1, window_rows=40), store.reader(16, seed=1, window_rows=40)
    expected = [next(again) for _ in range(20)]
    out = writer(store.folder.parent)
    out.mark(complete=False)
    for index in (2, 3):
        out.add(index, row_shard(index), {HOOK: values(row_shard(index))})
        with pytest.raises(StoreError, match="was interrupted"):
            ActivationStore.open(store.folder)
    out.mark(complete=True)
    assert all(torch.equal(next(reader), batch) for batch in expected)
    assert ActivationStore.open(store.folder).n_rows == 2 * store.n_rows


def test_batches_are_numbered_from_0(make: Make) -> None:
    with pytest.raises(StoreError, match="start -1 is not a batch"):
        make(1).reader(4, start=-1)
