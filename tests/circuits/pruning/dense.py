"""The same pruning in plain float64 with N x N matrices, step by step, and random graphs to compare on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ALWAYS, SOURCES = ("token", "embed", "logit"), ("token", "embed", "logit", "error")


@dataclass(frozen=True)
class Graph:
    """A graph without cycles."""

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    kinds: np.ndarray
    start: np.ndarray

    @property
    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.source, self.target, self.weight

    def matrix(self) -> np.ndarray:
        """A[target, source]."""
        dense = np.zeros((len(self.kinds), len(self.kinds)))
        dense[self.target, self.source] = self.weight
        return dense


def random_graph(seed: int, *, n_nodes: int, density: float, dtype: type = np.float64) -> Graph:
    """Tokens and errors without input, logits without output, features between, in a random order of rows."""
    rng = np.random.default_rng(seed)
    kinds = np.array(rng.choice(["feature", "feature", "error", "token"], n_nodes), dtype=object)
    kinds[-max(1, n_nodes // 10) :] = "logit"
    possible = [(s, t) for t in range(n_nodes) for s in range(t) if rng.random() < density]
    possible = np.array(possible, dtype=np.int64).reshape(-1, 2)
    fits = (kinds[possible[:, 0]] != "logit") & np.isin(kinds[possible[:, 1]], ["feature", "logit"])
    rows, edges = rng.permutation(n_nodes), rng.permutation(int(fits.sum()))
    chosen = possible[fits][edges]
    shuffled = np.empty(n_nodes, dtype=object)
    shuffled[rows] = kinds
    start = np.where(shuffled == "logit", rng.random(n_nodes) + 0.01, 0.0)
    weight = (rng.normal(size=len(chosen)) * np.exp(rng.normal(size=len(chosen)))).astype(dtype)
    return Graph(rows[chosen[:, 0]], rows[chosen[:, 1]], weight, shuffled, start)


def shares(dense: np.ndarray) -> np.ndarray:
    """N: every row of |A| divided by its sum."""
    size = np.abs(dense)
    total = size.sum(1, keepdims=True)
    return np.divide(size, total, out=np.zeros_like(size), where=total > 0)


def influence(dense: np.ndarray, start: np.ndarray) -> np.ndarray:
    """start^T ((I - N)^-1 - I)."""
    unit = np.eye(len(dense))
    return (start / start.sum()) @ (np.linalg.inv(unit - shares(dense)) - unit)


def covering(scores: np.ndarray, frac: float) -> np.ndarray:
    """Largest first, one at a time, until the share is reached; then those equal to the last, up to rounding."""
    kept, reached, last = np.zeros(scores.size, bool), 0.0, np.inf
    for i in np.argsort(-scores.ravel(), kind="stable"):
        enough = reached >= frac * scores.sum() * (1 - 1e-9)
        if scores.ravel()[i] <= 0 or (enough and scores.ravel()[i] < last * (1 - 1e-9)):
            break
        last = last if enough else scores.ravel()[i]
        kept[i], reached = True, reached + scores.ravel()[i]
    return kept.reshape(scores.shape)


def prune(graph: Graph, *, node_frac: float, edge_frac: float) -> tuple[np.ndarray, np.ndarray]:
    """Kept nodes, and kept edges as a matrix [target, source]."""
    dense = graph.matrix()
    alive = covering(influence(dense, graph.start), node_frac) | np.isin(graph.kinds, ALWAYS)
    dense = dense * alive[:, None] * alive[None, :]
    reaching = influence(dense, graph.start) + graph.start / graph.start.sum()
    edges = covering(shares(dense) * reaching[:, None], edge_frac)
    while True:
        hanging = alive & ~np.isin(graph.kinds, ALWAYS) & ~edges.any(0)
        hanging |= alive & ~np.isin(graph.kinds, SOURCES) & ~edges.any(1)
        if not hanging.any():
            return alive, edges
        alive &= ~hanging
        edges = edges & alive[:, None] & alive[None, :]
