"""Tiny models made in the test's folder: random weights, one builder per architecture, a tokenizer beside them.

Weights are larger than at initialisation, and norms and biases are random too, so that attention is far from
uniform, soft caps bend and a forgotten bias or norm offset is seen.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from workbench.models import embedded_model_dir, load_model

VOCABULARY = 4096
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SIZES, "num_key_value_heads": 2}
IDS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GEMMA = {**GROUPED, **IDS, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**IDS, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "neox": ("GPTNeoX", {**IDS, **SIZES, "max_position_embeddings": 64}),
    "llama": ("Llama", {**IDS, **GROUPED, "max_position_embeddings": 64}),
    "mistral": ("Mistral", {**IDS, **GROUPED, "max_position_embeddings": 64, "sliding_window": 8}),
    "qwen2": ("Qwen2", {**IDS, **GROUPED, "max_position_embeddings": 64}),
    "qwen3": ("Qwen3", {**IDS, **GROUPED, "head_dim": 16, "max_position_embeddings": 64}),
    "gemma2": ("Gemma2", {**GEMMA, "attn_logit_softcapping": 5.0, "max_position_embeddings": 64}),
    "gemma3": ("Gemma3Text", {**GEMMA, "max_position_embeddings": 64, "sliding_window_pattern": 2}),
}
ARCHITECTURES = (*DECODERS, "bert")


def tiny_model_dir(folder: Path, *, seed: int = 0, n_ctx: int = 64) -> Path:
    """Two layers of width 32 over the embedded model's vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=n_ctx,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    copy_tokenizer(folder)
    return folder


def copy_tokenizer(folder: Path) -> None:
    """The embedded model's tokenizer files (4,096 tokens, byte level) into `folder`."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_model_dir() / name, folder / name)


def architecture_dir(
    folder: Path, architecture: str, *, seed: int = 0, std: float = 0.3, **config: Any
) -> Path:
    """Three layers of width 32 of one of `ARCHITECTURES`; `config` replaces entries of its configuration."""
    if architecture == "bert":
        return bert_dir(folder, seed=seed, **config)
    import transformers

    name, defaults = DECODERS[architecture]
    settings = getattr(transformers, f"{name}Config")(**{**defaults, **config})
    head = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(name, f"{name}ForCausalLM")
    save_random(getattr(transformers, head), settings, folder, seed=seed, std=std)
    copy_tokenizer(folder)
    return folder


def bert_dir(
    folder: Path, *, seed: int = 0, head: str = "BertForMaskedLM", dropout: float = 0.1, **config: Any
) -> Path:
    """An encoder of three layers with a WordPiece tokenizer of 64 pieces; `head` is the class that is saved."""
    import transformers

    sizes = {**SIZES, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
    settings = transformers.BertConfig(**{**sizes, "hidden_dropout_prob": dropout, **config})
    save_random(getattr(transformers, head), settings, folder, seed=seed)
    word_pieces().save_pretrained(folder)
    return folder


def word_pieces() -> Any:
    """A WordPiece tokenizer over the letters a to z, whole and continued, with BERT's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


@torch.no_grad()
def save_random(kind: Any, settings: Any, folder: Path, *, seed: int, std: float = 0.3) -> None:
    """Save a model of class `kind` with random matrices, norms and biases as safetensors."""
    torch.manual_seed(seed)
    model = kind(settings)
    for parameter in model.parameters():
        parameter.normal_(0, std) if parameter.ndim > 1 else parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def architecture_model(folder: Path, architecture: str, **options: Any) -> Any:
    """The bridge over `architecture_dir`, loaded offline; `"native"` is TransformerLens' own tiny model."""
    if architecture == "native":
        return native_model()
    return load_model(architecture_dir(folder, architecture), **options)


def native_model(**config: Any) -> Any:
    """A three-layer bridge of TransformerLens' own transformer, without Hugging Face."""
    from transformer_lens.model_bridge import TransformerBridge

    sizes = {"n_layers": 3, "d_model": 32, "n_heads": 4, "d_head": 8, "d_mlp": 48, "n_ctx": 64, "d_vocab": 64}
    settings = {**sizes, "act_fn": "gelu", "normalization_type": "LN", "seed": 0, "init_weights": True}
    model: Any = TransformerBridge.boot_native({**settings, **config})
    return model.eval().requires_grad_(False)
