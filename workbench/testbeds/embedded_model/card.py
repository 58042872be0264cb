"""The model card: what the embedded model is, how it was made, and what it can do beside its control."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from workbench.artifacts import atomic_file, read_json, write_json
from workbench.tasks import TASKS
from workbench.testbeds.embedded_model.corpus import SHARES, near_copies
from workbench.testbeds.embedded_model.evaluate import Figure, evaluate, xz_bits_per_byte
from workbench.testbeds.embedded_model.train import TrainConfig, new_model

GOALS = {
    "bits_per_byte": ("<= 1.1", lambda v: v <= 1.1),
    "bits_per_byte_strict": ("<= 1.1", lambda v: v <= 1.1),
    "induction_gain_nats": (">= 6", lambda v: v >= 6),
}
ACCURACY_GOAL = (">= 90%", lambda v: v >= 0.9)


def _figures(model: PreTrainedModel, tokenizer: Any, copies: list[str]) -> dict[str, Figure]:
    model = model.eval()
    with torch.no_grad():
        return evaluate(
            lambda ids: model(ids).logits,
            tokenizer,
            n_ctx=model.config.n_positions,
            d_vocab=model.config.vocab_size,
            near_copies=copies,
        )


def write_card(folder: Path, training: Path) -> dict[str, Any]:
    """Measure the model in `folder` and its random-weight control; write README.md and card.json beside it.

    Args:
        folder: The Hugging Face directory.
        training: The training folder, for the recipe and the corpus counts.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = TrainConfig(**read_json(training / "state.json")["config"])
    copies = near_copies()
    trained = _figures(AutoModelForCausalLM.from_pretrained(folder), tokenizer, copies)
    control = _figures(new_model(config), tokenizer, copies)
    card = {
        "trained": {k: asdict(v) for k, v in trained.items()},
        "random_weights": {k: asdict(v) for k, v in control.items()},
        "xz_bits_per_byte": xz_bits_per_byte(),
        "near_copies": copies,
        "recipe": asdict(config),
        "steps": read_json(training / "state.json")["step"],
        "corpus_tokens": read_json(training / "corpus.json"),
    }
    write_json(folder / "card.json", card)
    with atomic_file(folder / "README.md") as temporary:
        temporary.write_text(card_text(card), encoding="utf-8")
    return card


def _row(label: str, key: str, card: dict[str, Any]) -> str:
    goal, reached = GOALS.get(key, ACCURACY_GOAL)
    percent = key.startswith("accuracy_")

    def shown(figure: dict[str, float]) -> str:
        value, low, high = (figure[k] * (100 if percent else 1) for k in ("value", "low", "high"))
        digits = 1 if percent else 3
        return f"{value:.{digits}f}{'%' if percent else ''} [{low:.{digits}f}, {high:.{digits}f}]"

    met = "yes" if reached(card["trained"][key]["value"]) else "**no**"
    return (
        f"| {label} | {shown(card['trained'][key])} | {shown(card['random_weights'][key])} | {goal} | {met} |"
    )


def card_text(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    recipe, counts = card["recipe"], card["corpus_tokens"]
    rows = [_row("held-out standard library, bits per byte", "bits_per_byte", card)]
    rows += [_row("the same without near-copies, bits per byte", "bits_per_byte_strict", card)]
    rows += [_row("repeated random tokens, first half - second half, nats", "induction_gain_nats", card)]
    rows += [_row(title, f"accuracy_{name}", card) for name, (title, _) in TASKS.items()]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
    tokens = card["steps"] * recipe["batch_size"] * recipe["n_ctx"]
    return CARD.format(
        rows="\n".join(rows),
        copies=len(card["near_copies"]),
        xz=f"{card['xz_bits_per_byte']:.3f}",
        shares=shares,
        tokens=f"{tokens:,}",
        steps=f"{card['steps']:,}",
        files=f"{counts['files']:,}",
        megabytes=f"{counts['bytes'] / 1e6:.0f}",
        **recipe,
    )


CARD = """# The embedded model

A small GPT-2 that ships with the workbench, so that every example runs offline: {n_layers} layers, d_model
{d_model}, {n_heads} heads, {d_vocab} byte-level BPE tokens, context {n_ctx}. It was trained by
`python -m workbench.testbeds.embedded_model` and loads with `TransformerBridge.boot_transformers`.

## Figures

Written by `python -m workbench.testbeds.embedded_model --card-only`. Brackets are 95% bootstrap intervals over
files, sequences or prompts. The control is the same measurement on the same architecture with freshly
initialised weights. `xz -9` needs {xz} bits per byte on the same held-out bytes.

| figure | trained | random weights | goal | reached |
|---|---|---|---|---|
{rows}

Accuracy is the share of 500 prompts whose right answer has a higher logit than the counterfactual answer
(chance 50%). Name pairs, (century, year) pairs, (noun, noun, verb) triples and argument pairs of these prompts
were kept out of the generated training text by hash; random sequences and bracket or quote snippets are fresh draws.

## Training

{steps} steps of {batch_size} blocks of {n_ctx} tokens ({tokens} tokens), bfloat16 autocast, Muon
(lr {muon_lr}) on the block matrices and AdamW (lr {adam_lr}) on the rest, warm-up {warmup_steps} steps, flat, then
linear to zero over the last {decay_frac:.0%}. Blocks: {shares}; the first two are Python source of the
interpreter's standard library and of the installed packages ({files} files, {megabytes} MB), the next two are
generated from the grammars of `workbench/tasks/frames.py` and `grammar.py`, the last are repeated random
sequences. One standard-library file in 25 (by hash of its name) is held out, and so is every exact copy of it.
{copies} held-out files are near-copies: more than half of their long lines stand in one training file (backports in
other packages, sibling code pages). The table gives the figure with and without them; `card.json` names them.

## Limits

It knows Python's look and a few English sentence patterns; it holds no facts. The English and the snippets are
generated, so circuits found on them are circuits for these patterns.
"""
