"""What a feature circuit explains: one number a prompt, read from the residual stream at one depth.

    LogitDifference   logit(answer) - logit(counterfactual answer) at the last position, for pairs
    NextToken         log p(token) or logit(token) at the last position, for prompts without a counterfactual

A metric is a function of the stream at depth `stop`, with any leading axes before the prompts. Effects are
m(clean) - m(node replaced), so positive helps what the metric measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edits
from workbench.circuits.metric import logit_difference
from workbench.errors import UserError, nearest
from workbench.tasks import Batch

KINDS = ("log_prob", "logit")


@runtime_checkable
class Metric(Protocol):
    """One number a prompt from the stream at depth `stop`."""

    @property
    def stop(self) -> int: ...

    @property
    def unit(self) -> str: ...

    def __call__(self, stream: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LogitDifference:
    """logit(answer) - logit(counterfactual answer) at the last position.

    Attributes:
        anatomy: The model.
        batch: The pairs.
    """

    anatomy: Anatomy
    batch: Batch
    unit: str = "logits"

    @property
    def stop(self) -> int:
        """The last depth."""
        return self.anatomy.last_depth

    def __call__(self, stream: Float[Tensor, "*batch prompt pos d_model"]) -> Float[Tensor, "*batch prompt"]:
        """In logits."""
        return logit_difference(self.anatomy.logits(stream[..., -1:, :])[..., 0, :], self.batch)


@dataclass(frozen=True, eq=False)
class NextToken:
    """log p(token) in nats, or logit(token), at the last position.

    Attributes:
        anatomy: The model.
        tokens: The token of each prompt.
        kind: One of `KINDS`.
    """

    anatomy: Anatomy
    tokens: Int[Tensor, " prompt"]
    kind: str = "log_prob"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"kind {self.kind!r} is no next-token metric; {nearest(self.kind, KINDS)}")

    @property
    def stop(self) -> int:
        """The last depth."""
        return self.anatomy.last_depth

    @property
    def unit(self) -> str:
        """Nats or logits."""
        return "nats" if self.kind == "log_prob" else "logits"

    def __call__(self, stream: Float[Tensor, "*batch prompt pos d_model"]) -> Float[Tensor, "*batch prompt"]:
        """In `unit`."""
        logits = self.anatomy.logits(stream[..., -1:, :])[..., 0, :]
        logits = logits.log_softmax(-1) if self.kind == "log_prob" else logits
        return logits.gather(-1, self.tokens.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of one length and what is measured on them.

    Attributes:
        clean: Token ids.
        metric: Of each prompt.
        patch: Ids of the counterfactual prompts; None for features and errors set to zero.
    """

    clean: Int[Tensor, "prompt pos"]
    metric: Metric
    patch: Int[Tensor, "prompt pos"] | None = None

    def __post_init__(self) -> None:
        if self.patch is not None and self.patch.shape != self.clean.shape:
            raise UserError(
                f"clean prompts are {tuple(self.clean.shape)} and their counterfactuals {tuple(self.patch.shape)}: "
                "pairs have one length, position by position"
            )


def paired(anatomy: Anatomy, batch: Batch) -> Prompts:
    """Prompt pairs with the logit difference."""
    batch = batch.to(anatomy.device)
    return Prompts(batch.clean, LogitDifference(anatomy, batch), batch.counterfactual)


def unpaired(
    anatomy: Anatomy,
    ids: Int[Tensor, "prompt pos"],
    tokens: Int[Tensor, " prompt"],
    *,
    kind: str = "log_prob",
) -> Prompts:
    """Prompts with the token that follows, no counterfactual.

    Raises:
        UserError: the numbers differ, or the kind is not known.
    """
    if len(ids) != len(tokens):
        raise UserError(f"{len(ids)} prompts have {len(tokens)} next tokens: give one a prompt")
    return Prompts(ids.to(anatomy.device), NextToken(anatomy, tokens.to(anatomy.device), kind))


def score(
    anatomy: Anatomy, metric: Metric, stream: Tensor, depth: int, *, edits: Edits | None = None
) -> Float[Tensor, "*batch prompt"]:
    """The metric when the stream at `depth` is `stream`. Status: exact."""
    return metric(anatomy.run(stream, start=depth, stop=metric.stop, edits=edits))
