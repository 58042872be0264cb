"""Quality of several dictionaries of one hook point, measured on the same blocks of text, or on the same rows.

Besides reconstruction (FVU) and sparsity (L0): what the model loses when the dictionary's reconstruction
stands in for the activation. The scale is set by two other runs of the same text, the clean model and the
model with the activation set to zero:

    ce_recovered_frac = (CE_zero - CE_spliced) / (CE_zero - CE_clean)

1 is the clean model, 0 no better than nothing. Zero ablation is a severe reference, so this fraction is
close to 1 even for mediocre dictionaries: read it beside the random dictionary's and the CE itself.

Blocks may differ in length. They are run beside blocks of their own length, so that no padding is ever an
input. All sums are taken per block, and the blocks are what the intervals resample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.errors import UserError
from workbench.evaluation.fidelity import row_sums, spread
from workbench.evaluation.splice import clean_run, spliced_run
from workbench.hooks import check_hook
from workbench.intervals import ratio_estimate
from workbench.progress import Progress

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Sums = Float64[Tensor, " block"]


@dataclass(frozen=True)
class Quality:
    """What a dictionary keeps of the activation and of the model; intervals are 95% bootstrap over blocks.

    Everything about losses is None where no model was run.

    Attributes:
        fvu: Fraction of variance unexplained: squared error over squared distance from the mean.
        fvu_low: Lower end of its interval.
        fvu_high: Upper end.
        l0: Mean number of positive latents per token.
        n_tokens: Tokens (or rows) whose activation was reconstructed and replaced.
        n_blocks: Blocks that they stand in.
        ce_nats: Mean loss of the clean model.
        ce_zero_nats: Mean loss with the activation set to zero.
        ce_spliced_nats: Mean loss with the reconstruction in place of the activation.
        ce_recovered_frac: See the module; NaN where zero ablation changes nothing.
        ce_recovered_frac_low: Lower end of its interval.
        ce_recovered_frac_high: Upper end.
    """

    fvu: float
    fvu_low: float
    fvu_high: float
    l0: float
    n_tokens: int
    n_blocks: int
    ce_nats: float | None = None
    ce_zero_nats: float | None = None
    ce_spliced_nats: float | None = None
    ce_recovered_frac: float | None = None
    ce_recovered_frac_low: float | None = None
    ce_recovered_frac_high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As a dictionary for JSON; a number that is not defined or was not measured is null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Passages:
    """Blocks of text, and which of their positions a dictionary is judged at.

    Attributes:
        tokens: Token ids; what stands after the end of a shorter block is never read (block, pos).
        length: Tokens of each block (block).
        kept: Positions whose activation is reconstructed and replaced (block, pos).
        max_norm: Positions with longer activations are left alone too; None for no limit.
    """

    tokens: Int[Tensor, "block pos"]
    length: Int64[Tensor, " block"]
    kept: Bool[Tensor, "block pos"]
    max_norm: float | None = None

    @classmethod
    def packed(cls, tokens: Int[Tensor, "block pos"]) -> Passages:
        """Full blocks, judged at every position but the first."""
        kept = torch.ones(tokens.shape, dtype=torch.bool)
        kept[:, 0] = False
        return cls(tokens, torch.full((len(tokens),), tokens.shape[1]), kept)

    def batches(self, n_blocks: int) -> Iterator[Int64[Tensor, " chosen"]]:
        """Numbers of blocks of equal length, at most `n_blocks` at a time, the shorter ones first."""
        for length in self.length.unique():
            yield from (self.length == length).nonzero()[:, 0].split(n_blocks)


@dataclass(frozen=True)
class _Batch:
    """Some blocks under the clean model, zero ablation and each dictionary.

    Losses are summed per block over the predictions that are made at judged positions.
    """

    block: Int64[Tensor, " chosen"]
    n_predicted: Float64[Tensor, " chosen"]
    clean: Float64[Tensor, " chosen"]
    zero: Float64[Tensor, " chosen"]
    spliced: dict[str, Float64[Tensor, " chosen"]]
    row_block: Int64[Tensor, " row"]
    rows: Float[Tensor, "row d"]
    error: dict[str, Float64[Tensor, " row"]]
    firings: dict[str, Float64[Tensor, " row"]]


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
    """Quality of each dictionary on blocks of text, all at the hook point of the first.

    Args:
        model: The model that the dictionaries were trained on.
        dictionaries: By name, at least one; all for the same hook point.
        tokens: Blocks of text; of a plain array of token ids each row starts with the beginning-of-text token,
            which stays clean.
        batch_blocks: Blocks per forward.
        mixed: Dtype of autocast, where the activations were captured with it.
        seed: Decides the bootstrap resamples.

    Raises:
        UserError: the model has no such hook point, or its activation has another width than the dictionaries.

    Status: exact for these blocks; intervals cover the sampling of text.
    """
    passages = tokens if isinstance(tokens, Passages) else Passages.packed(tokens)
    hook = check_hook(model, next(iter(dictionaries.values())).hook_name)
    made, n_blocks = [], len(passages.tokens)
    with Progress(n_blocks, "evaluating", "blocks") as progress:
        for chosen in passages.batches(batch_blocks):
            made.append(_measure_batch(model, dictionaries, passages, chosen, hook, mixed))
            progress.advance(len(chosen))
    rows, block = torch.cat([b.rows for b in made]), torch.cat([b.row_block for b in made])
    found = {}
    for name in dictionaries:
        error = torch.cat([b.error[name] for b in made])
        firings = torch.cat([b.firings[name] for b in made])
        fidelity = _fidelity(error, firings, rows, block, n_blocks, seed)
        found[name] = replace(fidelity, **_losses(made, name, n_blocks, seed))
    return found


@torch.no_grad()
def measure_rows(
    dictionaries: Mapping[str, Dictionary],
    rows: Float[Tensor, "row d"],
    block: Int64[Tensor, " row"],
    *,
    seed: int = 0,
) -> dict[str, Quality]:
    """Reconstruction and sparsity of each dictionary on rows without a model.

    Args:
        dictionaries: By name.
        rows: Activations.
        block: Group of each row; the intervals resample groups.
        seed: Decides the bootstrap resamples.

    Status: exact for these rows; intervals cover the drawing of groups.
    """
    n_blocks, found = int(block.max()) + 1, {}
    for name, dictionary in dictionaries.items():
        sums = row_sums(dictionary, rows)
        found[name] = _fidelity(sums.squared_error, sums.n_firings, rows, block, n_blocks, seed)
    return found


def _measure_batch(
    model: TransformerBridge,
    dictionaries: Mapping[str, Dictionary],
    passages: Passages,
    chosen: Int64[Tensor, " chosen"],
    hook: str,
    mixed: torch.dtype | None,
) -> _Batch:
    length, n_ctx = int(passages.length[chosen[0]]), passages.tokens.shape[1]
    ids = passages.tokens[chosen, :length].long().to(model.cfg.device)
    clean, x = clean_run(model, ids, hook, n_ctx=n_ctx, mixed=mixed)
    x, kept = x.float().cpu(), passages.kept[chosen, :length]
    if passages.max_norm is not None:
        kept = kept & (x.norm(dim=2) <= passages.max_norm)
    for dictionary in dictionaries.values():
        dictionary.check_width(x.shape[2])
    sums = {name: row_sums(dictionary, x[kept]) for name, dictionary in dictionaries.items()}

    def spliced(rows: Tensor) -> Tensor:
        replacement = torch.zeros_like(x)
        replacement[kept] = rows
        return _counted(spliced_run(model, ids, hook, replacement, kept, mixed=mixed), kept)

    return _Batch(
        block=chosen,
        n_predicted=kept[:, :-1].sum(1).double(),
        clean=_counted(clean, kept),
        zero=spliced(torch.zeros_like(x[kept])),
        spliced={name: spliced(s.reconstruction) for name, s in sums.items()},
        row_block=chosen[kept.nonzero()[:, 0]],
        rows=x[kept],
        error={name: s.squared_error for name, s in sums.items()},
        firings={name: s.n_firings for name, s in sums.items()},
    )


def _counted(
    losses: Float[Tensor, "block predicted"], kept: Bool[Tensor, "block pos"]
) -> Float64[Tensor, " block"]:
    """Sum per block of the losses of predictions made at judged positions."""
    return losses.cpu().double().masked_fill(~kept[:, :-1], 0).sum(1)


def _per_block(values: Float64[Tensor, " row"], block: Int64[Tensor, " row"], n_blocks: int) -> Sums:
    return torch.zeros(n_blocks, dtype=torch.float64).index_add_(0, block, values)


def _fidelity(
    error: Float64[Tensor, " row"],
    firings: Float64[Tensor, " row"],
    rows: Float[Tensor, "row d"],
    block: Int64[Tensor, " row"],
    n_blocks: int,
    seed: int,
) -> Quality:
    """Quality as far as it needs no model.

    Raises:
        UserError: there is no row.
    """
    if not len(rows):
        raise UserError(
            "no position of the text passes the filters of the capture (positions, roles, norm limit), so there is "
            "nothing to evaluate: evaluate more blocks"
        )
    top, bottom = (_per_block(values, block, n_blocks) for values in (error, spread(rows)))
    fvu = ratio_estimate(top.numpy(), bottom.numpy(), seed=seed)
    l0 = float(firings.sum()) / len(rows)
    return Quality(fvu.value, fvu.low, fvu.high, l0, len(rows), n_blocks)


def _losses(made: list[_Batch], name: str, n_blocks: int, seed: int) -> dict[str, float]:
    """The fields of `Quality` that are losses of the model."""
    block = torch.cat([b.block for b in made])
    columns = ([b.clean for b in made], [b.zero for b in made], [b.spliced[name] for b in made])
    clean, zero, spliced = (_per_block(torch.cat(column), block, n_blocks) for column in columns)
    recovered = ratio_estimate((zero - spliced).numpy(), (zero - clean).numpy(), seed=seed)
    n = torch.cat([b.n_predicted for b in made]).sum()
    return {
        "ce_nats": float(clean.sum() / n),
        "ce_zero_nats": float(zero.sum() / n),
        "ce_spliced_nats": float(spliced.sum() / n),
        "ce_recovered_frac": recovered.value,
        "ce_recovered_frac_low": recovered.low,
        "ce_recovered_frac_high": recovered.high,
    }
