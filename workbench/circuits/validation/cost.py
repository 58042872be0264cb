"""What a measurement costs, in forward passes of the whole model on the same prompts.

Counted in floating point operations of matrix products and attention, so the number is the same on every machine
and under every load; time follows it where products dominate. Element-wise work (norms, differences of streams) is
not counted. Making the replaced values of the paired prompt is one forward pass more, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.circuits.validation.judge import Judge


def forward_equivalents(judge: Judge, masks: Bool[Tensor, "mask ..."]) -> float:
    """Forward passes a pair that `judge.metrics(masks)` is worth. Status: exact count of matrix products.

    Args:
        judge: Pairs and protocol.
        masks: Of nodes (mask, writer) or of edges (mask, writer, reader).
    """
    plain = _operations(lambda: _plain(judge))
    return float(judge.protocol.paired) + _operations(lambda: judge.metrics(masks)) / plain


@torch.no_grad()
def _plain(judge: Judge) -> None:
    """The clean prompts once through the model, logits at the last position."""
    anatomy = judge.wiring.anatomy
    for batch in judge.batches:
        anatomy.last_logits(anatomy.embed(batch.clean), 0)


def _operations(work: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
