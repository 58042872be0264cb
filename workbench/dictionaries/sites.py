"""How much of each latent of a crosscoder belongs to each of its sites.

    r_j = |d_j^B| / (|d_j^A| + |d_j^B|)        near 0: only A, near 1/2: both, near 1: only B

The lengths are taken in the units of the training, in which the sites have the same size: in raw units a
model with larger activations would seem to own every latent.

Status: correlational. It says where a latent writes, not that the other model lacks the concept; under a
penalty on the sum of the lengths a shared latent may be pushed to one side.
Reference: Lindsey et al. 2024, "Sparse Crosscoders"; Minder et al. 2025, arXiv:2504.02922, on the artefact.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries.base import Dictionary
from workbench.errors import UserError, nearest


def site_norms(dictionary: Dictionary) -> Float[Tensor, "d_sae site"]:
    """Length of the part of each latent's decoder row that writes to each site, in the units of the training.

    Raises:
        UserError: the dictionary has no sites.
    """
    if not dictionary.sites:
        raise UserError(
            f"the dictionary of {dictionary.hook_name!r} has one site: norms per site are those of a crosscoder"
        )
    parts = dictionary.W_dec.split([site.width for site in dictionary.sites], dim=1)
    pairs = zip(parts, dictionary.sites, strict=True)
    return torch.stack([part.norm(dim=1) * site.scale for part, site in pairs], dim=1)


def norm_share(dictionary: Dictionary, site: str) -> Float[Tensor, " d_sae"]:
    """Share of one site in the summed lengths of each latent's decoder parts, 0 to 1; NaN for a row of zeros.

    Args:
        dictionary: A crosscoder.
        site: Name of one of its sites.

    Raises:
        UserError: the dictionary has no such site.
    """
    norms, names = site_norms(dictionary), [found.name for found in dictionary.sites]
    if site not in names:
        raise UserError(f"site {site!r} is not one of this crosscoder; {nearest(site, names)}")
    return norms[:, names.index(site)] / norms.sum(1)
