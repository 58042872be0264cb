"""The plain trainer that one writes in an afternoon: dense matrices, autograd, `torch.optim.Adam` as it comes.

No auxiliary loss. Unit decoder rows, their gradient projected; encoder initialised as the decoder's transpose,
the bias as the mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving import serve  # isort: skip
import torch
from torch import Tensor


class Dense:
    """Four tensors and an optimiser."""

    def __init__(self, sample: Tensor, task: Any) -> None:
        self.task, self.number = task, 0
        W_dec = torch.randn(task.d_sae, sample.shape[1], generator=torch.Generator().manual_seed(task.seed))
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        tensors = {
            "W_enc": W_dec.T.clone(),
            "b_enc": torch.zeros(task.d_sae),
            "W_dec": W_dec,
            "b_dec": sample.mean(0),
        }
        self.p = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        self.adam = torch.optim.Adam(self.p.values(), lr=task.lr)

    def reconstruct(self, x: Tensor) -> Tensor:
        p = self.p
        top = ((x - p["b_dec"]) @ p["W_enc"] + p["b_enc"]).topk(self.task.k, dim=1)
        z = torch.zeros(len(x), self.task.d_sae).scatter(1, top.indices, top.values.relu())
        return z @ p["W_dec"] + p["b_dec"]

    def step(self, x: Tensor) -> None:
        loss = (self.reconstruct(x) - x).square().mean()
        self.adam.zero_grad()
        loss.backward()
        self._update()

    @torch.no_grad()
    def _update(self) -> None:
        W_dec = self.p["W_dec"]
        assert W_dec.grad is not None
        W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
        for group in self.adam.param_groups:
            group["lr"] = self.task.lr * self._share()
        self.adam.step()
        W_dec /= W_dec.norm(dim=1, keepdim=True)
        self.number += 1

    def _share(self) -> float:
        """Share of the peak learning rate: linear warm-up and decay."""
        rising = (self.number + 1) / max(1, self.task.warmup_frac * self.task.steps)
        falling = (self.task.steps - self.number) / max(1, self.task.decay_frac * self.task.steps)
        return min(1.0, rising, falling)

    def parameters(self) -> Iterable[Tensor]:
        return self.p.values()

    def state(self) -> Iterable[Tensor]:
        return (t for entry in self.adam.state.values() for t in entry.values())

    def weights(self) -> dict[str, Tensor]:
        p = self.p
        return {**p, "b_enc": p["b_enc"] - p["b_dec"] @ p["W_enc"]}


if __name__ == "__main__":
    serve(Dense)
