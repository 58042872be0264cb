"""How good is the embedded model: bits per byte, induction, the eight tasks; each has its random-weight control."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.progress import Progress
from workbench.tasks import TASKS, make_task
from workbench.text import STDLIB_HELD_OUT, find_text

Logits = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% bootstrap interval over the independent units (files, sequences, prompts)."""

    value: float
    low: float
    high: float
    n: int


def ratio_estimate(
    numerators: Tensor, denominators: Tensor, *, seed: int = 0, n_draws: int = 1000
) -> Estimate:
    """Sum of numerators over sum of denominators, bootstrapped over units.

    Status: exact value; interval by the percentile bootstrap (Efron 1979).
    """
    n = len(numerators)
    draws = torch.randint(n, (n_draws, n), generator=torch.Generator().manual_seed(seed))
    ratios = numerators.double()[draws].sum(1) / denominators.double()[draws].sum(1)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    value = float(numerators.double().sum() / denominators.double().sum())
    return Estimate(value, low, high, n)


@torch.no_grad()
def token_losses(logits: Logits, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos1"]:
    """Cross-entropy of each next token in nats (batch, pos - 1)."""
    scores = logits(ids)[:, :-1].float()
    return torch.nn.functional.cross_entropy(scores.transpose(1, 2), ids[:, 1:], reduction="none")


def file_windows(
    ids: list[int], bos: int, n_ctx: int
) -> tuple[Int[Tensor, "window pos"], Bool[Tensor, "window pos1"]]:
    """Half-overlapping windows of one text, and which of their targets to count so that each token counts once.

    Every token but those of the first window is predicted with at least half a context before it.
    """
    width, half = n_ctx - 1, (n_ctx - 1) // 2
    starts = [0, *range(half, max(len(ids) - half, half), half)]
    if len(ids) <= width:
        starts = [0]
    rows, masks = [], []
    for start in starts:
        piece = ids[start : start + width]
        rows.append([bos, *piece] + [bos] * (width - len(piece)))
        fresh = 0 if start == 0 else width - half
        masks.append([fresh <= i < len(piece) for i in range(width)])
    return torch.tensor(rows), torch.tensor(masks)


def bits_per_byte(
    logits: Logits, tokenizer: Any, *, n_ctx: int, leave_out: Collection[str] = (), batch_size: int = 16
) -> Estimate:
    """Bits that the model needs per UTF-8 byte of the held-out standard library; bootstrap over files."""
    files = [file for file in find_text(STDLIB_HELD_OUT) if file.name not in leave_out]
    bits, n_bytes = [], []
    with Progress(len(files), "held-out bits per byte", "files") as progress:
        for file in files:
            text = file.read()
            ids = tokenizer.encode(text, add_special_tokens=False)
            windows, counted = file_windows(ids, int(tokenizer.bos_token_id), n_ctx)
            parts = [token_losses(logits, w) for w in windows.split(batch_size)]
            bits.append(float((torch.cat(parts).double() * counted).sum()) / math.log(2))
            n_bytes.append(len(text.encode()))
            progress.advance()
    return ratio_estimate(torch.tensor(bits), torch.tensor(n_bytes))


def xz_bits_per_byte() -> float:
    """Bits per byte of `xz -9` on the same held-out bytes, all files in one stream."""
    data = b"".join(file.read().encode() for file in find_text(STDLIB_HELD_OUT))
    return 8 * len(lzma.compress(data, preset=9)) / len(data)


def induction_gain_nats(
    logits: Logits, *, d_vocab: int, half: int = 100, n: int = 64, seed: int = 0
) -> Estimate:
    """Loss on the first half of a repeated random sequence minus loss on the second half, in nats per token.

    Source: Elhage et al. 2021, "A mathematical framework for transformer circuits".
    """
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(1, d_vocab, (n, half), generator=generator)
    ids = torch.cat([torch.zeros(n, 1, dtype=torch.long), once, once], dim=1)
    losses = torch.cat([token_losses(logits, part) for part in ids.split(16)])
    gain = losses[:, :half].mean(1) - losses[:, half + 1 :].mean(1)
    return ratio_estimate(gain, torch.ones(n))


@torch.no_grad()
def task_accuracy(
    logits: Logits, tokenizer: Any, name: str, *, n_pairs: int = 500, seed: int = 0
) -> Estimate:
    """Share of held-out prompts where the right answer has a higher logit than the counterfactual one."""
    task = make_task(name, tokenizer, n_pairs=n_pairs, seed=seed)
    right = []
    for batch in task.batches():
        for rows in torch.arange(len(batch.clean)).split(64):
            last = logits(batch.clean[rows])[:, -1]
            answer = last.gather(1, batch.answer[rows, None])
            other = last.gather(1, batch.counterfactual_answer[rows, None])
            right.append((answer > other).flatten())
    hits = torch.cat(right).float()
    return ratio_estimate(hits, torch.ones(len(hits)))


def evaluate(
    logits: Logits, tokenizer: Any, *, n_ctx: int, d_vocab: int, near_copies: Collection[str] = ()
) -> dict[str, Estimate]:
    """All figures of the model card."""
    figures = {
        "bits_per_byte": bits_per_byte(logits, tokenizer, n_ctx=n_ctx),
        "bits_per_byte_strict": bits_per_byte(logits, tokenizer, n_ctx=n_ctx, leave_out=near_copies),
    }
    figures["induction_gain_nats"] = induction_gain_nats(logits, d_vocab=d_vocab)
    for name in TASKS:
        figures[f"accuracy_{name}"] = task_accuracy(logits, tokenizer, name)
    return figures
