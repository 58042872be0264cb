"""What a masked run has to compute, found from the masks alone.

    touched   an input of the reader may differ from the replaced stream:  a kept edge from a writer that differs
    clean     all inputs of the reader are kept, from writers that are clean: its output is that of the clean run
    needed    a path of kept edges leads from the writer to the logits

A writer that is not needed is skipped; one that is clean, or none of whose readers is touched, has a known value;
only the rest is computed. Masks that run together share one plan: what any of them must compute is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from workbench.circuits.wiring.catalogue import Wiring

SKIP, BASE, CLEAN, OWN = range(4)


@dataclass(frozen=True)
class Plan:
    """States of writers and readers for masks that run together.

    Attributes:
        writers: Per writer SKIP (nobody needs it), BASE (value under full replacement), CLEAN or OWN (computed).
        readers: Per reader the same for its input; SKIP where no computed component has it.
    """

    writers: list[int]
    readers: list[int]


@dataclass(frozen=True)
class Reach:
    """Per mask, what is touched, clean and needed.

    Attributes:
        writer_live: The writer's value may differ from that under full replacement (mask, writer).
        writer_clean: It is that of the clean run (mask, writer).
        writer_needed: A kept path leads from it to the logits (mask, writer).
        reader_live: The same for readers' inputs (mask, reader).
        reader_clean: Inputs are all clean (mask, reader).
    """

    writer_live: Bool[Tensor, "mask writer"]
    writer_clean: Bool[Tensor, "mask writer"]
    writer_needed: Bool[Tensor, "mask writer"]
    reader_live: Bool[Tensor, "mask reader"]
    reader_clean: Bool[Tensor, "mask reader"]

    def rows(self, chosen: Tensor) -> Reach:
        """The same for some of the masks."""
        return Reach(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def reach(
    wiring: Wiring,
    masks: Bool[Tensor, "mask writer reader"],
    offset: Bool[Tensor, " writer"],
    *,
    somewhere_live: bool = False,
) -> Reach:
    """Follow the kept edges forward and backward.

    Args:
        wiring: The model's edges.
        masks: Kept edges.
        offset: Writers whose value differs from the replaced one even when all their inputs are replaced; the
            embedding is one wherever the prompts differ.
        somewhere_live: Every edge is live at some position, whatever the masks say.
    """
    n_masks = len(masks)
    full = (masks | ~wiring.allowed).all(1)
    open_edges = wiring.allowed.expand_as(masks) if somewhere_live else masks
    live = torch.zeros(n_masks, wiring.n_writers, dtype=torch.bool)
    clean = torch.zeros_like(live)
    clean[:, 0] = True
    reader_live = torch.zeros(n_masks, wiring.n_readers, dtype=torch.bool)
    reader_clean = torch.zeros_like(reader_live)
    for readers, writers, feeds in _stages(wiring):
        differs = live | offset
        n = int(wiring.allowed[:, readers].any(1).sum())
        reader_live[:, readers] = (open_edges[:, :n, readers] & differs[:, :n, None]).any(1)
        whole = (clean[:, :n, None] | ~wiring.allowed[:n, readers]).all(1)
        reader_clean[:, readers] = full[:, readers] & whole
        if len(writers):
            live[:, writers] = reader_live[:, feeds].any(-1)
            clean[:, writers] = reader_clean[:, feeds].all(-1)
    return Reach(live, clean, _needed(wiring, open_edges), reader_live, reader_clean)


def plan(wiring: Wiring, found: Reach, offset: Bool[Tensor, " writer"]) -> Plan:
    """The common plan of all masks of `found`."""
    unneeded = ~found.writer_needed
    writers = torch.full((wiring.n_writers,), OWN)
    writers[(found.writer_clean | unneeded).all(0)] = CLEAN
    idle = (~found.writer_live | unneeded).all(0)
    writers[idle & offset] = BASE
    writers[idle & ~offset] = SKIP
    writers[0] = CLEAN
    writers[unneeded.all(0)] = SKIP
    readers = torch.full((wiring.n_readers,), SKIP)
    for writer in (writers == OWN).nonzero().flatten().tolist():
        for reader in wiring.read_by(writer):
            readers[reader] = _reader_state(found, writer, reader)
    readers[wiring.logit] = OWN
    return Plan(writers.tolist(), _shared_states(wiring, found, writers, readers).tolist())


def _reader_state(found: Reach, writer: int, reader: int) -> int:
    idle = ~found.writer_needed[:, writer]
    if bool((~found.reader_live[:, reader] | idle).all()):
        return BASE
    return CLEAN if bool((found.reader_clean[:, reader] | idle).all()) else OWN


def _shared_states(wiring: Wiring, found: Reach, writers: Tensor, readers: Tensor) -> Tensor:
    """Keys and values that several computed heads read have the state that all of them agree on, or OWN."""
    for layer, reads in enumerate(wiring.reads):
        group = wiring.anatomy.blocks[layer].attn.group
        if group == 1:
            continue
        for kv in range(len(reads["k"])):
            heads = [wiring.heads[layer][h] for h in range(kv * group, (kv + 1) * group)]
            own = [head for head in heads if writers[head] == OWN]
            for part in "kv":
                states = {_reader_state(found, head, reads[part][kv]) for head in own}
                readers[reads[part][kv]] = states.pop() if len(states) == 1 else OWN if states else SKIP
    return readers


def needed_readers(wiring: Wiring, writer_needed: Bool[Tensor, "mask writer"]) -> Bool[Tensor, "mask reader"]:
    """Readers that feed a writer which is needed, and the logits."""
    found = torch.zeros(len(writer_needed), wiring.n_readers, dtype=torch.bool)
    found[:, wiring.logit] = True
    for _, writers, feeds in _stages(wiring):
        _mark(found, feeds, writer_needed[:, writers])
    return found


def _needed(wiring: Wiring, open_edges: Bool[Tensor, "mask writer reader"]) -> Bool[Tensor, "mask writer"]:
    needed = open_edges[:, :, wiring.logit].clone()
    for readers, writers, feeds in reversed(_stages(wiring)):
        at = torch.zeros(len(needed), wiring.n_readers, dtype=torch.bool)
        _mark(at, feeds, needed[:, writers])
        needed |= (open_edges[:, :, readers] & at[:, None, readers]).any(2)
    return needed


def _mark(readers: Bool[Tensor, "mask reader"], feeds: Tensor, needed: Bool[Tensor, "mask writer"]) -> None:
    """Set the readers of needed writers; several heads may share a key."""
    for column in feeds.T:
        readers.scatter_reduce_(1, column.expand_as(needed), needed, "amax", include_self=True)


def _stages(wiring: Wiring) -> list[tuple[list[int], list[int], Tensor]]:
    """In order of computation: readers, the writers made from them, and each writer's readers (writer, 1 or 3)."""
    stages: list[tuple[list[int], list[int], Tensor]] = []
    for layer, reads in enumerate(wiring.reads):
        heads = list(wiring.heads[layer])
        readers = [r for part in "qkv" for r in reads[part]]
        stages.append((readers, heads, torch.tensor([wiring.read_by(h) for h in heads])))
        if wiring.mlps[layer] >= 0:
            reader = wiring.mlp_reads[layer]
            stages.append(([reader], [wiring.mlps[layer]], torch.tensor([[reader]])))
    return [*stages, ([wiring.logit], [], torch.zeros(0, 1, dtype=torch.long))]
