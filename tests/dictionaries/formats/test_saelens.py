"""SAELens directories: what is read equals what SAELens computes, whatever the architecture and its flags."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.dictionaries.formats import documented
from tests.dictionaries.formats.comparing import check_equal
from workbench.dictionaries import load_dictionary, save_dictionary
from workbench.dictionaries.formats.saelens import read_firing_rates, write_firing_rates
from workbench.errors import UserError

AUTOENCODERS = ("standard", "topk", "jumprelu", "gated")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")


def foreign(folder, architecture="topk", *, d_out=None, d_in=10, d_sae=30, base=None, extra=None, **config):
    """A SAELens directory of random weights; returns its configuration and weights."""
    base = base or architecture
    weights = documented.random_weights(
        d_in=d_in, d_sae=d_sae, d_out=d_out or d_in, architecture=base, skip="skip" in architecture
    )
    full = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": d_out is None,
        **config,
    }
    full |= {"k": 4} if base == "topk" else {}
    full |= {"d_out": d_out} if d_out else {}
    documented.saelens_folder(folder, full, {**weights, **(extra or {})})
    return full, weights


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("architecture", AUTOENCODERS)
def test_autoencoders_compute_what_saelens_documents(tmp_path, architecture, centred):
    config, weights = foreign(tmp_path, architecture, apply_b_dec_to_input=centred)
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    check_equal(dictionary, x, documented.saelens(config, weights, x))
    assert (dictionary.architecture, dictionary.centred) == (architecture, centred)
    assert dictionary.hook_name == "blocks.3.hook_resid_post"
    assert dictionary.metadata["model"] == "planted"


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_transcoders_of_two_widths(tmp_path, architecture):
    base = "jumprelu" if "jumprelu" in architecture else "standard"
    metadata = {"sae_lens_version": "6.1.0", "hook_name": "in", "hook_name_out": "out"}
    config, weights = foreign(tmp_path, architecture, base=base, d_out=7, metadata=metadata)
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    check_equal(dictionary, x, documented.saelens(config, weights, x))
    assert (dictionary.hook_name, dictionary.hook_name_out, dictionary.architecture) == ("in", "out", base)
    assert (dictionary.d_out, dictionary.W_skip is not None) == (7, "skip" in architecture)


def test_selection_by_decoder_norm_is_folded(tmp_path):
    config, weights = foreign(tmp_path, rescale_acts_by_decoder_norm=True)
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    check_equal(dictionary, x, documented.saelens(config, weights, x))
    assert torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(30))
    without, _ = documented.saelens({**config, "rescale_acts_by_decoder_norm": False}, weights, x)
    assert ((without > 0) != (documented.saelens(config, weights, x)[0] > 0)).any()  # the flag selects others


def test_the_flag_means_nothing_to_other_architectures(tmp_path):
    config, weights = foreign(tmp_path, "jumprelu", rescale_acts_by_decoder_norm=True)
    x = torch.randn(40, 10)
    expected = documented.saelens({**config, "rescale_acts_by_decoder_norm": False}, weights, x)
    check_equal(load_dictionary(tmp_path), x, expected)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_training_checkpoint_becomes_a_jumprelu(tmp_path, architecture, rescale):
    threshold = torch.tensor(0.6, dtype=torch.float64)
    config, weights = foreign(
        tmp_path, architecture, base="standard", extra={"topk_threshold": threshold}, k=4.5,
        rescale_acts_by_decoder_norm=rescale,
    )  # fmt: skip
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    as_jumprelu = {**weights, "threshold": torch.full((30,), 0.6)}
    check_equal(dictionary, x, documented.saelens(config, as_jumprelu, x))
    assert dictionary.architecture == "jumprelu"


def scaler(folder, *, d, factor=None, whiten=False):
    """SAELens' normalisation files, and the map of rows and its inverse."""
    state = {"scaling_factor": factor, "has_whitening": whiten}
    (folder / "activation_scaler.json").write_text(json.dumps(state))
    if not whiten:
        return (lambda x: x.double() * factor), (lambda y: y / factor)
    mean, vectors = torch.randn(d).double(), torch.linalg.qr(torch.randn(d, d).double()).Q
    spread = 0.5 + torch.rand(d).double()
    matrix, inverse = vectors * spread.rsqrt(), spread.sqrt().unsqueeze(1) * vectors.T
    tensors = {"mean": mean, "matrix": matrix.contiguous(), "inverse_matrix": inverse.contiguous()}
    save_file(tensors, folder / "activation_whitening.safetensors")
    return (lambda x: (x.double() - mean) @ matrix), (lambda y: y @ inverse + mean)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("architecture", [*AUTOENCODERS, "batchtopk"])
def test_the_normalisation_of_a_checkpoint_is_folded(tmp_path, architecture, whiten, centred):
    kind = "covariance_whitening" if whiten else "expected_average_only_in"
    options = {"normalize_activations": kind, "apply_b_dec_to_input": centred}
    if architecture == "batchtopk":
        options |= {"base": "standard", "extra": {"topk_threshold": torch.tensor(0.6)}}
    if architecture in ("topk", "batchtopk"):
        options["rescale_acts_by_decoder_norm"] = True
    config, weights = foreign(tmp_path, architecture, **options)
    into, back = scaler(tmp_path, d=10, factor=2.7, whiten=whiten)
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    known = weights if architecture != "batchtopk" else {**weights, "threshold": torch.full((30,), 0.6)}
    z, y = documented.saelens(config, known, into(x))
    unit = (
        config.get("rescale_acts_by_decoder_norm") and not whiten
    )  # then codes are for unit rows in raw units
    check_equal(dictionary, x, (z / 2.7 if unit else z, back(y)))
    assert not unit or torch.allclose(dictionary.W_dec.norm(dim=1), torch.ones(30))


def test_configurations_from_before_version_6(tmp_path):
    weights = documented.random_weights(d_in=10, d_sae=30, d_out=10, architecture="topk", skip=False)
    old = {
        "d_in": 10, "d_sae": 30, "dtype": "torch.float32", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 4}, "hook_point": "blocks.1.hook_resid_pre", "model_name": "old",
        "normalize_activations": False, "context_size": 64, "unlisted": 1,
    }  # fmt: skip
    save_file({**weights, "scaling_factor": torch.ones(30)}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    x, dictionary = torch.randn(40, 10), load_dictionary(tmp_path)
    new = {"architecture": "topk", "k": 4, "apply_b_dec_to_input": True}
    check_equal(dictionary, x, documented.saelens(new, weights, x))
    assert (dictionary.hook_name, dictionary.metadata) == (
        "blocks.1.hook_resid_pre",
        {"model": "old", "n_ctx": 64},
    )
    (tmp_path / "cfg.json").write_text(json.dumps({**old, "activation_fn_str": "tanh-relu"}))
    with pytest.raises(UserError, match="has activation function 'tanh-relu', which is not read"):
        load_dictionary(tmp_path)


def test_foreign_metadata_is_written_back(tmp_path):
    metadata = {"sae_lens_version": "6.1.0", "hook_name": "h", "neuronpedia_id": "a/b", "prepend_bos": False}
    foreign(tmp_path / "a", metadata=metadata)
    save_dictionary(load_dictionary(tmp_path / "a"), tmp_path / "b")
    written = json.loads((tmp_path / "b" / "cfg.json").read_text())["metadata"]
    assert (written["neuronpedia_id"], written["prepend_bos"], written["hook_name"]) == ("a/b", False, "h")
    assert written["sae_lens_version"] == "6.0.0"


def test_half_precision_weights_are_read_as_float32(tmp_path):
    config, weights = foreign(tmp_path, "standard", dtype="bfloat16")
    rounded = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(rounded, tmp_path / "sae_weights.safetensors")
    dictionary, x = load_dictionary(tmp_path), torch.randn(40, 10)
    assert {tensor.dtype for tensor in dictionary.tensors.values()} == {torch.float32}
    check_equal(dictionary, x, documented.saelens(config, rounded, x))


def test_firing_rates_beside_the_weights(tmp_path):
    assert read_firing_rates(tmp_path) is None
    rates = torch.tensor([0.0, 0.25, 1.0])
    write_firing_rates(tmp_path, rates)
    assert torch.allclose(read_firing_rates(tmp_path), rates, atol=1e-7)
    save_file({"other": rates}, tmp_path / "sparsity.safetensors")
    with pytest.raises(UserError, match="has no tensor 'sparsity' alone"):
        read_firing_rates(tmp_path)


NO_FACTOR = "only 'none' is read, and expected_average_only_in"


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        (
            "abstopk",
            {"base": "standard"},
            "is of architecture 'abstopk', which is not read: its latents may be neg",
        ),
        ("temporal", {"base": "standard"}, "its codes depend on earlier tokens"),
        ("standrad", {"base": "standard"}, "architecture 'standrad' is not known; the nearest: standard"),
        ("topk", {"normalize_activations": "constant_norm_rescale"}, NO_FACTOR),
        ("topk", {"normalize_activations": "expected_average_only_in"}, NO_FACTOR),
        ("topk", {"d_sae": 31}, "but its cfg.json means"),
        ("gated", {"base": "standard"}, "but its cfg.json means"),
        ("topk", {"extra": {"W_more": torch.ones(2)}}, "but its cfg.json means"),
        (
            "topk",
            {"extra": {"b_dec": torch.full((10,), torch.nan)}},
            "has b_dec with values that are not finite",
        ),
        (
            "topk",
            {"extra": {"b_dec": torch.ones(10, dtype=torch.int64)}},
            "is damaged .b_dec is of torch.int64",
        ),
        ("topk", {"extra": {"scaling_factor": torch.full((30,), 2.0)}}, "has a scaling_factor that is not 1"),
    ],
)
def test_what_is_damaged_or_cannot_be_read(tmp_path, architecture, config, message):
    sizes = {"d_sae": config["d_sae"]} if "d_sae" in config else {}
    foreign(tmp_path, architecture, **{key: value for key, value in config.items() if key != "d_sae"})
    if sizes:
        full = json.loads((tmp_path / "cfg.json").read_text())
        (tmp_path / "cfg.json").write_text(json.dumps({**full, **sizes}))
    with pytest.raises(UserError, match=message):
        load_dictionary(tmp_path)


def test_a_wrong_inverse_is_refused(tmp_path):
    foreign(tmp_path, normalize_activations="covariance_whitening")
    scaler(tmp_path, d=10, whiten=True)
    tensors = {name: torch.eye(10).double() for name in ("matrix", "inverse_matrix")}
    tensors = {**tensors, "mean": torch.zeros(10).double(), "matrix": tensors["matrix"] * 2}
    save_file(tensors, tmp_path / "activation_whitening.safetensors")
    with pytest.raises(UserError, match="has an inverse_matrix that is off by"):
        load_dictionary(tmp_path)
    save_file({"mean": torch.zeros(10)}, tmp_path / "activation_whitening.safetensors")
    with pytest.raises(UserError, match=r"holds \{'mean': \(10,\)\}, not"):
        load_dictionary(tmp_path)


def test_a_transcoder_with_a_factor_is_refused(tmp_path):
    foreign(
        tmp_path, "transcoder", base="standard", d_out=10, normalize_activations="expected_average_only_in"
    )
    scaler(tmp_path, d=10, factor=2.0)
    with pytest.raises(UserError, match=r"of an autoencoder with activation_scaler\.json"):
        load_dictionary(tmp_path)
