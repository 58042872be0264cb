"""`python -m workbench.testbeds.embedded_model`: train the embedded model again, from nothing."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import torch
from tokenizers import Tokenizer

from workbench.testbeds.embedded_model import corpus
from workbench.testbeds.embedded_model.tokenizer import train_tokenizer
from workbench.testbeds.embedded_model.train import TrainConfig, Trainer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.testbeds.embedded_model", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/embedded-model"), help="where work is kept")
    for field in fields(TrainConfig):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainConfig(**given)
    path = folder / "tokenizer.json"
    if not path.exists():
        print("training the tokenizer", flush=True)
        train_tokenizer(corpus.tokenizer_texts(seed=config.seed), d_vocab=config.d_vocab).save(str(path))
    print("tokens of the corpus:", corpus.build(folder, Tokenizer.from_file(str(path)), seed=config.seed), flush=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    Trainer(folder, config, device=device).run()


if __name__ == "__main__":
    main()
