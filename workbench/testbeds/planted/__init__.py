"""Planted features: activations whose true directions, values and support are known.

features = planted_features(n_features=2048, d=256, mean_l0=8.0, exponent=1.0)
block = features.block(0, 4096)                 # rows, and the code that they were made from
store = plant(run, features, n_rows=1_000_000)  # the same rows as a store that can be trained on

A dictionary trained on them is right where it has these directions. The control is `shuffled=True`: every
column is permuted by itself, so that all marginals stay and no direction is left; what "finds" the features
there is broken. `planted_setting("absorbed")` makes the features of a named setting: Zipf, correlated,
hierarchical, absorbed, neurons.
"""

from workbench.testbeds.planted.features import Block, PlantedFeatures, planted_features
from workbench.testbeds.planted.settings import SETTINGS, planted_setting
from workbench.testbeds.planted.store import plant

__all__ = ["SETTINGS", "Block", "PlantedFeatures", "plant", "planted_features", "planted_setting"]
