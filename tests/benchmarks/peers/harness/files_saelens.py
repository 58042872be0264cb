"""SAELens reads and writes its own directories: `SAE.load_from_disk`, `save_model` and `save_inference_model`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from exchange import D_IN, D_SAE, K, main, randomise  # isort: skip
from sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from torch import Tensor

PLAIN = ("standard", "topk", "jumprelu", "gated")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
TRAINED = {
    "topk-trained": (TopKTrainingSAE, TopKTrainingSAEConfig, {"k": K}),
    "batchtopk-trained": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, {"k": K}),
    "matryoshka-trained": (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": K, "matryoshka_widths": [D_SAE // 4, D_SAE // 2, D_SAE]},
    ),
}


class Loaded:
    """A loaded SAE."""

    def __init__(self, folder: Path) -> None:
        self.sae = SAE.load_from_disk(folder)
        self.kind, self.skip = type(self.sae).__name__, hasattr(self.sae, "W_skip")

    def encode(self, x: Tensor) -> Tensor:
        return self.sae.encode(x)

    def decode(self, codes: Tensor) -> Tensor:
        return self.sae.decode(codes)

    def forward(self, x: Tensor) -> Tensor:
        return self.sae(x)


def examples(root: Path) -> Iterator[Path]:
    """Every architecture of inference, and what training saves for inference."""
    for name in (*PLAIN, *TRANSCODERS):
        extra = {"k": K} if name == "topk" else {}
        if name in TRANSCODERS:
            extra |= {"d_out": D_IN, "apply_b_dec_to_input": False}
        sae = SAE.from_dict({"architecture": name, "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", **extra})
        randomise(dict(sae.named_parameters()))
        sae.save_model(root / name)
        yield root / name
    for name, (kind, config, options) in TRAINED.items():
        sae = kind(config(d_in=D_IN, d_sae=D_SAE, **options))
        randomise({**dict(sae.named_parameters()), **dict(sae.named_buffers())})
        sae.save_inference_model(root / name)
        yield root / name


if __name__ == "__main__":
    main(Loaded, examples)
