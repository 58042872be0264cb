"""The random control of a trained dictionary, its bias or threshold set by rows of the run where one is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.dictionaries import Dictionary, random_dictionary
from workbench.evaluation.ends import ends_of
from workbench.evaluation.material import Stores, drawn_batches

if TYPE_CHECKING:
    from workbench.evaluation.assess import Subject

SAMPLE_ROWS = 2048


def random_control(subject: Subject, *, seed: int) -> Dictionary:
    """The random dictionary of a subject; see `random_like`."""
    return random_like(subject.dictionary, subject.stores, seed=seed)


def random_like(dictionary: Dictionary, stores: Stores, *, seed: int = 0) -> Dictionary:
    """`random_dictionary` with a sample of the rows that the dictionary reads.

    Args:
        dictionary: The trained one.
        stores: Activations of its inputs, by hook.
        seed: Decides the directions, and the sample.

    Raises:
        StoreError: a file of a store is damaged.
    """
    sites = ends_of(dictionary).inputs
    rows = drawn_batches(stores, sites, n_rows=SAMPLE_ROWS, batch_rows=SAMPLE_ROWS, seed=seed)
    return random_dictionary(like=dictionary, seed=seed, sample=next(rows))
