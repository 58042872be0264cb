"""EAP-IG: `attribute` (EAP, EAP-IG-inputs) and `evaluate_graph` on pairs, the metric m of each pair summed.

    task: {"do": "scores", "method": "EAP" or "EAP-IG-inputs", "steps": n, "model", "pairs", "rows": n, "batch": n}
    task: {"do": "evaluate", "circuits": file, "only": [numbers of masks], "model", "pairs", "rows": n, "batch": n}

m = logit(answer) - logit(counterfactual answer) at the last position. What `save` writes, writers and readers in the
order of `circuit_names.py`:

    scores (writer, reader)      mean over pairs of sum over positions of (counterfactual - clean writer) . gradient
                                 of m at the reader's input; 0 where there is no edge
    values (circuit, pair)       m with every edge outside the circuit carrying the counterfactual; clean (pair)

Its conventions, read in its code and met here:
- EAP: gradient on the clean prompt. EAP-IG-inputs: mean of the gradients with the token embeddings (position
  embeddings apart) at counterfactual + k/steps (clean - counterfactual), k = 0 .. steps - 1; writers as in EAP.
- A score is the estimated m(counterfactual in) - m(clean): the sign is opposite to an effect m(clean) - m(patched).
- Readers are read before the norm (`hook_q_input` and so on), so the norm's Jacobian is in the gradient.
- It divides by the number of pairs itself, so the metric is the sum over the batch, not the mean.
- `evaluate_graph`: a reader's input gets the sum over dropped edges of (counterfactual - live) writers, live as in
  the intervened run; circuits are first pruned to what connects embedding and logit, which changes no value.
- The package writes `device='cuda'` in 17 places; the installed copy says `device=model.cfg.device` there
  (`environments.py` replaces it when it installs). Nothing else is changed.
"""

from __future__ import annotations

from types import SimpleNamespace

from circuit_work import serve  # isort: skip
from circuit_gpt2 import hooked_gpt2  # isort: skip
import torch
from circuit_names import readers, writers
from eap.attribute import attribute
from eap.evaluate import evaluate_baseline, evaluate_graph
from eap.graph import Graph
from safetensors.torch import load_file
from torch import Tensor

FLAGS = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")
Loader = list[tuple[list[str], list[str], Tensor]]


def loader(path: str, rows: int, batch: int) -> Loader:
    """Batches of clean texts, counterfactual texts and answers (pair, 2)."""
    pairs = {name: t[:rows] for name, t in load_file(path).items()}

    def texts(tokens: Tensor) -> list[str]:
        return [
            " ".join(f"t{i}" for i in row) for row in tokens[:, 1:].tolist()
        ]  # it prepends the first token

    labels = torch.stack([pairs["answer"], pairs["counterfactual_answer"]], dim=1)
    clean, other = texts(pairs["clean"]), texts(pairs["counterfactual"])
    return [
        (clean[i : i + batch], other[i : i + batch], labels[i : i + batch]) for i in range(0, rows, batch)
    ]


def each(logits: Tensor, clean_logits: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """m of every pair."""
    last = logits[torch.arange(len(logits)), lengths - 1]
    chosen = last.gather(1, labels)
    return chosen[:, 0] - chosen[:, 1]


def total(*given: Tensor) -> Tensor:
    """m summed over pairs."""
    return each(*given).sum()


class OnPairs:
    """The model, its graph and the pairs."""

    package = "eap"

    def __init__(self, task: SimpleNamespace) -> None:
        self.task, self.model = task, hooked_gpt2(task.model)
        for flag in FLAGS:
            setattr(self.model.cfg, flag, True)
        self.pairs = loader(task.pairs, task.rows, task.batch)
        self.graph = Graph.from_model(self.model)
        self.names = self.model.cfg.n_layers, self.model.cfg.n_heads
        rows, columns = writers(*self.names), readers(*self.names)
        self.place = {
            e.name: (rows.index(writer(e)), columns.index(reader(e))) for e in self.graph.edges.values()
        }


def writer(edge) -> str:
    """Our name of an edge's source."""
    return "embed" if edge.parent.name == "input" else edge.parent.name


def reader(edge) -> str:
    """Our name of an edge's target."""
    name = "logit" if edge.child.name == "logits" else edge.child.name
    return name if edge.qkv is None else f"{name}.{edge.qkv}"


class Scores(OnPairs):
    """Scores of every edge."""

    def run(self) -> Tensor:
        attribute(
            self.model, self.graph, self.pairs, total, self.task.method, ig_steps=self.task.steps, quiet=True
        )
        return self.graph.scores

    def tensors(self, found: Tensor) -> dict[str, Tensor]:
        scores = torch.zeros(len(writers(*self.names)), len(readers(*self.names)))
        for name, place in self.place.items():
            scores[place] = found[self.graph.edges[name].matrix_index]
        return {"scores": scores}


class Evaluation(OnPairs):
    """m of every pair in every circuit."""

    def __init__(self, task: SimpleNamespace) -> None:
        super().__init__(task)
        self.masks = load_file(task.circuits)["masks"][task.only]

    def run(self) -> Tensor:
        return torch.stack([self.values(mask) for mask in self.masks])

    def values(self, mask: Tensor) -> Tensor:
        self.graph.reset()
        for edge in self.graph.edges.values():
            self.graph.in_graph[edge.matrix_index] = mask[self.place[edge.name]]
        return evaluate_graph(self.model, self.graph, self.pairs, each, quiet=True)

    def tensors(self, found: Tensor) -> dict[str, Tensor]:
        clean = evaluate_baseline(self.model, self.pairs, each, quiet=True)
        return {"values": found, "clean": clean}


if __name__ == "__main__":
    serve({"scores": Scores, "evaluate": Evaluation})
