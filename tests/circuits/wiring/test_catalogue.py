"""Writers, readers, edges: counts by hand, order, names, refusals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.circuits.wiring.conftest import OpenWiring
from workbench.anatomy import Anatomy, Norm
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError


def hollow(*blocks: SimpleNamespace) -> Anatomy:
    """An anatomy that knows its shape and has no weights."""
    anatomy: Any = Anatomy.__new__(Anatomy)
    anatomy.blocks = blocks
    return anatomy


def test_gpt2_has_the_published_number_of_edges() -> None:
    """12 layers of 12 heads: 32,491 edges, the count of the EAP papers."""
    attn = SimpleNamespace(n_heads=12, n_kv_heads=12, q_norm=Norm(identity=True), k_norm=Norm(identity=True))
    blocks = [SimpleNamespace(layer=i, attn=attn, mlp=object(), parallel=False) for i in range(12)]
    wiring = Wiring(hollow(*blocks))
    assert (wiring.n_writers, wiring.n_readers, wiring.n_edges) == (157, 445, 32491)
    assert wiring.edges[0] == ("embed", "a0.h0.q")
    assert wiring.edges[-1] == ("m11", "logit")


def test_edges_of_a_sequential_model(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    assert wiring.n_edges == (1 * 12 + 5) + (6 * 12 + 10) + (11 * 12 + 15) + 16
    assert ("a1.h3", "m1") in wiring.index
    assert ("m1", "a1.h0.q") not in wiring.index
    assert all(wiring.edges[i] == edge for edge, i in wiring.index.items())


def test_a_parallel_mlp_does_not_read_its_own_heads(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("neox")
    assert ("a1.h3", "m1") not in wiring.index
    assert ("a0.h3", "m1") in wiring.index
    assert wiring.depths[wiring.column["m1"]] == wiring.depths[wiring.column["a1.h0.q"]] == 2


def test_shared_keys_are_one_reader(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("llama")
    assert [r for r in wiring.readers if r.startswith("a1.")] == [
        "a1.h0.q", "a1.h1.q", "a1.h2.q", "a1.h3.q", "a1.h0.k", "a1.h1.k", "a1.h0.v", "a1.h1.v",
    ]  # fmt: skip
    read = [wiring.readers[r] for r in wiring.read_by(wiring.row["a1.h3"])]
    assert read == ["a1.h3.q", "a1.h1.k", "a1.h1.v"]


def test_attention_only(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("attention-only")
    assert wiring.n_edges == 12 * (1 + 5 + 9) + 13
    assert wiring.read_by(0) == ()


def test_masks_of_edges_and_nodes(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    mask = wiring.edge_mask([("embed", "m0"), ("m0", "logit")])
    assert [wiring.edges[i] for i in mask.T[wiring.allowed.T].nonzero().flatten().tolist()] == [
        ("embed", "m0"), ("m0", "logit"),
    ]  # fmt: skip
    nodes = wiring.node_mask(["a1.h0"])
    assert nodes.sum() == 1 + 12 + 1 + 1
    assert torch.equal(wiring.node_mask(wiring.writers), wiring.allowed)


def test_unknown_names_are_refused(wiring_of: OpenWiring) -> None:
    wiring = wiring_of("gpt2")
    with pytest.raises(
        UserError, match=r"reader 'a1\.h0' of edge embed -> a1\.h0 is not in this model.*a1\.h0\.q"
    ):
        wiring.edge_mask([("embed", "a1.h0")])
    with pytest.raises(UserError, match=r"writer 'm7' of edge"):
        wiring.edge_mask([("m7", "logit")])
    with pytest.raises(UserError, match=r"edge m1 -> m0 does not exist: m0 reads before m1 has written"):
        wiring.edge_mask([("m1", "m0")])
    with pytest.raises(UserError, match=r"node 'm9' writes nothing in this model"):
        wiring.node_mask(["m9"])


def test_heads_normalised_together_are_refused() -> None:
    norm = Norm(weight=torch.ones(64))
    attn = SimpleNamespace(n_heads=4, n_kv_heads=4, d_head=16, q_norm=norm, k_norm=norm)
    blocks = [SimpleNamespace(layer=0, attn=attn, mlp=None, parallel=False)]
    with pytest.raises(UserError, match=r"layer 0 normalises all heads together \(q_norm of width 64\)"):
        Wiring(hollow(*blocks))
