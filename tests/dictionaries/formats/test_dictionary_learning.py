"""dictionary_learning folders: equality with every class, both ways, and pickles that would run code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tests.dictionaries.formats import documented
from tests.dictionaries.formats.comparing import check_equal
from workbench.dictionaries import load_dictionary, save_dictionary
from workbench.errors import UserError

D, D_SAE, K = 8, 30, 4


def foreign(folder, name, **trainer):
    weights = documented.dl_weights(name, d=D, d_sae=D_SAE, k=K)
    documented.dl_folder(folder, name, weights, **trainer)
    return weights


@pytest.mark.parametrize("name", documented.DL_CLASSES)
def test_every_class_is_read(tmp_path, name):
    weights, x = foreign(tmp_path, name), torch.randn(40, D)
    dictionary = load_dictionary(tmp_path)
    check_equal(dictionary, x, documented.dictionary_learning(name, weights, x))
    assert dictionary.hook_name == "blocks.2.hook_resid_post"
    assert (dictionary.metadata["model"], dictionary.metadata["n_ctx"]) == ("planted", 64)


@pytest.mark.parametrize("name", documented.DL_CLASSES)
def test_what_was_read_is_written_as_the_same_class(tmp_path, name):
    weights, x = foreign(tmp_path / "a", name, k=K), torch.randn(40, D)
    dictionary = load_dictionary(tmp_path / "a")
    save_dictionary(dictionary, tmp_path / "b", format="dictionary_learning")
    config = json.loads((tmp_path / "b" / "config.json").read_text())["trainer"]
    state = torch.load(tmp_path / "b" / "ae.pt", weights_only=True)
    assert config["dict_class"] == name
    assert {key: (t.shape, t.dtype) for key, t in state.items()} == {
        key: (t.shape, t.dtype) for key, t in weights.items()
    }
    check_equal(dictionary, x, documented.dictionary_learning(name, state, x))
    if name != "AutoEncoder":  # whose rows become unit ones
        assert all(torch.equal(state[key], tensor) for key, tensor in weights.items() if key != "threshold")


def test_a_threshold_that_was_never_set_lets_through_what_is_positive(tmp_path):
    weights, x = foreign(tmp_path, "BatchTopKSAE"), torch.randn(40, D)
    weights["threshold"] = torch.tensor(-1.0)
    documented.dl_folder(tmp_path, "BatchTopKSAE", weights)
    check_equal(load_dictionary(tmp_path), x, documented.dictionary_learning("BatchTopKSAE", weights, x))


@pytest.mark.parametrize("unit", [True, False])
def test_the_class_of_a_relu_dictionary_keeps_its_codes(tmp_path, unit):
    """An AutoEncoder of other rows than unit ones would come back with other codes."""
    weights, x = documented.dl_weights("AutoEncoder", d=D, d_sae=D_SAE, k=K), torch.randn(40, D)
    weights["decoder.weight"] = functional.normalize(weights["decoder.weight"], dim=0)
    documented.dl_folder(tmp_path / "a", "AutoEncoder", weights)
    dictionary = load_dictionary(tmp_path / "a")
    if not unit:
        dictionary.W_dec.mul_(1.5)
    save_dictionary(dictionary, tmp_path / "b", format="dictionary_learning")
    state = torch.load(tmp_path / "b" / "ae.pt", weights_only=True)
    name = json.loads((tmp_path / "b" / "config.json").read_text())["trainer"]["dict_class"]
    assert name == ("AutoEncoder" if unit else "AutoEncoderNew")
    z, y = documented.dictionary_learning("AutoEncoder", weights, x)
    centre = weights["bias"].double()
    check_equal(dictionary, x, (z, y if unit else (y - centre) * 1.5 + centre))
    check_equal(load_dictionary(tmp_path / "b"), x, documented.dictionary_learning(name, state, x))


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("resid_post_layer_8", "blocks.8.hook_resid_post"),
        ("resid_layer_8", "blocks.8.hook_resid_post"),
        ("mlp_layer8", "blocks.8.hook_mlp_out"),
        ("attn_out_layer_3", "blocks.3.hook_attn_out"),
        ("blocks.1.hook_mlp_out", "blocks.1.hook_mlp_out"),
        ("router", "router"),
        (None, ""),
    ],
)
def test_the_hook_point_is_the_submodule(tmp_path, name, hook):
    foreign(tmp_path, "AutoEncoder", submodule_name=name)
    assert load_dictionary(tmp_path).hook_name == hook


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, plain_pickle):
    weights, mark = foreign(tmp_path, "AutoEncoder"), tmp_path / "executed"
    bad = {**weights, "bias": Malicious(mark)}
    if plain_pickle:
        (tmp_path / "ae.pt").write_bytes(pickle.dumps(bad))
    else:
        torch.save(bad, tmp_path / "ae.pt")
    with pytest.raises(UserError, match="holds more than tensors, or is damaged, and was not run"):
        load_dictionary(tmp_path)
    assert not mark.exists()
    unpickle = (
        (lambda: pickle.loads(pickle.dumps(bad)))
        if plain_pickle
        else (lambda: torch.load(tmp_path / "ae.pt", weights_only=False))
    )
    unpickle()
    assert mark.exists()  # so the file does what it is refused for


@pytest.mark.parametrize(
    ("io", "hooks"),
    [
        ("out", ("blocks.4.hook_mlp_out", None)),
        ("in", ("mlp_layer4", None)),
        ("in_and_out", ("mlp_layer4", "blocks.4.hook_mlp_out")),
    ],
)
def test_an_input_is_not_taken_for_the_output(tmp_path, io, hooks):
    foreign(tmp_path, "AutoEncoder", submodule_name="mlp_layer4")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "buffer": {"io": io}}))
    dictionary = load_dictionary(tmp_path)
    assert (dictionary.hook_name, dictionary.hook_name_out) == hooks


def edit(**changed):
    def change(folder, weights):
        documented.dl_folder(folder, "AutoEncoderTopK", {**weights, **changed})

    return change


def drop(folder, weights):
    documented.dl_folder(folder, "AutoEncoderTopK", {key: weights[key] for key in weights if key != "b_dec"})


def classed(name, **trainer):
    return lambda folder, weights: documented.dl_folder(folder, name, weights, **trainer)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            classed("AutoEncoderTopk"),
            "has dict_class 'AutoEncoderTopk', which is not read; the nearest: AutoEncoderTop",
        ),
        (classed("AutoEncoderTopK", k=5), r"has k 4 in ae\.pt and 5 in config\.json"),
        (classed("JumpReluAutoEncoder"), "but its class means"),
        (drop, "but its class means"),
        (edit(**{"encoder.bias": torch.ones(3)}), "but its cfg.json means"),
        (edit(**{"encoder.weight": torch.ones(3)}), "has a W_enc of shape"),
        (edit(k=torch.tensor(31)), "has k 31, which is not between 1 and d_sae 30"),
        (edit(b_dec=torch.full((D,), torch.inf)), "has b_dec with values that are not finite"),
        (lambda folder, _: torch.save([1, 2], folder / "ae.pt"), "is no plain state dict"),
        (lambda folder, _: torch.save({"ae": {}, "step": 3}, folder / "ae.pt"), "is no plain state dict"),
        (lambda folder, _: (folder / "ae.pt").write_bytes(b""), "is damaged|holds more than tensors"),
        (
            lambda folder, _: (folder / "ae.pt").write_bytes(b"PK\x03\x04abc"),
            "is damaged|holds more than tensors",
        ),
        (lambda folder, _: (folder / "config.json").write_text("{}"), "has dict_class 'None'"),
        (lambda folder, _: (folder / "config.json").unlink(), r"has no config\.json"),
    ],
)
def test_what_is_damaged_or_cannot_be_read(tmp_path, damage, message):
    weights = foreign(tmp_path, "AutoEncoderTopK")
    damage(tmp_path, weights)
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path)
