"""One of each layout, with weights and normalisations as a training would leave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from workbench.dictionaries import Trainee, make_architecture
from workbench.dictionaries.base import Site
from workbench.dictionaries.layouts import Crosscoder, CrossLayer, Layout, Single

SITES, TARGETS = (Site("a", 5), Site("b", 7)), (Site("c", 6), Site("d", 4))
LAYOUTS: dict[str, Callable[[], Layout]] = {
    "autoencoder": lambda: Single(d_in=12, d_out=12),
    "transcoder": lambda: Single(d_in=12, d_out=10, transcodes=True),
    "skip_transcoder": lambda: Single(d_in=12, d_out=10, transcodes=True, skip=True),
    "crosscoder": lambda: Crosscoder(d_in=12, d_out=12, sites=SITES),
    "cross_layer_transcoder": lambda: CrossLayer(d_in=12, d_out=10, sites=SITES, sites_out=TARGETS),
}
D_SAE, K = 24, 4


def sample(n_rows: int = 400, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets of unequal columns with means."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    x = x + 3 * torch.randn(12, generator=generator)
    y = (x.relu() @ torch.randn(12, 10, generator=generator)) * 5 - 2
    return x, y


def rows_for(layout: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """What a trainee of the layout takes."""
    return x, None if layout in ("autoencoder", "crosscoder") else y


@pytest.fixture
def make() -> Callable[..., Trainee]:
    """A trainee of a layout, its parameters moved away from where they start."""

    def made(
        layout: str,
        architecture: str = "topk",
        *,
        normalise: str = "spread",
        moved: float = 0.2,
        settings: Mapping[str, Any] | None = None,
    ) -> Trainee:
        rule = make_architecture(
            architecture, {"d_sae": D_SAE, "k": K, "dead_after_tokens": 100}, settings or {}
        )
        trainee = Trainee.initialise(
            rule, LAYOUTS[layout](), *rows_for(layout, *sample()),
            normalise=normalise, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        noise = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in trainee.parameters.values():
                parameter.add_(moved * torch.randn(parameter.shape, generator=noise))
        trainee.constrain()
        return trainee

    return made
