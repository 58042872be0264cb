"""The metric of every circuit: the logit difference at the last position, and its sign convention.

m = logit(answer) - logit(counterfactual answer). The effect of a node is

    m(clean) - m(clean with the node's value from the counterfactual prompt)    in logits,

so a node that helps the answer has a positive effect, and its first-order estimate is
gradient of m at clean . (clean value - counterfactual value). Published tools use three different signs;
this one is used everywhere in the package.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.tasks import Batch, Task

METRIC = "logit difference"


def task_batches(task: Task, device: torch.device) -> list[Batch]:
    """The task's pairs by prompt length, on the model's device."""
    return [batch.to(device) for batch in task.batches()]


def logit_difference(logits: Float[Tensor, "*batch d_vocab"], batch: Batch) -> Float[Tensor, "*batch"]:
    """m of each row, in logits; the last batch axis is the batch's prompts, others repeat them."""
    answer = batch.answer.expand(logits.shape[:-1]).unsqueeze(-1)
    other = batch.counterfactual_answer.expand(logits.shape[:-1]).unsqueeze(-1)
    return (logits.gather(-1, answer) - logits.gather(-1, other)).squeeze(-1)


@torch.no_grad()
def metric_of_streams(
    anatomy: Anatomy, streams: Float[Tensor, "node prompt pos d_model"], depth: int, batch: Batch
) -> Float[Tensor, "node prompt"]:
    """m when the stream at `depth` is replaced, for several replacements at once. Status: exact."""
    return logit_difference(anatomy.last_logits(streams, depth), batch)
