"""The planted settings of a comparison of dictionaries, each at a small and at a full size.

    zipf           independent features of very different frequency, more of them than dimensions
    correlated     as many, in groups of four that are active together
    hierarchical   parents with four exclusive children each, at right angles; a child implies its parent
    absorbed       parents with one child each and values of exactly 1: to merge the child with its parent costs no
                   reconstruction and saves a latent, so every sparsity penalty pulls towards absorption
    neurons        features that stand on a few columns each with positive entries, half as many as there are
                   columns; no row has a negative number, as behind a ReLU. Permuted columns stay sparse each by itself,
                   so a feature that stands mostly on one of them is found in the control too, about one in six

The hierarchy is that of 8 parents, 4 children and 64 dimensions at a mean of 1.92 features per row, on which flat
BatchTopK is known to absorb. The number of latents of a dictionary is the number of features, so that a dead
latent is a loss, and k is the mean number of features per row, rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.errors import UserError, nearest
from workbench.testbeds.planted.features import PlantedFeatures, planted_features

SIZES = ("small", "full")
_TREE = {"support": "hierarchical", "exponent": 0.0, "orthonormal": True}
_ABSORBED = {**_TREE, "mean_l0": 2.0, "n_children": 1, "child_frac": 0.5, "spread": 0.0}
SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "zipf": {
        "small": {"n_features": 32, "d": 24, "mean_l0": 3.0},
        "full": {"n_features": 128, "d": 64, "mean_l0": 4.0},
    },
    "correlated": {
        "small": {"n_features": 32, "d": 24, "mean_l0": 3.0, "support": "correlated", "exponent": 0.5},
        "full": {"n_features": 128, "d": 64, "mean_l0": 4.0, "support": "correlated", "exponent": 0.5},
    },
    "hierarchical": {
        "small": {"n_features": 20, "d": 24, "mean_l0": 1.92, **_TREE},
        "full": {"n_features": 40, "d": 64, "mean_l0": 1.92, **_TREE},
    },
    "absorbed": {
        "small": {"n_features": 20, "d": 24, **_ABSORBED},
        "full": {"n_features": 40, "d": 64, **_ABSORBED},
    },
    "neurons": {
        "small": {"n_features": 12, "d": 24, "mean_l0": 3.0, "exponent": 0.5, "neurons": 2},
        "full": {"n_features": 32, "d": 64, "mean_l0": 4.0, "exponent": 0.5, "neurons": 4},
    },
}  # fmt: skip
NOISE = 0.01


def planted_setting(name: str, *, size: str = "full", seed: int = 0) -> PlantedFeatures:
    """The planted features of a setting.

    Args:
        name: In `SETTINGS`.
        size: "small" or "full".
        seed: Decides directions and rows.

    Raises:
        UserError: the name or the size is not known.
    """
    if name not in SETTINGS:
        raise UserError(f"planted setting {name!r} is not known; {nearest(name, SETTINGS)}")
    if size not in SIZES:
        raise UserError(f"size {size!r} of a planted setting is not known; {nearest(size, SIZES)}")
    return planted_features(**SETTINGS[name][size], noise=NOISE, seed=seed)
