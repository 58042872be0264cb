"""dictionary_learning reads its own directories (`load_dictionary`); its `trainSAE` saves `ae.pt`, `config.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from exchange import D_IN, D_SAE, K, main, randomise  # isort: skip
import torch
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from dictionary_learning.trainers.top_k import AutoEncoderTopK
from dictionary_learning.utils import load_dictionary
from torch import Tensor

KINDS = {
    AutoEncoder: {},
    AutoEncoderNew: {},
    GatedAutoEncoder: {},
    JumpReluAutoEncoder: {},
    AutoEncoderTopK: {"k": K},
    BatchTopKSAE: {"k": K},
    MatryoshkaBatchTopKSAE: {"k": K, "group_sizes": [D_SAE // 4, D_SAE // 4, D_SAE // 2]},
}


class Loaded:
    """A loaded dictionary."""

    def __init__(self, folder: Path) -> None:
        self.ae, _ = load_dictionary(str(folder), "cpu")
        self.kind, self.skip = type(self.ae).__name__, False

    def encode(self, x: Tensor) -> Tensor:
        return self.ae.encode(x)

    def decode(self, codes: Tensor) -> Tensor:
        return self.ae.decode(codes)

    def forward(self, x: Tensor) -> Tensor:
        return self.ae(x)


def examples(root: Path) -> Iterator[Path]:
    """Every class that `load_dictionary` knows, in the files that `trainSAE` writes."""
    for kind, options in KINDS.items():
        folder = root / kind.__name__
        folder.mkdir(parents=True, exist_ok=True)
        ae = kind(D_IN, D_SAE, **options)
        randomise(ae.state_dict())
        torch.save(ae.state_dict(), folder / "ae.pt")
        trainer = {
            "dict_class": kind.__name__, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 1,
            "lm_name": "planted", "submodule_name": "resid_post_layer_1", **options,
        }  # fmt: skip
        text = json.dumps({"trainer": trainer, "buffer": {"d_submodule": D_IN, "io": "out", "ctx_len": 128}})
        (folder / "config.json").write_text(text)
        yield folder


if __name__ == "__main__":
    main(Loaded, examples)
