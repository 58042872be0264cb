"""A GPT-2 of a local folder as TransformerLens 2 and 3 hold it, for the tools that are written on `HookedTransformer`.

Weights as they are: norms not folded, nothing centred. `HookedTransformer.from_pretrained` would ask the network for
the configuration of a model it knows by name, so the configuration is read from the folder here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import AutoTokenizer, GPT2LMHeadModel


def hooked_gpt2(
    folder: str, kind: type[HookedTransformer] = HookedTransformer, **options: bool
) -> HookedTransformer:
    """The model on the CPU in float32, in evaluation mode."""
    gpt2 = GPT2LMHeadModel.from_pretrained(folder)
    given = gpt2.config
    config = HookedTransformerConfig(
        n_layers=given.n_layer, d_model=given.n_embd, n_heads=given.n_head, d_head=given.n_embd // given.n_head,
        d_mlp=4 * given.n_embd, n_ctx=given.n_positions, d_vocab=given.vocab_size, act_fn=given.activation_function,
        eps=given.layer_norm_epsilon, normalization_type="LN", model_name="gpt2", device="cpu", **options,
    )  # fmt: skip
    config.original_architecture = "GPT2LMHeadModel"
    model = kind(config)
    weights = convert_gpt2_weights(gpt2, config)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    model.set_tokenizer(AutoTokenizer.from_pretrained(folder), default_padding_side="right")
    check(model, gpt2)
    return model.eval()


@torch.no_grad()
def check(model: HookedTransformer, gpt2: GPT2LMHeadModel) -> None:
    """Refuse a conversion that computes something else."""
    tokens: Tensor = torch.arange(8)[None]
    difference = float((model(tokens) - gpt2(tokens).logits).abs().max())
    if difference > 1e-4:
        raise RuntimeError(f"the converted model differs from the folder's by {difference:.1e}")
