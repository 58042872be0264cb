"""`python -m workbench.testbeds.embedded_model`: train the embedded model again, from nothing."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import torch
from tokenizers import Tokenizer

from workbench.models import embedded_model_dir
from workbench.testbeds.embedded_model import corpus
from workbench.testbeds.embedded_model.card import write_card
from workbench.testbeds.embedded_model.export import export
from workbench.testbeds.embedded_model.tokenizer import train_tokenizer
from workbench.testbeds.embedded_model.train import TrainConfig, Trainer


def parse_arguments() -> argparse.Namespace:
    """One flag per field of TrainConfig, and where the work and the result go."""
    parser = argparse.ArgumentParser(prog="python -m workbench.testbeds.embedded_model", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/embedded-model"), help="where work is kept")
    parser.add_argument(
        "--target", type=Path, default=embedded_model_dir(), help="the Hugging Face directory made"
    )
    parser.add_argument("--card-only", action="store_true", help="export and measure the last checkpoint")
    for field in fields(TrainConfig):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    return parser.parse_args()


def train(folder: Path, config: TrainConfig) -> None:
    """Tokenizer, corpus and training, each continued from what `folder` already holds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    if not path.exists():
        print("training the tokenizer", flush=True)
        train_tokenizer(corpus.tokenizer_texts(seed=config.seed), d_vocab=config.d_vocab).save(str(path))
    counts = corpus.build(folder, Tokenizer.from_file(str(path)), seed=config.seed)
    print("the corpus:", counts, flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    Trainer(folder, config, device=device).run()


def main() -> None:
    """Train (or continue), export, measure, write the card."""
    given = vars(parse_arguments())
    folder, target, card_only = given.pop("folder"), given.pop("target"), given.pop("card_only")
    if not card_only:
        train(folder, TrainConfig(**given))
    export(folder, target)
    write_card(target, folder)
    print(f"wrote {target}", flush=True)


if __name__ == "__main__":
    main()
