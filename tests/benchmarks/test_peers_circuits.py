"""The comparison with other circuit tools, without the tools of other environments: inputs, processes, table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.benchmarks.peers.circuits.__main__ import chosen
from tests.benchmarks.peers.circuits.inputs import (
    GPT2S,
    KEPT_FRAC,
    TINY,
    Shape,
    edge_mask,
    load_pairs,
    node_of,
    random_circuits,
    random_pairs,
    write_shape,
)
from tests.benchmarks.peers.circuits.table import Measured, table
from tests.benchmarks.peers.circuits.transcoders import (
    between,
    load_transcoders,
    mlp_inputs,
    write_transcoders,
)
from tests.benchmarks.peers.circuits.work import TOOLS, WORKS, Measurement, Taken, Work
from tests.benchmarks.peers.environments import replace
from tests.benchmarks.peers.harness.circuit_names import is_edge, readers, writers

SMALL = Shape("small", 2, 2, 32, 60)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "small").mkdir()
    write_shape(folder / "small", SMALL)
    return folder


@pytest.fixture(scope="module")
def gpt2(inputs: Path):
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(inputs / "small" / "model").eval()


def first_pair(inputs: Path) -> dict[str, Tensor]:
    return {name: t[0] for name, t in load_pairs(inputs / "small").items()}


def metric(logits: Tensor, pair: dict[str, Tensor]) -> Tensor:
    return logits[0, -1, pair["answer"]] - logits[0, -1, pair["counterfactual_answer"]]


def measured_tensors(inputs: Path, scratch: Path, task: dict[str, object]) -> dict[str, Tensor]:
    with Measurement(Work("trial", "TransformerLens", "small", task), inputs, scratch) as process:
        taken = process.run()
        assert 0 < taken.cpu_seconds < 20
        assert taken.peak_rss_bytes >= 0
        return process.save()


def test_a_sequential_gpt2_small_has_the_published_number_of_edges():
    assert int(edge_mask(GPT2S).sum()) == 32_491
    assert (len(writers(12, 12)), len(readers(12, 12))) == (157, 445)


def test_edges_go_forwards_and_attention_comes_before_the_mlp():
    assert is_edge("a1.h0", "m1")
    assert is_edge("m11", "logit")
    assert is_edge("embed", "a0.h3.v")
    assert not is_edge("m1", "a1.h0.q")
    assert not is_edge("a1.h0", "a1.h1.k")
    assert not is_edge("a2.h0", "m1")


def test_pairs_begin_alike_differ_in_words_and_have_two_answers():
    pairs = random_pairs(TINY, torch.Generator().manual_seed(0))
    again = random_pairs(TINY, torch.Generator().manual_seed(0))
    assert all(torch.equal(pairs[name], again[name]) for name in pairs)
    assert not pairs["clean"][:, 0].any()
    differ = (pairs["clean"] != pairs["counterfactual"])[:, 1:].float().mean()
    assert 0.4 < differ < 0.6
    assert bool((pairs["answer"] != pairs["counterfactual_answer"]).all())
    assert int(pairs["clean"][:, 1:].min()) >= 3
    assert int(pairs["counterfactual_answer"].max()) < TINY.d_vocab


def test_circuits_are_nested_sets_of_real_edges_of_the_stated_sizes():
    masks, mask = random_circuits(TINY, torch.Generator().manual_seed(0))["masks"], edge_mask(TINY)
    assert torch.equal(masks[-1], mask)
    for smaller, larger, kept in zip(masks, masks[1:], KEPT_FRAC, strict=False):
        assert not bool((smaller & ~larger).any())
        assert int(smaller.sum()) == max(1, round(kept * int(mask.sum())))


def test_small_circuits_connect_the_embedding_with_the_logit_through_every_node_but_the_last():
    sources, targets = writers(TINY.n_layers, TINY.n_heads), readers(TINY.n_layers, TINY.n_heads)
    for mask in random_circuits(TINY, torch.Generator().manual_seed(0))["masks"][3:]:
        fed = {node_of(targets[j]) for j in mask.any(0).nonzero().flatten().tolist()}
        feeding = {sources[i] for i in mask.any(1).nonzero().flatten().tolist()}
        assert {"logit"} <= fed
        assert {"embed"} <= feeding
        assert len(fed - {"logit"} - feeding) <= 1
        assert len(feeding - {"embed"} - fed) <= 1


def test_so_many_features_are_active_as_wanted_and_none_is_near_its_threshold(inputs: Path):
    folder = inputs / "small" / "transcoders"
    write_transcoders(folder, SMALL, n_features=90, d_sae=128, n_pos=8)
    tokens = load_file(folder / "prompt.safetensors")["tokens"]
    total = 0
    for x, made in zip(mlp_inputs(inputs / "small" / "model", tokens), load_transcoders(folder), strict=True):
        over = x[1:] @ made["W_enc"] + made["b_enc"] - made["threshold"]
        assert float(over.abs().min()) > 1e-5
        total += int((over > 0).sum())
    assert 90 <= total < 90 + 2 * 20


def test_a_threshold_is_not_put_between_ties():
    values = torch.tensor([5.0, 4.0, 4.0, 4.0, 3.0] + [0.0] * 40)
    assert between(values, 2) == 3.5
    with pytest.raises(ValueError, match="tie from the 3th"):
        between(torch.zeros(50), 3)


def test_every_edge_score_from_the_embedding_adds_up_to_the_gradient_there(
    inputs: Path, gpt2, tmp_path: Path
):
    scores = measured_tensors(inputs, tmp_path, {"do": "edges", "rows": 1})["scores"]
    pair = first_pair(inputs)
    embed = gpt2.transformer.wte.weight.detach()
    clean = embed[pair["clean"]][None].requires_grad_()
    (gradient,) = torch.autograd.grad(metric(gpt2(inputs_embeds=clean).logits, pair), clean)
    expected = (gradient[0] * (embed[pair["counterfactual"]] - clean[0])).sum()
    torch.testing.assert_close(scores[0].sum(), expected, rtol=1e-4, atol=1e-5)
    assert not bool(scores[~edge_mask(SMALL)].any())
    assert bool((scores[edge_mask(SMALL)] != 0).all())


@torch.no_grad()
def test_patching_the_first_stream_is_changing_the_word(inputs: Path, gpt2, tmp_path: Path):
    values = measured_tensors(inputs, tmp_path, {"do": "sweep", "what": "resid_pre", "rows": 2})["values"]
    pair = first_pair(inputs)
    assert values.shape == (SMALL.n_layers, len(pair["clean"]), 2)
    for position in range(len(pair["clean"])):
        prompt = pair["clean"].clone()
        prompt[position] = pair["counterfactual"][position]
        torch.testing.assert_close(values[0, position, 0], metric(gpt2(prompt[None]).logits, pair))
    patched = metric(gpt2(pair["counterfactual"][None]).logits, pair)
    assert not torch.isclose(values[0, :, 0], patched, atol=1e-4).any()  # no single word is the whole prompt


@torch.no_grad()
def test_a_circuit_of_all_edges_is_the_model_and_one_of_few_is_not(inputs: Path, gpt2, tmp_path: Path):
    masks = str(inputs / "small" / "circuits.safetensors")
    task = {"do": "faithfulness", "rows": 1, "circuits": masks, "only": [4, 9]}
    found = measured_tensors(inputs, tmp_path, task)
    pair = first_pair(inputs)
    clean = metric(gpt2(pair["clean"][None]).logits, pair)
    torch.testing.assert_close(found["clean"][0], clean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["values"][1, 0], clean, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(found["values"][0, 0], clean, rtol=1e-2)


def test_text_is_replaced_in_an_installed_module_or_refused(tmp_path: Path):
    module = tmp_path / "lib" / "python3.11" / "site-packages" / "eap"
    module.mkdir(parents=True)
    (module / "attribute.py").write_text("x = zeros(device='cuda')\n")
    replace(tmp_path, "eap", "device='cuda'", "device=model.cfg.device")
    assert (module / "attribute.py").read_text() == "x = zeros(device=model.cfg.device)\n"
    with pytest.raises(RuntimeError, match="has no device='cuda'"):
        replace(tmp_path, "eap", "device='cuda'", "device=model.cfg.device")


def test_works_are_chosen_by_parts_of_their_names_and_only_of_tools_at_hand():
    assert {w.tool for w in chosen({"TransformerLens"}, None)} == {"TransformerLens"}
    assert {w.name for w in chosen(set(TOOLS), "sweep,prune")} == {"sweep", "sweep-heads", "prune"}
    assert len(chosen(set(TOOLS), None)) == len(WORKS)


def test_the_table_shows_the_least_of_the_runs():
    work = dataclasses.replace(WORKS[0], repeats=2)
    runs = Taken(3.0, 2.5, 10**9, 3 * 10**9), Taken(4.0, 2.0, 10**9, 2 * 10**9)
    row = Measured(work, {"circuit-tracer": "0.4.1"}, runs)
    line = table([row]).splitlines()[1].split()
    assert line == ["graph", "circuit-tracer", "0.4.1", "gpt2s", "3.00", "2.00", "1,000", "2,000"]
    assert row.record()["cpu_seconds"] == 2.0
    assert len(row.record()["runs"]) == 2
