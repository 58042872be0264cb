"""Cross-layer transcoder: each layer's latents are read at that layer and write to it and to all later ones.

    z^l = sigma(x^l W_enc^l + b_enc^l),   y_hat^t = sum_{l <= t} z^l W_dec^{l -> t} + b_dec^t

`sites` are the inputs of the L layers and `sites_out` their targets, in the order of the model. d_sae counts
the latents of all layers and k those that are active in all of them, so L divides both; latents are numbered
layer after layer. W_dec.l (d_sae / L, columns of the targets l, l + 1, ...) holds layer l's rows for all its
targets side by side: no zero block is stored or multiplied. A row's length is that of the whole, over all
targets, for the unit constraint as for penalties.

What selects. TopK and GroupMax take k / L latents of every layer, so that a layer's code depends on its own
activation only and exists before the later layers are run. BatchTopK compares all layers of a batch: within a
training the number of latents finds its own share per layer, and the threshold that is exported is again a
rule of one latent. AuxK takes its dead latents in equal numbers from the layers. A prefix (Matryoshka) is the
same share of every layer's latents.

Differences from published ones: encoder columns start with unit length, decoder rows unit or 0.1 as a whole
(published: uniform within 1/sqrt(d_sae) and 1/sqrt(L d)), and targets count by columns, each site normalised.

Reference: Ameisen et al. 2025, "Circuit Tracing" (Transformer Circuits).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from workbench.dictionaries.base import Code, Dictionary, Site
from workbench.dictionaries.cross_layer import CrossLayerDictionary
from workbench.dictionaries.initialise import centre_of, start_weights
from workbench.dictionaries.layouts.base import Folded, Initialisation, Kernel, Layout, Parameters
from workbench.dictionaries.layouts.joint import by_layer, joined, jointly_largest
from workbench.dictionaries.layouts.single import rescaled
from workbench.dictionaries.normalise import Affine
from workbench.errors import UserError
from workbench.kernels import batch_topk_encode, decode_loss, sparse_decode

if TYPE_CHECKING:
    from workbench.dictionaries.trainee import Trainee


@dataclass(frozen=True, kw_only=True)
class CrossLayer(Layout):
    """L sites in, L targets out, each target written by its own layer and the earlier ones."""

    def __post_init__(self) -> None:
        if not self.sites or len(self.sites) != len(self.sites_out):
            raise UserError(
                f"a cross-layer transcoder reads {len(self.sites)} hooks and writes {len(self.sites_out)}: give as "
                "many in hook_out as in hook, layer by layer"
            )

    @property
    def kind(self) -> str:
        """Its name in `train`."""
        return "cross_layer_transcoder"

    @property
    def centred(self) -> bool:
        """No: inputs and targets are different activations."""
        return False

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.sites)

    @property
    def decoders(self) -> tuple[str, ...]:
        """One per layer."""
        return tuple(f"W_dec.{layer}" for layer in range(self.n_layers))

    def share(self, name: str, number: int) -> int:
        """A number of latents per layer.

        Raises:
            UserError: the layers do not divide it.
        """
        if number % self.n_layers:
            raise UserError(
                f"{name} {number} is not a multiple of the {self.n_layers} layers: it counts the latents of all of them"
            )
        return number // self.n_layers

    def first_columns(self, sites: tuple[Site, ...]) -> list[int]:
        """Where each site's columns begin, and the end of the last."""
        return [0, *accumulate(site.width for site in sites)]

    def initialise(
        self,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        d_sae: int,
        start: Initialisation,
        generator: torch.Generator,
        *,
        unit_decoder: bool,
    ) -> dict[str, Tensor]:
        """A transcoder per layer from its site to the targets from its own on; b_dec the centre of the targets."""
        size, weights = self.share("d_sae", d_sae), {"b_dec": centre_of(y, start.bias)}
        start, centred, biases = Initialisation(**{**vars(start), "tied": False}), y - weights["b_dec"], []
        for layer, (own, column) in enumerate(self._layers(x)):
            mean = own.mean(0)
            W_enc, W_dec = start_weights(
                own - mean, centred[:, column:], size, start, generator, unit_decoder=unit_decoder
            )
            weights |= {f"W_enc.{layer}": W_enc, f"W_dec.{layer}": W_dec}
            biases.append(-(mean @ W_enc))
        return {**weights, "b_enc": torch.cat(biases)}

    def _layers(self, x: Float[Tensor, "row d_in"]) -> Iterator[tuple[Tensor, int]]:
        """Input of each layer, and where its targets begin."""
        inputs = x.split([site.width for site in self.sites], dim=1)
        return zip(inputs, self.first_columns(self.sites_out)[:-1], strict=True)

    def encode(
        self,
        kernel: Kernel,
        p: Parameters,
        x: Float[Tensor, "row d_in"],
        *,
        bias: str = "b_enc",
        per_latent: Mapping[str, Tensor] | None = None,
        among: Int64[Tensor, " candidate"] | None = None,
        **options: Any,
    ) -> Code:
        """The kernel on each layer's encoder; BatchTopK keeps the largest of all layers together."""
        size, codes = len(p[bias]) // self.n_layers, []
        joint = kernel is batch_topk_encode
        for layer, (own, _) in enumerate(self._layers(x)):
            at = slice(layer * size, (layer + 1) * size)
            here = {name: tensor[at] for name, tensor in (per_latent or {}).items()}
            if among is not None:
                codes.append(self._among(kernel, p, own, p[bias][at], among - at.start, layer, options["k"]))
                continue
            if "k" in options:
                k = min(float(options["k"]), float(size)) if joint else self.share("k", options["k"])
                here = {**here, "k": k}
            codes.append(self._call(kernel, p, own, p[bias][at], layer, {**options, **here}))
        return joined(jointly_largest(codes, round(len(x) * options["k"])) if joint else codes, size)

    def _call(
        self, kernel: Kernel, p: Parameters, x: Tensor, b_enc: Tensor, layer: int, options: Mapping[str, Any]
    ) -> Code:
        W_enc = p[f"W_enc.{layer}"]
        return kernel(x, W_enc, b_enc, W_enc.new_zeros(len(W_enc)), **options)

    def _among(
        self,
        kernel: Kernel,
        p: Parameters,
        x: Tensor,
        b_enc: Tensor,
        latents: Int64[Tensor, " candidate"],
        layer: int,
        k: int,
    ) -> Code:
        """The layer's share of k among those of the latents that are its own."""
        own = latents[(latents >= 0) & (latents < len(b_enc))]
        if not len(own):
            return torch.zeros(len(x), 1, dtype=torch.int64, device=x.device), x.new_zeros(len(x), 1)
        k = min(-(-k // self.n_layers), len(own))
        return self._call(kernel, p, x, b_enc, layer, {"k": k, "among": own})

    def decode(self, p: Parameters, code: Code) -> Float[Tensor, "row d_out"]:
        """Sum over layers of what each writes to its targets, without b_dec."""
        size, firsts = len(p["W_dec.0"]), self.first_columns(self.sites_out)
        total = None
        for layer, own in enumerate(by_layer(code, self.n_layers, size)):
            written = sparse_decode(*own, p[f"W_dec.{layer}"])
            total = written if total is None else total + functional.pad(written, (firsts[layer], 0))
        assert total is not None
        return total

    def squared_errors(
        self,
        p: Parameters,
        code: Code,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        prefixes: Sequence[int],
    ) -> tuple[Float[Tensor, " prefix"], Float[Tensor, "row d_out"]]:
        """As of any layout; one layer alone is a transcoder, in the same operations."""
        if self.n_layers > 1:
            return super().squared_errors(p, code, x, y, prefixes)
        (own,) = by_layer(code, 1, len(p["W_dec.0"]))
        return decode_loss(*own, p["W_dec.0"], p["b_dec"], y, prefixes=prefixes)

    def offset(self, p: Parameters, x: Float[Tensor, "row d_in"]) -> Float[Tensor, ...]:
        """b_dec."""
        return p["b_dec"]

    def in_prefix(
        self, indices: Int64[Tensor, "row width"], prefix: int, d_sae: int
    ) -> Bool[Tensor, "row width"]:
        """Whether a latent is among the same share of its own layer's latents."""
        return indices % (d_sae // self.n_layers) * self.n_layers < prefix

    def latent_norms(self, p: Parameters) -> Float[Tensor, " d_sae"]:
        """Length of each latent's decoder row over all its targets."""
        return torch.cat([p[name].norm(dim=1) for name in self.decoders])

    @torch.no_grad()
    def fold(self, p: Parameters, inputs: Affine, outputs: Affine, *, rescalable: bool) -> Folded:
        """Raw weights: each layer as the transcoder that it is."""
        ins, outs = self.first_columns(self.sites), self.first_columns(self.sites_out)
        b_dec = outputs.directions(p["b_dec"].detach().double().unsqueeze(0))[0] + outputs.mean
        size, weights, folded = len(p["W_dec.0"]), {"b_dec": b_dec.float()}, []
        for layer in range(self.n_layers):
            read, written = inputs.part(*ins[layer : layer + 2]), outputs.part(outs[layer], outs[-1])
            W_enc = read.pull_back(p[f"W_enc.{layer}"].detach().double())
            b_enc = p["b_enc"].detach()[layer * size : (layer + 1) * size].double() - read.mean @ W_enc
            raw = {"W_enc": W_enc, "b_enc": b_enc}
            raw["W_dec"] = written.directions(p[f"W_dec.{layer}"].detach().double())
            folded.append(rescaled(raw, written, rescalable=rescalable))
            weights |= {f"{name}.{layer}": folded[-1].weights[name] for name in ("W_enc", "W_dec")}
        weights["b_enc"] = torch.cat([part.weights["b_enc"] for part in folded])
        return Folded(weights, torch.cat([part.gauge for part in folded]))

    def freeze(self, trainee: Trainee, folded: Folded, **about: Any) -> Dictionary:
        """One frozen transcoder per layer, by the rule of the architecture, in one dictionary."""
        layers = tuple(self._frozen(trainee, folded, layer) for layer in range(self.n_layers))
        about["metadata"] = {**about.get("metadata", {}), **layers[0].metadata}
        return CrossLayerDictionary(layers=layers, sites=self.sites, sites_out=self.sites_out, **about)

    def _frozen(self, trainee: Trainee, folded: Folded, layer: int) -> Dictionary:
        """What the architecture makes of one layer; b_dec of a target belongs to the target's own layer."""
        d_sae = trainee.architecture.d_sae
        size, columns = d_sae // self.n_layers, self.first_columns(self.sites_out)
        at = slice(layer * size, (layer + 1) * size)
        b_dec = folded.weights["b_dec"][columns[layer] :].clone()
        b_dec[self.sites_out[layer].width :] = 0
        weights = {name: folded.weights[f"{name}.{layer}"] for name in ("W_enc", "W_dec")}
        weights |= {"b_enc": folded.weights["b_enc"][at], "b_dec": b_dec}
        one, rule = copy.copy(trainee), copy.copy(trainee.architecture)
        one.parameters = {
            name: t[at] if _per_latent(t, d_sae) else t for name, t in trainee.parameters.items()
        }
        one.buffers = {name: t[at] if _per_latent(t, d_sae) else t for name, t in trainee.buffers.items()}
        object.__setattr__(rule, "d_sae", size)
        object.__setattr__(rule, "k", max(1, rule.k // self.n_layers))
        one.architecture = rule
        return rule.freeze(
            one, weights, folded.gauge[at], hook_name=self.sites[layer].name,
            hook_name_out=self.sites_out[layer].name, centred=False, sites=(), metadata={},
        )  # fmt: skip


def _per_latent(tensor: Tensor, d_sae: int) -> bool:
    return tensor.ndim == 1 and len(tensor) == d_sae
