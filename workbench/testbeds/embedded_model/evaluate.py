"""How good is the embedded model: bits per byte, induction, the eight tasks; each has its random-weight control."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Num
from torch import Tensor

from workbench.intervals import Estimate, mean_estimate, ratio_estimate
from workbench.progress import Progress
from workbench.tasks import TASKS, make_task
from workbench.text import STDLIB_HELD_OUT, find_text

Logits = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]


@dataclass(frozen=True)
class Figure(Estimate):
    """An estimate, and of how many independent units (files, sequences, prompts) it is."""

    n: int

    @classmethod
    def mean(cls, values: Num[Tensor, " unit"]) -> Figure:
        """Mean over units."""
        return cls(**asdict(mean_estimate(values.numpy())), n=len(values))


@dataclass(frozen=True)
class FileBits:
    """What each file of the held-out standard library takes a model.

    Attributes:
        name: Name of each file.
        bits: Its cross-entropy in bits.
        n_bytes: Its length in UTF-8.
    """

    name: tuple[str, ...]
    bits: Float64[np.ndarray, " file"]
    n_bytes: Int64[np.ndarray, " file"]


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


def file_bits(logits: Logits, tokenizer: Any, *, n_ctx: int, batch_size: int = 16) -> FileBits:
    """Bits that the model needs for each file of the held-out standard library."""
    files, bits, n_bytes = find_text(STDLIB_HELD_OUT), [], []
    with Progress(len(files), "held-out bits per byte", "files") as progress:
        for file in files:
            text = file.read()
            ids = tokenizer.encode(text, add_special_tokens=False)
            windows, counted = file_windows(ids, int(tokenizer.bos_token_id), n_ctx)
            parts = [token_losses(logits, w) for w in windows.split(batch_size)]
            bits.append(float((torch.cat(parts).double() * counted).sum()) / math.log(2))
            n_bytes.append(len(text.encode()))
            progress.advance()
    return FileBits(tuple(file.name for file in files), np.array(bits), np.array(n_bytes, np.int64))


def bits_per_byte(files: FileBits, *, leave_out: Collection[str] = ()) -> Figure:
    """Bits that a model needs per UTF-8 byte of some files, all together; bootstrap over files."""
    kept = np.array([name not in leave_out for name in files.name])
    found = ratio_estimate(files.bits[kept], files.n_bytes[kept])
    return Figure(**asdict(found), n=int(kept.sum()))


def xz_bits_per_byte() -> float:
    """Bits per byte of `xz -9` on the same held-out bytes, all files in one stream."""
    data = b"".join(file.read().encode() for file in find_text(STDLIB_HELD_OUT))
    return 8 * len(lzma.compress(data, preset=9)) / len(data)


def induction_gain_nats(
    logits: Logits, *, d_vocab: int, half: int = 100, n: int = 64, seed: int = 0
) -> Figure:
    """Loss on the first half of a repeated random sequence minus loss on the second half, in nats per token.

    Source: Elhage et al. 2021, "A mathematical framework for transformer circuits".
    """
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(1, d_vocab, (n, half), generator=generator)
    ids = torch.cat([torch.zeros(n, 1, dtype=torch.long), once, once], dim=1)
    losses = torch.cat([token_losses(logits, part) for part in ids.split(16)])
    gain = losses[:, :half].mean(1) - losses[:, half + 1 :].mean(1)
    return Figure.mean(gain)


@torch.no_grad()
def task_accuracy(logits: Logits, tokenizer: Any, name: str, *, n_pairs: int = 500, seed: int = 0) -> Figure:
    """Share of held-out prompts where the right answer has a higher logit than the counterfactual one."""
    task = make_task(name, tokenizer, n_pairs=n_pairs, seed=seed)
    right = []
    for batch in task.batches():
        for rows in torch.arange(len(batch.clean)).split(64):
            last = logits(batch.clean[rows])[:, -1]
            answer = last.gather(1, batch.answer[rows, None])
            other = last.gather(1, batch.counterfactual_answer[rows, None])
            right.append((answer > other).flatten())
    return Figure.mean(torch.cat(right).float())


def evaluate(
    logits: Logits, tokenizer: Any, *, n_ctx: int, d_vocab: int, near_copies: Collection[str] = ()
) -> dict[str, Figure]:
    """All figures of the model card."""
    files = file_bits(logits, tokenizer, n_ctx=n_ctx)
    figures = {
        "bits_per_byte": bits_per_byte(files),
        "bits_per_byte_strict": bits_per_byte(files, leave_out=near_copies),
    }
    figures["induction_gain_nats"] = induction_gain_nats(logits, d_vocab=d_vocab)
    for name in TASKS:
        figures[f"accuracy_{name}"] = task_accuracy(logits, tokenizer, name)
    return figures
