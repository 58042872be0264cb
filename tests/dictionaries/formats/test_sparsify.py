"""sparsify folders: what is read and what is written equals what sparsify computes."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.dictionaries.formats import documented
from tests.dictionaries.formats.comparing import check_equal
from workbench.dictionaries import load_dictionary, save_dictionary
from workbench.errors import UserError

BASE = {
    "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": 30, "k": 5,
    "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": 8,
}  # fmt: skip


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("transcode", [True, False])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_every_combination_of_options_both_ways(tmp_path, activation, transcode, skip):
    config = {**BASE, "activation": activation, "transcode": transcode, "skip_connection": skip}
    weights = documented.sparsify_folder(tmp_path / "layers.3.mlp", config, d_sae=30)
    x, dictionary = torch.randn(40, 8), load_dictionary(tmp_path / "layers.3.mlp")
    check_equal(dictionary, x, documented.sparsify(config, weights, x))
    again = save_dictionary(dictionary, tmp_path / "again", format="sparsify")
    written, again_weights = (
        json.loads((again / "cfg.json").read_text()),
        load_file(again / "sae.safetensors"),
    )
    check_equal(dictionary, x, documented.sparsify(written, again_weights, x))
    computes = ("activation", "num_latents", "k", "skip_connection", "transcode", "d_in")
    assert {key: written[key] for key in computes} == {key: config[key] for key in computes}
    assert all(torch.equal(again_weights[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("path", "transcode", "hooks"),
    [
        ("layers.10", False, ("blocks.10.hook_resid_post", None)),
        ("h.3.mlp", False, ("blocks.3.hook_mlp_out", None)),
        ("gpt_neox.layers.2.attention", False, ("blocks.2.hook_attn_out", None)),
        ("layers.7.mlp", True, ("blocks.7.ln2.hook_normalized", "blocks.7.hook_mlp_out")),
        ("layers.7", True, ("blocks.7.hook_resid_pre", "blocks.7.hook_resid_post")),
        ("layers.7.mlp.up_proj", False, ("layers.7.mlp.up_proj", None)),
        ("embed", True, ("embed", "embed")),
    ],
)
@pytest.mark.parametrize("seed", ["", "seed3"])
def test_the_hook_point_is_the_folder(tmp_path, path, transcode, hooks, seed):
    documented.sparsify_folder(tmp_path / path / seed, {**BASE, "transcode": transcode}, d_sae=30)
    dictionary = load_dictionary(tmp_path / path / seed)
    assert (dictionary.hook_name, dictionary.hook_name_out) == hooks
    assert dictionary.metadata["sparsify"]["hookpoint"] == path
    assert load_dictionary(tmp_path / path / seed, hook_name="other").hook_name == "other"


def test_files_from_before_activation_and_transcode(tmp_path):
    old = {
        "expansion_factor": 4,
        "normalize_decoder": True,
        "num_latents": 0,
        "k": 3,
        "signed": False,
        "d_in": 8,
    }
    weights = documented.sparsify_folder(tmp_path, old, d_sae=32)
    x, dictionary = torch.randn(40, 8), load_dictionary(tmp_path)
    check_equal(dictionary, x, documented.sparsify(old, weights, x))
    assert (dictionary.d_sae, dictionary.centred) == (32, True)


def without_decoder(folder):
    weights = load_file(folder / "sae.safetensors")
    save_file({name: weights[name] for name in weights if name != "W_dec"}, folder / "sae.safetensors")


def edit(**changed):
    def change(folder):
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps({**config, **changed}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(activation="relu"), "has activation 'relu', which is not read; known: topk, groupmax"),
        (edit(signed=True), "is signed: latents below 0 are not read"),
        (edit(k=31), "has k 31, which is not between 1 and d_sae 30"),
        (edit(k=None), "has no whole number 'k'"),
        (edit(activation="groupmax", k=4), "has d_sae 30, which k 4 groups of latents do not divide"),
        (edit(num_latents=40), "but its cfg.json means"),
        (edit(skip_connection=True), "but its cfg.json means"),
        (without_decoder, "but its cfg.json means"),
        (lambda folder: (folder / "cfg.json").write_text("[1]"), "is damaged .*holds no JSON object"),
        (lambda folder: (folder / "cfg.json").unlink(), r"has no cfg\.json"),
        (lambda folder: (folder / "sae.safetensors").write_bytes(b"x"), "is damaged"),
    ],
)
def test_what_is_damaged_or_cannot_be_read(tmp_path, damage, message):
    documented.sparsify_folder(tmp_path, BASE, d_sae=30)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path)
