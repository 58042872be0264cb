"""A linear probe on mean-pooled activations, and its logit as the metric of a feature circuit.

    pooled = mean over true tokens after the first of the stream at a depth
    p(label = 1) = sigmoid(pooled . weight + bias)

Trained as in the paper by AdamW on the binary cross-entropy; the paper makes one pass over tens of thousands of
texts, so give more `n_epochs` for few.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edits
from workbench.circuits.feature_circuits.effects import MAX_TOKENS
from workbench.errors import UserError


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts with two labels each, padded on the right to one length.

    Attributes:
        ids: Token ids (text, pos).
        mask: True at the tokens of the text (text, pos).
        intended: What a probe should tell, 0 or 1 (text).
        spurious: What it must not use, 0 or 1 (text).
    """

    ids: Int[Tensor, "text pos"]
    mask: Bool[Tensor, "text pos"]
    intended: Int[Tensor, " text"]
    spurious: Int[Tensor, " text"]

    def __post_init__(self) -> None:
        for name in ("intended", "spurious"):
            label = getattr(self, name)
            if not bool(((label == 0) | (label == 1)).all()):
                raise UserError(
                    f"{name} labels are {sorted(set(label.tolist()))[:5]}: give 0 or 1 for each text"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, tokens: Int[Tensor, " token"], *, pad: int = 0) -> Labelled:
        """The same texts with all occurrences of some tokens deleted; what follows moves up."""
        stays = self.mask & ~torch.isin(self.ids, tokens)
        order = (~stays).long().argsort(dim=1, stable=True)
        mask = stays.gather(1, order)
        return Labelled(self.ids.gather(1, order).masked_fill(~mask, pad), mask, self.intended, self.spurious)


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier.

    Attributes:
        weight: (width).
        bias: A number.
    """

    weight: Float[Tensor, " width"]
    bias: float

    def __call__(self, pooled: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Logit of label 1."""
        return pooled @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class ProbeLogit:
    """Metric: the probe's logit for each text's label.

    Attributes:
        probe: The probe.
        stop: Depth that it reads.
        mask: Positions that are pooled (text, pos).
        sign: 1 where the label is 1, -1 where it is 0 (text).
    """

    probe: Probe
    stop: int
    mask: Bool[Tensor, "text pos"]
    sign: Float[Tensor, " text"]
    unit: str = "logits"

    def __call__(self, stream: Float[Tensor, "*batch text pos d_model"]) -> Float[Tensor, "*batch text"]:
        """In logits; positive is for the label."""
        return self.sign * self.probe(pool(stream, self.mask))


def pool(
    stream: Float[Tensor, "*batch text pos d_model"], mask: Bool[Tensor, "text pos"]
) -> Float[Tensor, "*batch text d_model"]:
    """Mean over the positions of the mask."""
    share = mask.to(stream) / mask.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("...tpd,tp->...td", stream, share)


def pooled_positions(texts: Labelled, n_bos: int) -> Bool[Tensor, "text pos"]:
    """True tokens after the first `n_bos`.

    Raises:
        UserError: a text has no other token.
    """
    mask = texts.mask.clone()
    mask[:, :n_bos] = False
    if not bool(mask.any(-1).all()):
        row = int((~mask.any(-1)).nonzero()[0])
        raise UserError(f"text {row} has no token after the first {n_bos}: there is nothing to pool")
    return mask


@torch.no_grad()
def pooled_activations(
    anatomy: Anatomy,
    texts: Labelled,
    depth: int,
    *,
    n_bos: int = 1,
    edits: Edits | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Float[Tensor, "text d_model"]:
    """Mean activation of each text at a depth of the stream. Status: exact.

    Args:
        anatomy: The model.
        texts: What is run.
        depth: Of the stream.
        n_bos: First positions, left out.
        edits: Changes of the forward pass.
        max_tokens: Largest number of tokens in one pass.
    """
    mask = pooled_positions(texts, n_bos).to(anatomy.device)
    found = []
    for rows in torch.arange(len(texts)).split(max(1, max_tokens // texts.ids.shape[1])):
        x = anatomy.embed(texts.ids[rows].to(anatomy.device))
        found.append(pool(run_to(anatomy, x, depth, edits or {}), mask[rows.to(mask.device)]).cpu())
    return torch.cat(found)


def run_to(anatomy: Anatomy, x: Tensor, depth: int, edits: Edits) -> Tensor:
    """The stream at `depth`; an edit named `embed` changes the stream at depth 0."""
    x = edits["embed"](x) if "embed" in edits else x
    return anatomy.run(x, stop=depth, edits=edits)


def train_probe(
    pooled: Float[Tensor, "text width"],
    labels: Int[Tensor, " text"],
    *,
    n_epochs: int = 1,
    learning_rate: float = 1e-2,
    batch_texts: int = 64,
    seed: int = 0,
) -> Probe:
    """A probe by AdamW on the binary cross-entropy. Status: bit-reproducible in the seed on a CPU.

    Args:
        pooled: Inputs.
        labels: 0 or 1.
        n_epochs: Passes over the texts.
        learning_rate: Of AdamW.
        batch_texts: Texts in one step.
        seed: Decides their order.

    Raises:
        UserError: only one label occurs.
    """
    if len(labels.unique()) < 2:
        raise UserError("all labels of the training texts are equal: a probe needs both 0 and 1")
    pooled, generator = pooled.float(), torch.Generator().manual_seed(seed)
    parameters = [torch.zeros(pooled.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate)
    with torch.enable_grad():
        for _ in range(n_epochs):
            for rows in torch.randperm(len(pooled), generator=generator).split(batch_texts):
                logits = pooled[rows] @ parameters[0] + parameters[1]
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows].float())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return Probe(parameters[0].detach(), float(parameters[1].detach()))
