"""The same function in other weights: decoder norms, input normalisation and input centring folded away.

    norms          W_enc <- W_enc |d|,  b_enc <- b_enc |d|,  W_dec <- W_dec / |d|      (d = a row of W_dec)
    x' = (x - m) M, y = y' M^-1 + m
                   W_enc <- M W_enc,  W_dec <- W_dec M^-1,  b_dec <- b_dec M^-1 + m,
                   b_enc <- b_enc - m W_enc (folded W_enc) where b_dec is not subtracted from the input
    centring       b_enc <- b_enc - b_dec W_enc

Everything is done in float64, so that each is exact up to the last rounding. A threshold on pre-activations
stays what it is under the second and third, and under the first where it was on the rescaled ones.
The gated encoder has one matrix and two biases: the bias of the gate moves like b_enc, that of the magnitude
by exp(r_mag) times as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries.base import Dictionary
from workbench.dictionaries.formats.files import read_config, read_tensors
from workbench.errors import UserError

SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
INVERSE_ERROR = 1e-4
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class InputMap:
    """x' = (x - mean) @ matrix, and what undoes it, in float64; a matrix may be one factor, without dimensions."""

    mean: Tensor
    matrix: Tensor
    inverse: Tensor

    @property
    def is_factor(self) -> bool:
        """Whether it is x' = factor * x."""
        return self.matrix.ndim == 0


def fold_norms(weights: Weights) -> dict[str, Tensor]:
    """Unit decoder rows and the same reconstructions; the codes become the rescaled ones, times the norms."""
    norm = weights["W_dec"].double().norm(dim=1)
    safe = torch.where(norm > 0, norm, 1.0)
    folded = {"W_enc": weights["W_enc"] * norm, "W_dec": weights["W_dec"] / safe.unsqueeze(1)}
    folded |= {name: weights[name] * norm for name in ("b_enc", "b_gate", "b_mag") if name in weights}
    return _rounded(weights, folded)


def fold_input_map(weights: Weights, applied: InputMap, *, centred: bool) -> dict[str, Tensor]:
    """Weights for raw activations from weights for mapped ones; the codes stay the same."""
    W_enc = _product(applied.matrix, weights["W_enc"].double())
    folded = {
        "W_enc": W_enc,
        "W_dec": _product(weights["W_dec"].double(), applied.inverse),
        "b_dec": _product(weights["b_dec"].double(), applied.inverse) + applied.mean,
    }
    return _rounded(weights, folded if centred else {**folded, **_shifted(weights, -applied.mean @ W_enc)})


def _product(left: Tensor, right: Tensor) -> Tensor:
    return left * right if 0 in (left.ndim, right.ndim) else left @ right


def uncentred(dictionary: Dictionary) -> Dictionary:
    """The same function without subtracting b_dec from the input."""
    return _move_centre(dictionary, -1) if dictionary.centred else dictionary


def centred(dictionary: Dictionary) -> Dictionary:
    """The same function with b_dec subtracted from the input; input and output must be equally wide."""
    return dictionary if dictionary.centred else _move_centre(dictionary, 1)


def _move_centre(dictionary: Dictionary, sign: int) -> Dictionary:
    weights = dictionary.tensors
    shift = sign * (dictionary.b_dec.double() @ dictionary.W_enc.double())
    moved: dict[str, Any] = _rounded(weights, _shifted(weights, shift))
    changed = {name: tensor for name, tensor in moved.items() if tensor is not weights[name]}
    return replace(dictionary, centred=sign > 0, **changed)


def _shifted(weights: Weights, shift: Tensor) -> dict[str, Tensor]:
    """The encoder biases after a shift of the pre-activations."""
    moved = {name: weights[name].double() + shift for name in ("b_enc", "b_gate") if name in weights}
    if "b_mag" in weights:
        moved["b_mag"] = weights["b_mag"].double() + shift * weights["r_mag"].double().exp()
    return moved


def _rounded(weights: Weights, folded: Weights) -> dict[str, Tensor]:
    return {**weights, **{name: tensor.to(weights[name].dtype) for name, tensor in folded.items()}}


def read_input_map(folder: Path, d_in: int) -> InputMap | None:
    """The normalisation that lies beside the weights of a training checkpoint; None where there is none.

    Raises:
        UserError: a file is damaged, of another width, or the stored inverse is not one.
    """
    if not (folder / SCALER).exists():
        return None
    scaler = read_config(folder / SCALER)
    if scaler.get("has_whitening"):
        return _read_whitening(folder, d_in)
    factor = scaler.get("scaling_factor")
    if not isinstance(factor, float | int) or isinstance(factor, bool) or not 0 < factor < float("inf"):
        return None
    scale = torch.tensor(factor, dtype=torch.float64)
    return InputMap(torch.zeros(d_in, dtype=torch.float64), scale, 1 / scale)


def _read_whitening(folder: Path, d_in: int) -> InputMap:
    stored = {name: tensor.double() for name, tensor in read_tensors(folder / WHITENING).items()}
    wanted = {"mean": (d_in,), "matrix": (d_in, d_in), "inverse_matrix": (d_in, d_in)}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    if found != wanted:
        raise UserError(f"{WHITENING} in {str(folder)!r} holds {found}, not {wanted}: copy it again")
    error = (stored["matrix"] @ stored["inverse_matrix"] - torch.eye(d_in, dtype=torch.float64)).abs().max()
    if not float(error) < INVERSE_ERROR:
        raise UserError(
            f"{WHITENING} in {str(folder)!r} has an inverse_matrix that is off by {float(error):.1e}: copy it again"
        )
    return InputMap(stored["mean"], stored["matrix"], stored["inverse_matrix"])
