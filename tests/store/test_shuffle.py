"""Shuffled reading: every row once a pass, any batch again from two integers, and how well it is shuffled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.store import ActivationStore, StoreError
from workbench.store import shuffle as room
from workbench.store.ring import Ring, seeded
from workbench.store.shuffle import Plan

Make = Callable[..., ActivationStore]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 500), st.integers(1, 20), st.integers(0, 9))
def test_the_plan_covers_each_pass(n: int, batch: int, window: int, chunk: int, seed: int) -> None:
    """Windows partition the rows and fit the memory; `find` counts batches without gap."""
    if batch > min(n, window):
        return
    plan = Plan(n, batch, window, chunk, seed)
    sizes = [plan.window_size(w) for w in range(plan.n_windows)]
    assert sum(sizes) == n
    assert max(sizes) <= window
    assert plan.batches_per_pass > 0
    assert sorted(plan.chunk_order(3).tolist()) == list(range(plan.n_chunks))
    expected = [(p, w, j) for p in range(2) for w, size in enumerate(sizes) for j in range(size // batch)]
    assert [plan.find(i) for i in range(len(expected))] == expected


def test_rows_are_lost_at_the_end_of_a_pass_only() -> None:
    """Where chunks and batches allow, whole windows are whole batches."""
    plan = Plan(100_000, 256, 20_000, 64, 0)
    assert plan.n_windows > 2
    assert sum(plan.batches) == 100_000 // 256


def test_windows_and_passes_have_permutations_of_their_own() -> None:
    plan = Plan(1000, 10, 100, 5, 0)
    orders = [torch.randperm(50, generator=plan.row_generator(p, w)) for p in range(3) for w in range(3)]
    assert len({tuple(order.tolist()) for order in orders}) == 9


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHUNK_BYTES", 4 * 6 * 5)  # five rows


def test_one_pass_gives_every_row_once(make: Make) -> None:
    store = make()
    for window in (40, 80, 1000):
        reader = store.reader(8, seed=1, window_rows=window)
        rows = torch.cat(list(islice(reader, reader.plan.batches_per_pass)))
        assert len(rows[:, 0].unique()) == len(rows) >= 320 - 7


def test_passes_are_ordered_differently(make: Make) -> None:
    one, two = islice(make().batches(320, seed=1), 2)
    assert not torch.equal(one, two)
    assert torch.equal(one.sort(0).values, two.sort(0).values)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 400), st.integers(0, 120), st.integers(0, 3))
def test_reading_resumes_at_any_batch(
    shared: ActivationStore, batch: int, window: int, start: int, seed: int
) -> None:
    if batch > min(window, shared.n_rows):
        return
    straight = shared.reader(batch, seed=seed, window_rows=window)
    for _ in range(start):
        next(straight)
    resumed = shared.reader(batch, **straight.state())
    for _ in range(5):
        assert torch.equal(next(straight), next(resumed))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    from tests.store.conftest import HOOK, row_shard, values, writer

    root = tmp_path_factory.mktemp("shared")
    out = writer(root)
    for index, n_blocks in enumerate((10, 3, 12, 1)):  # shards of different size
        out.add(index, row_shard(index, n_blocks), {HOOK: values(row_shard(index, n_blocks))})
    out.mark(complete=True)
    return ActivationStore.open(root / HOOK)


def test_parts_are_disjoint_and_whole(make: Make) -> None:
    store = make(5)
    parts = [store.reader(16, seed=2, part=(i, 3)) for i in range(3)]
    seen = [torch.cat(list(islice(r, r.plan.batches_per_pass)))[:, 0].tolist() for r in parts]
    assert sorted(chain.from_iterable(seen)) == sorted(store.take(range(store.n_rows))[:, 0].tolist())
    with pytest.raises(StoreError, match="part 5 of 6 has no shard: the store has 5"):
        store.reader(16, part=(5, 6))


def test_sizes_that_do_not_fit_are_refused(make: Make) -> None:
    with pytest.raises(
        StoreError, match="batch_size 321 does not fit: choose 1 to 320, the rows of the store"
    ):
        make().reader(321)
    with pytest.raises(StoreError, match="choose 1 to 30, the rows of the window"):
        make().reader(31, window_rows=30)


def test_the_stored_dtype_is_kept_on_request(make: Make) -> None:
    store = make()
    assert next(store.reader(4, dtype=None)).dtype == store.dtype
    assert next(store.reader(4, dtype=torch.float64)).dtype == torch.float64


def chi_square(reader: room.Reader, column: int, n_batches: int) -> float:
    """Chi-square per degree of freedom of one column's values in batches, against the whole store's shares.

    1 is what drawing each batch without replacement gives (the finite population is corrected for).
    """
    store, size = reader.rows.store, reader.plan.batch_size
    whole = store.take(range(store.n_rows))[:, column].numpy().astype(int)
    expected = np.bincount(whole) / len(whole) * size
    total = 0.0
    for batch in islice(reader, n_batches):
        found = np.bincount(batch[:, column].numpy().astype(int), minlength=len(expected))
        total += float(((found - expected) ** 2 / np.maximum(expected, 1e-9))[expected > 0].sum())
    freedom = (expected > 0).sum() - 1
    return total / (n_batches * freedom) * (len(whole) - 1) / (len(whole) - size)


def test_no_batch_has_more_of_a_document_or_position_than_chance_allows(make: Make) -> None:
    """6,400 rows, 240 documents: a window of the whole store, and one of a third of it, against reading in order."""
    store = make(8, n_blocks=100)
    for window in (10_000, 2_200):
        for column in (1, 2):
            reader = store.reader(64, seed=5, window_rows=window)
            tolerated = 1 + reader.excess_companions
            found = chi_square(reader, column, 300)
            assert abs(found - tolerated) < 0.08, (window, column, found, tolerated)


def test_a_bad_shuffle_is_seen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks in the order of the text: the window holds few documents, and the same measure says so."""
    monkeypatch.setattr(Plan, "chunk_order", lambda plan, number: np.arange(plan.n_chunks))
    store = make(8, n_blocks=100)
    assert chi_square(store.reader(64, seed=5, window_rows=2_200), 1, 300) > 1.4


def test_memory_is_the_window(make: Make) -> None:
    store = make(8, n_blocks=100)
    reader = store.reader(64, seed=0, window_rows=2_200)
    next(reader)
    assert 0.9 * 2_200 * store.row_bytes < reader.nbytes <= 2_201 * store.row_bytes


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=6), st.integers(1, 40))
def test_a_ring_serves_each_window_once(capacity: int, sizes: list[int], batch: int) -> None:
    """Whatever the sizes of the windows, loading in the gaps loses and repeats nothing."""
    ring, number = Ring(capacity, 1, torch.float32), 0
    for window, size in enumerate(s for s in sizes if s <= capacity):
        queue = list(range(number, number + size))
        number += size

        def load(n: int, queue: list[int] = queue) -> torch.Tensor:
            taken = [queue.pop(0) for _ in range(min(n, len(queue)))]
            return torch.tensor(taken, dtype=torch.float32).reshape(-1, 1)

        ring.load(batch, load)
        ring.skip(ring.remaining)
        ring.load(capacity, load)
        ring.begin(seeded(window))
        seen = []
        while ring.remaining:
            seen += ring.take(min(batch, ring.remaining)).flatten().tolist()
        assert sorted(seen) == [float(i) for i in range(number - size, number)]
