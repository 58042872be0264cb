"""Corpora: named texts, the split that keeps evaluation text out of training, and packed blocks of tokens.

The default corpus is the Python standard library of the running interpreter: real text that every
machine already has. Documents are put in a seeded order, joined with the end-of-text token between them
and cut into blocks; every block starts with the beginning-of-text token.
"""

from __future__ import annotations

import glob
import hashlib
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int32
from torch import Tensor

from workbench.errors import UserError

HELD_OUT_ONE_IN = 25
STDLIB, STDLIB_HELD_OUT = "stdlib", "stdlib-heldout"


@runtime_checkable
class TokenizerLike(Protocol):
    """The part of a Hugging Face tokenizer that packing needs."""

    bos_token_id: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True)
class TextFile:
    """A text on disk and the name it is known by, which does not depend on where it lies."""

    name: str
    path: Path

    def read(self) -> str:
        """The text.

        Raises:
            UserError: the file is empty or is not UTF-8 text.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"text file {str(self.path)!r} could not be read: {error.strerror}") from error
        if not data.strip():
            raise UserError(f"text file {str(self.path)!r} is empty: give files with text in them")
        if b"\0" in data:
            raise UserError(f"text file {str(self.path)!r} is binary (it holds NUL bytes): give UTF-8 text")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"text file {str(self.path)!r} is not UTF-8 (byte {error.start}): convert it first"
            ) from error


def is_held_out(name: str) -> bool:
    """Whether a file is evaluation text (one in 25, by hash of its name)."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def stdlib_files() -> list[TextFile]:
    """Source files of the interpreter's standard library, sorted by name; no installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if "site-packages" not in relative.parts and path.stat().st_size:
            files.append(TextFile(f"stdlib/{relative.as_posix()}", path))
    return sorted(files, key=lambda f: f.name)


def _readable(file: TextFile) -> bool:
    """Whether a library file is UTF-8 text (a few test files of the standard library are not, on purpose)."""
    try:
        file.read()
    except UserError:
        return False
    return True


def find_text(source: str) -> list[TextFile]:
    """The files of a corpus.

    Args:
        source: `"stdlib"` (training part), `"stdlib-heldout"` (evaluation part), or a path or glob of text files.

    Raises:
        UserError: no file matches.
    """
    if source in (STDLIB, STDLIB_HELD_OUT):
        wanted = source == STDLIB_HELD_OUT
        return [f for f in stdlib_files() if is_held_out(f.name) == wanted and _readable(f)]
    paths = sorted(
        p for p in map(Path, glob.glob(str(Path(source).expanduser()), recursive=True)) if p.is_file()
    )
    if not paths:
        raise UserError(
            f"text {source!r} matches no file: give {STDLIB!r}, {STDLIB_HELD_OUT!r}, or a path or glob of text files"
        )
    return [TextFile(path.name, path) for path in paths]


@dataclass(frozen=True)
class Blocks:
    """Packed token ids with their origin.

    Attributes:
        tokens: Token ids (block, pos); position 0 is the beginning-of-text token.
        document: Index into `documents` of the text that each token comes from (block, pos).
        documents: Names of the texts.
        description: Source, seed and a digest of the ids: equal descriptions mean equal blocks.
    """

    tokens: Int32[Tensor, "block pos"]
    document: Int32[Tensor, "block pos"]
    documents: list[str]
    description: dict[str, Any] = field(default_factory=dict)


def _shuffled(files: Iterable[TextFile], seed: int) -> list[TextFile]:
    return sorted(files, key=lambda f: hashlib.sha256(f"{seed}|{f.name}".encode()).hexdigest())


def pack(tokenizer: TokenizerLike, source: str, *, n_tokens: int, n_ctx: int, seed: int = 0) -> Blocks:
    """Blocks of `n_ctx` ids from a corpus: the first `n_tokens` tokens of its documents in seeded order.

    Args:
        tokenizer: Hugging Face tokenizer with beginning- and end-of-text tokens.
        source: As in `find_text`.
        n_tokens: Text tokens wanted (the added first token of each block not counted); a smaller corpus gives all.
        n_ctx: Block length, first token included.
        seed: Decides the order of the documents.

    Raises:
        UserError: no text, an unreadable file, or less text than one block.
    """
    width = n_ctx - 1
    wanted = -(-n_tokens // width) * width
    ids, origin, names, total = [], [], [], 0
    for file in _shuffled(find_text(source), seed):
        piece = [int(tokenizer.eos_token_id), *tokenizer.encode(file.read(), add_special_tokens=False)]
        ids.append(np.asarray(piece, dtype=np.int32))
        origin.append(np.full(len(piece), len(names), dtype=np.int32))
        names.append(file.name)
        total += len(piece)
        if total >= wanted:
            break
    n_blocks = min(total, wanted) // width
    if n_blocks == 0:
        raise UserError(f"text {source!r} has {total} tokens, less than one block of {n_ctx}: give more text")
    tokens = _cut(np.concatenate(ids), n_blocks, width, int(tokenizer.bos_token_id))
    document = _cut(np.concatenate(origin), n_blocks, width, 0)
    document[:, 0] = document[:, 1]
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()
    description = {"source": source, "seed": seed, "tokens_sha256": digest}
    return Blocks(torch.from_numpy(tokens), torch.from_numpy(document), names, description)


def _cut(flat: np.ndarray, n_blocks: int, width: int, first: int) -> np.ndarray:
    """Rows of `width` values with `first` before each."""
    rows = flat[: n_blocks * width].reshape(n_blocks, width)
    return np.concatenate([np.full((n_blocks, 1), first, dtype=np.int32), rows], axis=1)
