"""circuit-tracer: `attribute` of one prompt, or `prune_graph` of such a graph.

    task: {"do": "graph", "model": folder, "transcoders": folder, "batch_size": rows of one backward pass}
    task: {"do": "prune", ..., "graph": file that "graph" saved}

What `save` writes of a graph (N nodes):

    adjacency (N, N)             [target, source]; rows of errors and tokens are zero
    active_features (n, 3)       layer, position, feature; activation_values (n)
    logit_tokens (k)             logit_probabilities (k)
    tokens (pos)

Its conventions, read in its code and met here:
- Nodes in order: active features (sorted by layer, position, feature), errors (layer by layer, every position),
  tokens (every position), logits.
- Features and errors of position 0 are zero (the beginning token): no feature is active there and the errors' columns
  are 0. The token at position 0 keeps its embedding. Its other special case, gemma-3-it, is not met.
- An error is MLP output - (sum of value x decoder row + b_dec); b_dec, attention biases and position embeddings are in
  no node, so a row does not sum to the target's pre-activation.
- Token vectors are W_E rows, without the position embedding.
- Row t: gradient of encoder_t . (MLP input at its position), with b_enc and threshold left out and not times the
  value of t; column s: what source s writes, value times decoder row. Attention patterns, norm scales and MLP outputs
  are constants; norms subtract the mean (LayerNorm) and multiply by their gain.
- Logits: the smallest set of most probable tokens with probabilities that sum to 0.95, at most 10; at the last
  position only. A target's direction is its column of W_U less the mean column over the vocabulary, read after the
  gain of the final norm; b_U is in no node.
- Every active feature gets a row (`max_feature_nodes=None`).

A pruned graph is `node_mask` (N), `edge_mask` (N, N) and `cumulative_scores` (N), at its defaults 0.8 and 0.98.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from circuit_work import serve  # isort: skip
from circuit_gpt2 import hooked_gpt2  # isort: skip
import torch
from circuit_tracer import Graph, attribute
from circuit_tracer.attribution.targets import LogitTarget
from circuit_tracer.graph import prune_graph
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder import SingleLayerTranscoder, TranscoderSet
from circuit_tracer.transcoder.activation_functions import JumpReLU
from safetensors.torch import load_file
from torch import Tensor
from transformer_lens import HookedTransformerConfig

MAX_N_LOGITS, DESIRED_LOGIT_PROB = 10, 0.95


def single_layer(tensors: dict[str, Tensor], layer: int) -> SingleLayerTranscoder:
    """One layer's transcoder in its own class, whose encoder is (d_sae, d_model)."""
    d_model, d_sae = tensors["W_enc"].shape
    made = SingleLayerTranscoder(
        d_model, d_sae, JumpReLU(tensors["threshold"]), layer, device=torch.device("cpu"), dtype=torch.float32
    )
    with torch.no_grad():
        made.W_enc.copy_(tensors["W_enc"].T)
        for name in ("W_dec", "b_enc", "b_dec"):
            getattr(made, name).copy_(tensors[name])
    return made


def replacement_model(task: SimpleNamespace) -> TransformerLensReplacementModel:
    """The model with the transcoders beside its MLPs."""
    folder = Path(task.transcoders)
    n_layers = len(list(folder.glob("layer_*.safetensors")))
    layers = {i: single_layer(load_file(folder / f"layer_{i}.safetensors"), i) for i in range(n_layers)}
    model = hooked_gpt2(task.model, TransformerLensReplacementModel)
    model._configure_replacement_model(TranscoderSet(layers, "mlp.hook_in", "mlp.hook_out"))
    return model


class Tracing:
    """The graph of one prompt."""

    package = "circuit-tracer"

    def __init__(self, task: SimpleNamespace) -> None:
        self.task, self.model = task, replacement_model(task)
        self.tokens = load_file(Path(task.transcoders) / "prompt.safetensors")["tokens"]

    def run(self) -> Graph:
        return attribute(
            self.tokens, self.model, max_n_logits=MAX_N_LOGITS, desired_logit_prob=DESIRED_LOGIT_PROB,
            batch_size=self.task.batch_size,
        )  # fmt: skip

    def tensors(self, graph: Graph) -> dict[str, Tensor]:
        return {
            "adjacency": graph.adjacency_matrix,
            "active_features": graph.active_features,
            "activation_values": graph.activation_values,
            "logit_tokens": torch.tensor([target.vocab_idx for target in graph.logit_targets]),
            "logit_probabilities": graph.logit_probabilities,
            "tokens": graph.input_tokens,
        }


class Pruning:
    """Nodes and edges of a saved graph that are kept."""

    package = "circuit-tracer"

    def __init__(self, task: SimpleNamespace) -> None:
        found = load_file(task.graph)
        n_layers = len(list(Path(task.transcoders).glob("layer_*.safetensors")))
        config = HookedTransformerConfig(n_layers=n_layers, d_model=1, d_head=1, n_ctx=1, attn_only=True)
        features = found["active_features"]
        self.graph = Graph(
            input_string="", input_tokens=found["tokens"], active_features=features,
            adjacency_matrix=found["adjacency"], cfg=config,
            selected_features=torch.arange(len(features)), activation_values=found["activation_values"],
            logit_targets=[LogitTarget(f"t{i}", i) for i in found["logit_tokens"].tolist()],
            logit_probabilities=found["logit_probabilities"], vocab_size=0,
        )  # fmt: skip

    def run(self) -> Any:
        return prune_graph(self.graph)

    def tensors(self, found: Any) -> dict[str, Tensor]:
        return found._asdict()


if __name__ == "__main__":
    serve({"graph": Tracing, "prune": Pruning})
