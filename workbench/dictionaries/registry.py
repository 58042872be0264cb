"""The architectures by name: how each encodes, and how each is trained.

A new one is a file that defines a `Dictionary` and a `Trainee` and registers them:

    register(Architecture("topk", TopKDictionary, TopKTrainee))
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.dictionaries.base import Dictionary, Trainee
from workbench.dictionaries.topk import TopKDictionary, TopKTrainee
from workbench.errors import UserError, nearest


@dataclass(frozen=True)
class Architecture:
    """One kind of dictionary.

    Attributes:
        name: As in `cfg.json`.
        dictionary: The frozen class.
        trainee: The class that training updates and exports.
    """

    name: str
    dictionary: type[Dictionary]
    trainee: type[Trainee]


ARCHITECTURES: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Make an architecture known under its name.

    Raises:
        ValueError: the name is taken.
    """
    if architecture.name in ARCHITECTURES:
        raise ValueError(f"architecture {architecture.name!r} is registered already")
    ARCHITECTURES[architecture.name] = architecture
    return architecture


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        UserError: there is none, with the nearest.
    """
    if name not in ARCHITECTURES:
        raise UserError(f"architecture {name!r} is not known; {nearest(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]


register(Architecture("topk", TopKDictionary, TopKTrainee))
