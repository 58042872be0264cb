"""SAELens: `SAETrainer.step`, the call its `fit` makes for each batch, on a `TopKTrainingSAE` with its defaults."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving import serve  # isort: skip
import torch
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from safetensors.torch import load_file
from torch import Tensor


class SaeLens:
    """Its trainer with the loop's own counter of steps."""

    def __init__(self, sample: Tensor, task: Any) -> None:
        torch.manual_seed(task.seed)
        self.sae = TopKTrainingSAE(
            TopKTrainingSAEConfig(d_in=sample.shape[1], d_sae=task.d_sae, k=task.k, device="cpu")
        )
        options = SAETrainerConfig(
            total_training_samples=task.steps * task.batch,
            train_batch_size_samples=task.batch,
            lr=task.lr,
            lr_end=task.lr / 10,
            lr_warm_up_steps=round(task.warmup_frac * task.steps),
            lr_decay_steps=round(task.decay_frac * task.steps),
        )
        self.trainer = SAETrainer(options, self.sae, iter(()))

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def parameters(self) -> Iterable[Tensor]:
        return self.sae.parameters()

    def state(self) -> Iterable[Tensor]:
        return (t for entry in self.trainer.optimizer.state.values() for t in entry.values())

    def weights(self) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            weights, _ = self.sae.save_inference_model(folder)
            tensors = load_file(Path(weights))
        if self.sae.cfg.apply_b_dec_to_input:
            tensors["b_enc"] = tensors["b_enc"] - tensors["b_dec"] @ tensors["W_enc"]
        return tensors

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.sae(x)


if __name__ == "__main__":
    serve(SaeLens)
