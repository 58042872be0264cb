"""What the writers carry beyond their replaced values, and every reader's input as one matrix product.

    input of reader r  =  replaced stream  +  sum over kept w of (live_w - replaced_w)

The differences of all writers lie in two tables: `shared` (writer, prompt, pos, d_model) for values that are the
same under every mask of the pass, `own` (mask, writer, prompt, pos, d_model) for computed ones; a mask times a
table gives the inputs of all readers. Where a norm follows the heads' sum (Gemma 2 and 3) what a block's attention
adds depends on which of its heads are kept, so each reader gets its own

    norm(replaced sum + sum over kept heads of the block) - norm(replaced sum)

The last block's writers are read at the last position only and kept only there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Norm
from workbench.anatomy.block import NONE


@dataclass
class Bank:
    """Differences of some writers, in the order in which they were computed.

    Attributes:
        shared_ids: Rows of the writers in `shared`.
        own_ids: Rows of the writers in `own`.
        norm: Post-norm that the sum goes through; the identity for none.
        mixed: The replaced sum, where there is a post-norm (prompt, pos, d_model).
    """

    norm: Norm = NONE
    mixed: Tensor | None = None
    shared: Tensor | None = None
    own: Tensor | None = None
    shared_ids: list[int] = field(default_factory=list)
    own_ids: list[int] = field(default_factory=list)

    def add_shared(
        self, rows: list[int], values: Float[Tensor, "writer prompt pos d_model"], room: int
    ) -> None:
        """Append values that every mask shares; `room` writers will come in all."""
        if self.shared is None:
            self.shared = values.new_empty(room, *values.shape[1:])
        self.shared[len(self.shared_ids) : len(self.shared_ids) + len(rows)] = values
        self.shared_ids += rows

    def add_own(
        self, rows: list[int], values: Float[Tensor, "mask writer prompt pos d_model"], room: int
    ) -> None:
        """Append values of each mask; `room` writers will come in all."""
        if self.own is None:
            self.own = values.new_empty(len(values), room, *values.shape[2:])
        self.own[:, len(self.own_ids) : len(self.own_ids) + len(rows)] = values
        self.own_ids += rows

    def add_to(
        self, rows: Float[Tensor, "mask reader prompt pos d_model"], masks: Bool[Tensor, "mask writer reader"]
    ) -> None:
        """Add this bank's part of every reader's input in place, at the last positions that `rows` has."""
        if not any(bool(masks[:, ids].any()) for ids in (self.shared_ids, self.own_ids) if ids):
            return
        if self.mixed is None:
            self._sum_into(rows, masks)
            return
        base = self.mixed[:, -rows.shape[-2] :]
        mixture = base.expand_as(rows).clone(memory_format=torch.contiguous_format)
        self._sum_into(mixture, masks)
        rows += self.norm(mixture) - self.norm(base)

    def _sum_into(self, rows: Tensor, masks: Bool[Tensor, "mask writer reader"]) -> None:
        length, flat = rows.shape[-2], rows.view(*rows.shape[:2], -1)
        weights = masks.transpose(1, 2).to(rows.dtype)
        if self.shared is not None and self.shared_ids:
            values = self.shared[: len(self.shared_ids), :, -length:].flatten(1)
            flat.view(-1, flat.shape[-1]).addmm_(weights[..., self.shared_ids].flatten(0, 1), values)
        if self.own is not None and self.own_ids:
            values = self.own[:, : len(self.own_ids), :, -length:].flatten(2)
            flat.baddbmm_(weights[..., self.own_ids], values)


@dataclass
class Ledger:
    """All banks of one pass.

    Attributes:
        banks: Those that were opened.
        positions: Where masks hold; elsewhere every edge is kept. None: everywhere.
        allowed: All edges (writer, reader).
    """

    banks: list[Bank]
    positions: Bool[Tensor, " pos"] | None
    allowed: Bool[Tensor, "writer reader"]

    def inputs(
        self, base: Float[Tensor, "prompt pos d_model"], masks: Bool[Tensor, "mask writer reader"]
    ) -> Float[Tensor, "mask reader prompt pos d_model"]:
        """The inputs of the readers whose columns `masks` holds, from the replaced stream."""
        rows = base.expand(len(masks), masks.shape[2], *base.shape).clone(
            memory_format=torch.contiguous_format
        )
        for bank in self.banks:
            bank.add_to(rows, masks)
        return rows

    def inputs_where(
        self, base: Tensor, masks: Bool[Tensor, "mask writer reader"], columns: list[int]
    ) -> Float[Tensor, "mask column prompt pos d_model"]:
        """The same for these columns of whole masks, with every edge kept outside `positions`."""
        rows = self.inputs(base, masks[:, :, columns])
        if self.positions is None:
            return rows
        everything = self.allowed[:, columns].expand(len(masks), -1, -1)
        inside = self.positions[-base.shape[1] :, None].to(rows.device)
        return torch.where(inside, rows, self.inputs(base, everything))
