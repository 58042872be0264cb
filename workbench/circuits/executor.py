"""Runs the model from any point of the residual stream to the logits of the last position.

A bridge's `start_at_layer` executes the earlier blocks and throws them away, and its alias
`hook_resid_mid` is the input of the second norm alone, so that editing it leaves the skip connection
unedited. This executor therefore calls the bridge's own modules half a block at a time,

    x[2l+1] = x[2l] + attn_l(ln1_l(x[2l])),    x[2l+2] = x[2l+1] + mlp_l(ln2_l(x[2l+1])),

with the attention's further arguments (mask, rotary tables) recorded once per length from a true forward
pass. That is the sequential pre-norm block; parallel blocks and post-norms compute something else.
`self_check` compares every depth with the model's own logits and refuses those architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.circuits.nodes import has_mlp
from workbench.errors import UserError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

TOLERANCE = 1e-5
_CACHE_ARGUMENTS = ("past_key_values", "past_key_value", "layer_past")


@dataclass(frozen=True)
class Activations:
    """What the nodes are read from, for one batch of prompts of one length.

    Attributes:
        resid: Residual stream at every depth, 2 n_layers + 1 tensors (prompt, pos, d_model).
        z: Head outputs before W_O, n_layers tensors (prompt, pos, head_index, d_head).
    """

    resid: tuple[Tensor, ...]
    z: tuple[Tensor, ...]


class Executor:
    """Half-block execution of a bridge. Status: exact, as far as `self_check` has confirmed it."""

    def __init__(self, model: TransformerBridge) -> None:
        self.model = model
        self.n_layers = int(model.cfg.n_layers)
        self.last_depth = 2 * self.n_layers
        self._has_mlp = has_mlp(model)
        self._arguments: dict[int, list[dict[str, Any]]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model's parameters lie."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def embed(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream at depth 0: token and position embeddings."""
        from workbench.hooks import capture_forward

        return capture_forward(self.model, ids, ["blocks.0.hook_resid_pre"])["blocks.0.hook_resid_pre"]

    def step(self, x: Float[Tensor, "batch pos d_model"], depth: int) -> Float[Tensor, "batch pos d_model"]:
        """The stream at `depth + 1` from the stream at `depth`: one attention or one MLP."""
        block = self.model.blocks[depth // 2]
        if depth % 2:
            return x + block.mlp(block.ln2(x)) if self._has_mlp else x
        arguments = self._attention_arguments(x.shape[1])[depth // 2]
        written = block.attn(block.ln1(x), **arguments)
        return x + (written[0] if isinstance(written, tuple) else written)

    def last_logits(
        self, x: Float[Tensor, "batch pos d_model"], depth: int
    ) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last position when the stream at `depth` is `x`.

        After the last attention only the last position matters, so only it goes through the last MLP.
        """
        for at in range(depth, self.last_depth - 1):
            x = self.step(x, at)
        x = x[:, -1:]
        if depth < self.last_depth:
            x = self.step(x, self.last_depth - 1)
        return self.model.unembed(self.model.ln_final(x))[:, 0]

    def observe(self, ids: Int[Tensor, "batch pos"]) -> Activations:
        """The stream at every depth and every head's z, for unedited prompts."""
        return self.observe_from(self.embed(ids))

    @torch.no_grad()
    def observe_from(self, embedded: Float[Tensor, "batch pos d_model"]) -> Activations:
        """The same from a stream at depth 0."""
        z: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(value: Tensor, hook: object) -> None:
                z[layer] = value.detach().clone()

            return hook

        resid = [embedded]
        hooks = [(f"blocks.{layer}.attn.hook_z", keep(layer)) for layer in range(self.n_layers)]
        with self.model.hooks(fwd_hooks=hooks):
            for depth in range(self.last_depth):
                resid.append(self.step(resid[-1], depth))
        return Activations(tuple(resid), tuple(z[layer] for layer in range(self.n_layers)))

    @torch.no_grad()
    def self_check(self, ids: Int[Tensor, "batch pos"]) -> float:
        """Largest relative error of a null edit over all depths, and of the heads' sum; refuses above 1e-5.

        Two identities: running on from the unedited stream at any depth gives the model's own logits, and
        the heads' outputs through W_O (with the bias) sum to what the attention adds to the stream.

        Raises:
            UserError: one does not hold, so effects would be wrong for this architecture.
        """
        wanted = self.model(ids, return_type="logits")[:, -1]
        seen = self.observe(ids)
        errors = {f"depth {d}": _error(self.last_logits(x, d), wanted) for d, x in enumerate(seen.resid)}
        for layer, z in enumerate(seen.z):
            written = seen.resid[2 * layer + 1] - seen.resid[2 * layer]
            heads = torch.einsum("nphe,hed->npd", z, self.head_matrix(layer))
            spread = (written - heads) - (written - heads)[:1, :1]
            errors[f"heads of block {layer}"] = _error(spread, torch.zeros_like(spread), written)
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= TOLERANCE:
            raise UserError(
                f"model {self.model.cfg.model_name!r} cannot be re-run from the residual stream: at {worst} a null "
                f"edit changes the result by {errors[worst]:.1e} of its size (at most {TOLERANCE:.0e} is rounding); "
                "only sequential pre-norm architectures are supported"
            )
        return errors[worst]

    def head_matrix(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """W_O of one block, by head."""
        return self.model.blocks[layer].attn.W_O

    def _attention_arguments(self, length: int) -> list[dict[str, Any]]:
        """Per layer, what the model passes to its attention beside the stream, for prompts of one length."""
        if length not in self._arguments:
            with torch.no_grad(), _recorded(self.model) as arguments:
                self.model(torch.zeros(1, length, dtype=torch.long, device=self.device), return_type=None)
            self._arguments[length] = arguments
        return self._arguments[length]


def _error(found: Tensor, wanted: Tensor, scale: Tensor | None = None) -> float:
    """Largest difference, as a share of the largest wanted (or `scale`) value, taken as 1 when smaller."""
    size = max(1.0, float((wanted if scale is None else scale).abs().max()))
    return float((found - wanted).abs().max()) / size


@contextmanager
def _recorded(model: TransformerBridge) -> Iterator[list[dict[str, Any]]]:
    """Keyword arguments of every block's attention during a forward pass, without key-value caches."""
    arguments: list[dict[str, Any]] = []

    def record(_module: object, args: tuple, kwargs: dict[str, Any]) -> None:
        kept = {k: v for k, v in kwargs.items() if k not in (*_CACHE_ARGUMENTS, "hidden_states")}
        arguments.append({**kept, "use_cache": False} if "use_cache" in kept else kept)

    handles = [block.attn.register_forward_pre_hook(record, with_kwargs=True) for block in model.blocks]
    try:
        yield arguments
    finally:
        for handle in handles:
            handle.remove()
