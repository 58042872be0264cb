"""What every circuit tool is given: models, prompt pairs, circuits and transcoders, all random and seeded.

    folder/{tiny,gpt2s}/model/                  GPT-2 as `save_pretrained` writes it, with a tokeniser of whole words
    folder/{tiny,gpt2s}/pairs.safetensors       clean, counterfactual (pair, pos); answer, counterfactual_answer (pair)
    folder/{tiny,gpt2s}/circuits.safetensors    masks (circuit, writer, reader) of random nodes' edges, kept_frac
    folder/gpt2s/transcoders/                   see `transcoders.py`

A token's text is `t<id>`; id 0 is the beginning token, which starts every prompt. Weights are normal with a spread
of 0.55 / sqrt(d_model), which keeps the spread of what a matrix of GPT-2-small makes of a normalised stream at
every width; biases and norm gains are moved away from 0 and 1 so that a tool that drops one is seen. The masks are
in the order of `harness/circuit_names.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.benchmarks.peers.harness.circuit_names import is_edge, readers, writers

SEED, N_PAIRS, N_POS, CHANGED_FRAC, N_CTX = 20_240_606, 128, 16, 0.5, 128
KEPT_FRAC = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FIRST_WORD = 3  # after the beginning, padding and unknown tokens


@dataclass(frozen=True)
class Shape:
    """A model's sizes."""

    name: str
    n_layers: int
    n_heads: int
    d_model: int
    d_vocab: int


TINY = Shape("tiny", 4, 4, 128, 1000)
GPT2S = Shape("gpt2s", 12, 12, 768, 5000)
SHAPES = {shape.name: shape for shape in (TINY, GPT2S)}


def write_shape(folder: Path, shape: Shape) -> None:
    """Model, pairs and circuits of one shape; what is there already is kept."""
    if not (folder / "model" / "config.json").exists():
        write_model(folder / "model", shape)
    generator = torch.Generator().manual_seed(SEED)
    save_file(random_pairs(shape, generator), folder / "pairs.safetensors")
    save_file(random_circuits(shape, generator), folder / "circuits.safetensors")


def write_model(folder: Path, shape: Shape) -> None:
    """A GPT-2 with random weights and its tokeniser."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(
        n_layer=shape.n_layers, n_head=shape.n_heads, n_embd=shape.d_model, vocab_size=shape.d_vocab,
        n_positions=N_CTX, initializer_range=0.55 / shape.d_model**0.5, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    perturb(model)
    model.save_pretrained(folder)
    write_tokenizer(folder, shape.d_vocab)


@torch.no_grad()
def perturb(model: nn.Module) -> None:
    """Move every bias and gain, which are 0 and 1 at first."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn(parameter.shape))


def write_tokenizer(folder: Path, d_vocab: int) -> None:
    """Words between spaces, read by every release of transformers."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<bos>", "<pad>", "<unk>"]
    words = {name: i for i, name in enumerate([*special, *(f"t{i}" for i in range(FIRST_WORD, d_vocab))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<bos>", "eos_token": "<bos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": N_CTX, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def random_pairs(shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    """Prompts whose counterfactual has about half of the words changed, and two answers that differ."""

    def words(*size: int) -> Tensor:
        return torch.randint(FIRST_WORD, shape.d_vocab, size, generator=generator)

    clean, other = words(N_PAIRS, N_POS), words(N_PAIRS, N_POS)
    changed = torch.rand(N_PAIRS, N_POS, generator=generator) < CHANGED_FRAC
    counterfactual = torch.where(changed, other, clean)
    clean[:, 0] = counterfactual[:, 0] = 0
    answer = words(N_PAIRS)
    shift = torch.randint(1, shape.d_vocab - FIRST_WORD, (N_PAIRS,), generator=generator)
    wrong = FIRST_WORD + (answer - FIRST_WORD + shift) % (shape.d_vocab - FIRST_WORD)
    return {
        "clean": clean,
        "counterfactual": counterfactual,
        "answer": answer,
        "counterfactual_answer": wrong,
    }


def edge_mask(shape: Shape) -> Tensor:
    """Which (writer, reader) are edges."""
    names = shape.n_layers, shape.n_heads
    return torch.tensor([[is_edge(w, r) for r in readers(*names)] for w in writers(*names)])


def random_circuits(shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    """Nested sets of edges, of the sizes that benchmarks of circuits report, that connect embedding and logit.

    Nodes come in a random order, each with its edges from and to those before it; so a circuit is some nodes with
    all edges between them, and a part of the edges of one more. Edges drawn one by one would not connect.
    """
    mask = edge_mask(shape)
    rank = edge_order(shape, generator).masked_fill(~mask, torch.inf).flatten()
    order = rank.argsort(stable=True)
    counts = [max(1, round(frac * int(mask.sum()))) for frac in KEPT_FRAC]
    masks = torch.zeros(len(counts), mask.numel(), dtype=torch.bool)
    for kept, n in zip(masks, counts, strict=True):
        kept[order[:n]] = True
    return {"masks": masks.unflatten(1, mask.shape), "kept_frac": torch.tensor(KEPT_FRAC)}


def edge_order(shape: Shape, generator: torch.Generator) -> Tensor:
    """Place of an edge's later node in a random order of nodes, embedding and logit first (writer, reader)."""
    sources, targets = writers(shape.n_layers, shape.n_heads), readers(shape.n_layers, shape.n_heads)
    inner = [sources[1 + i] for i in torch.randperm(len(sources) - 1, generator=generator).tolist()]
    place = {name: i for i, name in enumerate(["embed", "logit", *inner])}
    late = torch.tensor([[place[name] for name in sources]]).T
    return torch.maximum(late, torch.tensor([place[node_of(name)] for name in targets])).float()


def node_of(reader: str) -> str:
    """The node that a reader belongs to."""
    return reader.rsplit(".", 1)[0] if reader.count(".") == 2 else reader


def load_pairs(folder: Path) -> dict[str, Tensor]:
    """The pairs of a shape's folder."""
    return load_file(folder / "pairs.safetensors")
