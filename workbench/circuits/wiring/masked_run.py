"""One pass of the masked executor: a few masks on one chunk of prompts, by their common plan.

Layer by layer: inputs of the readers that must be computed, their projections, the heads' outputs, and what each
writer carries beyond its replaced value into the ledger. See `executor.py` for the definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.ends import Base, End
from workbench.circuits.wiring.heads import attend_heads, per_head, project_each, project_one
from workbench.circuits.wiring.ledger import Bank, Ledger
from workbench.circuits.wiring.plan import BASE, CLEAN, OWN, Plan
from workbench.circuits.wiring.readout import final_stream
from workbench.circuits.wiring.replacement import Replacement
from workbench.tasks import Batch


@dataclass(frozen=True, eq=False)
class Prompts:
    """A chunk of prompts with both ends.

    Attributes:
        wiring: The model's edges.
        embedded: The clean prompts at depth 0.
        clean: The clean run.
        base: Everything replaced.
        positions: Where masks hold; None for everywhere.
    """

    wiring: Wiring
    embedded: Float[Tensor, "prompt pos d_model"]
    clean: End
    base: Base
    positions: Bool[Tensor, " pos"] | None

    @classmethod
    def of(cls, wiring: Wiring, batch: Batch, replacement: Replacement) -> Prompts:
        """The prompts of a batch."""
        anatomy = wiring.anatomy
        embedded = anatomy.embed(batch.clean)
        base = Base(anatomy, replacement, len(embedded))
        return cls(wiring, embedded, End(anatomy, embedded), base, replacement.positions)

    @property
    def anatomy(self) -> Anatomy:
        """The model."""
        return self.wiring.anatomy

    @cached_property
    def offset(self) -> Bool[Tensor, " writer"]:
        """See `Base.offset`."""
        return self.base.offset(self.wiring, self.embedded)


class MaskedRun:
    """One pass; `final` runs it."""

    def __init__(self, prompts: Prompts, plan: Plan, masks: Bool[Tensor, "mask writer reader"]) -> None:
        self.prompts, self.plan = prompts, plan
        self.wiring, self.anatomy = prompts.wiring, prompts.anatomy
        self.masks = masks.to(prompts.embedded.device)
        self._linear, self._late = Bank(), Bank()
        self.ledger = Ledger(
            [self._linear, self._late], prompts.positions, self.wiring.allowed.to(self.masks.device)
        )
        self._room = [
            sum(state == OWN for state in plan.writers),
            sum(s in (BASE, CLEAN) for s in plan.writers),
        ]

    def final(self) -> Float[Tensor, "mask prompt d_model"]:
        """The normed stream at the last position under each mask. Status: exact."""
        if self.plan.writers[0] == CLEAN:
            change = self.prompts.embedded - self.prompts.base.stream(0)
            self._linear.add_shared([0], change[None], self._room[1])
        for block in self.anatomy.blocks:
            if block.parallel:
                fed = self._fed(block.layer)
                self._attend(block.layer)
                self._add_mlp(block.layer, fed)
            else:
                self._attend(block.layer)
                self._add_mlp(block.layer, self._fed(block.layer))
        x = self._inputs([self.wiring.logit], self.anatomy.last_depth, last=True)
        return final_stream(self.anatomy, x[:, 0, :, 0])

    def _inputs(self, columns: list[int], depth: int, *, last: bool) -> Tensor:
        """Inputs of some readers, (mask, reader, prompt, pos, d_model)."""
        base = self.prompts.base.stream(depth)
        return self.ledger.inputs_where(base[:, -1:] if last else base, self.masks, columns)

    def _is_last(self, layer: int) -> bool:
        return layer == self.anatomy.n_layers - 1

    def _bank(self, layer: int, *, of_heads: bool) -> Bank:
        """Where a layer's writers go."""
        block = self.anatomy.blocks[layer]
        if not of_heads or block.ln1_post.identity:
            return self._late if self._is_last(layer) else self._linear
        bank = Bank(norm=block.ln1_post, mixed=self.prompts.base.mixed[layer])
        self.ledger.banks.append(bank)
        return bank

    def _attend(self, layer: int) -> None:
        """The layer's heads into the ledger."""
        heads = self.wiring.heads[layer]
        states = [self.plan.writers[row] for row in heads]
        bank = self._bank(layer, of_heads=True)
        room = self._room if bank is self._linear or bank is self._late else [len(heads)] * 2
        for state, end in ((BASE, self.prompts.base), (CLEAN, self.prompts.clean)):
            known = [head for head, s in enumerate(states) if s == state]
            if known:
                written = self._written(layer, end.part(layer, "z")[known][None], known)[0]
                bank.add_shared([heads[head] for head in known], written, room[1])
        own = [head for head, s in enumerate(states) if s == OWN]
        if own:
            written = self._written(layer, self._own_heads(layer, own), own)
            bank.add_own([heads[head] for head in own], written, room[0])

    def _written(
        self, layer: int, z: Float[Tensor, "mask head prompt pos d_head"], heads: list[int]
    ) -> Tensor:
        """What heads carry beyond their replaced values, in the stream's coordinates."""
        replaced = self.prompts.base.z[layer][heads]
        if self._is_last(layer):
            z, replaced = z[..., -1:, :], replaced[..., -1:, :]
        return per_head(z - replaced, self.anatomy.blocks[layer].attn.W_O[heads])

    def _own_heads(self, layer: int, heads: list[int]) -> Float[Tensor, "mask head prompt pos d_head"]:
        """Outputs of heads whose inputs are their own."""
        attn, last = self.anatomy.blocks[layer].attn, self._is_last(layer)
        kv = sorted({head // attn.group for head in heads})
        if last:
            parts = {**self._parts(layer, {"q": heads}, last=True), **self._parts(layer, {"k": kv, "v": kv})}
        else:
            parts = self._parts(layer, {"q": heads, "k": kv, "v": kv})
        spread = [kv.index(head // attn.group) for head in heads]
        k, v = (parts[p] if spread == list(range(len(kv))) else parts[p][:, spread] for p in "kv")
        return attend_heads(attn, parts["q"], k, v, self.prompts.clean.around[layer])

    def _parts(self, layer: int, wanted: dict[str, list[int]], *, last: bool = False) -> dict[str, Tensor]:
        """Raw queries, keys, values of some heads, (mask, head, prompt, pos, d_head): known ones and own ones."""
        reads = self.wiring.reads[layer]
        own = {p: [h for h in heads if self.plan.readers[reads[p][h]] == OWN] for p, heads in wanted.items()}
        computed = self._project(layer, own, last=last)
        found = {}
        for part, heads in wanted.items():
            if own[part] == heads:
                found[part] = computed[part]
                continue
            column = {head: at for at, head in enumerate(own[part])}
            rows = [
                computed[part][:, column[head]]
                if head in column
                else self._known_part(layer, part, head, last=last)
                for head in heads
            ]
            found[part] = torch.stack(rows, 1)
        return found

    def _known_part(self, layer: int, part: str, head: int, *, last: bool) -> Tensor:
        clean = self.plan.readers[self.wiring.reads[layer][part][head]] == CLEAN
        value = (self.prompts.clean if clean else self.prompts.base).part(layer, part)[head]
        value = value[:, -1:] if last else value
        return value.expand(len(self.masks), *value.shape)

    def _project(self, layer: int, own: dict[str, list[int]], *, last: bool) -> dict[str, Tensor]:
        """Projections of the inputs that must be computed; readers with equal masks share one stream."""
        block, reads = self.anatomy.blocks[layer], self.wiring.reads[layer]
        columns = [reads[part][head] for part, heads in own.items() for head in heads]
        if not columns:
            return {}
        distinct, which = _distinct(self.masks, columns)
        normed = block.ln1(self._inputs(distinct, 2 * layer, last=last))
        found, start = {}, 0
        for part, heads in own.items():
            rows = which[start : start + len(heads)]
            start += len(heads)
            if heads and len(set(rows)) == 1:
                found[part] = project_one(block.attn, normed[:, rows[0]], part, heads)
            elif heads:
                contiguous = rows == list(range(rows[0], rows[0] + len(rows)))
                streams = normed[:, rows[0] : rows[0] + len(rows)] if contiguous else normed[:, rows]
                found[part] = project_each(block.attn, streams, part, heads)
        return found

    def _fed(self, layer: int) -> Tensor | None:
        """What the MLP carries beyond its replaced value, where it must be computed."""
        row, last = self.wiring.mlps[layer], self._is_last(layer)
        if row < 0 or self.plan.writers[row] != OWN:
            return None
        reader, replaced = self.wiring.mlp_reads[layer], self.prompts.base.mlps[layer]
        x = self._inputs([reader], self.wiring.depths[reader], last=last)[:, 0]
        return self.anatomy.blocks[layer].mlp_out(x) - (replaced[:, -1:] if last else replaced)

    def _add_mlp(self, layer: int, fed: Tensor | None) -> None:
        """The layer's MLP into the ledger."""
        row = self.wiring.mlps[layer]
        if row < 0 or self.plan.writers[row] not in (BASE, CLEAN, OWN):
            return
        bank = self._bank(layer, of_heads=False)
        if fed is not None:
            bank.add_own([row], fed[:, None], self._room[0])
            return
        end = self.prompts.base if self.plan.writers[row] == BASE else self.prompts.clean
        change = end.mlp(layer) - self.prompts.base.mlps[layer]
        bank.add_shared([row], (change[:, -1:] if self._is_last(layer) else change)[None], self._room[1])


def _distinct(masks: Bool[Tensor, "mask writer reader"], columns: list[int]) -> tuple[list[int], list[int]]:
    """One column of each kind among `columns`, and for every column which one it equals."""
    keys: dict[bytes, int] = {}
    which = []
    picked = masks[:, :, columns].permute(2, 0, 1).flatten(1).to("cpu", torch.uint8).numpy()
    for row in picked:
        which.append(keys.setdefault(row.tobytes(), len(keys)))
    return [columns[which.index(i)] for i in range(len(keys))], which
