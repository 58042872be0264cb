"""Token ids of many texts at the tokenizer's own batch speed, its special tokens, and its identity.

A fast Hugging Face tokenizer is copied: the copy has no truncation or padding and belongs to one stream, so
that other users of the tokenizer, in other threads too, cannot change the ids. Any other object with
`encode` is called text by text. Both give what `tokenizer.encode(text, add_special_tokens=False)` gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64

from workbench.artifacts import sha256_json

PROBE = "The quick brown fox, 1234567890! <|endoftext|> naïve 文字 \U0001f600\n\tx = {'a': [1, 2]}"


@runtime_checkable
class TokenizerLike(Protocol):
    """The part of a Hugging Face tokenizer that packing needs."""

    bos_token_id: Any
    eos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class NoTokenizer:
    """Stands for the tokenizer of a model that has none: it knows no text, only that ids are ids."""

    bos_token_id = eos_token_id = None

    def __len__(self) -> int:
        return self._n_vocabulary

    def __init__(self, n_vocabulary: int) -> None:
        self._n_vocabulary = n_vocabulary

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """No ids: texts are refused before they come here."""
        return []


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that are put around text; None where there is none.

    Attributes:
        first: First token of every sequence.
        separator: Token before each document of a packed corpus; in token arrays it marks where a document starts.
        last: Last token of every sequence.
    """

    first: int | None = None
    separator: int | None = None
    last: int | None = None

    @property
    def n_added(self) -> int:
        """Tokens of each sequence that are not text: the first and the last, where there are any."""
        return (self.first is not None) + (self.last is not None)

    @classmethod
    def of(cls, tokenizer: TokenizerLike) -> SpecialTokens:
        """The special tokens of a tokenizer.

        The first token is the beginning-of-text token, else the classifier token, else the end-of-text
        token, else none. The separator is the end-of-text token, else the separator token, else none. A
        tokenizer with a classifier token and without a beginning-of-text token (BERT) closes every
        sequence with its separator token.
        """
        bos, eos, cls_, sep = (
            _token_id(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep")
        )
        separator = eos if eos is not None else sep
        if bos is not None:
            return cls(bos, separator)
        if cls_ is not None:
            return cls(cls_, separator, sep)
        return cls(eos, separator)


def _token_id(tokenizer: TokenizerLike, name: str) -> int | None:
    value = getattr(tokenizer, name, None)
    return None if value is None else int(value)


class Encoder:
    """Tokenises texts without adding special tokens."""

    def __init__(self, tokenizer: TokenizerLike) -> None:
        self.tokenizer = tokenizer
        self.is_fast = bool(getattr(tokenizer, "is_fast", False)) and hasattr(tokenizer, "backend_tokenizer")

    @cached_property
    def _serialised(self) -> str:
        tokenizer: Any = self.tokenizer
        return tokenizer.backend_tokenizer.to_str()

    @cached_property
    def _copy(self) -> Any:
        """A private copy of the fast tokenizer that never truncates or pads."""
        from tokenizers import Tokenizer

        copy = Tokenizer.from_str(self._serialised)
        copy.no_truncation()
        copy.no_padding()
        copy.encode_special_tokens = bool(getattr(self.tokenizer, "split_special_tokens", False))
        return copy

    @property
    def n_vocabulary(self) -> int | None:
        """Number of ids that the tokenizer knows, if it tells."""
        tokenizer: Any = self.tokenizer
        return len(tokenizer) if hasattr(tokenizer, "__len__") else None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of everything that decides the ids of a text, and of the special tokens.

        A tokenizer without a vocabulary is known by its class and the ids of a fixed text.
        """
        tokenizer: Any = self.tokenizer
        if self.is_fast:
            rules = json.loads(self._serialised)
            content = {k: v for k, v in rules.items() if k not in ("truncation", "padding")}
        else:
            vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None
            probe = [int(i) for i in tokenizer.encode(PROBE, add_special_tokens=False)]
            content = {"class": type(tokenizer).__qualname__, "vocabulary": vocabulary, "probe": probe}
        special = [_token_id(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep")]
        split = bool(getattr(tokenizer, "split_special_tokens", False))
        return sha256_json({"tokenizer": content, "special": special, "split_special_tokens": split})

    def ids(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " token"]]:
        """Token ids of each text."""
        if not self.is_fast:
            lists = [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        else:
            lists = [e.ids for e in self._copy.encode_batch_fast(list(texts), add_special_tokens=False)]
        return [np.asarray(ids, dtype=np.int32) for ids in lists]

    def ids_and_spans(
        self, texts: Sequence[str]
    ) -> list[tuple[Int32[np.ndarray, " token"], Int64[np.ndarray, "token 2"]]]:
        """Token ids of each text and the half-open range of its characters that each token comes from."""
        encodings = self._copy.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.asarray(e.ids, dtype=np.int32), np.asarray(e.offsets, dtype=np.int64).reshape(-1, 2))
            for e in encodings
        ]


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
