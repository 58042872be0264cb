"""Where the shipped files lie: notebooks, data, widgets.

In a checkout they are the folders beside the package, in an installed wheel they are copies inside it.
The checkout comes first, because an editable install also leaves copies, which would be stale.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = {"data": "_data", "notebooks": "_notebooks", "widgets": "panels/_static"}


def asset_folder(name: str) -> Path:
    """The folder `data`, `notebooks` or `widgets` of this checkout, else of this installation."""
    beside = PACKAGE.parent / name
    in_checkout = (PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir()
    return beside if in_checkout else PACKAGE / INSTALLED[name]
