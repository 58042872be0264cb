"""The browser half of a panel: plain files in `widgets/<panel>/`, no bundler, no remote URL.

They lie in the checkout where there is one and in the wheel otherwise (`workbench.assets` decides).
"""

from __future__ import annotations

from pathlib import Path

from workbench.assets import asset_folder
from workbench.errors import UserError, nearest


def panel_names() -> list[str]:
    """The panels that have a browser half."""
    return sorted(path.parent.name for path in asset_folder("widgets").glob("*/panel.js"))


def asset(panel: str, name: str) -> Path:
    """Path of one asset, for instance `asset("feature_card", "panel.js")`.

    Raises:
        UserError: If there is no such panel, or it has no such file.
    """
    names = panel_names()
    if not names:
        raise UserError(
            "the panels' browser files (widgets/) are missing from this installation: reinstall workbench"
        )
    if panel not in names:
        raise UserError(f"panel {panel!r} does not exist; {nearest(panel, names)}")
    path = asset_folder("widgets") / panel / name
    if not path.is_file():
        files = sorted(p.name for p in path.parent.iterdir())
        raise UserError(f"panel {panel!r} has no file {name!r}; {nearest(name, files)}")
    return path
