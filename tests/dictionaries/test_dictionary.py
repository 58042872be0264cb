"""Dictionaries on disk and in memory: round trips, SAELens' rules, the random control, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.dictionaries import (
    find_architecture,
    load_dictionary,
    random_dictionary,
    register,
    save_dictionary,
)
from workbench.errors import UserError


def saelens_forward(config: dict, w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """SAELens 6 TopK inference as its documentation states it."""
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    norm = w["W_dec"].norm(dim=1) if config["rescale_acts_by_decoder_norm"] else torch.ones(len(w["W_dec"]))
    top = (pre * norm).topk(config["k"])
    z = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    return (z / norm) @ w["W_dec"] + w["b_dec"]


def test_round_trip_is_bit_equal(make_dictionary, tmp_path):
    dictionary = make_dictionary(metadata={"store": "abc"})
    again = load_dictionary(save_dictionary(dictionary, tmp_path / "d"))
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in dictionary.tensors.items())
    assert (again.hash, again.k, again.hook_name) == (dictionary.hash, 3, "blocks.1.hook_resid_post")
    assert again.metadata == {"store": "abc"}


def test_files_are_what_saelens_reads(make_dictionary, tmp_path):
    dictionary, x = make_dictionary(), torch.randn(30, 6)
    save_dictionary(dictionary, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    weights = load_file(tmp_path / "sae_weights.safetensors")
    assert set(weights) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    assert (config["architecture"], config["dtype"], config["d_in"], config["d_sae"]) == (
        "topk",
        "float32",
        6,
        20,
    )
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    assert torch.allclose(saelens_forward(config, weights, x), dictionary.reconstruct(x), atol=1e-6)


def test_decoder_norms_of_a_foreign_file_are_folded(make_dictionary, tmp_path):
    save_dictionary(make_dictionary(), tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_dec"] *= torch.rand(20, 1) + 0.2
    save_file(weights, tmp_path / "sae_weights.safetensors")
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["rescale_acts_by_decoder_norm"] = True
    del config["metadata"]["workbench"]
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    dictionary, x = load_dictionary(tmp_path), torch.randn(30, 6)
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(20))
    assert torch.allclose(saelens_forward(config, weights, x), dictionary.reconstruct(x), atol=1e-5)


def test_code_is_sparse_sorted_and_decodes(make_dictionary):
    dictionary, x = make_dictionary(), torch.randn(9, 6)
    indices, values = dictionary.encode(x)
    pre = (x - dictionary.b_dec) @ dictionary.W_enc + dictionary.b_enc
    assert torch.equal(indices, pre.sort(dim=1, descending=True, stable=True).indices[:, :3])
    assert (values >= 0).all()
    assert (values.diff(dim=1) <= 0).all()
    dense = torch.zeros(9, 20).scatter(1, indices, values)
    assert torch.allclose(
        dictionary.decode(indices, values), dense @ dictionary.W_dec + dictionary.b_dec, atol=1e-6
    )


def test_hash_sees_one_changed_weight_and_k(make_dictionary):
    torch.manual_seed(3)
    first = make_dictionary()
    torch.manual_seed(3)
    second = make_dictionary()
    assert first.hash == second.hash
    torch.manual_seed(3)
    assert make_dictionary(k=4).hash != first.hash
    torch.manual_seed(3)
    changed = make_dictionary()
    changed.b_enc[0] += 1e-3
    assert changed.hash != first.hash


def test_random_dictionary_is_a_seeded_unit_control(make_dictionary):
    trained = make_dictionary()
    control, again, other = (random_dictionary(like=trained, seed=s) for s in (1, 1, 2))
    assert torch.equal(control.W_dec, again.W_dec)
    assert not torch.equal(control.W_dec, other.W_dec)
    assert torch.equal(control.W_enc, control.W_dec.T)
    assert torch.allclose(control.W_dec.norm(dim=1), torch.ones(20))
    assert torch.equal(control.b_dec, trained.b_dec)
    assert (control.k, control.d_sae, control.hash != trained.hash) == (3, 20, True)


def test_activations_of_another_width_are_refused(make_dictionary):
    with pytest.raises(UserError, match=r"activations of width 5 do not fit the dictionary .* d_in is 6"):
        make_dictionary().encode(torch.randn(2, 5))


def edit(key, value):
    def change(folder):
        config = json.loads((folder / "cfg.json").read_text())
        config[key] = value
        (folder / "cfg.json").write_text(json.dumps(config))

    return change


def other_weights(folder):
    weights = load_file(folder / "sae_weights.safetensors")
    weights["b_enc"] += 1
    save_file(weights, folder / "sae_weights.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "cfg.json").unlink(), "has no cfg.json: train one"),
        (lambda f: (f / "sae_weights.safetensors").write_bytes(b"abc"), "is damaged"),
        (lambda f: (f / "cfg.json").write_text("{"), "is damaged"),
        (edit("architecture", "topkk"), "architecture 'topkk' is not known; the nearest: topk"),
        (
            edit("normalize_activations", "layer_norm"),
            "has normalize_activations 'layer_norm', but only 'none'",
        ),
        (edit("k", 21), "k 21, which is not between 1 and d_sae 20"),
        (edit("k", None), "no whole number 'k'"),
        (edit("d_in", 7), "but its cfg.json means"),
        (other_weights, "weights are not those that cfg.json describes"),
    ],
)
def test_damaged_or_foreign_files_are_refused(make_dictionary, tmp_path, damage, message):
    save_dictionary(make_dictionary(), tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'topk' is registered already"):
        register(find_architecture("topk"))
