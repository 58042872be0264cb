"""The transcoders of all layers as one thing, whether they are one per layer or one cross-layer dictionary.

    layer l, latent f    reads at layer l with `encoders(l, f)`, writes to layers `outs(l)` with `decoders(l, out, f)`

The active latents of a prompt are those that the dictionary's own `encode` gives; here nothing is encoded again.
For a gated dictionary the value of an active latent is exp(r_mag) (x - b_pre) W_enc + b_mag: its encoder vector
carries the gain. A dictionary whose values are not linear in its input where it is active is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.anatomy import Anatomy
from workbench.circuits.attribution_graph.ports import layer_of
from workbench.dictionaries import Dictionary
from workbench.dictionaries.cross_layer import CrossLayerDictionary
from workbench.errors import UserError
from workbench.models import model_hash

LINEAR_FRAC = 1e-3


@dataclass(frozen=True, eq=False)
class Active:
    """Active latents of a prompt, by layer, position and latent.

    Attributes:
        layer: Where each is read.
        pos: Its position.
        latent: Its number within its layer's dictionary.
        value: Its activation.
    """

    layer: Int[Tensor, " feature"]
    pos: Int[Tensor, " feature"]
    latent: Int[Tensor, " feature"]
    value: Float[Tensor, " feature"]

    def __len__(self) -> int:
        return len(self.layer)


@dataclass(frozen=True, eq=False)
class Transcoders:
    """One frozen transcoder per layer of a model.

    Attributes:
        layers: The dictionary that is read at each layer.
        whole: The cross-layer dictionary they are part of, or None.
    """

    layers: tuple[Dictionary, ...]
    whole: CrossLayerDictionary | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Hook that each layer reads."""
        return tuple(d.hook_name for d in self.layers)

    @property
    def writes(self) -> tuple[str, ...]:
        """Hook that each layer reconstructs (its own target)."""
        return tuple(d.hook_name_out or d.hook_name for d in self.layers)

    @cached_property
    def hashes(self) -> list[str]:
        """SHA-256 of each dictionary, or of the one cross-layer dictionary."""
        return [d.hash for d in (self.layers if self.whole is None else (self.whole,))]

    def n_latents(self, layer: int) -> int:
        """Latents read at a layer."""
        return self.layers[layer].d_sae

    def skip(self, layer: int) -> Float[Tensor, "d_model d_model"] | None:
        """The linear skip of a layer."""
        return self.layers[layer].W_skip

    def sources_of(self, out: int) -> range:
        """Layers whose latents write to layer `out`."""
        return range(out + 1) if self.whole is not None else range(out, out + 1)

    def decoders(self, layer: int, out: int, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """What one unit of each latent of `layer` writes to layer `out`."""
        W, width = self.layers[layer].W_dec, self.layers[layer].d_in
        start = (out - layer) * width
        return W[latents, start : start + width]

    def encoders(self, layer: int, latents: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """What each latent of `layer` reads its activation by."""
        dictionary = self.layers[layer]
        rows = dictionary.W_enc.T[latents]
        gain = getattr(dictionary, "r_mag", None)
        return rows if gain is None else rows * gain[latents].exp()[:, None]

    def encoder_bias(self, layer: int, latents: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The activation of each latent, where it is active, at an input of zero."""
        dictionary = self.layers[layer]
        bias = getattr(dictionary, "b_mag", dictionary.b_enc)[latents]
        return bias - self.encoders(layer, latents) @ dictionary.b_pre

    def output_bias(self, out: int) -> Float[Tensor, " d_model"]:
        """What the dictionaries add at layer `out` whatever is active."""
        dictionary = self.layers[out]
        return dictionary.b_dec[: dictionary.d_in]

    @torch.no_grad()
    def encode(self, values: Sequence[Float[Tensor, "pos d_model"]], *, first_pos: int) -> Active:
        """The active latents at the positions from `first_pos`, from what each layer reads.

        Raises:
            UserError: a dictionary whose activations are not linear in its input where it is active.
        """
        rows = [value[first_pos:].to(self.layers[0].W_enc.dtype) for value in values]
        if self.whole is not None:
            codes = _split(self.whole, self.whole.encode(torch.cat(rows, dim=1)))
        else:
            codes = [d.encode(row) for d, row in zip(self.layers, rows, strict=True)]
        parts = [_active(layer, code, first_pos) for layer, code in enumerate(codes)]
        active = Active(
            *(torch.cat([getattr(p, n) for p in parts]) for n in ("layer", "pos", "latent", "value"))
        )
        for layer, row in enumerate(rows):
            self._check_linear(layer, row, parts[layer], first_pos)
        return active

    def _check_linear(self, layer: int, rows: Tensor, part: Active, first_pos: int) -> None:
        step = max(1, len(part) // 512)
        latents, at, value = part.latent[::step], part.pos[::step] - first_pos, part.value[::step]
        wanted = (rows[at] * self.encoders(layer, latents)).sum(1) + self.encoder_bias(layer, latents)
        size = float(value.abs().max()) if len(value) else 0.0
        if len(value) and float((wanted - value).abs().max()) > LINEAR_FRAC * size:
            raise UserError(
                f"activations of the {self.layers[layer].architecture} dictionary of {self.reads[layer]!r} are not "
                "linear in its input where it is active: an attribution graph needs one whose latents are"
            )


def join_transcoders(anatomy: Anatomy, given: Sequence[Dictionary] | Dictionary) -> Transcoders:
    """Transcoders for every layer, from a list in any order or one cross-layer dictionary.

    Raises:
        UserError: an autoencoder, a dictionary of another model or width, two for one layer, or none for one.
    """
    if not anatomy.has_mlp:
        raise UserError(
            f"model {anatomy.model.cfg.model_name!r} has no MLPs: there is nothing that transcoders could replace"
        )
    whole = given if isinstance(given, CrossLayerDictionary) else None
    found: Sequence[Dictionary] = (
        whole.layers if whole else [given] if isinstance(given, Dictionary) else given
    )
    _check_model(anatomy, [whole] if whole else found)
    by_layer: dict[int, Dictionary] = {}
    for dictionary in found:
        layer = _check_one(anatomy, dictionary, cross=whole is not None)
        if layer in by_layer:
            raise UserError(f"two transcoders read layer {layer}: give one per layer")
        by_layer[layer] = dictionary
    return Transcoders(_in_order(anatomy, by_layer), whole)


def _in_order(anatomy: Anatomy, by_layer: Mapping[int, Dictionary]) -> tuple[Dictionary, ...]:
    """One for each layer, on the model's device."""
    missing = [layer for layer in range(anatomy.n_layers) if layer not in by_layer]
    if missing:
        raise UserError(
            f"layer {missing[0]} has no transcoder ({len(missing)} of {anatomy.n_layers} layers have none): "
            "an attribution graph replaces every MLP, give one for each"
        )
    return tuple(_on(by_layer[layer], anatomy) for layer in range(anatomy.n_layers))


def _check_one(anatomy: Anatomy, dictionary: Dictionary, *, cross: bool) -> int:
    name, out = dictionary.hook_name, dictionary.hook_name_out
    layer = layer_of(name)
    if out is None:
        raise UserError(
            f"the dictionary of {name!r} is an autoencoder: an attribution graph needs transcoders, which read an "
            "MLP's input and reconstruct its output"
        )
    if layer_of(out) != layer or layer >= anatomy.n_layers:
        raise UserError(
            f"the transcoder of {name!r} reconstructs {out!r}: both hooks must be of one layer of this model, 0 to "
            f"{anatomy.n_layers - 1}"
        )
    wide = (dictionary.d_in, dictionary.d_out)
    if dictionary.d_in != anatomy.d_model or (not cross and dictionary.d_out != anatomy.d_model):
        raise UserError(
            f"the transcoder of {name!r} maps {wide[0]} to {wide[1]} columns and the model's stream has "
            f"{anatomy.d_model}: use the model that it was trained on"
        )
    return layer


def _check_model(anatomy: Anatomy, dictionaries: Sequence[Dictionary]) -> None:
    known = {d.hook_name: d.metadata.get("model_hash") for d in dictionaries}
    if not any(known.values()):
        return
    ours = model_hash(anatomy.model)
    for hook, theirs in known.items():
        if theirs and theirs != ours:
            raise UserError(
                f"the dictionary of {hook!r} was trained on a model with weights {str(theirs)[:12]} and this one's are "
                f"{ours[:12]}: use the model that it was trained on"
            )


def _on(dictionary: Dictionary, anatomy: Anatomy) -> Dictionary:
    if dictionary.W_enc.device == anatomy.device:
        return dictionary
    known = {f.name for f in fields(dictionary) if f.init}
    tensors = {name: t.to(anatomy.device) for name, t in dictionary.tensors.items() if name in known}
    return replace(dictionary, **tensors)


def _active(layer: int, code: tuple[Tensor, Tensor], first_pos: int) -> Active:
    """Entries that are not 0, by position and latent."""
    indices, values = code
    row, place = (values != 0).nonzero(as_tuple=True)
    latent, value = indices[row, place], values[row, place]
    order = (row * (int(latent.max()) + 1 if len(latent) else 1) + latent).argsort()
    return Active(torch.full_like(row, layer), row[order] + first_pos, latent[order], value[order])


def _split(whole: CrossLayerDictionary, code: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
    size, (indices, values) = whole.layers[0].d_sae, code
    owner = indices // size
    return [
        (indices % size, torch.where(owner == layer, values, torch.zeros_like(values)))
        for layer in range(len(whole.layers))
    ]
