"""What the embedded model reads: Python source from this interpreter, and generated English and Python.

Held out is a fixed part of the standard library, by hash of the file's name. A training file whose bytes
equal a held-out file (vendored copies) is dropped. Everything is turned into token ids once and kept as
memory-mapped arrays, so that a batch is a pure function of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from workbench.testbeds.embedded_model import grammar
from workbench.text import STDLIB_HELD_OUT, TextFile, find_text, is_held_out, stdlib_files

PACKAGE_CAP_BYTES = 6_000_000
FILE_CAP_BYTES = 200_000
LONG_LINE = 30
GENERATED_BYTES = {"english": 16_000_000, "snippets": 8_000_000}
SHARES = {"stdlib": 0.32, "packages": 0.40, "english": 0.12, "snippets": 0.06, "repeated": 0.10}
TOKENIZER_BYTES = {"english": 5_000_000, "snippets": 1_500_000}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def package_files() -> list[TextFile]:
    """Source files of the installed packages, at most `PACKAGE_CAP_BYTES` of each, in order of name hash."""
    root = Path(sysconfig.get_paths()["purelib"])
    kept: list[TextFile] = []
    for package in sorted(p for p in root.iterdir() if p.is_dir() and p.suffix != ".dist-info"):
        files = sorted(package.rglob("*.py"), key=lambda p: _digest(str(p.relative_to(root)).encode()))
        taken = 0
        for path in files:
            size = path.stat().st_size
            if 0 < size <= FILE_CAP_BYTES and taken + size <= PACKAGE_CAP_BYTES:
                kept.append(TextFile(f"site-packages/{path.relative_to(root)}", path))
                taken += size
    return kept


def python_documents() -> list[tuple[str, str]]:
    """(name, text) of every training file, shuffled by hash, held-out files and their copies left out."""
    library = [f for f in stdlib_files() if f.path.stat().st_size <= FILE_CAP_BYTES * 4]
    banned = {_digest(f.path.read_bytes()) for f in library if is_held_out(f.name)}
    documents: dict[str, tuple[str, str]] = {}
    for file in [f for f in library if not is_held_out(f.name)] + package_files():
        data = file.path.read_bytes()
        key = _digest(data)
        if key in banned or key in documents:
            continue
        try:
            documents[key] = (file.name, data.decode("utf-8"))
        except UnicodeDecodeError:
            continue
    return [documents[key] for key in sorted(documents)]


def _long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= LONG_LINE}


def near_copies() -> list[str]:
    """Held-out files more than half of whose long lines stand in one training file (backports, variants).

    They stay in the evaluation; the model card gives its figure with and without them.
    """
    held = {f.name: _long_lines(f.read()) for f in find_text(STDLIB_HELD_OUT)}
    everything = set().union(*held.values())
    copied: set[str] = set()
    for _, text in python_documents():
        shared = _long_lines(text) & everything
        copied |= {name for name, lines in held.items() if 2 * len(lines & shared) > len(lines)}
    return sorted(copied)


def generated_documents(kind: str, *, seed: int, n_bytes: int) -> Iterator[str]:
    """Generated documents of one kind (`english` or `snippets`) until `n_bytes` of text are made."""
    make = {"english": grammar.english_document, "snippets": grammar.python_document}[kind]
    rng, made = random.Random(f"{kind}-{seed}"), 0
    while made < n_bytes:
        text = make(rng)
        made += len(text)
        yield text


def tokenizer_texts(*, seed: int) -> list[str]:
    """The texts on which the tokenizer is trained: a part of the files, and generated text."""
    documents = python_documents()
    texts = [text for name, text in documents if name.startswith("stdlib/")][::2]
    texts += [text for name, text in documents if not name.startswith("stdlib/")][::8]
    for kind, n_bytes in TOKENIZER_BYTES.items():
        texts += generated_documents(kind, seed=seed + 1, n_bytes=n_bytes)
    return texts


def _write_ids(path: Path, tokenizer: Tokenizer, texts: list[str]) -> int:
    """Token ids of all texts, each preceded by the end-of-text token, as uint16."""
    end = tokenizer.token_to_id("<|endoftext|>")
    pieces = []
    for start in range(0, len(texts), 512):
        for encoding in tokenizer.encode_batch(texts[start : start + 512]):
            pieces.append(np.array([end, *encoding.ids], dtype=np.uint16))
    ids = np.concatenate(pieces)
    np.save(path, ids)
    return len(ids)


def build(folder: Path, tokenizer: Tokenizer, *, seed: int) -> dict[str, int]:
    """Tokenise the corpus into `folder` once; later calls return the recorded token counts."""
    record = folder / "corpus.json"
    if record.exists():
        return json.loads(record.read_text())
    documents = python_documents()
    counts = {"files": len(documents), "bytes": sum(len(text.encode()) for _, text in documents)}
    library = [text for name, text in documents if name.startswith("stdlib/")]
    packages = [text for name, text in documents if not name.startswith("stdlib/")]
    counts["stdlib"] = _write_ids(folder / "stdlib.npy", tokenizer, library)
    counts["packages"] = _write_ids(folder / "packages.npy", tokenizer, packages)
    for kind, n_bytes in GENERATED_BYTES.items():
        texts = list(generated_documents(kind, seed=seed, n_bytes=n_bytes))
        counts[kind] = _write_ids(folder / f"{kind}.npy", tokenizer, texts)
    record.write_text(json.dumps(counts, indent=1))
    return counts


class Blocks:
    """Training blocks of `n_ctx` ids, each starting with the end-of-text token; pure in (seed, index)."""

    def __init__(self, folder: Path, *, n_ctx: int, d_vocab: int, seed: int) -> None:
        self.n_ctx, self.d_vocab, self.seed = n_ctx, d_vocab, seed
        self._kinds = [kind for kind, share in SHARES.items() for _ in range(round(100 * share))]
        self._arrays = {k: np.load(folder / f"{k}.npy", mmap_mode="r") for k in SHARES if k != "repeated"}
        self._orders = {k: self._order(k, (len(a) - 1) // (n_ctx - 1)) for k, a in self._arrays.items()}

    def _order(self, kind: str, n_windows: int) -> np.ndarray:
        key = int(_digest(f"{kind}-{self.seed}".encode())[:8], 16)
        return np.random.default_rng(key).permutation(n_windows)

    def batch(self, step: int, size: int) -> np.ndarray:
        """Blocks `step*size` to `(step+1)*size`, int64 (batch, n_ctx)."""
        return np.stack([self.block(index) for index in range(step * size, (step + 1) * size)])

    def block(self, index: int) -> np.ndarray:
        """One block; its kind and its window follow from the index alone.

        Every 100 blocks hold each kind exactly as often as its share says, in a seeded order.
        """
        cycle, place = divmod(index, len(self._kinds))
        order = np.random.default_rng([self.seed, cycle]).permutation(self._kinds)
        kind = str(order[place])
        used = cycle * self._kinds.count(kind) + int((order[:place] == kind).sum())
        out = np.zeros(self.n_ctx, dtype=np.int64)
        out[1:] = self._repeated(index) if kind == "repeated" else self._window(kind, used)
        return out

    def _window(self, kind: str, used: int) -> np.ndarray:
        """The next unused window of a kind; a kind that runs out starts over."""
        order, ids = self._orders[kind], self._arrays[kind]
        start = int(order[used % len(order)]) * (self.n_ctx - 1)
        return ids[start : start + self.n_ctx - 1].astype(np.int64)

    def _repeated(self, index: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index, 1])
        period = int(rng.integers(8, self.n_ctx // 2))
        return np.resize(rng.integers(1, self.d_vocab, size=period), self.n_ctx - 1)
