"""Random JumpReLU transcoders from every MLP's input to its output, with a wanted number of active features.

    folder/layer_{i}.safetensors    W_enc (d_model, d_sae), b_enc, W_dec (d_sae, d_model), b_dec, threshold (d_sae)
    folder/prompt.safetensors       tokens (pos)

A feature is active where x W_enc + b_enc > threshold, and its value there is x W_enc + b_enc; x is the output of the
norm before the MLP, gain and bias applied. A layer's threshold is one number, in the middle between the n-th and the
(n+1)-th largest pre-activation of the prompt after its first position (where circuit-tracer has no features), for the
first n from the wanted number on where the two are far enough apart that rounding does not move one across.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.benchmarks.peers.circuits.inputs import FIRST_WORD, SEED, Shape

D_SAE, N_FEATURES, PROMPT_TOKENS = 4096, 6000, 24
CLEAR = 1e-4  # least distance of two pre-activations with the threshold between, in standard deviations
NEAR = 20  # so many more than wanted may be active


def write_transcoders(
    folder: Path,
    shape: Shape,
    *,
    n_features: int = N_FEATURES,
    d_sae: int = D_SAE,
    n_pos: int = PROMPT_TOKENS,
) -> None:
    """Write them beside the model of that shape, which lies in `folder.parent / "model"`."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(SEED + 1)
    tokens = torch.randint(FIRST_WORD, shape.d_vocab, (n_pos,), generator=generator)
    tokens[0] = 0
    save_file({"tokens": tokens}, folder / "prompt.safetensors")
    for layer, x in enumerate(mlp_inputs(folder.parent / "model", tokens)):
        count = n_features * (layer + 1) // shape.n_layers - n_features * layer // shape.n_layers
        save_file(random_transcoder(x, d_sae, count, generator), folder / f"layer_{layer}.safetensors")


@torch.no_grad()
def mlp_inputs(model: Path, tokens: Tensor) -> list[Tensor]:
    """What every layer's MLP reads (pos, d_model)."""
    from transformers import GPT2LMHeadModel

    gpt2, found = GPT2LMHeadModel.from_pretrained(model).eval(), []
    for block in gpt2.transformer.h.children():
        block.get_submodule("ln_2").register_forward_hook(lambda module, given, x: found.append(x[0]))
    gpt2(tokens[None])
    return found


def random_transcoder(x: Tensor, d_sae: int, n_active: int, generator: torch.Generator) -> dict[str, Tensor]:
    """One layer's."""
    d_model = x.shape[1]

    def normal(*size: int, scale: float) -> Tensor:
        return scale * torch.randn(size, generator=generator)

    W_enc, b_enc = normal(d_model, d_sae, scale=d_model**-0.5), normal(d_sae, scale=0.1)
    weights = {"W_dec": normal(d_sae, d_model, scale=d_model**-0.5), "b_dec": normal(d_model, scale=0.1)}
    threshold = torch.full((d_sae,), between(x[1:] @ W_enc + b_enc, n_active))
    return {"W_enc": W_enc, "b_enc": b_enc, **weights, "threshold": threshold}


def between(pre_activations: Tensor, n_active: int) -> float:
    """The middle between the n-th largest and the next, for the first n from `n_active` on where these are clear."""
    largest = pre_activations.flatten().topk(n_active + NEAR).values[n_active - 1 :]
    clear = (largest[:-1] - largest[1:]) > CLEAR * pre_activations.std()
    if not bool(clear.any()):
        raise ValueError(
            f"{NEAR} pre-activations tie from the {n_active}th on: ask for fewer active features"
        )
    at = int(clear.float().argmax())
    return float(largest[at : at + 2].mean())


def load_transcoders(folder: Path) -> list[dict[str, Tensor]]:
    """The tensors of every layer in order."""
    n_layers = len(list(folder.glob("layer_*.safetensors")))
    return [load_file(folder / f"layer_{layer}.safetensors") for layer in range(n_layers)]
