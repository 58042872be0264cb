"""What a training leaves: the dictionary, whole or absent, and nothing that belonged to an older one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary
from workbench.training.checkpoint import difference
from workbench.training.source import Source
from workbench.training.step import Trainer

CONFIG = "cfg.json"
CHECKPOINTS = "checkpoints"


def finished(folder: Path, identity: Mapping[str, Any]) -> Dictionary | None:
    """The dictionary that these options made before, if it is still there."""
    if not (folder / CONFIG).exists():
        return None
    found = load_dictionary(folder)
    if difference(found.metadata.get("identity", {}), identity) is not None:
        return None
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return found


def finish(trainer: Trainer, source: Source, folder: Path, identity: Mapping[str, Any]) -> Dictionary:
    """Write the dictionary, drop what belonged to an older one and the checkpoints, and read it back.

    The configuration goes first and comes last, so that it never stands beside weights of another training.
    """
    for name in ("evaluation.json", CONFIG):
        (folder / name).unlink(missing_ok=True)
    made = trainer.export(
        hook_name=source.hook_name,
        hook_name_out=source.hook_name_out,
        metadata=metadata(trainer, source, identity),
    )
    save_dictionary(made, folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return load_dictionary(folder)


def metadata(trainer: Trainer, source: Source, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the weights."""
    description = source.description
    return {
        "identity": dict(identity),
        "store": source.hash,
        "model": description.get("model"),
        "model_hash": description.get("model_hash"),
        "precision": description.get("precision"),
        "n_ctx": source.n_ctx,
        "input_scale": trainer.trainee.inputs.uniform,
    }
