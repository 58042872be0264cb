"""TransformerLens 4: edge attribution patching, patching sweeps and circuit faithfulness, in our own environment.

    task: {"do": "edges", "model", "pairs", "rows": n}
    task: {"do": "sweep", "what": "resid_pre" or "heads", "model", "pairs", "rows": n}
    task: {"do": "faithfulness", "circuits": file, "only": [numbers of masks], "model", "pairs", "rows": 1}

m = logit(answer) - logit(counterfactual answer) at the last position. What `save` writes, writers and readers in the
order of `circuit_names.py`:

    scores (writer, reader)      mean over pairs, summed over positions; 0 where there is no edge
    values (layer, pos, pair) or (layer, head, pair)      m of the clean prompt with the counterfactual's value there
    values (circuit, pair)       m with every edge outside the circuit carrying the counterfactual; clean (pair)

Its conventions, read in its code and met here:
- `attribution_patch` takes the gradient on the run it calls corrupt and the difference clean - corrupt. The prompts
  are therefore given the other way round, which makes a score the gradient on our clean prompt times
  (counterfactual - clean): the sign is opposite to an effect m(clean) - m(patched), as EAP-IG's is.
- Its edges are of one position each (n_pos times as many as scores); scores here are summed over positions.
- It works through pairs one at a time and its metric sees logits only; each pair is one call here, since answers
  differ by pair.
- `faithfulness` takes one pair; beside the circuit's m it always runs the circuit without each of up to four classes
  of edges, which cannot be turned off. The circuit keeps an edge at every position or at none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from circuit_work import serve  # isort: skip
import torch
from circuit_names import readers, writers
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.attribution_patching import (
    AttributionResult,
    EdgeAttributionConfig,
    FaithfulnessResult,
    Node,
    attribution_patch,
    faithfulness,
)

KINDS = {"q_input": "q", "k_input": "k", "v_input": "v"}
SWEEPS = {
    "resid_pre": (patching.get_act_patch_resid_pre, "hook_resid_pre"),
    "heads": (patching.get_act_patch_attn_head_out_all_pos, "attn.hook_z"),
}


class OnPairs:
    """The model and the pairs."""

    package = "transformer-lens"

    def __init__(self, task: SimpleNamespace) -> None:
        self.task = task
        self.model = TransformerBridge.boot_transformers(task.model, device="cpu", dtype=torch.float32)
        self.model.eval()
        self.pairs = {name: t[: task.rows] for name, t in load_file(task.pairs).items()}
        self.names = int(self.model.cfg.n_layers), int(self.model.cfg.n_heads)

    def metric(self, rows: slice) -> Callable[[Tensor], Tensor]:
        """m of those pairs."""
        answer, other = self.pairs["answer"][rows, None], self.pairs["counterfactual_answer"][rows, None]
        return lambda logits: (logits[:, -1].gather(1, answer) - logits[:, -1].gather(1, other))[:, 0]

    def one(self, row: int) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Clean prompt, counterfactual prompt and m of one pair."""
        rows = slice(row, row + 1)
        m = self.metric(rows)
        return self.pairs["clean"][rows], self.pairs["counterfactual"][rows], lambda logits: m(logits)[0]


def name_of(node: Node) -> str:
    """Our name of one of its nodes, without the position."""
    if node.kind in ("embed", "logits"):
        return {"embed": "embed", "logits": "logit"}[node.kind]
    if node.kind in ("mlp_out", "mlp_in"):
        return f"m{node.layer}"
    head = f"a{node.layer}.h{node.head}"
    return head if node.kind == "attn_head_out" else f"{head}.{KINDS[node.kind]}"


def node_of(name: str, position: int, *, reads: bool, n_layers: int) -> Node:
    """Its node of one of our names."""
    if name in ("embed", "logit"):
        return Node("embed", position) if name == "embed" else Node("logits", position, n_layers - 1)
    parts = name[1:].split(".")
    layer = int(parts[0])
    if len(parts) == 1:
        return Node("mlp_in" if reads else "mlp_out", position, layer)
    kind = f"{parts[2]}_input" if reads else "attn_head_out"
    return Node(kind, position, layer, int(parts[1][1:]))  # pyright: ignore[reportArgumentType]


class Edges(OnPairs):
    """Edge attribution patching of every pair."""

    def run(self) -> list[AttributionResult]:
        config = EdgeAttributionConfig(granularity="edge")
        found = []
        for row in range(self.task.rows):
            clean, counterfactual, m = self.one(row)
            found.append(attribution_patch(self.model, counterfactual, clean, m, config))
        return found

    def tensors(self, found: list[AttributionResult]) -> dict[str, Tensor]:
        rows = {name: i for i, name in enumerate(writers(*self.names))}
        columns = {name: i for i, name in enumerate(readers(*self.names))}
        scores = torch.zeros(len(rows), len(columns), dtype=torch.float64)
        for result in found:
            for (source, target), score in result.edge_scores.items():
                scores[rows[name_of(source)], columns[name_of(target)]] += score / len(found)
        return {"scores": scores.float()}


class Sweep(OnPairs):
    """One forward pass per cell, all pairs in it."""

    def run(self) -> Tensor:
        sweep, hook = SWEEPS[self.task.what]
        with torch.no_grad():
            _, cache = self.model.run_with_cache(
                self.pairs["counterfactual"], names_filter=lambda name: name.endswith(hook)
            )
            m: Any = self.metric(slice(None))
            return sweep(self.model, self.pairs["clean"], cache, m, reduce="none").values

    def tensors(self, found: Tensor) -> dict[str, Tensor]:
        return {"values": found}


class Faithfulness(OnPairs):
    """m of one pair in every circuit."""

    def __init__(self, task: SimpleNamespace) -> None:
        super().__init__(task)
        self.circuits = [self.edges(mask) for mask in load_file(task.circuits)["masks"][task.only]]

    def edges(self, mask: Tensor) -> list[tuple[Node, Node]]:
        rows, columns = writers(*self.names), readers(*self.names)
        at = partial(node_of, n_layers=self.names[0])
        return [
            (at(rows[i], position, reads=False), at(columns[j], position, reads=True))
            for position in range(self.pairs["clean"].shape[1])
            for i, j in mask.nonzero().tolist()
        ]

    def run(self) -> list[FaithfulnessResult]:
        return [faithfulness(self.model, *self.one(0), circuit) for circuit in self.circuits]

    def tensors(self, found: list[FaithfulnessResult]) -> dict[str, Tensor]:
        values = [r.corrupt_metric + r.recovered * (r.full_metric - r.corrupt_metric) for r in found]
        return {"values": torch.tensor(values)[:, None], "clean": torch.tensor([found[0].full_metric])}


if __name__ == "__main__":
    serve({"edges": Edges, "sweep": Sweep, "faithfulness": Faithfulness})
