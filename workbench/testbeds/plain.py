"""The native transformer without norms as one function of its weights, with every node open.

    replaced[writer]    what the writer adds to the stream, in place of its own output
    added[reader]       added to what the reader sees

Exact edge patching follows: (u, v) is patched by adding to the input of v the counterfactual output of u minus
its clean output; all that comes after v is computed anew. One forward pass per edge: slow, plain, and
independent of the executors that the beds are there to test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from workbench.tasks import Batch
from workbench.testbeds.truth import Edge

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "gelu": functional.gelu}
Written = dict[str, Float[Tensor, "prompt pos d_model"]]
Changes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plain:
    """A model as its weights.

    Attributes:
        weights: By the names of the native model.
        n_layers: Blocks.
        n_heads: Heads of each.
        act_fn: "relu" or "gelu".
        causal: Whether a position sees only earlier ones.
    """

    weights: Mapping[str, Tensor]
    n_layers: int
    n_heads: int
    act_fn: str
    causal: bool = True

    def run(
        self, ids: Int[Tensor, "prompt pos"], *, replaced: Changes | None = None, added: Changes | None = None
    ) -> tuple[Float[Tensor, "prompt answer"], Written]:
        """Logits of the last position, and what every writer adds to the stream."""
        replaced, added = replaced or {}, added or {}
        x = self.weights["tok_embed.weight"][ids] + self.weights["pos.weight"][: ids.shape[1]]
        written = {"embed": replaced.get("embed", x)}
        x = written["embed"]
        for layer in range(self.n_layers):
            for name, own in self._heads(x, layer, added).items():
                written[name] = replaced.get(name, own)
                x = x + written[name]
            x = x + self.weights[f"layers.{layer}.attn.o.bias"]
            name = f"m{layer}"
            written[name] = replaced[name] if name in replaced else self._mlp(x + added.get(name, 0), layer)
            x = x + written[name]
        return (x + added.get("logit", 0))[:, -1] @ self.weights["head.weight"].T, written

    def _heads(self, x: Tensor, layer: int, added: Changes) -> Written:
        q, k, v = (self._project(x, layer, part, added) for part in "qkv")
        scores = torch.einsum("nqhe,nkhe->nhqk", q, k) / q.shape[-1] ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        z = torch.einsum("nhqk,nkhe->nqhe", scores.softmax(-1), v)
        W_O = self.weights[f"layers.{layer}.attn.o.weight"].unflatten(1, (self.n_heads, -1))
        outputs = torch.einsum("nphe,dhe->hnpd", z, W_O)
        return {f"a{layer}.h{head}": outputs[head] for head in range(self.n_heads)}

    def _project(self, x: Tensor, layer: int, part: str, added: Changes) -> Tensor:
        """Queries, keys or values of all heads (prompt, pos, head, d_head)."""
        names = [f"a{layer}.h{head}.{part}" for head in range(self.n_heads)]
        W = self.weights[f"layers.{layer}.attn.{part}.weight"].unflatten(0, (self.n_heads, -1))
        bias = self.weights[f"layers.{layer}.attn.{part}.bias"].unflatten(0, (self.n_heads, -1))
        if not any(name in added for name in names):
            return torch.einsum("npd,hed->nphe", x, W) + bias
        seen = torch.stack([x + added.get(name, 0) for name in names], 2)
        return torch.einsum("nphd,hed->nphe", seen, W) + bias

    def _mlp(self, x: Tensor, layer: int) -> Tensor:
        block = f"layers.{layer}.mlp"
        hidden = x @ self.weights[f"{block}.fc_in.weight"].T + self.weights[f"{block}.fc_in.bias"]
        out = ACTIVATIONS[self.act_fn](hidden) @ self.weights[f"{block}.fc_out.weight"].T
        return out + self.weights[f"{block}.fc_out.bias"]


def plain(model: TransformerBridge) -> Plain:
    """The weights of a native bridge that has MLPs and no norm."""
    cfg = model.cfg
    named = model.original_model.named_parameters()
    weights = {name.replace("_original_component.", ""): parameter for name, parameter in named}
    return Plain(weights, cfg.n_layers, cfg.n_heads, str(cfg.act_fn), cfg.attention_dir == "causal")


def difference(logits: Float[Tensor, "pair answer"], batch: Batch) -> Float[Tensor, " pair"]:
    """logit(answer) - logit(counterfactual answer)."""
    rows = torch.arange(len(logits))
    return logits[rows, batch.answer] - logits[rows, batch.counterfactual_answer]


@torch.no_grad()
def edge_effects(model: Plain, batch: Batch, edges: Iterable[Edge]) -> dict[Edge, Float[Tensor, " pair"]]:
    """m(clean) - m(edge from the counterfactual prompt), in logits, for each pair. Status: exact."""
    logits, clean = model.run(batch.clean)
    _, other = model.run(batch.counterfactual)
    m = difference(logits, batch)
    changes = {(u, v): other[u] - clean[u] for u, v in edges}
    return {
        (u, v): m - difference(model.run(batch.clean, added={v: change})[0], batch)
        for (u, v), change in changes.items()
    }
