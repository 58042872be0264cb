"""sparsify reads and writes its own directories: `SparseCoder.load_from_disk` and `save_to_disk`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its Triton kernels need a GPU
from exchange import D_IN, D_SAE, K, main, randomise  # isort: skip
import torch
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

OPTIONS = {
    "topk": {},
    "multi_topk": {"multi_topk": True},
    "groupmax": {"activation": "groupmax", "k": 8},
    "transcoder": {"transcode": True},
    "skip_transcoder": {"transcode": True, "skip_connection": True},
}


class Loaded:
    """A loaded coder; its own codes are k values and k latents a row."""

    def __init__(self, folder: Path) -> None:
        self.coder = SparseCoder.load_from_disk(folder)
        self.kind, self.skip = type(self.coder).__name__, self.coder.W_skip is not None

    def encode(self, x: Tensor) -> Tensor:
        top = self.coder.encode(x)
        return torch.zeros(len(x), self.coder.num_latents).scatter(1, top.top_indices, top.top_acts)

    def decode(self, codes: Tensor) -> Tensor:
        return self.coder.decode(*codes.topk(self.coder.cfg.k, dim=1))

    def forward(self, x: Tensor) -> Tensor:
        # not its `forward`, whose `sae_out` is the reconstruction by 4k latents where `multi_topk` is on
        top = self.coder.encode(x)
        y = self.coder.decode(top.top_acts, top.top_indices)
        return y if self.coder.W_skip is None else y + x @ self.coder.W_skip.mT


def examples(root: Path) -> Iterator[Path]:
    """Every combination of options that changes what a coder computes."""
    for name, options in OPTIONS.items():
        coder = SparseCoder(D_IN, SparseCoderConfig(**{"num_latents": D_SAE, "k": K, **options}))
        randomise(dict(coder.named_parameters()))
        coder.save_to_disk(root / name)
        yield root / name


if __name__ == "__main__":
    main(Loaded, examples)
