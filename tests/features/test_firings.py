"""Peaks and draws of blocks against loops; priorities are distinct and uniform."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.features.firings import CANDIDATE, Firings, candidates, firings_from_code, priorities

N_CTX = 9


def some_firings(seed: int, n_blocks: int, n_features: int, k: int, first_block: int = 0) -> Firings:
    rng = np.random.default_rng(seed)
    rows = n_blocks * (N_CTX - 1)
    indices = np.stack([rng.permutation(n_features)[:k] for _ in range(rows)])
    values = rng.integers(0, 4, (rows, k)).astype(np.float32)  # many zeros and many ties
    block = np.repeat(np.arange(n_blocks), N_CTX - 1) + first_block
    pos = np.tile(np.arange(1, N_CTX, dtype=np.int32), n_blocks)
    return firings_from_code(indices, values, block, pos)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_candidates_equal_loops(seed: int, n_blocks: int, n_features: int, first_block: int) -> None:
    f = some_firings(seed, n_blocks, n_features, min(3, n_features), first_block)
    made = candidates(f, n_features=n_features, n_ctx=N_CTX, seed=seed)
    priority = priorities(f, n_features=n_features, n_ctx=N_CTX, seed=seed)
    found = {(int(c["feature"]), int(c["block"])): c for c in made}
    assert len(found) == len(made)
    assert found.keys() == set(zip(f.feature.tolist(), f.block.tolist(), strict=True))
    for (feature, block), c in found.items():
        mine = np.flatnonzero((f.feature == feature) & (f.block == block))
        peak, draw = mine[np.argmax(f.value[mine])], mine[np.argmax(priority[mine])]
        assert (c["peak_pos"], c["peak_value"]) == (f.pos[peak], f.value[peak])
        assert (c["draw_pos"], c["draw_value"]) == (f.pos[draw], f.value[draw])
        assert c["priority"] == priority[draw]


def test_no_firings_no_candidates() -> None:
    f = firings_from_code(
        np.zeros((4, 2), np.int64), np.zeros((4, 2), np.float32), np.arange(4), np.ones(4, np.int32)
    )
    assert candidates(f, n_features=3, n_ctx=N_CTX, seed=0).dtype == CANDIDATE
    assert len(candidates(f, n_features=3, n_ctx=N_CTX, seed=0)) == 0


def test_priorities_do_not_depend_on_the_batch() -> None:
    whole = some_firings(0, 6, 5, 3)
    late = whole.block >= 3
    part = Firings(whole.feature[late], whole.block[late], whole.pos[late], whole.value[late])
    options = {"n_features": 5, "n_ctx": N_CTX, "seed": 4}
    assert (priorities(whole, **options)[late] == priorities(part, **options)).all()


def test_priorities_are_distinct_and_seeded() -> None:
    f = some_firings(1, 200, 40, 20)
    one, two = (priorities(f, n_features=40, n_ctx=N_CTX, seed=seed) for seed in (0, 1))
    assert len(np.unique(one)) == len(one)
    assert (one != two).all()


def test_draws_are_uniform_over_a_blocks_firings() -> None:
    """8,000 features that fire at the same 8 positions of one block: each position is drawn about 1,000 times."""
    n = 8000
    feature = np.tile(np.arange(n), 8)
    pos = np.repeat(np.arange(1, 9, dtype=np.int32), n)
    f = Firings(feature, np.zeros(8 * n, np.int64), pos, np.ones(8 * n, np.float32))
    drawn = np.bincount(candidates(f, n_features=n, n_ctx=N_CTX, seed=0)["draw_pos"], minlength=9)[1:]
    chi_squared = ((drawn - n / 8) ** 2 / (n / 8)).sum()
    assert chi_squared < 24.3  # 99.9% point of chi-squared with 7 degrees of freedom
