"""The latent-major order of a batch: for each latent its entries, in the order of the batch.

    members[offsets[j] : offsets[j + 1]]   flat positions row * width + slot with indices[row, slot] = j, ascending

It is built once per `indices` tensor (a counting sort) and serves every sum over the rows of a latent: the
gradients of decoder, encoder and biases, and the firing counts. The order lives as long as the tensor, and
is built anew if the tensor has been written to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

MAX_ENTRIES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class LatentMajor:
    """Entries of a batch sorted by latent.

    Attributes:
        offsets: Where each latent's entries begin in `members`; the last is their number. Int64 (d_sae + 1).
        members: Flat positions row * width + slot. Int32 (entry).
        width: Entries per row.
    """

    offsets: Int[Tensor, " d_sae_plus_one"]
    members: Int[Tensor, " entry"]
    width: int

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return len(self.offsets) - 1


_cache: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def latent_major(indices: Int[Tensor, "row width"], d_sae: int) -> LatentMajor:
    """The order of these indices, from the cache where it has been built. Status: exact.

    Raises:
        ValueError: an index is not a latent, or there are more than 2**31 - 1 entries.
    """
    key = (d_sae, 0 if indices.is_inference() else indices._version)
    known = _cache.get(indices)
    if known is None or known[0] != key:
        known = _cache[indices] = (key, build(indices, d_sae))
    return known[1]


@torch.no_grad()
def build(indices: Int[Tensor, "row width"], d_sae: int) -> LatentMajor:
    """The order of these indices, sorted now. Status: exact; deterministic."""
    if indices.numel() > MAX_ENTRIES:
        raise ValueError(f"{indices.numel()} entries are more than {MAX_ENTRIES}: use smaller batches")
    flat = indices.reshape(-1)
    if flat.device.type == "cpu":
        check_indices(flat, d_sae)
        from workbench.kernels.latent_sum.cpu import counting_sort

        offsets, members = counting_sort(flat, d_sae)
    else:
        offsets = flat.new_zeros(d_sae + 1)
        offsets[1:] = torch.bincount(flat, minlength=d_sae).cumsum(0)
        members = flat.sort(stable=True).indices.int()
    return LatentMajor(offsets, members, indices.shape[1])


def check_indices(indices: Int[Tensor, ...], d_sae: int) -> None:
    """Refuse indices outside 0 .. d_sae - 1 (CPU only: elsewhere the check would wait for the device)."""
    if indices.numel():
        found = indices.numpy()  # torch's own reduction would wake OpenMP's threads (rows.py)
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= d_sae:
            raise ValueError(f"indices run from {low} to {high}, latents from 0 to {d_sae - 1}")
