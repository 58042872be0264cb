"""Hand-compiled beds whose circuit is known exactly, and what the tests of the validation ask of them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from workbench.anatomy import open_anatomy
from workbench.circuits.validation.judge import Judge, open_judge
from workbench.circuits.validation.protocol import RESAMPLE, Protocol
from workbench.circuits.wiring.catalogue import Wiring
from workbench.testbeds.truth import TestBed, make_testbed

EXACT = ("two_hop", "chain", "parallel", "and_gate", "xor_and", "fact_lookup")
N_PAIRS = 24


@cache
def bed(name: str, leak: float = 0.0) -> TestBed:
    """The bed; without leak every other edge has an effect of exactly 0."""
    return make_testbed(f"compiled.{name}", leak=leak)


@cache
def wiring(name: str, leak: float = 0.0) -> Wiring:
    """Its writers, readers and edges."""
    return Wiring(open_anatomy(bed(name, leak).model))


def judge(
    name: str, protocol: Protocol = RESAMPLE, *, leak: float = 0.0, n_pairs: int = N_PAIRS, seed: int = 0
) -> Judge:
    """A judge on the bed's pairs; references are other pairs of the bed."""
    found = bed(name, leak)
    return open_judge(
        wiring(name, leak), protocol, [found.batch(n_pairs, seed)], reference=[found.batch(48, seed + 100)]
    )


def true_edges(name: str, leak: float = 0.0) -> Tensor:
    """The bed's circuit as an edge mask."""
    edges = bed(name, leak).edges
    assert edges is not None
    return wiring(name, leak).edge_mask(edges)


def true_nodes(name: str, leak: float = 0.0) -> Tensor:
    """The bed's circuit as a node mask."""
    nodes = bed(name, leak).nodes
    assert nodes is not None
    return torch.tensor([writer in nodes for writer in wiring(name, leak).writers])
