"""Codes of several layers as one: latents numbered layer after layer, and taken apart again.

Latent j of layer l is number l * size + j of the whole. Side by side the codes of all layers are one code,
whose zeros may stand between its entries. Kernels keep an order of the entries per `indices` tensor (see
`kernels.latent_sum`), so the indices of each layer are remembered for as long as the joint ones live, and the
decoder of a layer meets the very tensor that its encoder made. A code from elsewhere is sorted by layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from workbench.dictionaries.base import Code

LayerCode = tuple[Tensor, Tensor]  # as `Code`, of one layer; the layers' widths differ

_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def joined(codes: Sequence[LayerCode], size: int) -> Code:
    """The codes of layers of `size` latents each as one code."""
    indices = torch.cat([local + layer * size for layer, (local, _) in enumerate(codes)], dim=1)
    _made[indices] = (indices._version, tuple(local for local, _ in codes))
    return indices, torch.cat([values for _, values in codes], dim=1)


def by_layer(code: Code, n_layers: int, size: int) -> list[LayerCode]:
    """The code of each layer, in its own numbers."""
    indices, values = code
    made = _made.get(indices)
    if made is None or made[0] != indices._version:
        return _sorted_by_layer(indices, values, n_layers, size)
    locals_ = made[1]
    return list(zip(locals_, values.split([local.shape[1] for local in locals_], dim=1), strict=True))


def _sorted_by_layer(
    indices: Int64[Tensor, "row width"], values: Float[Tensor, "row width"], n_layers: int, size: int
) -> list[LayerCode]:
    """Any code, its entries that are not 0 sorted by layer."""
    layer = torch.where(values != 0, indices // size, n_layers)
    layer, order = layer.sort(dim=1, stable=True)
    indices, values = indices.gather(1, order), values.gather(1, order)
    found, first = [], indices.new_zeros(len(indices), 1)
    for number in range(n_layers):
        count = (layer == number).sum(1, keepdim=True)
        found.append(_span(indices - number * size, values, first, count))
        first = first + count
    return found


def _span(indices: Tensor, values: Tensor, first: Tensor, count: Tensor) -> LayerCode:
    """`count` entries of each row from `first` on, padded."""
    place = torch.arange(max(1, int(count.max())) if count.numel() else 1, device=indices.device)
    inside = place < count
    at = (first + place).clamp_max(max(indices.shape[1] - 1, 0))
    if not indices.shape[1]:
        return indices.new_zeros(inside.shape), values.new_zeros(inside.shape)
    return torch.where(inside, indices.gather(1, at), 0), torch.where(inside, values.gather(1, at), 0)


def zeros_last(code: LayerCode) -> LayerCode:
    """The entries of each row in their order, those of value 0 after all others."""
    indices, values = code
    if bool((values[:, :-1].ne(0) | values[:, 1:].eq(0)).all()):
        return code
    order = values.eq(0).to(torch.uint8).sort(dim=1, stable=True).indices
    indices, values = indices.gather(1, order), values.gather(1, order)
    width = max(1, int(values.ne(0).sum(1).max())) if len(values) else 1
    return indices[:, :width], values[:, :width]


def jointly_largest(codes: Sequence[LayerCode], n_keep: int) -> list[LayerCode]:
    """The n_keep largest positive entries of all layers' codes together; the others have the value 0.

    Each layer's rows must be in descending order. Equal values: the lower row, then the lower layer, then the
    order of the layer. Rows are cut to the largest number of entries that one of them keeps.
    """
    values = torch.cat([values for _, values in codes], dim=1)
    kept = _largest(values.detach(), n_keep)
    parts = kept.split([local.shape[1] for local, _ in codes], dim=1)
    return [_cut(local, own, mask) for (local, own), mask in zip(codes, parts, strict=True)]


def _largest(values: Float[Tensor, "row width"], n_keep: int) -> Tensor:
    """Which entries are among the n_keep largest positive ones; of equal ones the earlier."""
    flat, n = values.reshape(-1), min(n_keep, int((values > 0).sum()))
    if not n:
        return torch.zeros_like(values, dtype=torch.bool)
    least = flat.kthvalue(len(flat) - n + 1).values
    kept, equal = flat > least, (flat == least).nonzero()[:, 0]
    kept[equal[: n - int(kept.sum())]] = True
    return kept.view(values.shape)


def _cut(indices: Tensor, values: Tensor, kept: Tensor) -> LayerCode:
    width = max(1, int(kept.sum(1).max())) if len(kept) else 1
    kept = kept[:, :width]
    return torch.where(kept, indices[:, :width], 0), torch.where(kept, values[:, :width], 0)
