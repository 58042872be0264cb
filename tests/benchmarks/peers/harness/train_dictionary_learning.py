"""dictionary_learning: `TopKTrainer.update`, the call its `trainSAE` makes for each batch, with its defaults.

Its default warm-up of 1,000 steps is longer than the run and would be refused, so it is given as a share of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving import serve  # isort: skip
from dictionary_learning.trainers.top_k import TopKTrainer
from torch import Tensor


class DictionaryLearning:
    """Its trainer with the loop's own counter of steps."""

    def __init__(self, sample: Tensor, task: Any) -> None:
        decay = round(task.decay_frac * task.steps)
        self.number, self.trainer = (
            0,
            TopKTrainer(
                steps=task.steps,
                activation_dim=sample.shape[1],
                dict_size=task.d_sae,
                k=task.k,
                layer=0,
                lm_name="planted",
                lr=task.lr,
                warmup_steps=round(task.warmup_frac * task.steps),
                decay_start=task.steps - decay if decay else None,
                seed=task.seed,
                device="cpu",
            ),
        )

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.number, x)
        self.number += 1

    def parameters(self) -> Iterable[Tensor]:
        return self.trainer.ae.parameters()

    def state(self) -> Iterable[Tensor]:
        return (t for entry in self.trainer.optimizer.state.values() for t in entry.values())

    def weights(self) -> dict[str, Tensor]:
        ae = self.trainer.ae
        W_enc, b_dec = ae.encoder.weight.T, ae.b_dec
        return {
            "W_enc": W_enc,
            "b_enc": ae.encoder.bias - b_dec @ W_enc,
            "W_dec": ae.decoder.weight.T,
            "b_dec": b_dec,
        }

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.trainer.ae(x)


if __name__ == "__main__":
    serve(DictionaryLearning)
