"""From a training checkpoint to an ordinary Hugging Face directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer

from workbench.artifacts import atomic_folder, read_json
from workbench.errors import UserError
from workbench.testbeds.embedded_model.tokenizer import save_tokenizer
from workbench.testbeds.embedded_model.train import TrainConfig, new_model


def checkpoint_step(folder: Path) -> int:
    """The step of the last checkpoint in a training folder; refuses a folder without one."""
    state = folder / "state.json"
    if not state.exists():
        raise UserError(f"folder {folder} holds no checkpoint: train first, then export")
    return int(read_json(state)["step"])


def export(folder: Path, target: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json into `target` (fp32)."""
    step = checkpoint_step(folder)
    config = TrainConfig(**read_json(folder / "state.json")["config"])
    model = new_model(config)
    tensors = load_file(folder / f"checkpoint-{step}.safetensors")
    weights = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    with atomic_folder(target) as made:
        model.save_pretrained(made)
        (made / "generation_config.json").unlink(missing_ok=True)
        save_tokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), made, n_ctx=config.n_ctx)
        for name in ("README.md", "card.json"):
            if (target / name).exists():
                shutil.copy(target / name, made / name)
