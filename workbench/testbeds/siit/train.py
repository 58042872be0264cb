"""Strict interchange intervention training: a transformer that implements a given program at given places.

    behaviour    answer(base) is right                                                       weight 1
    IIT          with the output of a variable's node from a source prompt, the answer is that of the
                 program with that variable from the source                                  weight 1
    strict       with the output of any other node from a source prompt, the answer stays    weight 0.4
                 and the logits stay (mean squared change)                                   weight 0.4

The whole output of a node is exchanged, at all positions. Adam at 1e-3, gradients clipped to a norm of 0.1.
Training stops when all three accuracies are at least `TARGET_FRAC` on fresh prompts and no other node changes
the logits by more than `DISTURBANCE_FRAC` of their spread, or refuses. The last term is not in the reference:
without it a node that only amplifies the right answer passes as having no effect.

Reference: Gupta et al. 2024, "InterpBench: Semi-Synthetic Transformers for Evaluating Mechanistic
Interpretability Techniques", arXiv 2407.14494; Geiger et al. 2022, arXiv 2112.00826.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from workbench.errors import UserError
from workbench.testbeds.plain import Plain
from workbench.testbeds.siit.high_level import HighLevel

D_MODEL, N_HEADS, D_HEAD, D_MLP = 32, 4, 8, 64
STRICT_WEIGHT, LEARNING_RATE, CLIP, N_BATCH = 0.4, 1e-3, 0.1, 64
TARGET_FRAC, DISTURBANCE_FRAC, CHECK_EVERY, N_CHECKED = 0.995, 0.1, 250, 1024


@dataclass(frozen=True)
class Accuracies:
    """Shares of right answers.

    Attributes:
        behaviour_frac: On plain prompts.
        iit_frac: The worst variable, with its node exchanged.
        strict_frac: The worst other node, with it exchanged.
        disturbance_frac: Mean absolute change of the logits by exchanging the worst other node, as a share of
            their mean absolute deviation from their mean.
    """

    behaviour_frac: float
    iit_frac: float
    strict_frac: float
    disturbance_frac: float

    @property
    def reached(self) -> bool:
        """Whether training may stop."""
        worst = min(self.behaviour_frac, self.iit_frac, self.strict_frac)
        return worst >= TARGET_FRAC and self.disturbance_frac <= DISTURBANCE_FRAC


def shape_of(program: HighLevel) -> dict[str, object]:
    """The configuration of the native model."""
    return {
        "d_model": D_MODEL, "n_layers": program.n_layers, "n_heads": N_HEADS, "d_head": D_HEAD, "d_mlp": D_MLP,
        "n_ctx": program.n_ctx, "d_vocab": program.n_values + 1, "d_vocab_out": program.n_values,
        "act_fn": "gelu", "normalization_type": None,
    }  # fmt: skip


def train(
    program: HighLevel, *, seed: int, n_steps: int, report: Callable[[int, Accuracies], None] | None = None
) -> tuple[Plain, Accuracies]:
    """Weights that implement the program, and their accuracies. Status: bit-reproducible on one thread.

    Args:
        program: What is to be implemented, and where.
        seed: Decides the first weights and the prompts.
        n_steps: Most steps.
        report: Told the accuracies every `CHECK_EVERY` steps.

    Raises:
        UserError: the accuracies were not reached.
    """
    generator = torch.Generator().manual_seed(seed)
    model = _initial(program, generator)
    optimiser = torch.optim.Adam(list(model.weights.values()), lr=LEARNING_RATE)
    found = Accuracies(0.0, 0.0, 0.0, 1.0)
    for step in range(1, n_steps + 1):
        optimiser.zero_grad()
        _loss(program, model, generator).backward()
        torch.nn.utils.clip_grad_norm_(list(model.weights.values()), CLIP)
        optimiser.step()
        if step % CHECK_EVERY == 0:
            found = measure(program, model, seed=seed + step)
            if report is not None:
                report(step, found)
            if found.reached:
                return model, found
    raise UserError(
        f"{n_steps} steps reached {found} and {TARGET_FRAC} is asked of each: give another seed or more steps"
    )


def _initial(program: HighLevel, generator: torch.Generator) -> Plain:
    """Normal weights of variance 1 / fan-in, embeddings of ordinary size, biases 0."""
    sizes = {"tok_embed.weight": (program.n_values + 1, D_MODEL), "pos.weight": (program.n_ctx, D_MODEL)}
    for layer in range(program.n_layers):
        block = {f"attn.{p}": (N_HEADS * D_HEAD, D_MODEL) for p in "qkv"}
        block |= {"attn.o": (D_MODEL, N_HEADS * D_HEAD)}
        block |= {"mlp.fc_in": (D_MLP, D_MODEL), "mlp.fc_out": (D_MODEL, D_MLP)}
        sizes |= {f"layers.{layer}.{name}.weight": size for name, size in block.items()}
    sizes["head.weight"] = (program.n_values, D_MODEL)
    weights = {n: torch.randn(s, generator=generator) / math.sqrt(s[1]) for n, s in sizes.items()}
    inner = [name for name in sizes if name.startswith("layers.")]
    weights |= {name.replace("weight", "bias"): torch.zeros(sizes[name][0]) for name in inner}
    trained = {name: weight.requires_grad_() for name, weight in weights.items()}
    return Plain(trained, program.n_layers, N_HEADS, "gelu")


def _loss(program: HighLevel, model: Plain, generator: torch.Generator) -> Tensor:
    """One random variable and one random other node a step."""
    base, source = draw(program, N_BATCH, generator), draw(program, N_BATCH, generator)
    logits, _ = model.run(program.prompts(base))
    _, written = model.run(program.prompts(source))
    variable = _pick(list(program.nodes), generator)
    node, other = program.nodes[variable], _pick(other_nodes(program), generator)
    given = {variable: program.run(source, {})[variable]}
    exchanged = model.run(program.prompts(base), replaced={node: written[node]})[0]
    undisturbed = model.run(program.prompts(base), replaced={other: written[other]})[0]
    loss = functional.cross_entropy(logits, program.answer(base))
    loss = loss + functional.cross_entropy(exchanged, program.answer(base, given))
    strict = functional.cross_entropy(undisturbed, program.answer(base)) + functional.mse_loss(
        undisturbed, logits
    )
    return loss + STRICT_WEIGHT * strict


@torch.no_grad()
def measure(program: HighLevel, model: Plain, *, seed: int) -> Accuracies:
    """The three accuracies on `N_CHECKED` fresh pairs of prompts."""
    generator = torch.Generator().manual_seed(seed)
    base, source = draw(program, N_CHECKED, generator), draw(program, N_CHECKED, generator)
    ids, answers = program.prompts(base), program.answer(base)
    logits, _ = model.run(ids)
    _, written = model.run(program.prompts(source))
    values = program.run(source, {})

    def exchanged(node: str) -> Tensor:
        return model.run(ids, replaced={node: written[node]})[0]

    iit = [_right(exchanged(n), program.answer(base, {v: values[v]})) for v, n in program.nodes.items()]
    others = [exchanged(node) for node in other_nodes(program)]
    spread = float((logits - logits.mean(-1, keepdim=True)).abs().mean())
    change = max(float((other - logits).abs().mean()) for other in others)
    strict = min(_right(other, answers) for other in others)
    return Accuracies(_right(logits, answers), min(iit), strict, change / spread)


def other_nodes(program: HighLevel) -> list[str]:
    """Heads and MLPs that hold no variable."""
    layers = range(program.n_layers)
    nodes = [f"a{layer}.h{head}" for layer in layers for head in range(N_HEADS)]
    nodes += [f"m{layer}" for layer in layers]
    return [node for node in nodes if node not in program.nodes.values()]


def draw(program: HighLevel, n: int, generator: torch.Generator) -> Int[Tensor, "prompt input"]:
    """Random inputs."""
    return torch.randint(0, program.n_values, (n, program.n_inputs), generator=generator)


def _pick(names: list[str], generator: torch.Generator) -> str:
    return names[int(torch.randint(0, len(names), (1,), generator=generator))]


def _right(logits: Float[Tensor, "prompt answer"], wanted: Int[Tensor, " prompt"]) -> float:
    return float((logits.argmax(-1) == wanted).float().mean())
