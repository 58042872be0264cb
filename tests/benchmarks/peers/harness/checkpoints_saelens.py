"""SAELens training checkpoints with the files of their normalisation, and what SAELens computes after folding them.

    checkpoints_saelens.py write FOLDER

Every trained architecture, normalisation and `apply_b_dec_to_input`. A folder holds what the trainer saves
(`save_model`, `ActivationScaler.save`), rows, and codes and reconstructions of the inference model that SAELens
itself makes of it (its own fold, `save_inference_model`, `SAE.load_from_disk`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from exchange import D_IN, D_SAE, main, randomise  # isort: skip
import sae_lens
import torch
from files_saelens import TRAINED
from files_saelens import Loaded as Inference
from sae_lens.training.activation_scaler import ActivationScaler
from torch import Tensor

KINDS = {
    **{name: (getattr(sae_lens, f"{name}TrainingSAE"), getattr(sae_lens, f"{name}TrainingSAEConfig"), {})
       for name in ("Standard", "Gated", "JumpReLU")},
    **TRAINED,
}  # fmt: skip
NORMALISATIONS = ("none", "expected_average_only_in", "covariance_whitening")


class Loaded(Inference):
    """The inference model beside a checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "inference")


def batches(mean: Tensor, mixing: Tensor) -> Iterator[Tensor]:
    """Rows with a mean and a covariance."""
    while True:
        yield torch.randn(512, D_IN) @ mixing + mean


def estimate(kind: str) -> ActivationScaler:
    """The normalisation of random rows."""
    scaler, rows = ActivationScaler(), batches(torch.randn(D_IN), torch.randn(D_IN, D_IN))
    if kind == "expected_average_only_in":
        scaler.estimate_scaling_factor(D_IN, rows, 20)
    if kind == "covariance_whitening":
        scaler.estimate_whitening(D_IN, rows, 20)
    return scaler


def examples(root: Path) -> Iterator[Path]:
    """Every combination, saved by SAELens before and after its fold."""
    for (name, kind), normalise, centred in itertools.product(KINDS.items(), NORMALISATIONS, (True, False)):
        cls, config, options = kind
        options = {**options, "normalize_activations": normalise, "apply_b_dec_to_input": centred}
        sae, scaler = cls(config(d_in=D_IN, d_sae=D_SAE, **options)), estimate(normalise)
        randomise({**dict(sae.named_parameters()), **dict(sae.named_buffers())})
        folder = root / f"{name}-{normalise}-{'centred' if centred else 'plain'}"
        sae.save_model(folder)
        scaler.save(str(folder / "activation_scaler.json"))
        if scaler.scaling_factor is not None:
            sae.fold_activation_norm_scaling_factor(scaler.scaling_factor)
        if (whitening := scaler.whitening) is not None:
            sae.fold_activation_whitening(whitening.mean, whitening.matrix, whitening.inverse_matrix)
        sae.save_inference_model(folder / "inference")
        yield folder


if __name__ == "__main__":
    main(Loaded, examples)
