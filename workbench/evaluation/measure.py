"""Quality of several dictionaries of one hook point, measured on the same blocks of text.

Besides reconstruction (FVU) and sparsity (L0): what the model loses when the dictionary's reconstruction
stands in for the activation. The scale is set by two other runs of the same text, the clean model and the
model with the activation set to zero:

    ce_recovered_frac = (CE_zero - CE_spliced) / (CE_zero - CE_clean)

1 is the clean model, 0 no better than nothing. Zero ablation is a severe reference, so this fraction is
close to 1 even for mediocre dictionaries: read it beside the random dictionary's and the CE itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.evaluation.bootstrap import ratio_interval
from workbench.evaluation.fidelity import BlockSums, block_sums, spread
from workbench.evaluation.splice import clean_run, spliced_run
from workbench.hooks import check_hook
from workbench.progress import Progress

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Quality:
    """What a dictionary keeps of the activation and of the model; intervals are 95% bootstrap over blocks.

    Attributes:
        fvu: Fraction of variance unexplained: squared error over squared distance from the mean.
        fvu_low: Lower end of its interval.
        fvu_high: Upper end.
        l0: Mean number of positive latents per token.
        ce_nats: Mean loss of the clean model.
        ce_zero_nats: Mean loss with the activation set to zero.
        ce_spliced_nats: Mean loss with the reconstruction in place of the activation.
        ce_recovered_frac: See the module; NaN where zero ablation changes nothing.
        ce_recovered_frac_low: Lower end of its interval.
        ce_recovered_frac_high: Upper end.
        n_tokens: Tokens whose activation was reconstructed and replaced.
        n_blocks: Blocks that they stand in.
    """

    fvu: float
    fvu_low: float
    fvu_high: float
    l0: float
    ce_nats: float
    ce_zero_nats: float
    ce_spliced_nats: float
    ce_recovered_frac: float
    ce_recovered_frac_low: float
    ce_recovered_frac_high: float
    n_tokens: int
    n_blocks: int

    def to_json(self) -> dict[str, Any]:
        """As a dictionary for JSON; a fraction that is not defined is null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class _Batch:
    """Sums per block under the clean model, zero ablation and each dictionary."""

    activations: Tensor
    clean: Tensor
    zero: Tensor
    spliced: dict[str, Tensor]
    sums: dict[str, BlockSums]


@torch.no_grad()
def measure_quality(
    model: TransformerBridge,
    dictionaries: Mapping[str, Dictionary],
    tokens: Int[Tensor, "block pos"],
    *,
    batch_blocks: int = 8,
    seed: int = 0,
) -> dict[str, Quality]:
    """Quality of each dictionary on blocks of text, all at the hook point of the first.

    Args:
        model: The model that the dictionaries were trained on.
        dictionaries: By name, at least one; all for the same hook point.
        tokens: Blocks of token ids, each starting with the beginning-of-text token, which stays clean.
        batch_blocks: Blocks per forward.
        seed: Decides the bootstrap resamples.

    Raises:
        UserError: the model has no such hook point, or its activation has another width than the dictionaries.

    Status: exact for these blocks; intervals cover the sampling of text.
    """
    hook = check_hook(model, next(iter(dictionaries.values())).hook_name)
    batches = []
    with Progress(len(tokens), "evaluating", "blocks") as progress:
        for ids in tokens.long().split(batch_blocks):
            batches.append(_measure_batch(model, dictionaries, ids.to(model.cfg.device), hook))
            progress.advance(len(ids))
    return {name: _quality(name, batches, seed) for name in dictionaries}


def _measure_batch(
    model: TransformerBridge, dictionaries: Mapping[str, Dictionary], ids: Tensor, hook: str
) -> _Batch:
    clean, x = clean_run(model, ids, hook)
    for dictionary in dictionaries.values():
        dictionary.check_width(x.shape[2])
    sums = {name: block_sums(dictionary, x.cpu()) for name, dictionary in dictionaries.items()}
    spliced = {name: spliced_run(model, ids, hook, s.reconstruction).cpu() for name, s in sums.items()}
    return _Batch(
        x.cpu(), clean.cpu(), spliced_run(model, ids, hook, torch.zeros_like(x)).cpu(), spliced, sums
    )


def _quality(name: str, batches: list[_Batch], seed: int) -> Quality:
    x = torch.cat([b.activations for b in batches])
    clean, zero = torch.cat([b.clean for b in batches]), torch.cat([b.zero for b in batches])
    spliced = torch.cat([b.spliced[name] for b in batches])
    error = torch.cat([b.sums[name].squared_error for b in batches])
    firings = torch.cat([b.sums[name].n_firings for b in batches])
    fvu = ratio_interval(error, spread(x), seed=seed)
    recovered = ratio_interval((zero - spliced).sum(1), (zero - clean).sum(1), seed=seed)
    n_tokens = x.shape[0] * x.shape[1]
    return Quality(
        fvu=fvu.value,
        fvu_low=fvu.low,
        fvu_high=fvu.high,
        l0=float(firings.sum()) / n_tokens,
        ce_nats=float(clean.double().mean()),
        ce_zero_nats=float(zero.double().mean()),
        ce_spliced_nats=float(spliced.double().mean()),
        ce_recovered_frac=recovered.value,
        ce_recovered_frac_low=recovered.low,
        ce_recovered_frac_high=recovered.high,
        n_tokens=n_tokens,
        n_blocks=len(x),
    )
