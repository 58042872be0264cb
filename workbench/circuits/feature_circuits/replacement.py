"""What nodes outside a circuit become: their mean, their mean at the position, zero, or another prompt's value.

Kept as sums of decoder rows and, for the features that the sets name, as values; no (pos, d_sae) table is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.feature_circuits.codes import encode
from workbench.circuits.feature_circuits.node_sets import NodeSets
from workbench.circuits.feature_circuits.sites import FeatureSite, FeatureSites, activations
from workbench.circuits.split import Codes, written_rows
from workbench.errors import UserError, nearest

KINDS = ("mean", "position_mean", "zero", "resample")


class Fill(NamedTuple):
    """What is put in place of the features and the error that each set does not keep.

    Attributes:
        features: Sum of replacement values times decoder rows (set, prompt, pos, d_model).
        error: Replacement of the error (prompt, pos, d_model).
    """

    features: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Replacement:
    """Replacement values of every node, for prompts of one length.

    Attributes:
        kind: One of `KINDS`.
        codes: Of the reference prompts, one a site.
        written: Replacement of the sum of all features, one a site (1 or prompt, pos, d_model).
        error: Replacement of the error, one a site (1 or prompt, pos, d_model).
        n_bos: First positions, which have a mean of their own.
    """

    kind: str
    codes: tuple[Codes, ...]
    written: tuple[Tensor, ...]
    error: tuple[Tensor, ...]
    n_bos: int

    def check(self, ids: Int[Tensor, "prompt pos"]) -> None:
        """Refuse prompts that these replacements do not fit.

        Raises:
            UserError: another length, or for `resample` another number.
        """
        shape = tuple(self.codes[0].values.shape[:2])
        if ids.shape[1] != shape[1] or (self.kind == "resample" and len(ids) != shape[0]):
            raise UserError(
                f"replacements were made from {shape[0]} prompts of {shape[1]} tokens and cannot serve {len(ids)} of "
                f"{ids.shape[1]}: make them from prompts of the same length (for resample also the same number)"
            )

    def of(self, at: FeatureSite, index: int, sets: NodeSets) -> Fill:
        """Replacements at one site for the nodes that each set does not keep."""
        named, W_dec = sets.named[index], at.dictionary.W_dec
        values = pooled(_values_of(self.codes[index], named, len(W_dec)), self.kind, self.n_bos)
        kept, others = sets.kept[index][:, None], sets.others[:, None, None, None]
        sign = torch.where(others, (~kept).to(values.dtype), -kept.to(values.dtype))
        features = torch.where(others, 0.0, self.written[index]) + (sign * values) @ W_dec[named]
        return Fill(features, self.error[index])


def make_replacement(
    sites: FeatureSites, reference: Int[Tensor, "prompt pos"], *, kind: str = "position_mean"
) -> Replacement:
    """Replacements from reference prompts, usually the counterfactual ones. Status: exact.

    Args:
        sites: The dictionaries.
        reference: Ids of the length of the prompts that are to be ablated; for `resample` as many, in order.
        kind: One of `KINDS`.

    Raises:
        UserError: the kind is not known, or there are no prompts.
    """
    if kind not in KINDS:
        raise UserError(f"replacement kind {kind!r} is not known; {nearest(kind, KINDS)}")
    if not len(reference):
        raise UserError("reference has no prompts: a replacement is made from one at least")
    ids = reference.to(sites.anatomy.device)
    codes, n_bos = [], sites.n_bos
    for at, x in zip(sites, activations(sites, ids), strict=True):
        codes.append(encode(at, x, n_bos=n_bos))
    sums = [written_rows(at.dictionary.W_dec, c, c.values) for at, c in zip(sites, codes, strict=True)]
    written = tuple(pooled(x, kind, n_bos) for x in sums)
    return Replacement(kind, tuple(codes), written, tuple(pooled(c.error, kind, n_bos) for c in codes), n_bos)


def pooled(
    values: Float[Tensor, "prompt pos width"], kind: str, n_bos: int
) -> Float[Tensor, "some pos width"]:
    """What replaces values of reference prompts; one row for all prompts, or for `resample` one each."""
    if kind == "resample":
        return values
    mean = values.mean(0, keepdim=True)
    if kind == "zero":
        return torch.zeros_like(mean)
    if kind == "mean" and mean.shape[1] > n_bos:
        rest = mean[:, n_bos:]
        mean = torch.cat([mean[:, :n_bos], rest.mean(1, keepdim=True).expand_as(rest)], 1)
    return mean


def _values_of(codes: Codes, named: Tensor, d_sae: int) -> Float[Tensor, "prompt pos named"]:
    """Values of the named features."""
    column = torch.full((d_sae,), len(named), dtype=torch.long, device=named.device)
    column[named] = torch.arange(len(named), device=named.device)
    table = codes.values.new_zeros(*codes.values.shape[:2], len(named) + 1)
    return table.scatter_add_(-1, column[codes.indices], codes.values)[..., :-1]
