"""The sketch of the best records per group equals a sort of everything, however the stream is cut."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.features import sketch as room
from workbench.features.sketch import BestPerGroup, rank_in_group

RECORD = np.dtype([("number", np.int64)])


def stream(seed: int, n: int, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    records = np.empty(n, RECORD)
    records["number"] = np.arange(n)
    return rng.integers(0, n_groups, n), rng.permutation(n).astype(np.uint64) + np.uint64(1), records


def expected(group: np.ndarray, key: np.ndarray, n_groups: int, capacity: int) -> list[list[int]]:
    best = []
    for g in range(n_groups):
        mine = np.flatnonzero(group == g)
        best.append(mine[np.argsort(key[mine])[::-1]][:capacity].tolist())
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(0, 200),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 40),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_best_and_lost_are_a_sort_of_everything(
    seed: int, n: int, n_groups: int, capacity: int, buffer: int, cuts: list[int]
) -> None:
    group, key, records = stream(seed, n, n_groups)
    sketch, lost = BestPerGroup(n_groups, capacity, RECORD), []
    with patch.object(room, "BUFFER_RECORDS", buffer):
        for part in np.split(np.arange(n), sorted(c % (n + 1) for c in cuts)):
            lost += sketch.offer(group[part], key[part], records[part])["number"].tolist()
        lost += sketch.finish()["number"].tolist()
    kept_group, kept = sketch.best()
    best = expected(group, key, n_groups, capacity)
    assert [kept["number"][kept_group == g].tolist() for g in range(n_groups)] == best
    assert sorted(lost + kept["number"].tolist()) == list(range(n))


def test_memory_is_bounded() -> None:
    """Nothing but the best and one buffer is held, whatever the length of the stream."""
    sketch = BestPerGroup(3, 4, RECORD)
    with patch.object(room, "BUFFER_RECORDS", 50):
        for seed in range(40):
            sketch.offer(*stream(seed, 100, 3))
            assert sketch._n_waiting <= 50 + 100
            assert len(sketch._records) <= 12


def test_rank_in_group() -> None:
    assert rank_in_group(np.array([2, 2, 2, 5, 7, 7])).tolist() == [0, 1, 2, 0, 0, 1]
    assert rank_in_group(np.array([], np.int64)).tolist() == []
