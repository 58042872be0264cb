"""The frozen cross-layer transcoder: one transcoder per layer, from its site to its own and all later targets.

    indices, values = dictionary.encode(x)      x (row, columns of all sites), latents numbered layer after layer
    y_hat = dictionary.decode(indices, values)  (row, columns of all targets)

Each layer is a frozen dictionary by itself (`layers[l]`), whose b_dec is that of its own target and 0 for the
later ones, so that the sum over layers is the whole reconstruction. There is no one W_enc or W_dec: whoever
needs them asks a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from workbench.dictionaries.base import Code, Dictionary, Site
from workbench.errors import UserError


class CrossLayerDictionary(Dictionary):
    """Frozen transcoders of consecutive layers that write to later layers too.

    Attributes:
        layers: The transcoder of each layer.
        sites: What the layers read, in the columns of the input.
        sites_out: Their targets, in the columns of the reconstruction.
    """

    architecture: ClassVar[str] = "cross_layer_transcoder"
    layers: tuple[Dictionary, ...]
    sites_out: tuple[Site, ...]

    def __init__(
        self,
        *,
        layers: Sequence[Dictionary],
        sites: Sequence[Site],
        sites_out: Sequence[Site],
        hook_name: str,
        hook_name_out: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        given = {
            "layers": tuple(layers), "sites": tuple(sites), "sites_out": tuple(sites_out), "centred": False,
            "W_skip": None, "hook_name": hook_name, "hook_name_out": hook_name_out, "metadata": dict(metadata or {}),
        }  # fmt: skip
        for name, value in given.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        ends = [*accumulate(site.width for site in self.sites_out[::-1])][::-1]
        found = [(layer.d_in, layer.d_out, layer.d_sae) for layer in self.layers]
        size = found[0][2] if found else 0
        wanted = [(site.width, end, size) for site, end in zip(self.sites, ends, strict=False)]
        if not found or found != wanted or len(self.sites) != len(self.sites_out):
            raise UserError(
                f"layers of (d_in, d_out, d_sae) {found} are not those of a cross-layer transcoder, {wanted}: give one "
                "per site, each writing to its own target and all later ones"
            )

    def __repr__(self) -> str:
        return f"CrossLayerDictionary({len(self.layers)} layers of {self.layers[0].d_sae} latents)"

    def _no_single(self, name: str) -> Tensor:
        raise UserError(
            f"a cross-layer transcoder has no single {name}: take that of a layer, layers[0].{name}"
        )

    @property
    def W_enc(self) -> Tensor:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]
        """Refused: each layer has its own."""
        return self._no_single("W_enc")

    @property
    def W_dec(self) -> Tensor:  # noqa: N802  # pyright: ignore[reportIncompatibleVariableOverride]
        """Refused: each layer has its own."""
        return self._no_single("W_dec")

    @property
    def b_enc(self) -> Float[Tensor, " d_sae"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Encoder biases of all layers."""
        return torch.cat([layer.b_enc for layer in self.layers])

    @property
    def b_dec(self) -> Float[Tensor, " d_out"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Added to the targets."""
        pairs = zip(self.layers, self.sites_out, strict=True)
        return torch.cat([layer.b_dec[: site.width] for layer, site in pairs])

    @property
    def d_in(self) -> int:
        """Columns of all sites."""
        return sum(site.width for site in self.sites)

    @property
    def d_out(self) -> int:
        """Columns of all targets."""
        return sum(site.width for site in self.sites_out)

    @property
    def d_sae(self) -> int:
        """Latents of all layers."""
        return sum(layer.d_sae for layer in self.layers)

    @property
    def settings(self) -> dict[str, Any]:
        """Rule and settings of the layers."""
        return {
            "n_layers": len(self.layers),
            "layer_architecture": self.layers[0].architecture,
            "layer_settings": [layer.settings for layer in self.layers],
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights of layer l as `l.name`."""
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            for name, tensor in layer.tensors.items()
        }

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        settings: Mapping[str, Any],
        *,
        sites: Sequence[Site],
        sites_out: Sequence[Site],
        hook_name: str,
        hook_name_out: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CrossLayerDictionary:
        """The dictionary whose `tensors` and `settings` these are.

        Raises:
            UserError: the rule of the layers is not known, or a shape does not fit the sites.
        """
        from workbench.dictionaries.registry import find_frozen

        rule, layers = find_frozen(str(settings["layer_architecture"])), []
        for number in range(int(settings["n_layers"])):
            start = f"{number}."
            own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            about: dict[str, Any] = {"hook_name": sites[number].name, "hook_name_out": sites_out[number].name}
            layers.append(rule(**own, **settings["layer_settings"][number], **about, centred=False))
        return cls(
            layers=layers, sites=sites, sites_out=sites_out, hook_name=hook_name, hook_name_out=hook_name_out,
            metadata=metadata,
        )  # fmt: skip

    def with_layers(self, layers: Sequence[Dictionary], metadata: Mapping[str, Any]) -> CrossLayerDictionary:
        """The same sites with other weights."""
        return CrossLayerDictionary(
            layers=layers, sites=self.sites, sites_out=self.sites_out, hook_name=self.hook_name,
            hook_name_out=self.hook_name_out, metadata=metadata,
        )  # fmt: skip

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "row d_in"]) -> Code:
        """The codes of all layers in the order of the layers; zeros stand last.

        Raises:
            UserError: the rows are not d_in wide.

        Status: exact.
        """
        from workbench.dictionaries.layouts.joint import joined, zeros_last

        self.check_width(x.shape[1])
        inputs = x.split([site.width for site in self.sites], dim=1)
        codes = [layer.encode(own) for layer, own in zip(self.layers, inputs, strict=True)]
        return zeros_last(joined(codes, self.layers[0].d_sae))

    def decode(
        self, indices: Int64[Tensor, "row width"], values: Float[Tensor, "row width"]
    ) -> Float[Tensor, "row d_out"]:
        """What a code stands for at all targets, biases included. Status: exact."""
        from workbench.dictionaries.layouts.joint import by_layer

        codes = by_layer((indices, values), len(self.layers), self.layers[0].d_sae)
        total = self.layers[0].decode(*codes[0])
        for layer, code in zip(self.layers[1:], codes[1:], strict=True):
            total[:, self.d_out - layer.d_out :] += layer.decode(*code)
        return total
