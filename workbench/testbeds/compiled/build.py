"""From a plan to a model: the written weights, distractors, and noise.

Three kinds of weights stand in the model:

    written       the plan's heads and neurons, exactly
    distractors   every other head, and N_DISTRACTORS neurons of each MLP: random weights of ordinary size that
                  read the whole stream and write to the scratch subspace, which the circuit does not read
    leak          Gaussian noise of standard deviation leak / sqrt(d_model) added to every weight

So distractors are as active as the circuit, and reach the logits through leaks only. With `leak=0` the truth
is exact: every other edge has an effect of exactly 0. `sharpness` is the beta of the attention: a key that
matches has a score beta above one that does not. Large beta saturates the softmax, which hides edges from
first-order methods.

There is no norm, and the activation is ReLU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import UserError
from workbench.testbeds.compiled.plan import (
    ONE,
    OUT,
    POSITION,
    SCRATCH,
    SCRATCH_WIDTH,
    TOKEN,
    Head,
    Neurons,
    Plan,
)
from workbench.testbeds.native import boot

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

N_DISTRACTORS = 8
READING_SCALE = 0.5
Weights = dict[str, Tensor]


def build(plan: Plan, *, sharpness: float, leak: float, seed: int, dtype: torch.dtype) -> TransformerBridge:
    """The model of a plan. Status: bit-reproducible in the seed on the CPU.

    Args:
        plan: The circuit.
        sharpness: Score of a key that matches above one that does not, above 0.
        leak: Noise in every weight, in units of 1 / sqrt(d_model), at least 0.
        seed: Decides distractors and noise.
        dtype: Of the parameters.

    Raises:
        UserError: sharpness or leak is out of range.
    """
    if not sharpness > 0:
        raise UserError(f"sharpness {sharpness} is not above 0: it is the attention score of a match")
    if not 0 <= leak < math.inf:
        raise UserError(f"leak {leak} is not a size of noise: give 0 or more")
    generator = torch.Generator().manual_seed(seed)
    weights = _blank(plan)
    _add_embedding(weights, plan)
    _add_distractors(weights, plan, generator)
    for head in plan.heads:
        _write_head(weights, plan, head, sharpness)
    for neurons in plan.neurons:
        _write_neurons(weights, plan, neurons)
    for name in weights:
        noise = torch.randn(weights[name].shape, generator=generator, dtype=torch.float64)
        weights[name] = weights[name] + noise * leak / math.sqrt(plan.layout.d_model)
    return boot(weights, _shape(plan), dtype=dtype)


def _shape(plan: Plan) -> dict[str, object]:
    widths = plan.layout.widths
    return {
        "d_model": plan.layout.d_model,
        "n_layers": plan.n_layers,
        "n_heads": plan.n_heads,
        "d_head": max(head.width for head in plan.heads),
        "d_mlp": max([len(n.bias) for n in plan.neurons], default=0) + N_DISTRACTORS,
        "n_ctx": widths[POSITION],
        "d_vocab": widths[TOKEN],
        "act_fn": "relu",
        "normalization_type": None,
    }


def _blank(plan: Plan) -> Weights:
    """All weights, zero."""
    shape: dict = _shape(plan)
    d, heads, mlp = shape["d_model"], shape["n_heads"] * shape["d_head"], shape["d_mlp"]
    sizes: dict[str, tuple[int, ...]] = {
        "tok_embed.weight": (shape["d_vocab"], d),
        "pos.weight": (shape["n_ctx"], d),
        "head.weight": (shape["d_vocab"], d),
    }
    for layer in range(plan.n_layers):
        block = {f"attn.{p}.weight": (heads, d) for p in "qkv"} | {f"attn.{p}.bias": (heads,) for p in "qkv"}
        block |= {"attn.o.weight": (d, heads), "attn.o.bias": (d,), "mlp.fc_in.weight": (mlp, d)}
        block |= {"mlp.fc_in.bias": (mlp,), "mlp.fc_out.weight": (d, mlp), "mlp.fc_out.bias": (d,)}
        sizes |= {f"layers.{layer}.{name}": size for name, size in block.items()}
    return {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}


def _add_embedding(weights: Weights, plan: Plan) -> None:
    """One-hot tokens and positions, a constant 1 at every position, and the readout."""
    span = plan.layout.span
    weights["tok_embed.weight"][:, span(TOKEN)] = torch.eye(plan.layout.widths[TOKEN], dtype=torch.float64)
    weights["pos.weight"][:, span(POSITION)] = torch.eye(plan.layout.widths[POSITION], dtype=torch.float64)
    weights["pos.weight"][:, span(ONE)] = 1
    weights["head.weight"][:, span(OUT)] = plan.readout


def _add_distractors(weights: Weights, plan: Plan, generator: torch.Generator) -> None:
    """Random heads and neurons everywhere, writing to the scratch subspace.

    They read that subspace at a smaller scale, so that their activity does not grow from block to block.
    """
    scratch = plan.layout.span(SCRATCH)
    for name, weight in weights.items():
        if ".weight" not in name or not name.startswith("layers."):
            continue
        random = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if "attn.o" in name or "fc_out" in name:
            weight[scratch] = random[scratch] * weight.shape[1] ** -0.5
        else:
            random[:, scratch] *= SCRATCH_WIDTH**-0.5
            weight += READING_SCALE * random


def _write_head(weights: Weights, plan: Plan, head: Head, sharpness: float) -> None:
    """Replace the head's rows. Queries and keys share beta sqrt(d_head) between them."""
    d_head = len(weights[f"layers.{head.layer}.attn.q.weight"]) // plan.n_heads
    rows, block = slice(head.head * d_head, (head.head + 1) * d_head), f"layers.{head.layer}.attn"
    share = math.sqrt(sharpness * math.sqrt(d_head))
    weights[f"{block}.q.weight"][rows] = share * plan.layout.rows(head.query, d_head)
    weights[f"{block}.k.weight"][rows] = share * plan.layout.rows(head.key, d_head)
    weights[f"{block}.v.weight"][rows] = plan.layout.rows(head.value, d_head)
    weights[f"{block}.o.weight"][:, rows] = plan.layout.rows(head.write, d_head).T


def _write_neurons(weights: Weights, plan: Plan, neurons: Neurons) -> None:
    """Replace the first neurons of the MLP."""
    block, n = f"layers.{neurons.layer}.mlp", len(neurons.bias)
    weights[f"{block}.fc_in.weight"][:n] = plan.layout.rows(neurons.read, n)
    weights[f"{block}.fc_in.bias"][:n] = neurons.bias.double()
    weights[f"{block}.fc_out.weight"][:, :n] = plan.layout.rows(neurons.write, n).T
    for name, value in neurons.constant.items():
        weights[f"{block}.fc_out.bias"][plan.layout.span(name)] = value.double()
