"""Batches in parts: two halves, and pairs with other answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workbench.errors import UserError
from workbench.tasks import Batch


def two_halves(batches: Sequence[Batch], *, seed: int) -> tuple[list[Batch], list[Batch]]:
    """All pairs split in two at random: those to choose a circuit on, and those to judge it on.

    Raises:
        UserError: fewer than two pairs.
    """
    sizes = [len(batch.answer) for batch in batches]
    n = sum(sizes)
    if n < 2:
        raise UserError(f"{n} pairs make no two halves: give at least 2, and 40 for fair intervals")
    first = torch.zeros(n, dtype=torch.bool)
    first[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[: n // 2]] = True
    return chosen_pairs(batches, first.split(sizes)), chosen_pairs(batches, (~first).split(sizes))


def shuffled_answers(batches: Sequence[Batch], *, seed: int) -> list[Batch]:
    """The same prompts with both answers of other prompts: a task that no model can have learned.

    No prompt keeps its own place, as far as there is more than one; where answers repeat, some are right by chance.
    """
    sizes = [len(batch.answer) for batch in batches]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(seed))
    taken = torch.empty(sum(sizes), dtype=torch.long)
    taken[order] = order.roll(1)
    answers, others = (
        torch.cat([getattr(batch, name) for batch in batches])[taken].split(sizes)
        for name in ("answer", "counterfactual_answer")
    )
    parts = zip(batches, answers, others, strict=True)
    return [Batch(batch.clean, batch.counterfactual, answer, other) for batch, answer, other in parts]


def chosen_pairs(batches: Sequence[Batch], rows: Sequence[Tensor]) -> list[Batch]:
    """The pairs where `rows` (one tensor of truth values a batch) is true; lengths that have none are left out."""
    return [batch.take(keep) for batch, keep in zip(batches, rows, strict=True) if keep.any()]
