"""The values that a protocol puts in place of what is removed, one `Replacement` a batch of prompts.

    resample       writer values on the paired (or a drawn) prompt                        one row a prompt
    position_mean  mean over reference prompts of the batch's length, position by position    one row
    mean           mean over all tokens of all reference prompts                              one row
    zero, optimal  zero; learned constants                                                    one row

Means and constants are made once and serve batches of every length; they are the same at every position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.validation.optimal import optimal_constants
from workbench.circuits.validation.pairs import chosen_pairs
from workbench.circuits.validation.protocol import ALL, Protocol, Reference
from workbench.circuits.wiring.replacement import Replacement, replacement_run
from workbench.errors import UserError
from workbench.tasks import Batch

CHUNK_PROMPTS = 64


def replacement(
    anatomy: Anatomy, protocol: Protocol, batch: Batch, reference: Sequence[Batch] | None = None
) -> Replacement:
    """Values for one batch; see `replacements`."""
    return replacements(anatomy, protocol, [batch], reference)[0]


@torch.no_grad()
def replacements(
    anatomy: Anatomy, protocol: Protocol, batches: Sequence[Batch], reference: Sequence[Batch] | None = None
) -> list[Replacement]:
    """What removed writers become, for each batch. Status: exact; bit-reproducible in the reference's seed.

    Args:
        anatomy: The model.
        protocol: Kind, positions, direction and reference.
        batches: The pairs that will be run.
        reference: Pairs that means, other prompts and constants come from; the batches themselves by default.

    Raises:
        UserError: no reference prompt of a length, or a position that a prompt does not have.
    """
    sets = chosen_reference(batches if reference is None else reference, protocol.source)
    shared = _shared(anatomy, protocol, sets)
    found = []
    for batch in batches:
        value = _of_batch(anatomy, protocol, batch, sets) if shared is None else shared
        length = batch.clean.shape[1]
        spread = value.map(lambda v, n=length: v.expand(v.shape[0], n, *v.shape[2:]))
        where = replaced_positions(protocol, length)
        found.append(Replacement(spread.embed, spread.z, spread.mlp, where))
    return found


def chosen_reference(reference: Sequence[Batch], source: Reference) -> list[Batch]:
    """The reference pairs by length, `number` of them drawn without replacement."""
    sizes = [len(batch.answer) for batch in reference]
    if not source.number:
        return list(reference)
    if source.number > sum(sizes):
        raise UserError(
            f"reference number {source.number} is more than the {sum(sizes)} prompts of the reference set: "
            "lower it, or give 0 for all"
        )
    drawn = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(source.seed))[: source.number]
    keep = torch.zeros(sum(sizes), dtype=torch.bool)
    keep[drawn] = True
    return chosen_pairs(reference, keep.split(sizes))


def replaced_positions(protocol: Protocol, length: int) -> Bool[Tensor, " pos"] | None:
    """True where something is replaced; None for all positions."""
    if protocol.positions == ALL:
        return None
    places = [int(p) for p in protocol.positions]
    outside = next((p for p in places if not -length <= p < length), None)
    if outside is not None:
        raise UserError(
            f"position {outside} lies outside a prompt of {length} tokens: give {-length} to {length - 1}"
        )
    where = torch.zeros(length, dtype=torch.bool)
    where[places] = True
    return where


def _prompts(batch: Batch, source: Reference) -> Tensor:
    return batch.clean if source.name == "clean" else batch.counterfactual


def _shared(anatomy: Anatomy, protocol: Protocol, sets: Sequence[Batch]) -> Replacement | None:
    """Values of one position that serve every length, for the kinds that have them."""
    if protocol.kind == "zero":
        return replacement_run(anatomy, sets[0].clean[:1, :1]).map(torch.zeros_like)
    if protocol.kind not in ("mean", "optimal"):
        return None
    ids = [_prompts(batch, protocol.source) for batch in sets]
    mean = mean_values(anatomy, ids, over_positions=True)
    if protocol.kind == "mean":
        return mean
    where = [replaced_positions(protocol, batch.clean.shape[1]) for batch in sets]
    return optimal_constants(anatomy, sets, mean, positions=where, seed=protocol.source.seed).constants


def _of_batch(anatomy: Anatomy, protocol: Protocol, batch: Batch, sets: Sequence[Batch]) -> Replacement:
    """Values that need prompts of the batch's own length."""
    if protocol.paired:
        other = batch.counterfactual if protocol.direction == "noising" else batch.clean
        return replacement_run(anatomy, other)
    length = batch.clean.shape[1]
    pool = [_prompts(b, protocol.source) for b in sets if b.clean.shape[1] == length]
    if not pool:
        raise UserError(
            f"the reference set has no {protocol.source.name} prompt of {length} tokens, which kind "
            f"{protocol.kind!r} needs: add prompts of that length, or use kind 'mean'"
        )
    if protocol.kind == "position_mean":
        return mean_values(anatomy, pool, over_positions=False)
    return replacement_run(anatomy, other_prompts(batch.clean, torch.cat(pool), seed=protocol.source.seed))


def other_prompts(
    ids: Int[Tensor, "prompt pos"], pool: Int[Tensor, "reference pos"], *, seed: int
) -> Int[Tensor, "prompt pos"]:
    """For each prompt a drawn one of the pool that differs from it.

    Raises:
        UserError: the pool holds no other prompt.
    """
    generator = torch.Generator().manual_seed(seed)
    differs = (ids[:, None].cpu() != pool[None].cpu()).any(-1)
    if not differs.any(1).all():
        prompt = int((~differs.any(1)).nonzero()[0])
        raise UserError(
            f"the reference set has no prompt other than prompt {prompt} itself: give more prompts"
        )
    drawn = torch.multinomial(differs.double(), 1, generator=generator)[:, 0]
    return pool[drawn.to(pool.device)]


def mean_values(anatomy: Anatomy, prompts: Sequence[Tensor], *, over_positions: bool) -> Replacement:
    """Mean writer values over prompts, one row; of one position when taken over positions too.

    Without `over_positions` all prompts have one length.
    """
    total: Replacement | None = None
    count = 0
    for ids in (part for group in prompts for part in group.split(CHUNK_PROMPTS)):
        seen = replacement_run(anatomy, ids)
        axes = (0, 1) if over_positions else (0,)
        count += ids.numel() if over_positions else len(ids)
        part = seen.map(lambda v, axes=axes: v.sum(axes, keepdim=True))
        total = part if total is None else add(total, part)
    if total is None:
        raise UserError("the reference set has no prompt: give at least one pair")
    return total.map(lambda v: v / count)


def add(one: Replacement, other: Replacement) -> Replacement:
    """Sum of two, value by value."""
    z, mlp = (
        tuple(a + b for a, b in zip(getattr(one, name), getattr(other, name), strict=True))
        for name in ("z", "mlp")
    )
    return Replacement(one.embed + other.embed, z, mlp, one.positions)
