"""What a sweep replaces: units that write to the stream at one depth, all through one linear map.

    raw = base raw + sum over replaced (unit u, position p) of delta[p, u] W[u]
    stream at the site's depth = base stream + norm(raw) - norm(base raw)

delta is the other prompt's value minus the base prompt's. Without a post-norm the second line is
base stream + change. The units of the kinds:

    resid_pre, resid_mid, resid_post, attn_out, mlp_out    one, the vector itself; W = 1
    head        z of one head           W = its slice of W_O       norm = ln1_post
    neuron      one post-activation     W = its row of W_out       norm = ln2_post
    feature     one latent's activation W = its decoder row; the dictionary's error stays the base prompt's
                (a transcoder's features write what its MLP adds)

Exact patching, attribution and integrated gradients of a site differ only in the gradient that `terms` is
given, or in running instead. Status: exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Block, Norm
from workbench.anatomy.affine import read_affine
from workbench.circuits.observation import Activations
from workbench.circuits.sweeps.reading import Reading
from workbench.dictionaries import Dictionary
from workbench.errors import UserError

NONE = Norm(identity=True)


@dataclass(frozen=True)
class SweepSite:
    """The units of one depth.

    Attributes:
        depth: Where they write.
        base: Stream of the base run there (prompt, pos, d_model).
        delta: Other value minus base value, by unit.
        write: W (unit, width, d_model); None for one unit that is the vector itself.
        raw: What the post-norm is given in the base run; None without one.
        norm: The post-norm.
    """

    depth: int
    base: Float[Tensor, "prompt pos d_model"]
    delta: Float[Tensor, "prompt pos unit width"]
    write: Float[Tensor, "unit width d_model"] | None = None
    raw: Float[Tensor, "prompt pos d_model"] | None = None
    norm: Norm = NONE

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.delta.shape[2]

    def chosen(self, units: Sequence[int]) -> SweepSite:
        """The site with some of its units only."""
        write = None if self.write is None else self.write[list(units)]
        return replace(self, delta=self.delta[:, :, list(units)], write=write)

    def changes(
        self, units: Int[Tensor, " cell"], positions: Int[Tensor, " cell"] | None, first: int
    ) -> Float[Tensor, "cell prompt pos d_model"]:
        """Change of `raw` by one unit each: at all positions from `first` on, or (pos 1) at its own position."""
        delta = (
            self.delta[:, first:, units] if positions is None else self.delta[:, positions, units][:, None]
        )
        if self.write is None:
            return delta.permute(2, 0, 1, 3)
        return torch.einsum("npcw,cwd->cnpd", delta, self.write[units])

    def every_change(self, positions: Sequence[int]) -> Float[Tensor, "prompt pos d_model"]:
        """Change of `raw` when all units are replaced at the given positions."""
        at = self.delta[:, list(positions)]
        total = at[:, :, 0] if self.write is None else torch.einsum("npuw,uwd->npd", at, self.write)
        change = torch.zeros_like(self.base)
        change[:, list(positions)] = total
        return change

    def stream(
        self, change: Float[Tensor, "*cell prompt pos d_model"], at: slice | Tensor
    ) -> Float[Tensor, "*cell prompt pos d_model"]:
        """The stream at the positions `at` with `raw` changed there."""
        base = _positions(self.base, at)
        if self.raw is None:
            return base + change
        raw = _positions(self.raw, at)
        return base + self.norm(raw + change) - self.norm(raw)

    def terms(self, gradient: Float[Tensor, "prompt pos d_model"]) -> Float[Tensor, "prompt pos unit"]:
        """gradient . change of `raw`, by unit and position."""
        if self.write is None:
            return (self.delta * gradient[:, :, None]).sum(-1)
        return (torch.einsum("npd,uwd->npuw", gradient, self.write) * self.delta).sum(-1)

    def at_raw(self, gradient: Float[Tensor, "prompt pos d_model"]) -> Float[Tensor, "prompt pos d_model"]:
        """Gradient at `raw` from the gradient at the stream of the base run. Status: exact."""
        return gradient if self.raw is None else self.norm.pull_live(gradient, self.raw)


def _positions(x: Tensor, at: slice | Tensor) -> Tensor:
    """(prompt, pos, d) for a slice, (cell, prompt, 1, d) for one position a cell."""
    return x[:, at] if isinstance(at, slice) else x[:, at].transpose(0, 1).unsqueeze(2)


def vector_site(kind: str, layer: int, base: Activations, other: Activations) -> SweepSite:
    """The site of one vector of the stream: the stream itself or what one half adds to it."""
    if kind in ("attn_out", "mlp_out"):
        delta = getattr(other, kind)[layer] - getattr(base, kind)[layer]
        depth = 2 * layer + (1 if kind == "attn_out" else 2)
    else:
        depth = 2 * layer + ("resid_pre", "resid_mid", "resid_post").index(kind)
        delta = other.resid[depth] - base.resid[depth]
    return SweepSite(depth, base.resid[depth], delta[:, :, None])


def head_site(anatomy: Anatomy, layer: int, base: Activations, other: Activations) -> SweepSite:
    """The heads of one layer."""
    block = anatomy.blocks[layer]
    raw = None if block.ln1_post.identity else block.attn.write(base.z[layer])
    delta = other.z[layer] - base.z[layer]
    return SweepSite(2 * layer + 1, base.resid[2 * layer + 1], delta, block.attn.W_O, raw, block.ln1_post)


def neuron_site(anatomy: Anatomy, layer: int, base: Activations, other: Activations) -> SweepSite:
    """The neurons of one layer; refuses an MLP without readable neurons."""
    block = anatomy.blocks[layer]
    assert block.mlp is not None
    old, new = (_neurons(block, seen) for seen in (base, other))
    raw = None if block.ln2_post.identity else block.mlp.out(old)
    rows = read_affine(anatomy.model.blocks[layer].mlp.out, f"the MLP of block {layer}").W[:, None]
    return SweepSite(
        2 * layer + 2, base.resid[2 * layer + 2], (new - old)[..., None], rows, raw, block.ln2_post
    )


def n_neurons(anatomy: Anatomy, layer: int) -> int:
    """Neurons of one layer's MLP.

    Raises:
        UserError: an attention-only model, or an MLP whose neurons cannot be reached.
    """
    mlp = anatomy.blocks[layer].mlp
    if mlp is None:
        raise UserError(f"layer {layer} has no MLP, so it has no neurons: this model has attention only")
    probe = torch.zeros(1, anatomy.d_model, device=anatomy.device, dtype=anatomy.readout.W_U.dtype)
    return mlp.post(probe).shape[-1]


def _neurons(block: Block, seen: Activations) -> Float[Tensor, "prompt pos d_mlp"]:
    assert block.mlp is not None
    return block.mlp.post(block.ln2(seen.resid[2 * block.layer + (0 if block.parallel else 1)]))


def active_features(anatomy: Anatomy, reading: Reading, seen: Activations) -> list[int]:
    """Features that are active somewhere after the first position, ascending."""
    indices, values = reading.dictionary.encode(reading.on(anatomy, seen)[:, 1:].flatten(0, 1))
    return torch.unique(indices[values > 0]).tolist()


def feature_site(
    anatomy: Anatomy, reading: Reading, base: Activations, other: Activations, features: Sequence[int]
) -> SweepSite:
    """Some features of a dictionary."""
    dictionary, site = reading.dictionary, reading.site
    old, new = (feature_values(dictionary, reading.on(anatomy, seen), features) for seen in (base, other))
    old[:, 0] = new[:, 0] = 0  # the first token belongs to the error
    rows = dictionary.W_dec[list(features)][:, None]
    return SweepSite(site.depth, base.resid[site.depth], (new - old)[..., None], rows)


@torch.no_grad()
def feature_values(
    dictionary: Dictionary, x: Float[Tensor, "*batch d_model"], features: Sequence[int]
) -> Float[Tensor, "*batch feature"]:
    """Activations of some features at every position, the first included; others' are gathered and dropped."""
    chosen = torch.tensor(list(features), device=dictionary.W_dec.device)
    column = torch.full((dictionary.d_sae,), len(chosen), device=chosen.device)
    column[chosen] = torch.arange(len(chosen), device=chosen.device)
    indices, values = dictionary.encode(x.reshape(-1, x.shape[-1]))
    found = values.new_zeros(len(values), len(chosen) + 1).scatter_add_(1, column[indices], values)
    return found[:, :-1].reshape(*x.shape[:-1], -1)
