"""Where a run folder lies, for notebooks, whose kernels start in the folder of the notebook."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.errors import UserError


def find_run(run: str | Path) -> Path:
    """The run folder `run`: as given, in the folder above, or where JupyterLab was started.

    Raises:
        UserError: there is no such folder in any of these places.
    """
    places = [Path.cwd(), Path.cwd().parent, Path(os.environ.get("PWD", "."))]
    for place in places:
        if (place / run).is_dir():
            return place / run
    advice = "make it with `workbench demo` (a few minutes), or set `run` to a run folder that you have"
    raise UserError(f"run {str(run)!r} does not exist here: {advice}")
