"""Panels: anywidgets that draw a run live in JupyterLab and, frozen, in the offline report.

    from workbench.panels import FeatureCard, CircuitGraph

The browser half of each panel is `widgets/<panel>/panel.js`, a plain ES module without remote imports.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CircuitGraph": "workbench.panels.circuit_graph",
    "FeatureCard": "workbench.panels.feature_card",
    "Panel": "workbench.panels.base",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
