"""The workbench: `Trainer.train_batch` of a TopK dictionary, with the options that `training.train` has by default.

Two options differ. The encoder starts with rows of length 0.1, as SAELens' does: in so few steps that decides
more than the rate (FVU 0.357 instead of 0.430 after 60 steps). And AuxK begins after 1,000 steps, SAELens'
threshold, and not after 5: the other tools' thresholds (1,000 steps, 10M tokens, or off) are not reached in a run
of this length, so none of them does that work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving import serve  # isort: skip
import torch
from torch import Tensor

from workbench.dictionaries import Dictionary, Trainee, make_architecture
from workbench.dictionaries.layouts import Single
from workbench.dictionaries.layouts.base import Initialisation
from workbench.training.schedule import Schedule
from workbench.training.source import Batch
from workbench.training.step import Trainer

DEFAULTS = {"aux_coefficient": 1 / 32, "k_aux": None, "dead_after_tokens": 2_048_000}


class Ours:
    """A trainer and its trainee."""

    def __init__(self, sample: Tensor, task: Any) -> None:
        architecture = make_architecture("topk", {"d_sae": task.d_sae, "k": task.k, **DEFAULTS}, {})
        generator = torch.Generator().manual_seed(task.seed)
        layout = Single(d_in=sample.shape[1], d_out=sample.shape[1])
        start = Initialisation(decoder_norm=0.1)
        self.trainee = Trainee.initialise(architecture, layout, sample, start=start, generator=generator)
        schedule = Schedule(task.lr, task.steps, task.warmup_frac, task.decay_frac)
        self.trainer = Trainer(self.trainee, schedule)

    def step(self, x: Tensor) -> None:
        self.trainer.train_batch(Batch(x))

    def parameters(self) -> Iterable[Tensor]:
        return self.trainee.parameters.values()

    def state(self) -> Iterable[Tensor]:
        trained = {id(t) for t in self.parameters()}
        return (t for t in self.trainer.state().values() if id(t) not in trained)

    def _dictionary(self) -> Dictionary:
        return self.trainee.export(hook_name="planted")

    def weights(self) -> dict[str, Tensor]:
        d = self._dictionary()
        return {"W_enc": d.W_enc, "b_enc": d.b_enc - d.b_dec @ d.W_enc, "W_dec": d.W_dec, "b_dec": d.b_dec}

    def reconstruct(self, x: Tensor) -> Tensor:
        return self._dictionary().reconstruct(x)


if __name__ == "__main__":
    serve(Ours)
