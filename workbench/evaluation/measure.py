"""Quality of several dictionaries of the same hook points, measured on the same blocks of text, or the same rows.

Besides reconstruction and sparsity: what the model loses when the dictionary's reconstruction stands in for
the activation at the hook that it reconstructs. The scale is set by two other runs of the same text, the
clean model and the model with that activation set to zero:

    ce_recovered_frac = (CE_zero - CE_spliced) / (CE_zero - CE_clean)
    kl_recovered_frac = 1 - KL_spliced / KL_zero

1 is the clean model, 0 no better than nothing. Zero ablation is a severe reference, so these fractions are
close to 1 even for mediocre dictionaries: read them beside the random dictionary's and the nats themselves.

A transcoder reads one hook of the clean run and stands in at another. A dictionary with several targets is
spliced at one of them at a time; its recovered share is that of the losses summed over its targets.

Blocks may differ in length. They are run beside blocks of their own length, so that no padding is ever an
input. All sums are taken per block, and the blocks are what the intervals resample. No row is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.evaluation.ends import Ends, ends_of
from workbench.evaluation.passages import Passages
from workbench.evaluation.quality import Quality
from workbench.evaluation.splice import CleanRun, clean_run, spliced_run
from workbench.evaluation.tally import LOSSES, Shared, Tally, counted
from workbench.hooks import check_hook
from workbench.progress import Progress

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROWS_PER_BATCH = 4096


@torch.no_grad()
def measure_quality(
    model: TransformerBridge,
    dictionaries: Mapping[str, Dictionary],
    tokens: Int[Tensor, "block pos"] | Passages,
    *,
    batch_blocks: int = 8,
    mixed: torch.dtype | None = None,
    seed: int = 0,
) -> dict[str, Quality]:
    """Quality of each dictionary on blocks of text.

    Args:
        model: The model that the dictionaries were trained on.
        dictionaries: By name, at least one; all of the same hook points.
        tokens: Blocks of text; of a plain array of token ids each row starts with the beginning-of-text token,
            which stays clean.
        batch_blocks: Blocks per forward.
        mixed: Dtype of autocast, where the activations were captured with it.
        seed: Decides the bootstrap resamples.

    Raises:
        UserError: the model has no such hook point, the dictionaries have different ones, or an activation has
            another width than theirs.

    Status: exact for these blocks; intervals cover the sampling of text.
    """
    passages = tokens if isinstance(tokens, Passages) else Passages.packed(tokens)
    ends = common_ends(dictionaries)
    for hook in ends.hooks:
        check_hook(model, hook)
    n_blocks = len(passages.tokens)
    shared = Shared.start(ends, n_blocks)
    tallies = {name: Tally(dictionary, shared) for name, dictionary in dictionaries.items()}
    with Progress(n_blocks, "evaluating", "blocks") as progress:
        for chosen in passages.batches(batch_blocks):
            _add_blocks(_Splicer(model, passages, chosen, ends, mixed), shared, tallies)
            progress.advance(len(chosen))
    return {name: tally.quality(seed) for name, tally in tallies.items()}


@torch.no_grad()
def measure_rows(
    dictionaries: Mapping[str, Dictionary],
    x: Float[Tensor, "row d_in"],
    block: Int64[Tensor, " row"],
    *,
    y: Float[Tensor, "row d_out"] | None = None,
    seed: int = 0,
) -> dict[str, Quality]:
    """Reconstruction and sparsity of each dictionary on rows without a model.

    Args:
        dictionaries: By name, at least one; all of the same hook points.
        x: Activations that are read.
        block: Group of each row; the intervals resample groups.
        y: Activations that are reconstructed, where those are others.
        seed: Decides the bootstrap resamples.

    Raises:
        UserError: the dictionaries have different hook points, or the rows do not fit them.

    Status: exact for these rows; intervals cover the drawing of groups.
    """
    target = x if y is None else y
    shared = Shared.start(common_ends(dictionaries), int(block.max()) + 1)
    tallies = {name: Tally(dictionary, shared) for name, dictionary in dictionaries.items()}
    _check_fit(dictionaries, x, target)
    for rows in torch.arange(len(x)).split(ROWS_PER_BATCH):
        shared.add(target[rows], block[rows])
        for tally in tallies.values():
            tally.add(x[rows], target[rows], block[rows])
    return {name: tally.quality(seed) for name, tally in tallies.items()}


def common_ends(dictionaries: Mapping[str, Dictionary]) -> Ends:
    """The hook points of the dictionaries.

    Raises:
        UserError: they differ.
    """
    (first, one), *others = dictionaries.items()
    for name, dictionary in others:
        if ends_of(dictionary) != ends_of(one):
            raise UserError(
                f"dictionary {name!r} has other hook points or widths than {first!r} ({ends_of(dictionary).hooks}, not "
                f"{ends_of(one).hooks}): measure it by itself"
            )
    return ends_of(one)


def _check_fit(dictionaries: Mapping[str, Dictionary], x: Tensor, y: Tensor) -> None:
    for dictionary in dictionaries.values():
        dictionary.check_width(x.shape[1])
        if y.shape[1] != dictionary.d_out:
            raise UserError(
                f"targets of width {y.shape[1]} do not fit the dictionary of {dictionary.hook_name!r}, whose d_out is "
                f"{dictionary.d_out}: give the activations that it reconstructs"
            )


@dataclass(frozen=True)
class _Rows:
    """The judged rows of some blocks."""

    x: Float[Tensor, "row d_in"]
    y: Float[Tensor, "row d_out"]
    block: Int64[Tensor, " row"]


class _Splicer:
    """Some blocks of equal length under the clean model, and whatever stands in at one of the targets."""

    def __init__(
        self,
        model: TransformerBridge,
        passages: Passages,
        chosen: Int64[Tensor, " chosen"],
        ends: Ends,
        mixed: torch.dtype | None,
    ) -> None:
        self.model, self.ends, self.mixed, self.chosen = model, ends, mixed, chosen
        length, n_ctx = int(passages.length[chosen[0]]), passages.tokens.shape[1]
        self.ids = passages.tokens[chosen, :length].long().to(model.cfg.device)
        hooks = dict.fromkeys((*ends.hooks, *passages.max_norms))
        self.clean: CleanRun = clean_run(model, self.ids, list(hooks), n_ctx=n_ctx, mixed=mixed)
        self.values = {name: value.float().cpu() for name, value in self.clean.values.items()}
        self.kept: Bool[Tensor, "block pos"] = passages.kept[chosen, :length]
        for hook, limit in passages.max_norms.items():
            self.kept = self.kept & (self.values[hook].norm(dim=2) <= limit)

    def rows(self) -> _Rows:
        """Inputs and targets at the judged positions."""
        x = torch.cat([self.values[site.name][self.kept] for site in self.ends.inputs], 1)
        y = torch.cat([self.values[site.name][self.kept] for site in self.ends.targets], 1)
        return _Rows(x, y, self.chosen[self.kept.nonzero()[:, 0]])

    def losses(self, hook: str, rows: Float[Tensor, "row d"]) -> dict[str, Tensor]:
        """Loss and divergence per block with these rows at a hook."""
        replacement = torch.zeros_like(self.values[hook])
        replacement[self.kept] = rows
        run = spliced_run(
            self.model, self.ids, hook, replacement, self.kept, clean=self.clean, mixed=self.mixed
        )
        return {"ce": counted(run.losses, self.kept), "kl": counted(run.kl, self.kept)}


def _add_blocks(splicer: _Splicer, shared: Shared, tallies: Mapping[str, Tally]) -> None:
    """Take some blocks into all tallies."""
    rows, block = splicer.rows(), splicer.chosen
    _check_fit({name: tally.dictionary for name, tally in tallies.items()}, rows.x, rows.y)
    shared.add(rows.y, rows.block)
    shared.n_predicted.add(splicer.kept[:, :-1].sum(1).double(), block)
    shared.clean.add(counted(splicer.clean.losses, splicer.kept), block)
    targets = shared.ends.split(rows.y)
    for hook, target in targets.items():
        found = splicer.losses(hook, torch.zeros_like(target))
        for what in LOSSES:
            shared.zero[hook][what].add(found[what], block)
    for tally in tallies.values():
        for hook, rebuilt in tally.add(rows.x, rows.y, rows.block).items():
            found = splicer.losses(hook, rebuilt)
            for what in LOSSES:
                tally.losses[hook][what].add(found[what], block)
