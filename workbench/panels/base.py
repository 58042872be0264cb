"""What every panel has in common: traits are the whole state, and an unknown trait is refused.

A panel is an anywidget: a Python object whose synced traits are mirrored in the browser, where
`widgets/<panel>/panel.js` draws them. Because the traits are the whole state, the same module draws a panel
live in JupyterLab and frozen in a report: `Panel.freeze()` gives the state that a page needs when there is
no Python to ask. Nothing is computed here; a panel only shows what the workbench computed.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import anywidget

from workbench.errors import UserError, nearest
from workbench.panels.assets import asset


class Panel(anywidget.AnyWidget):
    """Base of the panels. A subclass names its folder in `widgets/` and declares synced traits."""

    panel: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        if "panel" in cls.__dict__:  # not in the subclasses that ipywidgets makes to add traits
            cls._esm, cls._css = asset(cls.panel, "panel.js"), asset(cls.panel, "panel.css")
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any) -> None:
        known = self.own_traits()
        for name in traits:
            if name not in known:
                label = f"{type(self).__name__} has no trait {name!r}"
                raise UserError(f"{label}; its traits: {', '.join(known)}; {nearest(name, known)}")
        super().__init__(**traits)

    @classmethod
    def own_traits(cls) -> list[str]:
        """Names of the synced traits that this panel declares, the widget machinery's left out."""
        inherited = set(anywidget.AnyWidget.class_trait_names())
        return sorted(
            name for name in cls.class_trait_names(sync=True) if name not in inherited and name[0] != "_"
        )

    def freeze(self) -> dict[str, Any]:
        """The state that draws this panel with no kernel: JSON values, and `bytes` for binary traits."""
        return {name: copy.deepcopy(getattr(self, name)) for name in self.own_traits()}
