"""Two layouts of a text corpus: packed blocks, and one sequence per document.

Packed: documents follow each other with the separator before each, and are cut into blocks of `n_ctx` with
the first token before and, for tokenizers of the BERT kind, the last token after each. A last incomplete
block is dropped. Documents: each document alone, with the first (and last) token; one longer than `n_ctx`
is cut into several sequences, each with these tokens again; lengths differ and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np
from jaxtyping import Int32

from workbench.errors import UserError
from workbench.text.encoder import SpecialTokens
from workbench.text.sequence import EMPTY, Ledger, Rest, TokenSequence

INCOMPLETE = "tokens of a last incomplete block"
Documents = Iterable[tuple[str, Int32[np.ndarray, " token"]]]
Stream = Generator[TokenSequence, None, Rest]


def check_room(special: SpecialTokens, n_ctx: int) -> None:
    """Refuse a context in which no text fits.

    Raises:
        UserError: `n_ctx` is too small.
    """
    if n_ctx <= special.n_added:
        raise UserError(
            f"n_ctx {n_ctx} leaves no room for text beside {special.n_added} special tokens: "
            f"give at least {special.n_added + 1}"
        )


def framed(text: Int32[np.ndarray, " token"], special: SpecialTokens) -> Int32[np.ndarray, " pos"]:
    """The text with the first and the last token, where there are any."""
    first = [] if special.first is None else [special.first]
    last = [] if special.last is None else [special.last]
    return np.concatenate([np.asarray(first, np.int32), text, np.asarray(last, np.int32)])


def _framed_document(document: Int32[np.ndarray, " token"], special: SpecialTokens) -> np.ndarray:
    """The document numbers of a framed text: the added tokens count with their neighbours."""
    n_before, n_after = int(special.first is not None), int(special.last is not None)
    return np.concatenate([document[:n_before], document, document[len(document) - n_after :]])


class _Packer:
    """Joins documents and cuts them into blocks."""

    def __init__(self, special: SpecialTokens, n_ctx: int) -> None:
        self.special, self.width = special, n_ctx - special.n_added
        self.ledger = Ledger()
        self.n_tokens = 0
        self._tokens = self._document = np.empty(0, dtype=np.int32)

    def add(self, name: str, ids: Int32[np.ndarray, " token"]) -> Iterator[TokenSequence]:
        """The blocks that a document completes."""
        if not len(ids):
            self.ledger.skip(EMPTY)
            return
        separator = [] if self.special.separator is None else [self.special.separator]
        piece = np.concatenate([np.asarray(separator, np.int32), ids])
        origin = np.full(len(piece), self.ledger.add(name), dtype=np.int32)
        self.n_tokens += len(piece)
        tokens = np.concatenate([self._tokens, piece])
        document = np.concatenate([self._document, origin])
        whole = len(tokens) // self.width * self.width
        self._tokens, self._document = tokens[whole:], document[whole:]
        for start in range(0, whole, self.width):
            yield self._block(tokens[start : start + self.width], document[start : start + self.width])

    def _block(self, tokens: np.ndarray, document: np.ndarray) -> TokenSequence:
        return self.ledger.sequence(framed(tokens, self.special), _framed_document(document, self.special))

    def rest(self) -> Rest:
        """What remains after the last document."""
        self.ledger.skip(INCOMPLETE, len(self._tokens))
        return self.ledger.rest()


def packed(documents: Documents, special: SpecialTokens, *, n_ctx: int, source: str) -> Stream:
    """Blocks of exactly `n_ctx` tokens.

    Raises:
        UserError: the corpus has less text than one block.
    """
    packer = _Packer(special, n_ctx)
    for name, ids in documents:
        yield from packer.add(name, ids)
    if not packer.ledger.n_sequences:
        raise UserError(
            f"text {source!r} has {packer.n_tokens} tokens, less than one block of {n_ctx}: give more text"
        )
    return packer.rest()


def one_by_one(documents: Documents, special: SpecialTokens, *, n_ctx: int, source: str) -> Stream:
    """One sequence of at most `n_ctx` tokens per document, or several for a longer one.

    Raises:
        UserError: no document has text.
    """
    ledger, width = Ledger(), n_ctx - special.n_added
    for name, ids in documents:
        if not len(ids):
            ledger.skip(EMPTY)
            continue
        number = ledger.add(name)
        for start in range(0, len(ids), width):
            tokens = framed(ids[start : start + width], special)
            yield ledger.sequence(tokens, np.full(len(tokens), number, dtype=np.int32))
    if not ledger.n_sequences:
        raise UserError(f"text {source!r} has no document with text in it ({ledger.reasons()})")
    return ledger.rest()
