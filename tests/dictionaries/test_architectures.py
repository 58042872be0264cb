"""Every architecture: its export on raw activations against dense float64 on normalised ones, its state, its files."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tests.dictionaries.dense import D_IN, PHASE, random_trainee, raw_rows
from workbench.dictionaries import ARCHITECTURES, Trainee, load_dictionary, make_architecture, save_dictionary
from workbench.dictionaries.architecture import Phase
from workbench.dictionaries.layouts import Single
from workbench.errors import UserError

COMMON = {"d_sae": 40, "k": 4, "dead_after_tokens": 100, "aux_coefficient": 0.5, "k_aux": 5}
NAMES = ["topk", "batch_topk", "matryoshka", "group_max", "relu", "p_anneal", "gated", "jumprelu"]
SAELENS_NAMES = {
    "topk": "topk",
    "group_max": "group_max",
    "relu": "standard",
    "p_anneal": "standard",
    "gated": "gated",
}
SETTINGS = {"matryoshka": {"groups": (0.25, 0.75)}}


def trainee_of(name: str, **options) -> Trainee:
    """A random trainee that has seen a batch, so that its buffers are set."""
    architecture = make_architecture(name, COMMON, SETTINGS.get(name, {}))
    trainee = random_trainee(architecture, **options)
    with torch.no_grad():
        trainee.parameters["b_enc"].add_(0.4 * torch.randn(40))
    trainee.losses(raw_rows(), options.get("y"), phase=Phase(0, 100))
    return trainee


def inference_code(trainee: Trainee, p: Mapping[str, Tensor], pre: Tensor) -> Tensor:
    """The dense code that each architecture's equations give a row at inference."""
    name, k = trainee.architecture.name, trainee.architecture.k
    if name == "topk":
        return pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1)
    if name == "group_max":
        grouped = pre.view(len(pre), k, -1)
        return (grouped.relu() * (grouped == grouped.amax(2, keepdim=True))).flatten(1)
    if name in ("batch_topk", "matryoshka"):
        return pre * (pre > trainee.buffers["threshold"].double())
    if name == "gated":
        return (p["r_mag"].exp() * (pre - p["b_enc"]) + p["b_mag"]).relu() * (pre > 0)
    return pre * (pre > p["log_threshold"].exp()) if name == "jumprelu" else pre.relu()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("normalise", ["spread", "centre", "whiten"])
@pytest.mark.parametrize("transcodes", [False, True])
def test_export_on_raw_activations_equals_the_equations_on_normalised_ones(name, normalise, transcodes):
    y = raw_rows(500) @ torch.randn(D_IN, D_IN) if transcodes else None
    layout = Single(d_in=D_IN, d_out=D_IN, transcodes=transcodes, skip=transcodes)
    architecture = make_architecture(name, COMMON, SETTINGS.get(name, {}))
    trainee = random_trainee(architecture, normalise=normalise, layout=layout, y=y)
    raw, seen = raw_rows(80), raw_rows()  # a batch of its own sets the threshold, so that no entry lies on it
    trainee.losses(seen, seen.clone() if transcodes else None, phase=Phase(0, 100))
    p = {key: tensor.detach().double() for key, tensor in trainee.parameters.items()}
    x = trainee.inputs.apply(raw.double())
    z = inference_code(trainee, p, (x - (0 if transcodes else p["b_dec"])) @ p["W_enc"] + p["b_enc"])
    y_hat = z @ p["W_dec"] + p["b_dec"] + (x @ p["W_skip"].T if transcodes else 0)
    frozen = trainee.export(hook_name="hook_embed", hook_name_out="hook_out" if transcodes else None)
    wanted = trainee.outputs.invert(y_hat)
    assert torch.allclose(frozen.reconstruct(raw).double(), wanted, atol=1e-4, rtol=1e-4)
    lengths = trainee.outputs.directions(p["W_dec"]).norm(dim=1) / frozen.W_dec.double().norm(dim=1)
    code = torch.zeros(80, 40).scatter_add(1, *frozen.encode(raw)).double()
    assert torch.allclose(code, z * lengths, atol=1e-4, rtol=1e-4)
    assert int((code > 0).sum()) > 80


def test_the_comparison_fails_without_the_gauge():
    """Whitening gives decoder rows different raw lengths; a threshold that ignores them is another dictionary."""
    trainee, raw = trainee_of("batch_topk", normalise="whiten"), raw_rows(200)
    frozen = trainee.export(hook_name="hook_embed")
    wrong = type(frozen)(
        **{**frozen.tensors, "threshold": trainee.buffers["threshold"].expand(40)}, hook_name="hook_embed"
    )
    assert not torch.allclose(frozen.reconstruct(raw), wrong.reconstruct(raw), atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip_is_bit_equal_in_the_losses_to_come(name):
    first = trainee_of(name)
    again = random_trainee(first.architecture)
    again.load_state({key: tensor.detach().clone() for key, tensor in first.state().items()})
    raw = raw_rows()
    losses = [one.losses(raw, phase=PHASE) for one in (first, again)]
    assert torch.equal(losses[0].loss.detach(), losses[1].loss.detach())
    for one in losses:
        one.loss.backward()
    assert all(torch.equal(t.grad, again.parameters[key].grad) for key, t in first.parameters.items())
    for key, buffer in first.buffers.items():
        assert torch.equal(buffer.double().nan_to_num(-1), again.buffers[key].double().nan_to_num(-1)), key


@pytest.mark.parametrize("name", NAMES)
def test_files_keep_code_and_hash(name, tmp_path):
    frozen, raw = trainee_of(name).export(hook_name="hook_embed"), raw_rows()
    again = load_dictionary(save_dictionary(frozen, tmp_path))
    assert again.architecture == frozen.architecture == SAELENS_NAMES.get(name, "jumprelu")
    assert again.hash == frozen.hash
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(frozen.encode(raw), again.encode(raw), strict=True)
    )


def test_all_are_registered_and_take_what_every_training_gives():
    assert set(NAMES) <= set(ARCHITECTURES)
    with pytest.raises(UserError, match="architecture 'jumpreluu' is not known; the nearest: jumprelu"):
        make_architecture("jumpreluu", COMMON, {})
    with pytest.raises(UserError, match=r"setting 'bandwith' is not one of .*; the nearest: bandwidth"):
        make_architecture("jumprelu", COMMON, {"bandwith": 0.1})
