"""Where a dictionary reads and where it writes: the hook points of its columns.

autoencoder   reads and writes one hook
transcoder    reads one hook, writes another
crosscoder    reads and writes several, side by side in its columns
cross-layer   reads several, writes as many others
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries import Dictionary, Site
from workbench.dictionaries.cross_layer import CrossLayerDictionary


@dataclass(frozen=True)
class Ends:
    """Hook points of the columns.

    Attributes:
        inputs: What is read, in the order of the input's columns.
        targets: What is reconstructed, in the order of the output's columns.
    """

    inputs: tuple[Site, ...]
    targets: tuple[Site, ...]

    @property
    def hooks(self) -> tuple[str, ...]:
        """All of them, each once, the inputs first."""
        return tuple(dict.fromkeys(site.name for site in (*self.inputs, *self.targets)))

    @property
    def two_models(self) -> bool:
        """Whether they are hook points of two models (`model:hook`), so that there is no one model to splice into."""
        return any(":" in name for name in self.hooks)

    @property
    def same(self) -> bool:
        """Whether the target is the input."""
        return self.inputs == self.targets

    def split(self, y: Float[Tensor, "row d_out"]) -> dict[str, Tensor]:
        """The columns of each target, by hook."""
        parts = y.split([site.width for site in self.targets], dim=1)
        return {site.name: part for site, part in zip(self.targets, parts, strict=True)}


def ends_of(dictionary: Dictionary) -> Ends:
    """Where a dictionary reads and writes."""
    if isinstance(dictionary, CrossLayerDictionary):
        return Ends(dictionary.sites, dictionary.sites_out)
    if dictionary.sites:
        return Ends(dictionary.sites, dictionary.sites)
    source = Site(dictionary.hook_name, dictionary.d_in)
    if not dictionary.is_transcoder:
        return Ends((source,), (source,))
    return Ends((source,), (Site(str(dictionary.hook_name_out), dictionary.d_out),))
