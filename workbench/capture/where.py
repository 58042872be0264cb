"""Where a run keeps its activations, and how a store that is there is opened.

With a shared folder of stores, `run/activations` is a link to `<stores>/<hash of the row index>`: two runs
with the same text and filters share rows, and every hook is captured once for both.
"""

from __future__ import annotations

import os
from pathlib import Path

from workbench.artifacts import sha256_json
from workbench.errors import UserError
from workbench.store import ROWS, ActivationStore, Origin, StoreError

ACTIVATIONS = "activations"


def store_folder(run: Path, hook: str) -> Path:
    """Where a run keeps the activations of `hook`."""
    return run / ACTIVATIONS / hook


def activations_folder(run: Path, stores: str | Path | None, rows: Origin) -> Path:
    """The folder of a run's stores; made a link where runs share them.

    Raises:
        UserError: the run has activations of its own, or a link to others.
    """
    own = run / ACTIVATIONS
    if stores is None:
        return own
    shared = Path(stores) / sha256_json(dict(rows.description))[:16]
    shared.mkdir(parents=True, exist_ok=True)
    if not own.exists() and not own.is_symlink():
        run.mkdir(parents=True, exist_ok=True)
        own.symlink_to(os.path.relpath(shared, run.resolve()), target_is_directory=True)
    elif own.resolve() != shared.resolve():
        raise UserError(
            f"run {str(run)!r} has other activations already ({str(own.resolve())!r}, not {str(shared)!r}): use "
            "another run folder or delete them"
        )
    return own


def captured_hooks(run: Path) -> list[str]:
    """The hooks that a run has a store of, finished or not."""
    found = sorted(p.parent.name for p in (run / ACTIVATIONS).glob("*/manifest.json"))
    return [name for name in found if name != ROWS]


def open_store(run: Path, hook: str | None = None) -> ActivationStore:
    """The store of `hook`, or the run's only one.

    Raises:
        UserError: there is none, there are several and no hook was named, or it is damaged or incomplete.
    """
    made = captured_hooks(run)
    if hook is None and len(made) == 1:
        hook = made[0]
    if hook is None or hook not in made:
        what = (
            f"run {str(run)!r}: name a hook"
            if hook is None
            else f"hook {hook!r} was not captured in run {str(run)!r}"
        )
        raise UserError(
            f"{what}; captured: {', '.join(made)}" if made else f"run {str(run)!r}: capture first"
        )
    try:
        return ActivationStore.open(store_folder(run, hook))
    except StoreError as error:
        raise UserError(str(error)) from error
