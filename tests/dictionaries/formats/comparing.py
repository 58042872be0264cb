"""Holding a dictionary's codes and reconstructions against expected ones."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from workbench.dictionaries import Dictionary

TOLERANCE = 1e-6


def exact(dictionary: Dictionary) -> Dictionary:
    """The same weights in float64, so that what differs is the weights and not the arithmetic."""
    names = dictionary.tensors
    return dataclasses.replace(dictionary, **{name: tensor.double() for name, tensor in names.items()})


def dense(dictionary: Dictionary, x: Tensor) -> Tensor:
    """Codes as a matrix."""
    indices, values = dictionary.encode(x)
    return values.new_zeros(len(x), dictionary.d_sae).scatter_add(1, indices, values)


def check_equal(dictionary: Dictionary, x: Tensor, expected: tuple[Tensor, Tensor]) -> None:
    """Codes, decode and whole reconstruction, to 1e-6 of the largest value."""
    made, x, (z, y) = exact(dictionary), x.double(), expected
    skip = 0 if made.W_skip is None else x @ made.W_skip.T
    pairs = {
        "encode": (dense(made, x), z),
        "decode": (made.decode(*made.encode(x)) + skip, y),
        "reconstruct": (made.reconstruct(x), y),
    }
    for name, (found, wanted) in pairs.items():
        worst = float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
        assert worst < TOLERANCE, f"{name} differs by {worst:.2e}"
    assert float((z > 0).sum()) > 0
