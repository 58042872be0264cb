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
        n_bos: First positions, which have a mean of their own.
    """

    kind: str
    codes: tuple[Codes, ...]
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
        codes, named = self.codes[index], sets.named[index]
        written = self._pooled(written_rows(at.dictionary.W_dec, codes, codes.values))
        values = self._pooled(_values_of(codes, named, at.dictionary.d_sae))
        kept, others = sets.kept[index][:, None], sets.others[:, None, None, None]
        sign = torch.where(others, (~kept).to(values.dtype), -kept.to(values.dtype))
        features = torch.where(others, 0.0, written) + (sign * values) @ at.dictionary.W_dec[named]
        return Fill(features, self._pooled(codes.error))

    def _pooled(self, values: Float[Tensor, "prompt pos width"]) -> Float[Tensor, "some pos width"]:
        if self.kind == "resample":
            return values
        mean = values.mean(0, keepdim=True)
        if self.kind == "zero":
            return torch.zeros_like(mean)
        if self.kind == "mean" and mean.shape[1] > self.n_bos:
            rest = mean[:, self.n_bos :]
            mean = torch.cat([mean[:, : self.n_bos], rest.mean(1, keepdim=True).expand_as(rest)], 1)
        return mean


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
    values = zip(sites, activations(sites, ids), strict=True)
    return Replacement(kind, tuple(encode(at, x, n_bos=sites.n_bos) for at, x in values), sites.n_bos)


def _values_of(codes: Codes, named: Tensor, d_sae: int) -> Float[Tensor, "prompt pos named"]:
    """Values of the named features."""
    column = torch.full((d_sae,), len(named), dtype=torch.long, device=named.device)
    column[named] = torch.arange(len(named), device=named.device)
    table = codes.values.new_zeros(*codes.values.shape[:2], len(named) + 1)
    return table.scatter_add_(-1, column[codes.indices], codes.values)[..., :-1]
