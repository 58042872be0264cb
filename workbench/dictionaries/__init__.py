"""Dictionaries: overcomplete sets of directions that write an activation as a sparse sum.

dictionary = load_dictionary(run / "dictionary")
indices, values = dictionary.encode(x)          # (row, width) each, never (row, d_sae)
x_hat = dictionary.decode(indices, values)
"""

from workbench.dictionaries.base import Dictionary, Site
from workbench.dictionaries.formats import load_dictionary, save_dictionary
from workbench.dictionaries.random_control import random_dictionary
from workbench.dictionaries.registry import ARCHITECTURES, find_architecture, make_architecture, register
from workbench.dictionaries.sites import norm_share
from workbench.dictionaries.trainee import StepLosses, Trainee

__all__ = [
    "ARCHITECTURES",
    "Dictionary",
    "Site",
    "StepLosses",
    "Trainee",
    "find_architecture",
    "load_dictionary",
    "make_architecture",
    "norm_share",
    "random_dictionary",
    "register",
    "save_dictionary",
]
