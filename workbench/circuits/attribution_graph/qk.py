"""Why a head attends: its score at one query and key as a sum over pairs of nodes.

    score(h, t, s) = scale  rot_t(q) . rot_s(k)
    q = sum_i q_i + q_const,   k = sum_j k_j + k_const       over tokens, features, errors; biases in the constants
    pair (i, j) = scale  rot_t(q_i) . rot_s(k_j)

q_i is what node i contributes to the head's query at t through the frozen model below (other attention layers
included), k_j the same for the key at s. The score is before the soft cap and the mask. Norms of queries and keys
are held at their scale. The node number -1 stands for the constants: biases, position embeddings, skipped positions.
A node's marginal is the sum of its pairs. Pairs sum to the score. Status: exact under the freeze.

Reference: Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions" (transformer-circuits.pub).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy.attention import rotate
from workbench.anatomy.norm import Norm
from workbench.circuits.attribution_graph.descent import Descent
from workbench.circuits.attribution_graph.replacement import Replacement
from workbench.circuits.attribution_graph.targets import direction_targets
from workbench.errors import UserError

CONSTANT = -1
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class QkAttribution:
    """One score of one head, by nodes.

    Attributes:
        layer: Layer of the head.
        head: The head.
        query: Position that attends.
        key: Position that is attended to.
        score: The score before soft cap and mask, as the model computes it.
        queries: Contributions to the query, normed, rotated and scaled; the last row is the constants.
        keys: Contributions to the key; the last row is the constants.
    """

    layer: int
    head: int
    query: int
    key: int
    score: float
    queries: Float[Tensor, "source_plus_one d_head"]
    keys: Float[Tensor, "source_plus_one d_head"]

    @property
    def total(self) -> float:
        """Sum of all pairs, constants included."""
        return float(self.queries.sum(0) @ self.keys.sum(0))

    @property
    def query_marginals(self) -> Float[Tensor, " source_plus_one"]:
        """Sum of the pairs of each node on the query's side."""
        return self.queries @ self.keys.sum(0)

    @property
    def key_marginals(self) -> Float[Tensor, " source_plus_one"]:
        """Sum of the pairs of each node on the key's side."""
        return self.keys @ self.queries.sum(0)

    def top_pairs(self, n: int = 20) -> pd.DataFrame:
        """The pairs of largest absolute weight: `query_node`, `key_node` (-1: constants), `weight`."""
        best = torch.zeros(0, dtype=self.keys.dtype, device=self.keys.device)
        place = torch.zeros(0, 2, dtype=torch.int64, device=self.keys.device)
        for start in range(0, len(self.queries), ROWS_AT_ONCE):
            pairs = self.queries[start : start + ROWS_AT_ONCE] @ self.keys.T
            found = pairs.flatten().abs().topk(min(n, pairs.numel())).indices
            own = torch.stack([found // pairs.shape[1] + start, found % pairs.shape[1]], 1)
            best, place = torch.cat([best, pairs.flatten()[found]]), torch.cat([place, own])
            kept = best.abs().argsort(descending=True, stable=True)[:n]
            best, place = best[kept], place[kept]
        last = len(self.queries) - 1
        nodes = torch.where(place == last, CONSTANT, place).cpu().numpy()
        return pd.DataFrame(
            {"query_node": nodes[:, 0], "key_node": nodes[:, 1], "weight": best.cpu().numpy()}
        )

    def tracing_results(self, name: Callable[[int], str], n: int = 20) -> dict[str, list[Any]]:
        """The shape of `qk_tracing_results` in exchanged graphs; pairs with the constants are no nodes and left out.

        Args:
            name: Gives the id of a node from its number.
            n: At most so many entries of each list.
        """
        pairs = self.top_pairs(3 * n + 1)
        nodes = pairs[(pairs["query_node"] >= 0) & (pairs["key_node"] >= 0)].head(n)
        rows = zip(nodes["query_node"], nodes["key_node"], nodes["weight"], strict=True)
        return {
            "pair_wise_contributors": [[name(int(q)), name(int(k)), float(w)] for q, k, w in rows],
            "top_q_marginal_contributors": _top(self.query_marginals[:-1], name, n),
            "top_k_marginal_contributors": _top(self.key_marginals[:-1], name, n),
        }


@torch.no_grad()
def qk_attribution(model: Replacement, *, layer: int, head: int, query: int, key: int) -> QkAttribution:
    """The score of a head at a query and a key, as pairs of nodes.

    Raises:
        UserError: no such layer or head, or a key that the query cannot look at.

    Status: exact under the freeze.
    """
    _check(model, layer, head, query, key)
    attn = model.frozen.layers[layer].block.attn
    sides = []
    for part, pos, number in (("q", query, head), ("k", key, head // attn.group)):
        sides.append(_side(model, layer, part, pos, number))
    sides[0] = sides[0] * attn.scale
    return QkAttribution(layer, head, query, key, _score(model, layer, head, query, key), *sides)


def _side(
    model: Replacement, layer: int, part: str, pos: int, head: int
) -> Float[Tensor, "source_plus_one d_head"]:
    """What every node, and last the constants, contribute to a query or key, normed and rotated."""
    attn = model.frozen.layers[layer].block.attn
    targets = direction_targets(model, attn.weight(part)[head].T, depth=2 * layer, pos=pos)
    bias = attn.bias(part)
    constant = targets.constant if bias is None else targets.constant + bias[head]
    raw = torch.cat([Descent(model, targets).run().rows, constant[None]])
    norm = attn.q_norm if part == "q" else attn.k_norm
    return _rotated(model, layer, pos, _normed(model, layer, part, pos, head, norm, raw))


def _normed(
    model: Replacement,
    layer: int,
    part: str,
    pos: int,
    head: int,
    norm: Norm,
    raw: Float[Tensor, "row d_head"],
) -> Float[Tensor, "row d_head"]:
    """The linear part of a norm of queries or keys at the scale that it has here; its bias goes to the constants."""
    if norm.identity:
        return raw
    frozen = model.frozen.layers[layer]
    whole = frozen.block.attn.project(frozen.block.ln1(frozen.stream[pos : pos + 1]), part)[0]
    wide = norm.weight is not None and norm.weight.shape[-1] != raw.shape[-1]
    if wide and (norm.centred or norm.bias is not None):
        raise UserError(
            f"layer {layer} norms all heads of its {part} together and centred: this is not followed"
        )
    scale = norm.scale(whole.flatten()) if wide else norm.scale(whole[head])
    size = raw.shape[-1]
    weight = norm.weight[head * size : (head + 1) * size] if wide and norm.weight is not None else norm.weight
    centred = raw - raw.mean(-1, keepdim=True) if norm.centred else raw
    out = centred / scale if weight is None else centred / scale * weight
    if norm.bias is not None:
        out[-1] += norm.bias
    return out


def _rotated(
    model: Replacement, layer: int, pos: int, x: Float[Tensor, "row d_head"]
) -> Float[Tensor, "row d_head"]:
    around = model.anatomy.around(model.frozen.n_pos)[layer]
    if around.cos is None or around.sin is None:
        return x
    pairs = model.frozen.layers[layer].block.attn.pairs
    return rotate(x[:, None], around.cos[pos : pos + 1], around.sin[pos : pos + 1], pairs=pairs)[:, 0]


def _score(model: Replacement, layer: int, head: int, query: int, key: int) -> float:
    """The model's own score, before cap and mask."""
    frozen, around = model.frozen.layers[layer], model.anatomy.around(model.frozen.n_pos)[layer]
    attn, normed = frozen.block.attn, frozen.block.ln1(frozen.stream)
    q, k = (attn.ready(attn.project(normed, part), part, around) for part in "qk")
    return float(q[head, query] @ k[head // attn.group, key]) * attn.scale


def _top(values: Float[Tensor, " source"], name: Callable[[int], str], n: int) -> list[list[Any]]:
    best = values.abs().argsort(descending=True, stable=True)[:n].tolist()
    return [[name(row), float(values[row])] for row in best if float(values[row]) != 0]


def _check(model: Replacement, layer: int, head: int, query: int, key: int) -> None:
    n_heads = model.anatomy.n_heads
    if not (0 <= layer < model.n_layers and 0 <= head < n_heads):
        raise UserError(
            f"head {head} of layer {layer} is not in this model: it has {model.n_layers} layers of {n_heads} heads"
        )
    n_pos = model.frozen.n_pos
    inside = 0 <= query < n_pos and 0 <= key < n_pos
    if not inside or not bool(model.anatomy.around(n_pos)[layer].allowed[query, key]):
        raise UserError(
            f"position {query} cannot look at position {key} in layer {layer} of this prompt of {n_pos} tokens: give a "
            "query and an earlier key within the layer's window"
        )
