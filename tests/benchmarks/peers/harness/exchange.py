"""The part that the `files_*.py` harnesses share: walk a folder, ask the tool, write or compare.

    files_<tool>.py read FOLDER     every folder under it that holds `x.safetensors` is loaded with the tool
    files_<tool>.py write FOLDER    random dictionaries of the tool's own classes, saved by the tool itself

Beside a dictionary lie `x.safetensors` (tensor `x`, rows) and `expected.safetensors` (`codes`, dense, and
`reconstructions`). Reading answers one JSON line with a record per folder: the largest absolute difference of
encode, of decode (of the expected codes; null where the reconstruction has a path beside the codes), and of the
forward pass, the largest expected value of each, and the class that was loaded; or `error`, the tool's own message.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # a tool's own prints must not look like answers

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

D_IN, D_SAE, K, ROWS = 24, 96, 5, 40


class Loaded(Protocol):
    """A dictionary as its tool holds it."""

    kind: str
    skip: bool

    def encode(self, x: Tensor) -> Tensor:
        """Dense codes."""

    def decode(self, codes: Tensor) -> Tensor:
        """Their reconstruction."""

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of rows."""


def compare(loaded: Loaded, folder: Path) -> dict[str, Any]:
    """Largest differences between the tool's results and the expected ones."""
    x, expected = load_file(folder / "x.safetensors")["x"], load_file(folder / "expected.safetensors")
    codes, reconstructions = expected["codes"], expected["reconstructions"]
    decoded = None if loaded.skip else largest(loaded.decode(codes) - reconstructions)
    return {
        "class": loaded.kind,
        "encode": largest(loaded.encode(x) - codes),
        "decode": decoded,
        "forward": largest(loaded.forward(x) - reconstructions),
        "largest_code": largest(codes),
        "largest_reconstruction": largest(reconstructions),
    }


def largest(tensor: Tensor) -> float:
    """Largest absolute value; NaN counts as infinite."""
    return float(tensor.nan_to_num(torch.inf).abs().max())


def read(load: Callable[[Path], Loaded], root: Path) -> list[dict[str, Any]]:
    """A record for every dictionary under the folder."""
    records = []
    for path in sorted(root.rglob("x.safetensors")):
        record: dict[str, Any] = {"folder": str(path.parent.relative_to(root))}
        try:
            record |= compare(load(path.parent), path.parent)
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {error}"
        records.append(record)
    return records


def write(
    examples: Callable[[Path], Iterator[Path]], load: Callable[[Path], Loaded], root: Path
) -> list[dict[str, Any]]:
    """Rows and expected results beside every example that the tool has saved, by the tool's own loader."""
    records = []
    for folder in examples(root):
        loaded, x = load(folder), 2 * torch.randn(ROWS, D_IN) + 1
        save_file({"x": x}, folder / "x.safetensors")
        codes, y = loaded.encode(x).contiguous(), loaded.forward(x).contiguous()
        save_file({"codes": codes, "reconstructions": y}, folder / "expected.safetensors")
        l0 = float((codes != 0).sum(1).float().mean())
        records.append({"folder": str(folder.relative_to(root)), "class": loaded.kind, "l0": l0})
    return records


@torch.no_grad()
def randomise(tensors: dict[str, Tensor]) -> None:
    """Random values in place of the initial ones, so that no bias is zero and no matrix another's transpose."""
    for name, tensor in sorted(tensors.items()):
        if not tensor.is_floating_point():
            continue
        if "threshold" in name:
            tensor.uniform_(0.2, 1.0)
        elif tensor.ndim < 2:
            tensor.normal_(0, 0.3)
        else:
            tensor.normal_(0, tensor.shape[-1] ** -0.5)


def main(load: Callable[[Path], Loaded], examples: Callable[[Path], Iterator[Path]]) -> None:
    """Do what the command line says and answer with one JSON line."""
    action, root = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    with torch.no_grad():
        answer = read(load, root) if action == "read" else write(examples, load, root)
    print(json.dumps(answer), file=channel, flush=True)
