"""One prompt's forward pass with everything that is not linear held at its value: patterns and norm scales.

    attention   x' = x + post( sum_h P_h (n W_V + b_V) W_O + b_O ),   n = (x - mean x) / s * w + b
    pull        g  = g' + sum_h M_h^T (g' A) B,    M[h, q, k] = P[h, q, k] / (s_post[q] s[k])

With P and every s frozen a half of a block is affine in the stream, and its transpose carries a gradient from
the stream after it to the stream before it. The gains and the centring of both norms lie in A (d_model, all
heads) and B (all value heads, d_model), the scales in M, so that nothing runs over the stream but two matrix
products and the mixing. A gradient that sits at a single position (a target that has not met attention yet)
spreads by one row of M, which costs a d_model-th of that.

Layout: a spread gradient is (pos, target, d_model), a single one (target, d_model) with its positions.
Status: exact under the freeze of patterns and of all norm scales, post-norms included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy, Block, recorder
from workbench.anatomy.norm import Norm
from workbench.errors import UserError

CAUSAL_BLOCK = 128
NORMS = ("ln1", "ln1_post", "ln2", "ln2_post")


@dataclass(frozen=True, eq=False)
class FrozenLayer:
    """One block of one prompt.

    Attributes:
        block: The block.
        pattern: Attention pattern.
        scales: Norm scale (pos, 1) by the norm's name, 1 where there is no norm.
        stream: What the block reads, at depth 2 layer.
        mlp_stream: What its MLP reads.
        added: What its MLP adds to the stream, after a post-norm.
    """

    block: Block
    pattern: Float[Tensor, "head query key"]
    scales: dict[str, Float[Tensor, "pos 1"]]
    stream: Float[Tensor, "pos d_model"]
    mlp_stream: Float[Tensor, "pos d_model"]
    added: Float[Tensor, "pos d_model"]

    @cached_property
    def written(self) -> Float[Tensor, "pos d_model"]:
        """What its MLP gives before a post-norm."""
        if self.block.ln2_post.identity or self.block.mlp is None:
            return self.added
        return self.block.mlp(self.block.ln2(self.mlp_stream, self.scales["ln2"]))

    @cached_property
    def mixing(self) -> Float[Tensor, "head query key"]:
        """M: the pattern over both norms' scales."""
        post, before = self.scales["ln1_post"], self.scales["ln1"]
        return self.pattern / (post * before.T)

    @cached_property
    def into_heads(self) -> Float[Tensor, "d_model heads"]:
        """A: a gradient after the post-norm becomes one at z, all heads side by side."""
        return _after(self.block.ln1_post, self.block.attn.o.W.T)

    @cached_property
    def out_of_values(self) -> Float[Tensor, "values d_model"]:
        """B: a gradient at the values, all of them side by side, becomes one at the normalised input's stream."""
        return _before(self.block.ln1, self.block.attn.v.W.T)

    def spread(
        self, gradient: Float[Tensor, "target d_model"], at: Int[Tensor, " target"], n_pos: int
    ) -> Float[Tensor, "pos target d_model"]:
        """What attention passes down of gradients that sit at single positions, the skip not included."""
        by_head = self.by_head(gradient)
        return torch.bmm(self.rows(at, n_pos), by_head).transpose(0, 1)

    def rows(self, at: Int[Tensor, " target"], n_pos: int) -> Float[Tensor, "target pos head"]:
        """The rows of M at the targets' positions."""
        return self.mixing[:, at, :n_pos].permute(1, 2, 0)

    def by_head(self, gradient: Float[Tensor, "target d_model"]) -> Float[Tensor, "target head d_model"]:
        """Per query head, the gradient through its output and value weights, before it is mixed over keys."""
        attn = self.block.attn
        z = (gradient @ self.into_heads).unflatten(1, (attn.n_heads, attn.d_head)).transpose(0, 1)
        values = self.out_of_values.unflatten(0, (attn.n_kv_heads, attn.d_head))
        values = values if attn.group == 1 else values.repeat_interleave(attn.group, dim=0)
        return torch.bmm(z, values).transpose(0, 1)

    def by_head_pulled(self, gradient: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos head d_model"]:
        """What each head passes down of one spread gradient; their sum is `pull`."""
        n_pos = len(gradient)
        values = self.by_head(gradient)
        return torch.einsum("hqk,qhd->khd", self.mixing[:, :n_pos, :n_pos], values)

    def pull(self, gradient: Float[Tensor, "pos target d_model"]) -> Float[Tensor, "pos target d_model"]:
        """What attention passes down of a spread gradient, the skip not included."""
        n_pos, n_targets, _ = gradient.shape
        attn = self.block.attn
        z = (gradient.flatten(0, 1) @ self.into_heads).view(n_pos, n_targets, attn.n_heads, attn.d_head)
        mixed = _mixed(self.mixing[:, :n_pos, :n_pos], z.permute(2, 0, 1, 3).flatten(2))
        mixed = mixed.view(attn.n_heads, n_pos, n_targets, attn.d_head)
        if attn.group > 1:
            mixed = mixed.unflatten(0, (attn.n_kv_heads, attn.group)).sum(1)
        values = mixed.permute(1, 2, 0, 3).reshape(n_pos * n_targets, -1)
        return (values @ self.out_of_values).view(n_pos, n_targets, -1)


@dataclass(frozen=True, eq=False)
class FrozenPass:
    """A prompt's forward pass.

    Attributes:
        anatomy: The model.
        ids: Token ids.
        embedded: The stream at depth 0.
        layers: One per block.
        final_stream: The stream at the last depth.
        final_scale: Scale of the final norm.
    """

    anatomy: Anatomy
    ids: Int[Tensor, " pos"]
    embedded: Float[Tensor, "pos d_model"]
    layers: tuple[FrozenLayer, ...]
    final_stream: Float[Tensor, "pos d_model"]
    final_scale: Float[Tensor, "pos 1"]

    @property
    def n_pos(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @cached_property
    def logits(self) -> Float[Tensor, "pos d_vocab"]:
        """The model's logits, capped where it caps them."""
        return self.anatomy.logits(self.final_stream)

    def norm_at(self, depth: int) -> tuple[Norm, Float[Tensor, "pos 1"]]:
        """The norm between the stream at a depth and its reader there (attention, MLP, unembedding), and its scale."""
        if depth == self.anatomy.last_depth:
            return self.anatomy.ln_final, self.final_scale
        layer = self.layers[depth // 2]
        name = "ln1" if depth % 2 == 0 else "ln2"
        return getattr(layer.block, name), layer.scales[name]


@torch.no_grad()
def freeze(anatomy: Anatomy, ids: Int[Tensor, " pos"]) -> FrozenPass:
    """Run one prompt and keep what is frozen.

    Raises:
        UserError: no token, too many for the model, or attention that looks ahead.
    """
    _check_ids(anatomy, ids)
    ids = ids.to(anatomy.device)
    seen, keep = recorder()
    names = [name for layer in range(anatomy.n_layers) for name in _names(layer)]
    embedded = anatomy.embed(ids[None])
    final = anatomy.run(embedded, edits={name: keep(name) for name in names})
    layers = tuple(_layer(block, seen, anatomy.parallel) for block in anatomy.blocks)
    if any(bool(layer.pattern.triu(1).any()) for layer in layers):
        raise UserError(
            f"model {anatomy.model.cfg.model_name!r} looks at later tokens: attribution graphs are for causal models"
        )
    return FrozenPass(anatomy, ids, embedded[0], layers, final[0], anatomy.ln_final.scale(final[0]))


def _names(layer: int) -> list[str]:
    parts = [*(f"{norm}.hook_scale" for norm in NORMS), "attn.hook_pattern", "hook_resid_pre", "hook_mlp_out"]
    return [f"blocks.{layer}.{part}" for part in (*parts, "hook_resid_mid")]


def _layer(block: Block, seen: dict[str, Tensor], parallel: bool) -> FrozenLayer:
    def value(part: str) -> Tensor:
        return seen[f"blocks.{block.layer}.{part}"][0]

    ones = torch.ones_like(value("hook_resid_pre")[:, :1])
    scales = {
        norm: ones if getattr(block, norm).identity else value(f"{norm}.hook_scale")
        for norm in NORMS
        if block.mlp is not None or not norm.startswith("ln2")
    }
    stream = value("hook_resid_pre")
    read = stream if parallel else value("hook_resid_mid")
    added = torch.zeros_like(stream) if block.mlp is None else value("hook_mlp_out")
    return FrozenLayer(block, value("attn.hook_pattern"), scales, stream, read, added)


def _check_ids(anatomy: Anatomy, ids: Tensor) -> None:
    longest = int(getattr(anatomy.model.cfg, "n_ctx", 0) or 0)
    if ids.ndim != 1 or len(ids) < 1 or (longest and len(ids) > longest):
        raise UserError(
            f"the prompt's ids are of shape {tuple(ids.shape)}: give one prompt of 1 to {longest or 'any'} tokens"
        )
    n_words = int(anatomy.model.cfg.d_vocab)
    if int(ids.min()) < 0 or int(ids.max()) >= n_words:
        raise UserError(
            f"token ids run from {int(ids.min())} to {int(ids.max())}: this model's vocabulary is 0 to "
            f"{n_words - 1}"
        )


def _after(norm: Norm, weight: Float[Tensor, "d_model out"]) -> Float[Tensor, "d_model out"]:
    """What pulling through the norm (scale aside) and then multiplying by `weight` is as one matrix."""
    if norm.identity:
        return weight.contiguous()
    weight = weight - weight.mean(0) if norm.centred else weight
    return (weight if norm.weight is None else norm.weight[:, None] * weight).contiguous()


def _before(norm: Norm, weight: Float[Tensor, "into d_model"]) -> Float[Tensor, "into d_model"]:
    """What multiplying by `weight` and then pulling through the norm (scale aside) is as one matrix."""
    if norm.identity:
        return weight.contiguous()
    weight = weight if norm.weight is None else weight * norm.weight
    return (weight - weight.mean(1, keepdim=True) if norm.centred else weight).contiguous()


def _mixed(
    mixing: Float[Tensor, "head query key"], z: Float[Tensor, "head query rest"]
) -> Float[Tensor, "head key rest"]:
    """M^T z, a block of keys at a time: keys are not seen by earlier queries."""
    n_pos = mixing.shape[1]
    if n_pos <= CAUSAL_BLOCK:
        return torch.bmm(mixing.transpose(1, 2), z)
    out = torch.empty_like(z)
    for start in range(0, n_pos, CAUSAL_BLOCK):
        keys = slice(start, start + CAUSAL_BLOCK)
        out[:, keys] = torch.bmm(mixing[:, start:, keys].transpose(1, 2), z[:, start:])
    return out
