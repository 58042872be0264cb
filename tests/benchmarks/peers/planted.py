"""The activations that every tool reads: sparse combinations of more directions than dimensions, with rare ones.

A row is the sum of 32 draws from 16,384 unit directions in 512 dimensions, drawn with probability proportional to
1 / (rank + 20)^1.25, each times 1/2 plus an exponential of mean 1/2; plus a constant offset and Gaussian noise,
scaled so that the mean squared distance from the mean is the width. Rows are independent, so the file's order is a
random one; all tools read it from the first row on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, FEATURES, DRAWS, OFFSET, POWER, NOISE, CHUNK = 512, 16_384, 32, 20.0, 1.25, 0.1, 8192
SEED = 20_240_606  # not one that a trainer starts from: its first random matrix would hold the planted directions
TRAIN_ROWS, HELD_OUT_ROWS = 307_200, 16_384


def planted_rows(n_rows: int, directions: Tensor, generator: torch.Generator) -> Tensor:
    """Rows by the module's rule."""
    chances = (torch.arange(len(directions)) + OFFSET) ** -POWER
    chosen = torch.multinomial(chances.expand(1, -1), n_rows * DRAWS, replacement=True, generator=generator)
    sizes = 0.5 + torch.empty(n_rows, DRAWS).exponential_(2, generator=generator)
    rows = torch.nn.functional.embedding_bag(
        chosen.reshape(n_rows, DRAWS), directions, per_sample_weights=sizes, mode="sum"
    )
    width = directions.shape[1]
    noise = torch.randn(n_rows, width, generator=generator)
    return rows + NOISE * (DRAWS / width) ** 0.5 * noise


def write_planted(path: Path, seed: int = SEED) -> None:
    """Write `train` and `held_out` rows, float32, to a safetensors file; the same bytes for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, WIDTH, generator=generator), dim=1)
    offset = torch.randn(WIDTH, generator=generator) / 2
    counts = {"train": TRAIN_ROWS, "held_out": HELD_OUT_ROWS}
    rows = torch.cat(
        [planted_rows(CHUNK, directions, generator) for _ in range(0, sum(counts.values()), CHUNK)]
    )
    mean = rows.mean(0)
    spread = float((rows[:CHUNK] - mean).double().square().sum(1).mean())
    rows.sub_(mean).mul_((WIDTH / spread) ** 0.5).add_(offset)
    train, held_out = rows[: sum(counts.values())].split(list(counts.values()))
    save_file({"train": train.contiguous(), "held_out": held_out.contiguous()}, path)


def fvu(weights: dict[str, Tensor], rows: Tensor, k: int) -> float:
    """Fraction of the rows' variance that x_hat = ReLU(topk(x W_enc + b_enc)) W_dec + b_dec leaves unexplained.

    Sums in float64. One function for every tool, on the weights that it exported.
    """
    left, total = 0.0, float((rows - rows.mean(0)).double().square().sum())
    for x in rows.split(2048):
        top = (x @ weights["W_enc"] + weights["b_enc"]).topk(k, dim=1)
        x_hat = torch.nn.functional.embedding_bag(
            top.indices, weights["W_dec"], per_sample_weights=top.values.relu(), mode="sum"
        )
        left += float((x_hat + weights["b_dec"] - x).double().square().sum())
    return left / total
