"""Every frozen class through every layout that holds it: equal tensors and the same hash, or the same function."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

from tests.dictionaries.formats import documented
from tests.dictionaries.formats.comparing import check_equal, dense, exact
from workbench.dictionaries import Dictionary, Site, load_dictionary, save_dictionary
from workbench.dictionaries.cross_layer import CrossLayerDictionary
from workbench.dictionaries.formats.saelens_names import KNOWN
from workbench.dictionaries.registry import find_frozen

NAMES = ("standard", "topk", "jumprelu", "gated", "group_max")


def make(
    name: str, *, d_in: int = 6, d_sae: int = 12, d_out: int | None = None, k: int = 3, skip: bool = False,
    unit: bool = False, **about: Any,
) -> Dictionary:  # fmt: skip
    """A random frozen dictionary."""
    sizes = {"d_in": d_in, "d_sae": d_sae, "d_out": d_out or d_in}
    weights = documented.random_weights(**sizes, architecture=name, skip=skip)
    if unit:
        weights["W_dec"] = functional.normalize(weights["W_dec"], dim=1)
    own = {"k": k} if name in ("topk", "group_max") else {}
    about = {
        "hook_name": "blocks.0.hook_resid_post",
        "centred": (d_out or d_in) == d_in and not skip,
        **about,
    }
    return find_frozen(name)(**weights, **own, **about)


def check_same(found: Dictionary, made: Dictionary) -> None:
    """The same bits, the same hash, the same fields."""
    assert (type(found), found.hash) == (type(made), made.hash)
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in made.tensors.items())
    for field in ("hook_name", "hook_name_out", "centred", "sites", "settings"):
        assert getattr(found, field) == getattr(made, field), field
    assert dict(found.metadata) == dict(made.metadata)


@st.composite
def dictionaries(draw: st.DrawFn) -> Dictionary:
    """Any class, size, dtype and combination of flags."""
    name, d_in = draw(st.sampled_from(NAMES)), draw(st.integers(1, 5))
    k = draw(st.integers(1, 3))
    d_sae = k * draw(st.integers(1, 4))
    d_out = draw(st.sampled_from([None, d_in, d_in + 2]))
    transcodes = d_out is not None
    about: dict[str, Any] = {"hook_name_out": draw(st.sampled_from([None, "out"])) if transcodes else None}
    if draw(st.booleans()):
        about["sites"] = (Site("a", d_in - 1, scale=draw(st.floats(0.1, 10))), Site("m:b", 1))
    if d_out in (None, d_in):
        about["centred"] = draw(st.booleans())
    about["metadata"] = draw(
        st.sampled_from([{}, {"model": "m", "n_ctx": 8, "identity": {"k": 2, "seed": 0}}])
    )
    torch.manual_seed(draw(st.integers(0, 100)))
    made = make(name, d_in=d_in, d_sae=d_sae, d_out=d_out, k=k, skip=draw(st.booleans()), **about)
    return exact(made) if draw(st.booleans()) else made


@settings(max_examples=60, deadline=None)
@given(made=dictionaries())
def test_saelens_directories_hold_every_dictionary(made):
    with tempfile.TemporaryDirectory() as folder:
        check_same(load_dictionary(save_dictionary(made, Path(folder))), made)


@settings(max_examples=40, deadline=None)
@given(made=dictionaries().filter(lambda made: made.d_in == made.d_out and "k" in made.settings))
def test_sparsify_folders_hold_topk_and_group_max(made):
    with tempfile.TemporaryDirectory() as folder:
        check_same(load_dictionary(save_dictionary(made, Path(folder), format="sparsify")), made)


CENTRED = {"standard": True, "topk": True, "gated": True, "jumprelu": False}


@pytest.mark.parametrize("name", CENTRED)
def test_dictionary_learning_folders_where_the_class_centres_alike(tmp_path, name):
    made = make(name, centred=CENTRED[name], unit=True, metadata={"model": "m"}, hook_name_out="out")
    check_same(load_dictionary(save_dictionary(made, tmp_path, format="dictionary_learning")), made)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("format", ["saelens", "sparsify", "dictionary_learning"])
def test_the_dtype_of_our_own_files_is_kept(tmp_path, format, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in make("topk").tensors.items()}
    made = find_frozen("topk")(**weights, k=2, hook_name="h")
    check_same(load_dictionary(save_dictionary(made, tmp_path, format=format)), made)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", CENTRED)
def test_other_centring_becomes_the_same_function(tmp_path, name, centred):
    made, x = make(name, centred=centred), torch.randn(30, 6)
    found = load_dictionary(save_dictionary(made, tmp_path, format="dictionary_learning"))
    expected = exact(made)
    check_equal(found, x, (dense(expected, x.double()), expected.reconstruct(x.double())))


@pytest.mark.parametrize("format", ["saelens", "sparsify"])
def test_groups_that_do_not_divide_the_latents_are_refused(tmp_path, format):
    save_dictionary(make("group_max", k=3, d_sae=12), tmp_path, format=format)
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "k": 5}))
    with pytest.raises(ValueError, match="has d_sae 12, which k 5 groups"):
        load_dictionary(tmp_path)


def written_for_saelens(folder: Path, made: Dictionary) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    save_dictionary(made, folder)
    return json.loads((folder / "cfg.json").read_text()), load_file(folder / "sae_weights.safetensors")


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("standard", {}, "standard"),
        ("gated", {"centred": False}, "gated"),
        ("jumprelu", {"hook_name_out": "out", "centred": False}, "jumprelu_transcoder"),
        ("standard", {"d_out": 9}, "transcoder"),
        ("standard", {"skip": True, "hook_name_out": "out"}, "skip_transcoder"),
        ("jumprelu", {"skip": True, "hook_name_out": "out", "d_out": 4}, "jumprelu_skip_transcoder"),
        ("topk", {"hook_name_out": "out", "centred": False}, "topk"),
    ],
)
def test_saelens_computes_the_same_from_what_is_written(tmp_path, name, options, written):
    made, x = make(name, **options), torch.randn(30, 6)
    config, weights = written_for_saelens(tmp_path, made)
    assert config["architecture"] == written
    check_equal(made, x, documented.saelens(config, weights, x))
    wanted = {"apply_b_dec_to_input": made.centred, "normalize_activations": "none", "dtype": "float32"}
    assert {key: config[key] for key in wanted} == wanted
    assert config["metadata"].get("hook_name_out") == made.hook_name_out


@pytest.mark.parametrize(
    ("name", "options", "written"),
    [
        ("topk", {"d_out": 4}, "topk_transcoder"),
        ("topk", {"skip": True, "hook_name_out": "out"}, "topk_skip_transcoder"),
        ("gated", {"skip": True, "centred": True}, "gated_skip"),
        ("group_max", {}, "group_max"),
        ("group_max", {"hook_name_out": "out", "d_out": 4}, "group_max_transcoder"),
    ],
)
def test_what_saelens_has_no_class_for_gets_a_name_that_it_refuses(tmp_path, name, options, written):
    made = make(name, **options)
    config, _ = written_for_saelens(tmp_path, made)
    assert config["architecture"] == written
    assert written not in KNOWN
    check_same(load_dictionary(tmp_path), made)


@pytest.mark.parametrize("name", ["topk", "jumprelu"])
def test_a_cross_layer_transcoder(tmp_path, name):
    sites = tuple(Site(f"blocks.{layer}.hook_mlp_in", 4, scale=0.5) for layer in range(3))
    targets = tuple(Site(f"blocks.{layer}.hook_mlp_out", 5) for layer in range(3))
    layers = [make(name, d_in=4, d_out=5 * (3 - layer), hook_name=f"{layer}") for layer in range(3)]
    made = CrossLayerDictionary(
        layers=layers, sites=sites, sites_out=targets, hook_name="in", hook_name_out="out"
    )
    found, x = load_dictionary(save_dictionary(made, tmp_path)), torch.randn(7, 12)
    check_same(found, made)
    assert found.sites_out == targets
    assert load_dictionary(tmp_path, hook_name="other").hook_name == "other"
    assert torch.equal(found.reconstruct(x), made.reconstruct(x))
