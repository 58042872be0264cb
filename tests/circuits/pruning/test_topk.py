"""The heaviest edges of a stream: the same as of a full sort, however the stream is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.circuits.pruning.topk import StreamingTopK, TopEdges, top_k
from workbench.errors import UserError

N_NODES = 20


def stream(seed: int, n_edges: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distinct edges in a random order whose weights, whole numbers, are often equal in size."""
    rng = np.random.default_rng(seed)
    chosen = torch.from_numpy(rng.permutation(N_NODES**2)[:n_edges])
    weight = torch.from_numpy(rng.integers(-6, 7, n_edges)).float()
    return chosen % N_NODES, chosen // N_NODES, weight


def by_full_sort(
    source: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, k: int
) -> list[tuple[int, ...]]:
    edges = zip(source.tolist(), target.tolist(), weight.tolist(), strict=True)
    return sorted(edges, key=lambda e: (-abs(e[2]), e[1], e[0]))[:k]


def listed(found: TopEdges) -> list[tuple[int, ...]]:
    return list(zip(found.source.tolist(), found.target.tolist(), found.weight.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n_edges=st.integers(0, 300),
    k=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_a_stream_gives_what_a_full_sort_gives(seed: int, n_edges: int, k: int, cuts: list[int]) -> None:
    edges = stream(seed, n_edges)
    top = StreamingTopK(k, n_nodes=N_NODES)
    bounds = [0, *sorted(min(cut, n_edges) for cut in cuts), n_edges]
    for start, stop in pairwise(bounds):
        top.add(*(part[start:stop] for part in edges))
    found = top.result()
    assert listed(found) == by_full_sort(*edges, k)
    assert found.n_seen == n_edges
    whole = torch.zeros(N_NODES).index_add(0, edges[1], edges[2].abs())
    kept = torch.zeros(N_NODES).index_add(0, found.target, found.weight.abs())
    np.testing.assert_allclose(found.unlisted_abs.numpy(), (whole - kept).numpy(), atol=1e-6)


def test_an_edge_below_the_floor_cannot_come_in_any_more() -> None:
    top = StreamingTopK(2, n_nodes=9)
    top.add(torch.arange(5), torch.arange(1, 6), torch.tensor([5.0, -4.0, 3.0, 2.0, 1.0]))
    assert top.floor == 4.0
    top.add(torch.tensor([6]), torch.tensor([7]), torch.tensor([3.9]))
    assert listed(top.result()) == [(0, 1, 5.0), (1, 2, -4.0)]
    assert listed(top_k(torch.tensor([6]), torch.tensor([7]), torch.tensor([3.5]), 4, n_nodes=9)) == [
        (6, 7, 3.5)
    ]


def test_no_more_than_twice_k_and_a_part_is_held() -> None:
    top, rng = StreamingTopK(100, n_nodes=1000), np.random.default_rng(0)
    for _ in range(200):
        ends = torch.from_numpy(rng.integers(0, 1000, (2, 50)))
        top.add(ends[0], ends[1], torch.from_numpy(rng.normal(size=50)))
        assert sum(len(part[2]) for part in top._parts) <= 250


def test_bad_input_is_refused() -> None:
    with pytest.raises(UserError, match="k 0 keeps no edge: give at least 1"):
        StreamingTopK(0, n_nodes=4)
    with pytest.raises(UserError, match="the weight of edge 1 -> 2 is nan: give finite numbers"):
        top_k(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([1.0, float("nan")]), 1, n_nodes=3)
