"""Layouts: which activations a dictionary reads and which it reconstructs, whatever its architecture."""

from workbench.dictionaries.layouts.base import Layout
from workbench.dictionaries.layouts.cross_layer import CrossLayer
from workbench.dictionaries.layouts.crosscoder import Crosscoder
from workbench.dictionaries.layouts.single import Single

__all__ = ["CrossLayer", "Crosscoder", "Layout", "Single"]
