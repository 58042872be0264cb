"""How the decoder's directions lie to each other: each row's largest |cosine| with another row.

Near copies (|cosine| near 1) are latents that split one direction; the level of a random dictionary of the
same size is what d dimensions give for nothing, about sqrt(2 ln(d_sae) / d) for large d. The matrix of all
cosines is never made: rows are taken a block at a time.

Reference: decoder cosines as a sign of split and absorbed features, Bricken et al. 2023, Towards
Monosemanticity; Chanin et al. 2024, arXiv:2409.14507.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries import Dictionary
from workbench.dictionaries.cross_layer import CrossLayerDictionary

BLOCK_BYTES = 2**26
N_BINS = 40
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEAR_COPY = 0.9


@torch.no_grad()
def largest_cosines(
    W_dec: Float[Tensor, "d_sae d"], *, block_bytes: int = BLOCK_BYTES
) -> Float[Tensor, " d_sae"]:
    """Each row's largest |cosine| with another row; 0 for a row of zeros, or where there is no other. Status: exact.

    Args:
        W_dec: Decoder rows; their lengths play no part.
        block_bytes: Memory of the cosines that are held at once.
    """
    unit, n = functional.normalize(W_dec.float(), dim=1), len(W_dec)
    found = unit.new_zeros(n)
    step = max(1, block_bytes // (4 * max(1, n)))
    for start in range(0, n, step):
        block = unit[start : start + step]
        cosines = (block @ unit.T).abs_()
        rows = torch.arange(len(block))
        cosines[rows, rows + start] = 0
        found[start : start + step] = cosines.amax(1)
    return found.clamp_max_(1)


def cosine_structure(dictionary: Dictionary) -> dict[str, Any]:
    """The distribution of `largest_cosines`: mean, quantiles, share of near copies, and a histogram over [0, 1].

    Latents of a cross-layer transcoder are compared within their layer, whose rows write to the same targets.
    """
    layers = dictionary.layers if isinstance(dictionary, CrossLayerDictionary) else (dictionary,)
    found = torch.cat([largest_cosines(layer.W_dec) for layer in layers]).double()
    shares = torch.tensor(QUANTILES, dtype=torch.float64)
    counts = torch.histc(found, bins=N_BINS, min=0, max=1)
    return {
        "mean": float(found.mean()),
        "quantiles": found.quantile(shares).tolist(),
        "near_copy_frac": float((found > NEAR_COPY).double().mean()),
        "edges": torch.linspace(0, 1, N_BINS + 1, dtype=torch.float64).tolist(),
        "n_latents": counts.long().tolist(),
    }
