"""The model with any set of edges live and all others replaced, many sets at once.

For reader r of a circuit:  input_r = sum over writers w of (live_w if the edge is kept else replaced_w), plus
attention biases; then its norm, its own projection, and what the component makes of it. live_w is recomputed under
the same mask, nothing is frozen. All edges kept is the clean run; none kept is the run of the replaced stream.

Cost. `plan.py` finds what must be computed at all; the rest is taken from the clean or the replaced run. Inputs of
all readers of a layer are one matrix product (`ledger.py`); readers with the same kept writers share one stream,
so a set of nodes costs one plain forward pass. After the last attention only the last position is computed.
Memory is bounded by `max_bytes` (differences of all writers for the prompts and masks of one pass). Masks of one
pass share a plan, so small prompts are run several masks at a time and large batches one by one.

Status: exact (tests/circuits/wiring/test_executor.py compares with a recursive definition, reader by reader).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.wiring.catalogue import Wiring
from workbench.circuits.wiring.masked_run import MaskedRun, Prompts
from workbench.circuits.wiring.plan import plan, reach
from workbench.circuits.wiring.readout import final_stream, metric_at
from workbench.circuits.wiring.replacement import Replacement
from workbench.errors import UserError
from workbench.tasks import Batch

MAX_BYTES = 2**30
PASS_TOKENS = 2048


class EdgeExecutor:
    """Runs masks over edges.

    Attributes:
        anatomy: The model.
        wiring: Its edges.
        max_bytes: Bound on the differences held by one pass; what the weights need comes on top.
    """

    def __init__(self, anatomy: Anatomy, wiring: Wiring, *, max_bytes: int = MAX_BYTES) -> None:
        self.anatomy, self.wiring, self.max_bytes = anatomy, wiring, max_bytes

    @torch.no_grad()
    def metrics(
        self, batch: Batch, replacement: Replacement, masks: Bool[Tensor, "mask writer reader"]
    ) -> Float[Tensor, "mask prompt"]:
        """m of the clean prompts under each mask, in logits. Status: exact.

        Args:
            batch: The pairs; only their clean prompts are run.
            replacement: What edges carry that are not kept.
            masks: True where an edge is kept.

        Raises:
            UserError: masks or replacement of another model, or one mask and prompt above `max_bytes`.
        """
        return torch.cat([session.metrics(masks) for session in self.sessions(batch, replacement)], 1)

    @torch.no_grad()
    def logits(
        self, batch: Batch, replacement: Replacement, masks: Bool[Tensor, "mask writer reader"]
    ) -> Float[Tensor, "mask prompt d_vocab"]:
        """Logits at the last position under each mask. Status: exact. Raises as `metrics`."""
        return torch.cat([session.logits(masks) for session in self.sessions(batch, replacement)], 1)

    def sessions(self, batch: Batch, replacement: Replacement) -> Iterator[Session]:
        """The batch in chunks of prompts that fit `max_bytes`, each ready to run any number of masks."""
        replacement.check(self.anatomy, batch.clean)
        n_prompts, length = batch.clean.shape
        at_once = self.max_bytes // self.bytes_of(length)
        if at_once < 1:
            raise UserError(
                f"max_bytes {self.max_bytes} is less than the {self.bytes_of(length)} bytes that one prompt of "
                f"{length} tokens needs: raise it or shorten the prompts"
            )
        for start in range(0, n_prompts, at_once):
            chosen = slice(start, start + at_once)
            yield Session(self, batch.take(chosen), replacement.prompts(chosen))

    def bytes_of(self, length: int) -> int:
        """Bytes of one mask on one prompt, at most: differences, inputs of a layer, values of both ends."""
        attn = self.anatomy.blocks[0].attn
        inputs = 3 * (attn.n_heads + 2 * attn.n_kv_heads)
        vectors = self.wiring.n_writers + inputs + 14 * self.anatomy.n_layers
        return vectors * length * self.anatomy.d_model * self.anatomy.readout.W_U.element_size()


class Session:
    """One chunk of prompts with its clean and replaced runs, computed once and as far as masks need them."""

    def __init__(self, executor: EdgeExecutor, batch: Batch, replacement: Replacement) -> None:
        self.executor, self.batch = executor, batch
        self.prompts = Prompts.of(executor.wiring, batch, replacement)

    @torch.no_grad()
    def metrics(self, masks: Bool[Tensor, "mask writer reader"]) -> Float[Tensor, "mask prompt"]:
        """m under each mask, in logits. Status: exact."""
        return metric_at(self.executor.anatomy, self.final(masks), self.batch)

    @torch.no_grad()
    def logits(self, masks: Bool[Tensor, "mask writer reader"]) -> Float[Tensor, "mask prompt d_vocab"]:
        """Logits at the last position under each mask. Status: exact."""
        return self.executor.anatomy.readout(self.final(masks))

    @torch.no_grad()
    def final(self, masks: Bool[Tensor, "mask writer reader"]) -> Float[Tensor, "mask prompt d_model"]:
        """The normed stream at the last position, before the unembedding, under each mask."""
        wiring, prompts = self.executor.wiring, self.prompts
        wiring.check_masks(masks)
        masks = masks.cpu()
        found = reach(wiring, masks, prompts.offset, somewhere_live=prompts.positions is not None)
        final = prompts.embedded.new_empty(len(masks), len(prompts.embedded), prompts.embedded.shape[-1])
        clean, live = found.reader_clean[:, wiring.logit], found.reader_live[:, wiring.logit]
        for rows, end in ((clean, prompts.clean), (~clean & ~live, prompts.base)):
            if rows.any():
                final[rows] = final_stream(
                    self.executor.anatomy, end.stream(self.executor.anatomy.last_depth)[:, -1]
                )
        todo = (~clean & live).nonzero().flatten()
        for part in todo.split(self._width()):
            common = plan(wiring, found.rows(part), prompts.offset)
            final[part] = MaskedRun(prompts, common, masks[part]).final()
        return final

    def _width(self) -> int:
        """Masks in one pass."""
        n_prompts, length = self.batch.clean.shape
        fitting = self.executor.max_bytes // (self.executor.bytes_of(length) * n_prompts)
        return max(1, min(fitting, PASS_TOKENS // (n_prompts * length)))
