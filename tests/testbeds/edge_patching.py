"""What the beds' truth is checked with: the model computed again from its weights, and edges patched one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workbench.tasks import Batch
from workbench.testbeds import plain
from workbench.testbeds.truth import Edge


def edge_effects(model: Any, batch: Batch, edges: Iterable[Edge]) -> dict[Edge, Tensor]:
    """The exact effects, after a look that the plain model is the bridge's."""
    own = model(batch.clean, return_type="logits")[:, -1]
    ours, _ = plain.plain(model).run(batch.clean)
    torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-4)
    return plain.edge_effects(plain.plain(model), batch, edges)


def auroc(scores: list[float], truth: list[bool]) -> float:
    """Chance that a true edge scores above a false one; ties count half."""
    values, true = torch.tensor(scores, dtype=torch.float64), torch.tensor(truth)
    above = values[true][:, None] - values[~true][None]
    return float((above > 0).double().mean() + 0.5 * (above == 0).double().mean())
