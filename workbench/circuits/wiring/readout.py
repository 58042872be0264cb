"""The metric from the final stream, with two columns of the unembedding instead of all of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.tasks import Batch


def final_stream(anatomy: Anatomy, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """The normed stream before the unembedding."""
    return anatomy.ln_final(x)


def metric_at(
    anatomy: Anatomy, normed: Float[Tensor, "*batch prompt d_model"], batch: Batch
) -> Float[Tensor, "*batch prompt"]:
    """m in logits from the normed stream at the last position. Status: exact; differentiable."""
    return one_logit(anatomy, normed, batch.answer) - one_logit(anatomy, normed, batch.counterfactual_answer)


def one_logit(
    anatomy: Anatomy, normed: Float[Tensor, "*batch prompt d_model"], tokens: Tensor
) -> Float[Tensor, "*batch prompt"]:
    """The logit of one token a prompt."""
    readout = anatomy.readout
    tokens = tokens.to(anatomy.device)
    logit = (normed * readout.W_U[:, tokens].T).sum(-1)
    logit = logit if readout.b_U is None else logit + readout.b_U[tokens]
    return readout.soft_cap * torch.tanh(logit / readout.soft_cap) if readout.soft_cap else logit


def metric_from(
    anatomy: Anatomy, x: Float[Tensor, "*batch prompt pos d_model"], depth: int, batch: Batch
) -> Float[Tensor, "*batch prompt"]:
    """m in logits when the stream at `depth` is `x`; only the last position after the last attention."""
    late = max(depth, anatomy.last_depth - 1)
    x = anatomy.run(x, start=depth, stop=late)[..., -1:, :]
    return metric_at(anatomy, anatomy.ln_final(anatomy.run(x, start=late))[..., 0, :], batch)
