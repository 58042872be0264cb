"""Our dictionaries in the other tools' hands and theirs in ours: `python -m tests.benchmarks.peers.exports`.

Written here is every frozen class in every layout that holds it; each tool loads its own and computes
(`interop.py`). Read here is what each tool saved, and SAELens training checkpoints whose normalisation is
folded on reading. One line per dictionary: largest differences of codes and reconstructions in float32, over
the largest value. A difference above 1e-6 makes the exit status 1.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.benchmarks.peers import interop
from tests.benchmarks.peers.tools import SAELENS
from tests.dictionaries.formats.comparing import dense
from tests.dictionaries.formats.test_round_trips import make
from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary

SIZES = {"d_in": 24, "d_sae": 96, "k": 6}
PLAIN = ("standard", "topk", "jumprelu", "gated")


def ours() -> Iterator[tuple[str, str, Dictionary]]:
    """Layout, name and dictionary of everything that a tool has a class for."""
    for name, centred in itertools.product(PLAIN, (True, False)):
        for layout in ("saelens", "dictionary_learning"):
            yield layout, f"{name}-{centred}", scaled(name, centred=centred)
    for name, skip, d_out in itertools.product(("standard", "jumprelu"), (True, False), (17, None)):
        made = scaled(name, skip=skip, d_out=d_out, centred=False, hook_name_out="out")
        yield "saelens", f"{name}-transcoder-{d_out}-{skip}", made
    for name, centred, skip in itertools.product(("topk", "group_max"), (True, False), (True, False)):
        yield "sparsify", f"{name}-{centred}-{skip}", scaled(name, centred=centred, skip=skip)
    yield "dictionary_learning", "unit-rows", make("standard", unit=True, **SIZES)
    for key, about in {
        "identity": {"k": 5},
        "dictionary_learning": {"k": 5, "group_sizes": [32, 64]},
    }.items():
        made = scaled("jumprelu", centred=True, metadata={key: about})
        yield (
            "dictionary_learning",
            f"batch-{key}",
            dataclasses.replace(made, threshold=torch.full((96,), 0.7)),
        )


def scaled(name: str, **options) -> Dictionary:
    """A random dictionary whose codes are of the size of its input."""
    made = make(name, **{**SIZES, **options})
    return dataclasses.replace(made, W_enc=0.3 * made.W_enc, W_dec=0.3 * made.W_dec)


def write(root: Path) -> None:
    """Ours, with rows and what we compute of them."""
    for layout, name, made in ours():
        folder, x = root / layout / name, 2 * torch.randn(200, made.d_in) + 1
        save_dictionary(made, folder, format=layout)
        save_file({"x": x}, folder / "x.safetensors")
        answer = {"codes": dense(made, x), "reconstructions": made.reconstruct(x)}
        save_file(answer, folder / "expected.safetensors")


def read(root: Path) -> dict[str, float]:
    """Largest relative difference of every dictionary that a tool saved."""
    found = {}
    for path in sorted(root.rglob("x.safetensors")):
        x, expected = load_file(path)["x"], load_file(path.with_name("expected.safetensors"))
        made = load_dictionary(path.parent)
        pairs = {"codes": dense(made, x), "reconstructions": made.reconstruct(x)}
        found[str(path.parent.relative_to(root))] = max(
            float((answer - expected[key]).abs().max() / expected[key].abs().max().clamp_min(1))
            for key, answer in pairs.items()
        )
    return found


def main() -> int:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "ours")
        records = interop.exchange("read", root / "ours")
        theirs = {
            f"{layout}/{record['folder']}": max(interop.relative(record))
            if "error" not in record
            else torch.inf
            for layout, part in records.items()
            for record in part
        }
        interop.exchange("write", root / "theirs")
        interop.LAYOUTS["checkpoints"] = (SAELENS, "checkpoints_saelens.py")
        interop._ask("checkpoints", "write", root / "checkpoints")
        parts = {
            "written here, read by the tool": theirs,
            "written by the tool, read here": read(root / "theirs"),
            "SAELens checkpoints, folded here": read(root / "checkpoints"),
        }
    for heading, differences in parts.items():
        print(f"{heading}: {len(differences)} dictionaries, largest {max(differences.values()):.1e}")
        for folder, value in differences.items():
            print(f"  {value:.1e} {'TOO LARGE ' if not value <= interop.TOLERANCE else ''}{folder}")
    return int(any(not value <= interop.TOLERANCE for found in parts.values() for value in found.values()))


if __name__ == "__main__":
    sys.exit(main())
