"""Tracr beds: they answer as plain Python does, and the craft graph's edges are all that carries a difference."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.testbeds.edge_patching import auroc, edge_effects
from workbench.errors import UserError
from workbench.testbeds import TESTBEDS, TestBed, make_testbed, tracr
from workbench.testbeds.truth import edges_of, nodes_of

NAMES = [name.partition(".")[2] for name in TESTBEDS if name.startswith("tracr.")]
EVERY = {"shuffle_dyck": 12, "dyck": 3}  # of the false edges, 1,979 and 376, so many are left out


def wrong_edges(bed: TestBed, n_pairs: int, every: int = 1) -> set[tuple[str, str]]:
    assert bed.edges is not None
    tried = [*bed.edges, *[edge for edge in edges_of(bed.model) if edge not in bed.edges][::every]]
    effects = edge_effects(bed.model, bed.batch(n_pairs, 1), tried)
    assert auroc([abs(float(e.mean())) for e in effects.values()], [e in bed.edges for e in effects]) >= 0.99
    return {edge for edge, effect in effects.items() if float(effect.abs().max()) > 1e-3} ^ bed.edges


@pytest.mark.parametrize("name", NAMES)
def test_the_true_edges_are_those_with_an_effect(name: str) -> None:
    bed = make_testbed(f"tracr.{name}")
    assert bed.edges is not None
    assert bed.nodes == nodes_of(bed.edges)
    assert wrong_edges(bed, 60, EVERY.get(name, 1)) == set()


def test_a_wrong_truth_is_found() -> None:
    bed = make_testbed("tracr.sort")
    assert bed.edges is not None
    missing = ("m1", "a2.h0.k")
    assert wrong_edges(replace(bed, edges=bed.edges - {missing}), 40) == {missing}


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_is_answered(name: str) -> None:
    """All prompts of the length, not only those that the pairs are made of."""
    bed, record = make_testbed(f"tracr.{name}"), tracr._records()[name]
    prompts = list(itertools.product(tracr._tokens(record), repeat=tracr._length(record)))
    ids = torch.tensor([tracr._encode(record, list(p)) for p in prompts])
    found = bed.model(ids, return_type="logits")[:, -1].argmax(-1).tolist()
    answers = [tracr.ANSWERS[name][1](p) for p in prompts]
    assert len(prompts) >= 64
    assert all(a is None or record["outputs"][i] == a for a, i in zip(answers, found, strict=True))


def test_weights_that_answer_wrongly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: Any = dict(tracr._stored())
    stored["hist.values"] = stored["hist.values"].roll(1)
    monkeypatch.setattr(tracr, "_stored", lambda: stored)
    with pytest.raises(
        UserError, match=r"weights of program 'hist' at coldness .* the data files were changed"
    ):
        make_testbed("tracr.hist")


def test_coldness_softens_attention_until_the_program_fails() -> None:
    soft = make_testbed("tracr.hist", coldness=20.0)
    assert wrong_edges(soft, 60) == set()
    with pytest.raises(UserError, match=r"at coldness 1\.0 answer .*: give a higher coldness"):
        make_testbed("tracr.hist", coldness=1.0)


def test_residual_directions_have_names() -> None:
    bed, labels = make_testbed("tracr.hist"), tracr.residual_labels("hist")
    assert len(labels) == bed.model.cfg.d_model
    record = tracr._records()["hist"]
    token = bed.model.embed(torch.tensor([[record["vocabulary"].index("b")]]))[0, 0]
    assert {labels[i] for i in token.nonzero()[:, 0]} == {"one", "tokens:b"}
    assert token.sum() == 2
