"""Patching sweeps: exact, first-order and integrated effects of every layer, position, head, neuron or feature.

task = make_task("induction", tokenizer, n_pairs=20, seed=0)
exact = patch_sweep(anatomy, task, Swept("resid_pre"))
guess = attribute_sweep(anatomy, task, Swept("resid_pre"))
beside({"exact": exact, "first-order": guess})
"""

from workbench.circuits.sweeps.plan import KINDS, Swept
from workbench.circuits.sweeps.reading import Reading, read_dictionary
from workbench.circuits.sweeps.run import attribute_sweep, integrate_sweep, patch_sweep
from workbench.circuits.sweeps.sweep import DIRECTIONS, METHODS, Sweep, beside
from workbench.circuits.sweeps.tail import answer_difference

__all__ = [
    "DIRECTIONS",
    "KINDS",
    "METHODS",
    "Reading",
    "Sweep",
    "Swept",
    "answer_difference",
    "attribute_sweep",
    "beside",
    "integrate_sweep",
    "patch_sweep",
    "read_dictionary",
]
