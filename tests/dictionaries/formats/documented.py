"""What each layout's documentation says a dictionary computes, in plain float64, and random files of each layout.

Tests hold the workbench's dictionaries against these. None of it uses the workbench.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Answer = tuple[Tensor, Tensor]  # dense code, reconstruction


def top(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row, then ReLU; 0 elsewhere."""
    found = pre.topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, found.indices, found.values.relu())


def random_weights(*, d_in: int, d_sae: int, d_out: int, architecture: str, skip: bool) -> dict[str, Tensor]:
    """Weights by SAELens' names, of no special form: decoder rows of other lengths than 1, no bias 0."""
    extra = {"gated": ("b_gate", "b_mag", "r_mag"), "jumprelu": ("b_enc", "threshold")}
    weights = {"W_enc": torch.randn(d_in, d_sae), "b_dec": torch.randn(d_out)}
    weights["W_dec"] = torch.randn(d_sae, d_out) * (0.3 + torch.rand(d_sae, 1))
    weights |= {name: 0.5 * torch.randn(d_sae) for name in extra.get(architecture, ("b_enc",))}
    if "threshold" in weights:
        weights["threshold"] = torch.rand(d_sae) - 0.1  # some below 0
    return {**weights, "W_skip": torch.randn(d_out, d_in)} if skip else weights


def saelens(config: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Answer:
    """SAELens 6 at inference, any architecture."""
    w, x, name = {key: tensor.double() for key, tensor in weights.items()}, x.double(), config["architecture"]
    centred = x - w["b_dec"] if config["apply_b_dec_to_input"] else x
    norm = w["W_dec"].norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else 1.0
    if name == "gated":
        pi = centred @ w["W_enc"]
        z = (pi + w["b_gate"] > 0) * (pi * w["r_mag"].exp() + w["b_mag"]).relu()
    else:
        pre = (centred @ w["W_enc"] + w["b_enc"]) * norm
        z = (
            top(pre, config["k"])
            if name.startswith("topk")
            else pre.relu() * (pre > w.get("threshold", torch.zeros(1)))
        )
    y = (z / norm) @ w["W_dec"] + w["b_dec"]
    return z, y + x @ w["W_skip"].T if "W_skip" in w else y


def saelens_folder(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    """A SAELens 6 directory."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    about = {"sae_lens_version": "6.54.12", "hook_name": "blocks.3.hook_resid_post", "model_name": "planted"}
    full = {"dtype": "float32", "device": "cpu", "normalize_activations": "none", "metadata": about, **config}
    (folder / "cfg.json").write_text(json.dumps(full))
    return folder


def sparsify(config: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Answer:
    """sparsify's encode, decode and skip."""
    w, x = {key: tensor.double() for key, tensor in weights.items()}, x.double()
    inputs = x if config.get("transcode") else x - w["b_dec"]
    pre = (inputs @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    if config.get("activation", "topk") == "topk":
        z = top(pre, config["k"])
    else:
        best = pre.unflatten(1, (config["k"], -1)).max(dim=2)
        latents = best.indices + torch.arange(config["k"]) * (pre.shape[1] // config["k"])
        z = torch.zeros_like(pre).scatter(1, latents, best.values)
    y = z @ w["W_dec"] + w["b_dec"]
    return z, y + x @ w["W_skip"].T if config.get("skip_connection") else y


def sparsify_folder(folder: Path, config: dict[str, Any], *, d_sae: int) -> dict[str, Tensor]:
    """A sparsify folder with random weights, which are returned."""
    d = config["d_in"]
    weights = {
        "encoder.weight": torch.randn(d_sae, d), "encoder.bias": 0.5 * torch.randn(d_sae),
        "W_dec": torch.randn(d_sae, d), "b_dec": torch.randn(d),
    }  # fmt: skip
    if config.get("skip_connection"):
        weights["W_skip"] = torch.randn(d, d)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return weights


DL_CLASSES = (
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)  # fmt: skip


def dl_weights(name: str, *, d: int, d_sae: int, k: int) -> dict[str, Tensor]:
    """A random state dict of a class of dictionary_learning."""
    encoder, decoder = torch.randn(d_sae, d), torch.randn(d, d_sae)
    linear = {"encoder.weight": encoder, "encoder.bias": 0.5 * torch.randn(d_sae), "decoder.weight": decoder}
    direct = {
        "W_enc": encoder.T.contiguous(),
        "b_enc": linear["encoder.bias"],
        "W_dec": decoder.T.contiguous(),
    }
    bias, batch = torch.randn(d), {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(0.4)}
    gate = {key: 0.5 * torch.randn(d_sae) for key in ("r_mag", "gate_bias", "mag_bias")}
    return {
        "AutoEncoder": {**linear, "bias": bias},
        "AutoEncoderNew": {**linear, "decoder.bias": bias},
        "GatedAutoEncoder": {
            "encoder.weight": encoder,
            "decoder.weight": decoder,
            "decoder_bias": bias,
            **gate,
        },
        "AutoEncoderTopK": {**linear, "b_dec": bias, **batch},
        "BatchTopKSAE": {**linear, "b_dec": bias, **batch},
        "MatryoshkaBatchTopKSAE": {
            **direct,
            "b_dec": bias,
            **batch,
            "group_sizes": torch.tensor([2, d_sae - 2]),
        },
        "JumpReluAutoEncoder": {**direct, "b_dec": bias, "threshold": torch.rand(d_sae) - 0.1},
    }[name]


def dictionary_learning(name: str, weights: dict[str, Tensor], x: Tensor) -> Answer:
    """dictionary_learning after its own loader, which gives an AutoEncoder unit decoder rows."""
    w, x = {key: tensor.double() for key, tensor in weights.items()}, x.double()
    W_enc = w["encoder.weight"].T if "encoder.weight" in w else w["W_enc"]
    W_dec = w["decoder.weight"].T if "decoder.weight" in w else w["W_dec"]
    bias = next(w[key] for key in ("bias", "decoder.bias", "decoder_bias", "b_dec") if key in w)
    pi = (x if name in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - bias) @ W_enc
    if name == "GatedAutoEncoder":
        z = (pi + w["gate_bias"] > 0) * (w["r_mag"].exp() * pi + w["mag_bias"]).relu()
    else:
        pre = pi + w["encoder.bias" if "encoder.bias" in w else "b_enc"]
        threshold = torch.zeros(1) if name == "AutoEncoderTopK" else w.get("threshold", torch.zeros(1))
        z = top(pre, int(w["k"])) if name == "AutoEncoderTopK" else pre.relu() * (pre > threshold)
    y = z @ W_dec + bias
    return (z * W_dec.norm(dim=1) if name == "AutoEncoder" else z), y


def dl_folder(folder: Path, name: str, weights: dict[str, Tensor], **trainer: Any) -> Path:
    """A dictionary_learning folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "ae.pt")
    about = {"dict_class": name, "lm_name": "planted", "submodule_name": "resid_post_layer_2", **trainer}
    (folder / "config.json").write_text(json.dumps({"trainer": about, "buffer": {"ctx_len": 64}}))
    return folder
