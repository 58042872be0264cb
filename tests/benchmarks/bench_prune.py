"""Pruning of large attribution graphs: time and peak memory, and the same on dense matrices where they fit.

    python tests/benchmarks/bench_prune.py [--nodes 60000] [--edges 10000000] [--dense-nodes 3000] [--repeats 3]

A graph of 26 layers of features with an error node per layer and position, tokens and 10 logits; weights heavy-tailed
(normal times log-normal). Goal: 60,000 nodes and 10^7 edges in less than 10 s and 4 GB, the graph itself included.
The baseline is the same pruning with N x N float32 matrices in torch (power iteration, one sort of all N^2 scores),
at a size where those fit; both keep the same nodes there. Peak memory is of a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from workbench.circuits.circuit_graph import CircuitGraph, node_table
from workbench.circuits.pruning.influence import covering_mask
from workbench.circuits.pruning.prune import ALWAYS_KEPT, SOURCES, logit_weights, prune_graph
from workbench.circuits.pruning.topk import StreamingTopK

N_LAYERS, N_LOGITS, PART = 26, 10, 500_000
GOAL_S, GOAL_GB = 10.0, 4.0


def layered_graph(n_nodes: int, n_edges: int, *, seed: int = 0) -> CircuitGraph:
    """A random graph of the kind that attribution makes; few edges are drawn twice, and those are dropped."""
    rng = np.random.default_rng(seed)
    n_pos = max(2, n_nodes // 200)
    n_features = n_nodes - n_pos * (N_LAYERS + 1) - N_LOGITS
    layer = np.concatenate([np.sort(rng.integers(0, N_LAYERS, n_features)), np.repeat(np.arange(N_LAYERS), n_pos),
                            np.full(n_pos, -1), np.full(N_LOGITS, N_LAYERS)])  # fmt: skip
    kind = np.repeat(np.array(["feature", "error", "token", "logit"], dtype=object),
                     [n_features, n_pos * N_LAYERS, n_pos, N_LOGITS])  # fmt: skip
    reads = np.flatnonzero(np.isin(kind, ["feature", "logit"]))
    logits = rng.random(len(kind)) < 0.0
    logits[-N_LOGITS:] = True
    target = np.where(rng.random(n_edges) < 0.01, n_nodes - 1 - rng.integers(0, N_LOGITS, n_edges),
                      rng.choice(reads, n_edges))  # fmt: skip
    source = rng.integers(0, n_nodes, n_edges)
    fits = layer[source] < layer[target]
    key = np.unique(target[fits] * n_nodes + source[fits])
    weight = (rng.normal(size=len(key)) * np.exp(1.5 * rng.normal(size=len(key)))).astype(np.float32)
    prob = np.where(logits, 0.1, np.nan)
    ids = [f"n{i}" for i in range(n_nodes)]
    nodes = node_table({"node_id": ids, "kind": kind, "layer": layer, "prob": prob})
    ends = torch.from_numpy(key % n_nodes).int(), torch.from_numpy(key // n_nodes).int()
    return CircuitGraph(nodes=nodes, source=ends[0], target=ends[1], weight=torch.from_numpy(weight))


def with_edges(n_nodes: int, n_edges: int) -> CircuitGraph:
    """A graph of that many edges: about twice as many pairs are drawn, and the first of a shuffle are kept."""
    graph = layered_graph(n_nodes, int(2.4 * n_edges))
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(0))
    return graph.with_edges(order[:n_edges])


def dense_prune(graph: CircuitGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """Kept nodes and edges by N x N matrices in float32."""
    kinds = graph.nodes["kind"].to_numpy(dtype=object)
    start = torch.from_numpy(logit_weights(graph)).float()
    start /= start.sum()
    matrix = torch.zeros(graph.n_nodes, graph.n_nodes)
    matrix[graph.target.long(), graph.source.long()] = graph.weight.abs()
    always, sources = (torch.from_numpy(np.isin(kinds, names)) for names in (ALWAYS_KEPT, SOURCES))
    alive = _covering(_collected(_shares(matrix), start), 0.8) | always
    shares = _shares(matrix * alive[:, None] * alive)
    edges = _covering((shares * (_collected(shares, start) + start)[:, None]).flatten(), 0.98).view_as(matrix)
    while True:
        hanging = alive & ((~always & ~edges.any(0)) | (~sources & ~edges.any(1)))
        if not hanging.any():
            return alive, edges
        alive &= ~hanging
        edges &= alive[:, None] & alive


def _shares(matrix: torch.Tensor) -> torch.Tensor:
    return matrix / matrix.sum(1, keepdim=True).clamp_min(1e-30)


def _collected(shares: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    step, total = start @ shares, torch.zeros_like(start)
    while step.any():
        total, step = total + step, step @ shares
    return total


def _covering(scores: torch.Tensor, frac: float) -> torch.Tensor:
    falling = scores.sort(descending=True).values
    reached = falling.cumsum(0)
    return scores >= falling[int(torch.searchsorted(reached, frac * reached[-1]))].clamp_min(1e-38)


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Shortest wall time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def stream(graph: CircuitGraph, k: int) -> None:
    """The k heaviest edges of the graph, given in parts."""
    top = StreamingTopK(k, n_nodes=graph.n_nodes)
    for start in range(0, graph.n_edges, PART):
        part = slice(start, start + PART)
        top.add(graph.source[part], graph.target[part], graph.weight[part])
    top.result()


def large(n_nodes: int, n_edges: int, repeats: int) -> None:
    """Time and memory at full size, in this process."""
    graph = with_edges(n_nodes, n_edges)
    made = peak_gb()
    start = time.perf_counter()
    pruned = prune_graph(graph)
    first, peak = time.perf_counter() - start, peak_gb()
    best = best_of(lambda: prune_graph(graph), repeats)
    threshold = best_of(lambda: covering_mask(np.abs(graph.weight.numpy().astype(np.float64)), 0.98), repeats)
    streamed = best_of(lambda: stream(graph, 100_000), repeats)
    reached = "goal reached" if first < GOAL_S and peak < GOAL_GB else "goal missed"
    print(
        f"{n_nodes:,} nodes, {graph.n_edges:,} edges: first {first:.2f} s, best of {repeats} {best:.2f} s "
        f"(of it one sort {threshold:.2f} s), peak {peak:.2f} GB ({made:.2f} GB to make the graph): {reached}\n"
        f"  kept {pruned.graph.n_nodes:,} nodes, {pruned.graph.n_edges:,} edges; {pruned.after.as_dict()}\n"
        f"  100,000 heaviest edges of a stream in parts of {PART:,}: {streamed:.2f} s"
    )


def beside_dense(n_nodes: int, repeats: int) -> None:
    """Ours and dense matrices on one graph."""
    graph = with_edges(n_nodes, n_nodes * n_nodes // 8)
    alive, edges = dense_prune(graph)
    ours = prune_graph(graph).graph
    same = set(ours.ids) == {name for name, kept in zip(graph.ids, alive.tolist(), strict=True) if kept}
    dense, sparse = best_of(lambda: dense_prune(graph), repeats), best_of(lambda: prune_graph(graph), repeats)
    print(
        f"{n_nodes:,} nodes, {graph.n_edges:,} edges: dense {dense:.2f} s, ours {sparse:.3f} s, {dense / sparse:.1f} "
        f"times; the same nodes: {same}; edges {int(edges.sum()):,} and {ours.n_edges:,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=60_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--dense-nodes", type=int, default=3_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="measure the large graph in this process")
    given = parser.parse_args()
    if given.here:
        return large(given.nodes, given.edges, given.repeats)
    beside_dense(given.dense_nodes, given.repeats)
    command = [sys.executable, __file__, "--here", f"--nodes={given.nodes}", f"--edges={given.edges}"]
    return sys.exit(subprocess.run([*command, f"--repeats={given.repeats}"]).returncode)


if __name__ == "__main__":
    main()
