"""The architectures by name: what is trained under a name, and which frozen class a file's name means.

A new one is a file that defines an `Architecture` (and a `Dictionary`, unless it freezes to one that is
here) and registers them:

    register(TopK)
    register_frozen(TopKDictionary)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from workbench.dictionaries.architecture import Architecture
from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.batch_topk import BatchTopK
from workbench.dictionaries.cross_layer import CrossLayerDictionary
from workbench.dictionaries.gated import Gated, GatedDictionary
from workbench.dictionaries.group_max import GroupMax, GroupMaxDictionary
from workbench.dictionaries.jumprelu import JumpReLU, JumpReLUDictionary
from workbench.dictionaries.matryoshka import Matryoshka
from workbench.dictionaries.p_anneal import PAnneal
from workbench.dictionaries.relu import ReLU, ReLUDictionary
from workbench.dictionaries.topk import TopK, TopKDictionary
from workbench.errors import UserError, nearest

ARCHITECTURES: dict[str, type[Architecture]] = {}
FROZEN: dict[str, type[Dictionary]] = {}
COMMON = ("d_sae", "k", "dead_after_tokens", "aux_coefficient", "k_aux")


def register(architecture: type[Architecture]) -> type[Architecture]:
    """Make an architecture known under its name.

    Raises:
        ValueError: the name is taken.
    """
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name!r} is registered already")
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def register_frozen(dictionary: type[Dictionary]) -> type[Dictionary]:
    """Make a frozen class known under the name that stands in `cfg.json`."""
    FROZEN[dictionary.architecture] = dictionary
    return dictionary


def find_architecture(name: str) -> type[Architecture]:
    """The architecture of that name.

    Raises:
        UserError: there is none, with the nearest.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"architecture {name!r} is not known; {nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


def find_frozen(name: str) -> type[Dictionary]:
    """The frozen class of that name.

    Raises:
        UserError: there is none, with the nearest.
    """
    if name not in FROZEN:
        raise UserError(f"architecture {name!r} is not known; {nearest(name, FROZEN)}")
    return FROZEN[name]


def make_architecture(name: str, common: Mapping[str, Any], settings: Mapping[str, Any]) -> Architecture:
    """An architecture with its options.

    Args:
        name: In `ARCHITECTURES`.
        common: Options that every training has (`COMMON`); those that the architecture has no use for are left out.
        settings: Options of this architecture alone.

    Raises:
        UserError: a name is not known, or a value is out of its range.
    """
    found = find_architecture(name)
    names = {field.name for field in fields(found)}
    own = sorted(names - set(COMMON))
    for key in settings:
        if key not in own:
            known = nearest(key, own) if own else "it has no settings of its own"
            raise UserError(f"setting {key!r} is not one of architecture {name!r}; {known}")
    return found(**{key: value for key, value in common.items() if key in names}, **settings)


for architecture in (TopK, BatchTopK, Matryoshka, GroupMax, ReLU, PAnneal, Gated, JumpReLU):
    register(architecture)
for dictionary in (TopKDictionary, GroupMaxDictionary, ReLUDictionary, GatedDictionary, JumpReLUDictionary):
    register_frozen(dictionary)
register_frozen(CrossLayerDictionary)
