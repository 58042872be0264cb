"""One attention layer as weights by head: projections, rotation, pattern, mixing, output.

    q, k, v = n W_Q + b_Q, ...          raw, as TransformerLens shows them at hook_q, hook_k, hook_v
    s = rot(norm q) . rot(norm k) * scale, soft-capped, masked;   P = softmax s
    z_h = sum_s P[h, t, s] v[g(h), s];   out = sum_h z_h W_O[h] + b_O

Key and value heads are shared by groups of query heads where the model has fewer of them. All functions take
any leading batch axes before (pos, head, d_head) or (pos, d_model).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from workbench.anatomy.affine import Affine, read_affine
from workbench.anatomy.norm import NONE, Norm, read_norm


@dataclass(frozen=True)
class Surroundings:
    """What attention gets beside the stream, for one prompt length.

    Attributes:
        allowed: True where a query (row) may look at a key (column).
        cos: Rotary cosines (pos, rotary_dim), None without rotary positions.
        sin: Rotary sines.
    """

    allowed: Bool[Tensor, "query key"]
    cos: Float[Tensor, "pos rotary"] | None = None
    sin: Float[Tensor, "pos rotary"] | None = None


@dataclass(frozen=True)
class Attention:
    """One attention layer.

    Attributes:
        q: Projection to all query heads, heads side by side.
        k: Projection to all key heads.
        v: Projection to all value heads.
        o: From all heads to the stream.
        n_heads: Query heads.
        n_kv_heads: Key and value heads.
        scale: Factor of the scores.
        soft_cap: c of c tanh(s / c); 0 for none.
        pairs: Rotary positions turn neighbouring entries, not halves.
        q_norm: Applied to each raw query (or to all heads of a position together, by its width).
        k_norm: The same for keys.
    """

    q: Affine
    k: Affine
    v: Affine
    o: Affine
    n_heads: int
    n_kv_heads: int
    scale: float
    soft_cap: float = 0.0
    pairs: bool = False
    q_norm: Norm = NONE
    k_norm: Norm = NONE

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.q.W.shape[1] // self.n_heads

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:  # noqa: N802
        """Output matrix by head."""
        return self.o.W.unflatten(0, (self.n_heads, self.d_head))

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.n_heads // self.n_kv_heads

    def weight(self, part: str) -> Float[Tensor, "head d_model d_head"]:
        """Projection matrix of `part` ("q", "k" or "v") by head."""
        affine: Affine = getattr(self, part)
        return affine.W.unflatten(1, (-1, self.d_head)).transpose(0, 1)

    def bias(self, part: str) -> Float[Tensor, "head d_head"] | None:
        """Projection bias of `part` by head."""
        affine: Affine = getattr(self, part)
        return None if affine.b is None else affine.b.unflatten(0, (-1, self.d_head))

    def project(self, normed: Float[Tensor, "*batch pos d_model"], part: str) -> Tensor:
        """Raw queries, keys or values (*batch, pos, head, d_head)."""
        affine: Affine = getattr(self, part)
        return affine(normed).unflatten(-1, (-1, self.d_head))

    def ready(self, raw: Tensor, part: str, around: Surroundings) -> Tensor:
        """Normed and rotated queries or keys (*batch, head, pos, d_head) from raw ones."""
        norm = self.q_norm if part == "q" else self.k_norm
        raw = _normed(norm, raw).transpose(-2, -3)
        if around.cos is None or around.sin is None:
            return raw
        return rotate(raw, around.cos, around.sin, pairs=self.pairs)

    def pattern(self, q: Tensor, k: Tensor, around: Surroundings) -> Float[Tensor, "*batch head query key"]:
        """Attention pattern from raw queries and keys."""
        return self.scores(q, k, around).softmax(-1)

    def scores(self, q: Tensor, k: Tensor, around: Surroundings) -> Float[Tensor, "*batch head query key"]:
        """Scores before the softmax, minus infinity where a query may not look."""
        q, k = self.ready(q, "q", around), self.ready(k, "k", around)
        s = (q * self.scale) @ self._spread(k).transpose(-1, -2)
        s = self.soft_cap * torch.tanh(s / self.soft_cap) if self.soft_cap else s
        return s.masked_fill(~around.allowed, -math.inf)

    def mix(self, pattern: Float[Tensor, "*batch head query key"], v: Tensor) -> Tensor:
        """Heads' outputs z (*batch, pos, head, d_head) for a given pattern."""
        return (pattern @ self._spread(v.transpose(-2, -3))).transpose(-2, -3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, around: Surroundings) -> Tensor:
        """Heads' outputs z (*batch, pos, head, d_head) without keeping the pattern."""
        if self.soft_cap:
            return self.mix(self.pattern(q, k, around), v)
        ready = [self.ready(q, "q", around), self.ready(k, "k", around), v.transpose(-2, -3)]
        q, k, v = (t.reshape(-1, *t.shape[-3:]) for t in ready)
        z = torch.nn.functional.scaled_dot_product_attention(
            q, self._spread(k), self._spread(v), attn_mask=around.allowed, scale=self.scale
        )
        return z.reshape(ready[0].shape).transpose(-2, -3)

    def write(self, z: Tensor) -> Float[Tensor, "*batch pos d_model"]:
        """Sum of the heads through W_O, with the bias, before any post-norm."""
        return self.o(z.flatten(-2))

    def _spread(self, kv: Tensor) -> Tensor:
        """Key or value heads repeated for the query heads that share them; heads lie at axis -3."""
        return kv if self.group == 1 else kv.repeat_interleave(self.group, dim=-3)


def _normed(norm: Norm, raw: Tensor) -> Tensor:
    """Per head, or over all heads of a position where the norm's weight is as wide as they are together."""
    if norm.weight is not None and norm.weight.shape[-1] != raw.shape[-1]:
        return norm(raw.flatten(-2)).view(raw.shape)
    return norm(raw)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, pairs: bool) -> Tensor:
    """Rotary positions on the first entries of (..., pos, d_head)."""
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    if pairs:
        quarter = torch.stack((-turned[..., 1::2], turned[..., 0::2]), -1).flatten(-2)
    else:
        first, second = turned.chunk(2, -1)
        quarter = torch.cat((-second, first), -1)
    turned = turned * cos + quarter * sin
    return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


def read_attention(module: Any, cfg: Any, name: str) -> Attention:
    """The attention layer of a bridge's block.

    Raises:
        UserError: weights that cannot be read, or a norm of queries that is no norm.
    """
    q, k, v, o = (read_affine(getattr(module, part), f"{name}.{part}") for part in "qkvo")
    n_heads = int(cfg.n_heads)
    d_head = o.W.shape[0] // n_heads
    inner = module.original_component
    norms = {}
    for part in ("q_norm", "k_norm"):
        found = getattr(module, part, None) if part in module.submodules else None
        width = d_head if found is None else _width(found, d_head)
        norms[part] = NONE if found is None else read_norm(found, width, f"{name}.{part}")
    return Attention(
        q, k, v, o, n_heads, k.W.shape[1] // d_head, _scale(module, inner, cfg, d_head),
        soft_cap=_soft_cap(inner), pairs=_pairs(inner, cfg), **norms,
    )  # fmt: skip


def _width(module: Any, d_head: int) -> int:
    weight = getattr(getattr(module, "original_component", module), "weight", None)
    return d_head if weight is None else weight.shape[-1]


def _scale(module: Any, inner: Any, cfg: Any, d_head: int) -> float:
    """The factor of the scores: the native model divides by its `scale`, Hugging Face multiplies by `scaling`."""
    if hasattr(inner, "kv_repeats"):
        return 1.0 / float(inner.scale)
    scale = float(getattr(inner, "scaling", None) or d_head**-0.5)
    if getattr(cfg, "scale_attn_by_inverse_layer_idx", False):
        scale = d_head**-0.5 / (int(module._layer_idx) + 1)
    return scale


def _soft_cap(inner: Any) -> float:
    cap = (
        getattr(inner, "attn_logit_softcapping", None) or getattr(inner, "attn_scores_soft_cap", None) or 0.0
    )
    return max(float(cap), 0.0)


def _pairs(inner: Any, cfg: Any) -> bool:
    native = getattr(inner, "rotary", None) is not None
    marked = any(getattr(cfg, key, False) for key in ("rotary_adjacent_pairs", "rotary_interleaved_cos_sin"))
    return bool(native or marked)
