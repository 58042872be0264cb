"""Dictionaries: overcomplete sets of directions that write an activation as a sparse sum.

dictionary = load_dictionary(run / "dictionary")
indices, values = dictionary.encode(x)          # (row, k) each, never (row, d_sae)
x_hat = dictionary.decode(indices, values)
"""

from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.saelens import load_dictionary, save_dictionary
from workbench.dictionaries.initialise import random_dictionary
from workbench.dictionaries.registry import ARCHITECTURES, Architecture, find_architecture, register

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Dictionary",
    "find_architecture",
    "load_dictionary",
    "random_dictionary",
    "register",
    "save_dictionary",
]
