"""Dictionaries on disk, in the layouts of three tools; a folder is recognised by its files.

    saelens               cfg.json, sae_weights.safetensors     every architecture; what a run holds
    sparsify              cfg.json, sae.safetensors             TopK and GroupMax of one width
    dictionary_learning   config.json, ae.pt                    ReLU, Gated, TopK, JumpReLU of one width, no skip

Other tools' files are read as weights for raw activations; what cannot be one exactly is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import NamedTuple

from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.dictionary_learning import (
    read_dictionary_learning,
    write_dictionary_learning,
)
from workbench.dictionaries.formats.saelens import (
    read_firing_rates,
    read_saelens,
    write_firing_rates,
    write_saelens,
)
from workbench.dictionaries.formats.sparsify import read_sparsify, write_sparsify
from workbench.errors import UserError, nearest

__all__ = [
    "FORMATS",
    "format_of",
    "load_dictionary",
    "read_firing_rates",
    "save_dictionary",
    "write_firing_rates",
]


class Format(NamedTuple):
    """A layout: the file that it is recognised by, and what writes and reads it."""

    weights: str
    write: Callable[[Dictionary, Path], None]
    read: Callable[[Path], Dictionary]


FORMATS = {
    "saelens": Format("sae_weights.safetensors", write_saelens, read_saelens),
    "sparsify": Format("sae.safetensors", write_sparsify, read_sparsify),
    "dictionary_learning": Format("ae.pt", write_dictionary_learning, read_dictionary_learning),
}


def save_dictionary(dictionary: Dictionary, folder: Path, *, format: str = "saelens") -> Path:
    """Write a dictionary in the layout of a tool; each file is whole or absent, the configuration last.

    Args:
        dictionary: What to write; its `metadata` goes with it.
        folder: Made if missing; other files in it stay.
        format: One of `FORMATS`.

    Returns:
        The folder. `load_dictionary` gives back equal tensors and the same hash; for dictionary_learning that is
        so where its class for the architecture centres the input as the dictionary does, and else it is the same
        function with the encoder bias rounded once.

    Raises:
        UserError: the format is not known, it cannot hold this dictionary, or the folder holds one in another.
    """
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not known; {nearest(format, FORMATS)}")
    there = format_of(folder)
    if there not in (None, format):
        raise UserError(
            f"folder {str(folder)!r} holds a dictionary of {there}: give another one for {format}"
        )
    FORMATS[format].write(dictionary, folder)
    return folder


def load_dictionary(folder: Path, *, hook_name: str | None = None) -> Dictionary:
    """The dictionary in a folder, written here, by SAELens, sparsify or dictionary_learning; nothing is executed.

    Args:
        folder: The folder of one dictionary.
        hook_name: The hook point that it reads, where the folder names none or in another tool's words.

    Raises:
        UserError: a file is missing or damaged, the architecture is not known, or the configuration asks
            for something that is not read and would change the result.
    """
    found = format_of(folder)
    if found is None and (inside := sorted(path.name for path in folder.glob("*/") if format_of(path))):
        raise UserError(
            f"folder {str(folder)!r} holds several dictionaries: give one of {', '.join(inside[:8])} in it"
        )
    dictionary = _read(found or "saelens", folder)
    if hook_name is not None:
        dictionary = copy(dictionary)
        object.__setattr__(dictionary, "hook_name", hook_name)  # as a frozen class sets its own fields
    return dictionary


def _read(format: str, folder: Path) -> Dictionary:
    """A configuration may hold anything; what the reader of a layout trips over is damage, told in one sentence."""
    try:
        return FORMATS[format].read(folder)
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"dictionary {str(folder)!r} is damaged (not as {format} writes it: {type(error).__name__}: {error}): "
            "copy it again"
        ) from error


def format_of(folder: Path) -> str | None:
    """The name of the layout that the files of a folder have; None if they have none."""
    return next((name for name, layout in FORMATS.items() if (folder / layout.weights).is_file()), None)
