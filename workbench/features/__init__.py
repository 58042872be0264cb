"""The feature store: what every latent of a dictionary fires on and what it writes.

`build_features` is the stage of a run; `FeatureStore` reads what it wrote. In reading order: `reading.py` (the
pass), `firings.py`, `statistics.py`, `sketch.py` and `examples.py` (what the pass accumulates), `codes.py`
(contexts), `effects.py` (from weights), `control.py`, `tables.py` (files), `build.py`, `store.py`.
"""

from workbench.features.build import build_features
from workbench.features.control import measure_control
from workbench.features.effects import (
    FinalNorm,
    decoder_neighbours,
    final_norm,
    logit_effects,
    residual_directions,
)
from workbench.features.store import Example, FeatureStore, LogitEffects

__all__ = [
    "Example",
    "FeatureStore",
    "FinalNorm",
    "LogitEffects",
    "build_features",
    "decoder_neighbours",
    "final_norm",
    "logit_effects",
    "measure_control",
    "residual_directions",
]
