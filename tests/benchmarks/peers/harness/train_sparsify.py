"""sparsify: one `SparseCoder` with the operations of its `Trainer`, in the same order, for `loss_fn="fvu"`.

Its trainer runs inside the forward hooks of a language model, so the step is written out here: unit decoder
rows, forward, firing mask, backward, projection of the decoder gradient, optimiser, counters. Its default
optimiser is sign descent with momentum made schedule-free, without a schedule of the learning rate; with "adam" it
is `torch.optim.Adam` with linear warm-up and linear decay. AuxK is off by default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its Triton kernels need a GPU
from serving import serve  # isort: skip
import torch
from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD
from torch import Tensor
from transformers import get_linear_schedule_with_warmup


def optimiser(parameters: Iterable[Tensor], task: Any) -> tuple[Any, Any]:
    """The optimiser and the schedule of its learning rate, None for the default."""
    if task.optimiser == "adam":
        adam = torch.optim.Adam(parameters, lr=task.lr)
        return adam, get_linear_schedule_with_warmup(adam, round(task.warmup_frac * task.steps), task.steps)
    signum = ScheduleFreeWrapper(SignSGD(parameters, lr=task.lr), momentum=0.95)
    signum.train()
    return signum, None


class Sparsify:
    """A coder, its optimiser and its counters of silence."""

    def __init__(self, sample: Tensor, task: Any) -> None:
        torch.manual_seed(task.seed)
        config = SparseCoderConfig(num_latents=task.d_sae, k=task.k)
        self.coder, self.started = SparseCoder(sample.shape[1], config, dtype=torch.float32), False
        self.optimiser, self.schedule = optimiser(self.coder.parameters(), task)
        self.silent, self.fired = torch.zeros(task.d_sae, dtype=torch.long), torch.zeros(task.d_sae).bool()

    def step(self, x: Tensor) -> None:
        if not self.started:
            self.coder.b_dec.data = x.mean(0)
            self.started = True
        self.coder.set_decoder_norm_to_unit_norm()
        out = self.coder(x=x, y=x, dead_mask=None, total_variance=(x - x.mean(0)).pow(2).sum())
        self.fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + out.multi_topk_fvu / 8).backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.schedule.step() if self.schedule else None
        self.silent += len(x)
        self.silent[self.fired] = 0
        self.fired.zero_()

    def parameters(self) -> Iterable[Tensor]:
        return self.coder.parameters()

    def state(self) -> Iterable[Tensor]:
        entries = self.optimiser.state.values()
        return (t for entry in entries for t in entry.values() if isinstance(t, Tensor))

    def weights(self) -> dict[str, Tensor]:
        if self.schedule is None:
            self.optimiser.eval()  # the averaged weights, as its checkpoints hold them
        W_enc, b_dec = self.coder.encoder.weight.T, self.coder.b_dec
        bias = self.coder.encoder.bias - b_dec @ W_enc
        return {"W_enc": W_enc, "b_enc": bias, "W_dec": self.coder.W_dec, "b_dec": b_dec}

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.coder(x).sae_out


if __name__ == "__main__":
    serve(Sparsify)
